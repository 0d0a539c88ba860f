"""Promise: the one real error comes out of a nursery as itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.flow.groups import leaves, unwrapped


async def _fail(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def test_a_single_error_comes_out_bare_with_its_cause_and_traceback() -> None:
    cause = KeyError("why")
    error = ValueError("what")
    error.__cause__ = cause

    async def nested() -> None:
        with unwrapped():
            async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                outer.start_soon(trio.sleep_forever)
                inner.start_soon(_fail, error)

    with pytest.raises(ValueError, match="what") as caught:
        await nested()
    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is None
    assert "_fail" in [entry.name for entry in caught.traceback]


async def test_several_errors_stay_together() -> None:
    with pytest.raises(ExceptionGroup) as caught, unwrapped():
        raise ExceptionGroup("", [ValueError(), ExceptionGroup("", [KeyError()])])
    assert [type(leaf) for leaf in leaves(caught.value)] == [ValueError, KeyError]


async def test_an_error_wins_over_the_cancellations_that_it_caused() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ValueError("while leaving") from None

    async def cancelled_from_within() -> None:
        with trio.CancelScope() as scope, unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
                await wait_all_tasks_blocked()
                scope.cancel()

    with pytest.raises(ValueError, match="while leaving"):
        await cancelled_from_within()


async def test_cancellation_passes_through_as_cancellation() -> None:
    with trio.CancelScope() as scope, unwrapped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
