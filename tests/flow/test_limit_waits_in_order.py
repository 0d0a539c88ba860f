"""Promise: places at a target are handed over in order, and whoever is cancelled, whenever, loses none."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.flow.limit import ConcurrencyLimit
from gateway.policy.adaptive import AdaptiveLimit, Release


def limit_of(places: int, ceiling: int | None = None) -> ConcurrencyLimit:
    return ConcurrencyLimit(AdaptiveLimit(floor=1, ceiling=ceiling or places, start=places))


def assert_nobody_there(limit: ConcurrencyLimit) -> None:
    told = limit.statistics()
    assert (limit.in_flight, told.waiting, told.adaptive.in_flight) == (0, 0, 0)


async def test_a_place_that_is_free_costs_no_checkpoint(autojump_clock: MockClock):
    limit = limit_of(1)
    with trio.testing.assert_no_checkpoints():
        await limit.enter()
    assert limit.is_full
    limit.leave(Release.SUCCESS, 0.1)
    assert not limit.is_full
    assert_nobody_there(limit)


async def test_waiters_follow_in_order_and_no_newcomer_overtakes(autojump_clock: MockClock):
    limit, order, most = limit_of(3), [], 0

    async def work(n: int) -> None:
        nonlocal most
        await limit.enter()
        try:
            order.append(n)
            most = max(most, limit.in_flight)
            await trio.sleep(1)
        finally:
            limit.leave(Release.IGNORED)
            if n < 27:
                assert not limit.try_enter()  # what was given back has gone to the first in line

    async with trio.open_nursery() as nursery:
        for n in range(30):
            nursery.start_soon(work, n)
            await wait_all_tasks_blocked()
    waves = [sorted(order[n : n + 3]) for n in range(0, 30, 3)]  # who is let in at the same instant runs in any order
    assert waves == [[n, n + 1, n + 2] for n in range(0, 30, 3)]
    assert most == 3
    assert trio.current_time() == pytest.approx(10.0)
    told = limit.statistics()
    assert (told.waited, told.left) == (27, 0)
    assert_nobody_there(limit)


async def test_a_limit_that_grows_lets_more_in_at_once(autojump_clock: MockClock):
    limit, entered = limit_of(2, ceiling=10), []

    async def wait(n: int) -> None:
        await limit.enter()
        entered.append(n)

    assert limit.try_enter()
    assert limit.try_enter()
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(wait, n)
            await wait_all_tasks_blocked()
        limit.leave(Release.SUCCESS, 0.1)  # one place freed, one more allowed
        await wait_all_tasks_blocked()
        assert sorted(entered) == [0, 1]
        limit.leave(Release.SUCCESS, 0.1)
        await wait_all_tasks_blocked()
        assert sorted(entered) == [0, 1, 2, 3]


async def test_a_limit_that_shrank_lets_nobody_in_until_there_is_room(autojump_clock: MockClock):
    limit, entered = limit_of(10), []
    for _ in range(10):
        assert limit.try_enter()

    async def wait() -> None:
        await limit.enter()
        entered.append(limit.in_flight)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        limit.leave(Release.DROPPED)  # 9 in flight, 7 allowed
        for _ in range(2):
            limit.leave(Release.IGNORED)
            await wait_all_tasks_blocked()
            assert entered == []
        limit.leave(Release.IGNORED)
    assert entered == [7]


async def test_who_is_cancelled_in_line_leaves_it_at_once(autojump_clock: MockClock):
    limit, order = limit_of(1), []
    assert limit.try_enter()

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await limit.enter()
            order.append(name)
            limit.leave(Release.IGNORED)

    scopes = {name: trio.CancelScope() for name in ("first", "second", "third")}
    async with trio.open_nursery() as nursery:
        for name, scope in scopes.items():
            nursery.start_soon(wait, name, scope)
            await wait_all_tasks_blocked()
        scopes["second"].cancel()
        await wait_all_tasks_blocked()
        told = limit.statistics()
        assert (told.waiting, told.left) == (2, 1)
        limit.leave(Release.IGNORED)
    assert order == ["first", "third"]
    assert_nobody_there(limit)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_place_given_in_the_step_of_the_cancellation_is_not_lost(autojump_clock: MockClock, cancel_first: bool):
    limit, order = limit_of(1), []
    assert limit.try_enter()

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await limit.enter()
            try:
                order.append(name)
                await trio.lowlevel.checkpoint()
            finally:
                limit.leave(Release.IGNORED)

    leaving, staying = trio.CancelScope(), trio.CancelScope()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "leaving", leaving)
            await wait_all_tasks_blocked()
            nursery.start_soon(wait, "staying", staying)
            await wait_all_tasks_blocked()
            if cancel_first:
                leaving.cancel()
                limit.leave(Release.IGNORED)
            else:
                limit.leave(Release.IGNORED)
                leaving.cancel()
    assert order[-1] == "staying"
    assert_nobody_there(limit)


@pytest.mark.parametrize("cancelled", range(12))
@pytest.mark.parametrize("at_s", [step / 4 for step in range(26)])
async def test_whoever_is_cancelled_whenever_the_others_are_all_served(
    autojump_clock: MockClock, cancelled: int, at_s: float
):
    """Twelve requests of one second, two at a time: one of them is cancelled at every quarter of a second."""
    limit, served = limit_of(2), []
    scopes = [trio.CancelScope() for _ in range(12)]

    async def work(n: int) -> None:
        with scopes[n]:
            await limit.enter()
            try:
                await trio.sleep(1)
                served.append(n)
            finally:
                limit.leave(Release.IGNORED)

    with trio.fail_after(7):
        async with trio.open_nursery() as nursery:
            for n in range(12):
                nursery.start_soon(work, n)
                await wait_all_tasks_blocked()
            await trio.sleep(at_s)
            scopes[cancelled].cancel()
    assert set(served) >= set(range(12)) - {cancelled}
    assert_nobody_there(limit)
