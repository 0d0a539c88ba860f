"""One scope, many phases: when time runs out the error names the phase, and nothing else becomes an error."""

# ruff: noqa: PT012 (it is the end of the guard's block that raises, so the block stands inside)

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.core.errors import DeadlineExceeded, Stage
from gateway.flow.guard import Guard, GuardBook


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        ("connect", "timeouts.connect_s"),
        ("first_token", "timeouts.first_token_s"),
        ("answer", "timeouts.answer_s"),
        ("stall", "timeouts.stall_s"),
    ],
)
async def test_the_error_names_phase_limit_and_field(
    autojump_clock: trio.testing.MockClock, stage: Stage, field: str
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, Guard(began + 100) as guard:
        guard.phase("first_token", 1)
        guard.phase(stage, 3)
        await trio.sleep_forever()
    assert trio.current_time() - began == 3
    assert (caught.value.stage, caught.value.code, caught.value.http_status) == (stage, f"{stage}_timeout", 504)
    assert f"3 s ({field})" in caught.value.public_message


async def test_renewing_a_phase_moves_its_end(autojump_clock: trio.testing.MockClock) -> None:
    with Guard(trio.current_time() + 100) as guard:
        for _ in range(10):
            guard.phase("stall", 2)
            await trio.sleep(1.9)
    assert trio.current_time() == pytest.approx(19)


async def test_the_total_time_holds_over_every_phase(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match=r"timeouts\.total_s") as caught, Guard(began + 5) as guard:
        while True:
            guard.phase("stall", 2)
            await trio.sleep(1)
    assert caught.value.stage == "total"
    assert trio.current_time() - began == 5


async def test_the_total_time_is_called_what_its_owner_calls_it(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    with (
        pytest.raises(DeadlineExceeded, match="x-request-timeout-ms"),
        Guard(began + 1, why_total="x-request-timeout-ms"),
    ):
        await trio.sleep_forever()


async def test_without_a_phase_the_total_time_alone_counts(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(DeadlineExceeded) as caught, Guard(trio.current_time() + 5):
        await trio.sleep_forever()
    assert caught.value.stage == "total"


async def test_a_cancellation_from_outside_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as outer, Guard(trio.current_time() + 100) as guard:
        guard.phase("stall", 50)
        await trio.sleep_forever()
    assert outer.cancelled_caught


async def test_when_both_end_at_the_same_instant_the_outer_cancellation_wins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    at = trio.current_time() + 1
    with trio.CancelScope(deadline=at) as outer, Guard(at) as guard:
        guard.phase("stall", 50)
        await trio.sleep_forever()
    assert outer.cancelled_caught


async def test_an_error_of_the_work_passes_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(KeyError, match="mine"), Guard(trio.current_time() + 100) as guard:
        guard.phase("stall", 1)
        raise KeyError("mine")


async def test_work_that_ended_in_time_is_not_failed_afterwards(autojump_clock: trio.testing.MockClock) -> None:
    with Guard(trio.current_time() + 1) as guard:
        guard.phase("stall", 0.5)
    await trio.sleep(5)


async def test_a_cut_ends_what_runs_and_says_why(autojump_clock: trio.testing.MockClock) -> None:
    book = GuardBook()
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="shutting down") as caught, Guard(began + 100, book) as guard:
        guard.phase("stall", 50)
        assert len(book) == 1
        book.cut_all(began + 3, "shutting down")
        await trio.sleep_forever()
    assert (caught.value.stage, trio.current_time() - began) == ("total", 3)
    assert len(book) == 0


async def test_a_cut_does_not_lengthen_a_phase_that_would_have_ended_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = GuardBook()
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, Guard(began + 100, book) as guard:
        guard.phase("stall", 1)
        book.cut_all(began + 3, "shutting down")
        await trio.sleep_forever()
    assert (caught.value.stage, trio.current_time() - began) == ("stall", 1)


async def test_a_phase_renewed_after_a_cut_does_not_outlive_it(autojump_clock: trio.testing.MockClock) -> None:
    book = GuardBook()
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="shutting down"), Guard(began + 100, book) as guard:
        book.cut_all(began + 3, "shutting down")
        while True:
            guard.phase("stall", 2)
            await trio.sleep(1)
    assert trio.current_time() - began == 3


async def test_a_cut_holds_for_what_begins_later(autojump_clock: trio.testing.MockClock) -> None:
    book = GuardBook()
    began = trio.current_time()
    book.cut_all(began + 3, "shutting down")
    await trio.sleep(1)
    with pytest.raises(DeadlineExceeded, match="shutting down"), Guard(began + 100, book):
        await trio.sleep_forever()
    assert trio.current_time() - began == 3
