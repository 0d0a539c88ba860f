"""One guard, many phases: when time runs out the error names the phase, and nothing else becomes an error.

Whoever keeps the time: the guard's own scope, or a book for all guards, which for a provider's line needs no scope.
"""

# ruff: noqa: PT012 (it is the end of the guard's block that raises, so the block stands inside)

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from random import Random

import pytest
import trio
import trio.testing
from attrs import define, field

from gateway.core.errors import DeadlineExceeded, Stage
from gateway.flow.guard import LOOK_S, Guard, GuardBook, LineGuard

MakeGuard = Callable[..., AbstractContextManager[Guard]]


@asynccontextmanager
async def running(book: GuardBook) -> AsyncIterator[GuardBook]:
    """A book that keeps the time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(book.run)
        await trio.testing.wait_all_tasks_blocked()
        assert book.keeps_time
        yield book
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["own time", "book", "resting book", "line without book", "line in waiting"])
async def guard_of(request: pytest.FixtureRequest, autojump_clock: trio.testing.MockClock) -> AsyncIterator[MakeGuard]:
    """Makes guards of every kind; all of them end what runs inside in the same way."""
    async with AsyncExitStack() as stack:
        if request.param == "book":
            yield partial(Guard, book=await stack.enter_async_context(running(GuardBook())))
        elif request.param == "resting book":
            yield partial(Guard, book=GuardBook())
        elif request.param == "line in waiting":
            yield partial(waits, book=await stack.enter_async_context(running(GuardBook())))
        else:
            yield {"own time": Guard, "line without book": LineGuard}[request.param]


@contextmanager
def waits(total_at: float, book: GuardBook, *, why_total: str = "") -> Iterator[LineGuard]:
    """A line guard whose whole block waits for something else."""
    with LineGuard(total_at, book, why_total=why_total) as guard, guard.waiting():
        yield guard


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
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard, stage: Stage, field: str
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, guard_of(began + 100) as guard:
        guard.phase("first_token", 1)
        guard.phase(stage, 3)
        await trio.sleep_forever()
    assert trio.current_time() - began == 3
    assert (caught.value.stage, caught.value.code, caught.value.http_status) == (stage, f"{stage}_timeout", 504)
    assert f"3 s ({field})" in caught.value.public_message


async def test_renewing_a_phase_moves_its_end(autojump_clock: trio.testing.MockClock, guard_of: MakeGuard) -> None:
    with guard_of(trio.current_time() + 100) as guard:
        for _ in range(10):
            guard.phase("stall", 2)
            await trio.sleep(1.9)
    assert trio.current_time() == pytest.approx(19)


async def test_the_total_time_holds_over_every_phase(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match=r"timeouts\.total_s") as caught, guard_of(began + 5) as guard:
        while True:
            guard.phase("stall", 2)
            await trio.sleep(1)
    assert caught.value.stage == "total"
    assert trio.current_time() - began == 5


async def test_the_total_time_is_called_what_its_owner_calls_it(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    began = trio.current_time()
    with (
        pytest.raises(DeadlineExceeded, match="x-request-timeout-ms"),
        guard_of(began + 1, why_total="x-request-timeout-ms"),
    ):
        await trio.sleep_forever()


async def test_without_a_phase_the_total_time_alone_counts(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    with pytest.raises(DeadlineExceeded) as caught, guard_of(trio.current_time() + 5):
        await trio.sleep_forever()
    assert caught.value.stage == "total"


async def test_a_cancellation_from_outside_is_no_error(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    with trio.move_on_after(1) as outer, guard_of(trio.current_time() + 100) as guard:
        guard.phase("stall", 50)
        await trio.sleep_forever()
    assert outer.cancelled_caught


async def test_when_both_end_at_the_same_instant_the_outer_cancellation_wins(
    autojump_clock: trio.testing.MockClock,
    guard_of: MakeGuard,
) -> None:
    at = trio.current_time() + 1
    with trio.CancelScope(deadline=at) as outer, guard_of(at) as guard:
        guard.phase("stall", 50)
        await trio.sleep_forever()
    assert outer.cancelled_caught


async def test_an_error_of_the_work_passes_as_it_is(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    with pytest.raises(KeyError, match="mine"), guard_of(trio.current_time() + 100) as guard:
        guard.phase("stall", 1)
        raise KeyError("mine")


async def test_work_that_ended_in_time_is_not_failed_afterwards(
    autojump_clock: trio.testing.MockClock, guard_of: MakeGuard
) -> None:
    with guard_of(trio.current_time() + 1) as guard:
        guard.phase("stall", 0.5)
    await trio.sleep(5)


@pytest.fixture(params=["resting", "running"])
async def book(request: pytest.FixtureRequest, autojump_clock: trio.testing.MockClock) -> AsyncIterator[GuardBook]:
    async with AsyncExitStack() as stack:
        made = GuardBook()
        if request.param == "running":
            await stack.enter_async_context(running(made))
        yield made


async def test_a_cut_ends_what_runs_and_says_why(autojump_clock: trio.testing.MockClock, book: GuardBook) -> None:
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
    book: GuardBook,
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught, Guard(began + 100, book) as guard:
        guard.phase("stall", 1)
        book.cut_all(began + 3, "shutting down")
        await trio.sleep_forever()
    assert (caught.value.stage, trio.current_time() - began) == ("stall", 1)


async def test_a_phase_renewed_after_a_cut_does_not_outlive_it(
    autojump_clock: trio.testing.MockClock, book: GuardBook
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="shutting down"), Guard(began + 100, book) as guard:
        book.cut_all(began + 3, "shutting down")
        while True:
            guard.phase("stall", 2)
            await trio.sleep(1)
    assert trio.current_time() - began == 3


async def test_a_cut_holds_for_what_begins_later(autojump_clock: trio.testing.MockClock, book: GuardBook) -> None:
    began = trio.current_time()
    book.cut_all(began + 3, "shutting down")
    await trio.sleep(1)
    with pytest.raises(DeadlineExceeded, match="shutting down"), Guard(began + 100, book):
        await trio.sleep_forever()
    assert trio.current_time() - began == 3


# ── the book ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_book_ends_any_number_of_guards_each_at_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    random = Random(7)
    async with running(GuardBook()) as book, trio.open_nursery() as nursery:

        async def one(seconds: list[float]) -> None:
            """Phases that are each given up after half their time, but for the last."""
            due = trio.current_time()
            with pytest.raises(DeadlineExceeded), Guard(due + 1_000, book) as guard:
                for limit_s in seconds[:-1]:
                    guard.phase("stall", limit_s)
                    await trio.sleep(limit_s / 2)
                due = trio.current_time() + seconds[-1]
                guard.phase("stall", seconds[-1])
                await trio.sleep_forever()
            assert trio.current_time() == pytest.approx(due, abs=1e-9)

        for _ in range(300):
            seconds = [random.choice([0.01, 0.3, 0.99, 1.0, 1.5, 7.0, 40.0]) for _ in range(random.randint(1, 5))]
            nursery.start_soon(one, seconds)
            await trio.sleep(random.random() / 10)
    assert len(book) == 0


async def test_a_book_keeps_no_alarm_for_what_has_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with running(GuardBook()) as book:
        for _ in range(10_000):
            with Guard(trio.current_time() + 60, book) as guard:
                guard.phase("stall", 0.5)
                guard.phase("stall", 30)
                guard.phase("stall", 0.25)
        await trio.sleep(2 * LOOK_S)
        assert not book._alarms


async def test_a_phase_that_is_renewed_for_long_has_one_alarm(autojump_clock: trio.testing.MockClock) -> None:
    async with running(GuardBook()) as book:
        with Guard(trio.current_time() + 1_000, book) as guard:
            for _ in range(1_000):
                guard.phase("stall", 0.2)
                await trio.sleep(0.1)
                assert len(book._alarms) <= 2


async def test_guards_keep_their_own_time_when_their_book_stops_and_give_it_back_when_it_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, began = GuardBook(), trio.current_time()
    with pytest.raises(DeadlineExceeded), Guard(began + 100, book) as guard:
        guard.phase("stall", 1)
        async with running(book):
            guard.phase("stall", 5)
            await trio.sleep(2)  # its own deadline would have been over
        guard.phase("stall", 1)
        await trio.sleep(0.5)
        async with running(book):
            guard.phase("stall", 3)
            await trio.sleep(2)
        await trio.sleep_forever()
    assert trio.current_time() - began == 2 + 0.5 + 3


async def test_what_is_over_at_its_beginning_does_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded), Guard(trio.current_time(), book):
            await trio.lowlevel.checkpoint()
            pytest.fail("it went on")


# ── a line ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@define
class Line:
    """What can be read until it is closed."""

    closed: trio.Event = field(factory=trio.Event)
    closings: int = 0

    def close(self) -> None:
        self.closings += 1
        self.closed.set()

    async def read(self) -> bytes:
        await self.closed.wait()
        raise trio.ClosedResourceError("closed on this side")


async def test_at_its_end_the_line_is_closed_and_the_error_is_the_guards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line, began = Line(), trio.current_time()
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded, match="first_token_s"), LineGuard(began + 100, book) as guard:
            guard.phase("first_token", 3)
            guard.hold(line.close)
            await line.read()
        assert (trio.current_time() - began, line.closings, len(book)) == (3, 1, 0)


async def test_a_line_that_is_there_too_late_is_closed_at_once(autojump_clock: trio.testing.MockClock) -> None:
    line, began = Line(), trio.current_time()
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded), LineGuard(began + 1, book) as guard:
            await trio.sleep(5)  # neither a line nor a waiting(): what must not be done
            guard.hold(line.close)
            assert line.closings == 1
            await line.read()


async def test_only_the_line_that_is_held_last_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    first, second, began = Line(), Line(), trio.current_time()
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded), LineGuard(began + 1, book) as guard:
            guard.hold(first.close)
            guard.hold(second.close)
            await second.read()
    assert (first.closings, second.closings) == (0, 1)


async def test_what_ended_in_time_closes_nothing_and_an_error_in_time_is_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line = Line()
    async with running(GuardBook()) as book:
        with LineGuard(trio.current_time() + 1, book) as guard:
            guard.hold(line.close)
        with pytest.raises(KeyError, match="mine"), LineGuard(trio.current_time() + 1, book) as guard:
            guard.hold(line.close)
            raise KeyError("mine")
        await trio.sleep(5)
    assert line.closings == 0


async def test_a_cut_closes_the_line(autojump_clock: trio.testing.MockClock) -> None:
    line, began = Line(), trio.current_time()
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded, match="shutting down"), LineGuard(began + 100, book) as guard:
            guard.hold(line.close)
            book.cut_all(began + 3, "shutting down")
            await line.read()
    assert trio.current_time() - began == 3


async def test_what_is_waited_for_besides_the_line_ends_in_time_and_leaves_it_alone_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line, began = Line(), trio.current_time()
    async with running(GuardBook()) as book:
        with pytest.raises(DeadlineExceeded) as caught, LineGuard(began + 100, book) as guard:
            guard.phase("stall", 3)
            guard.hold(line.close)
            with guard.waiting():
                await trio.sleep(2)
            assert line.closings == 0
            with guard.waiting():
                await trio.sleep_forever()
            pytest.fail("it went on")
    assert (caught.value.stage, trio.current_time() - began, line.closings) == ("stall", 3, 1)


async def test_a_line_whose_task_is_cancelled_is_no_error_even_when_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line = Line()
    async with running(GuardBook()) as book:
        with trio.move_on_after(3) as outer, LineGuard(trio.current_time() + 1, book) as guard:
            guard.hold(line.close)
            await trio.sleep_forever()
    assert outer.cancelled_caught
