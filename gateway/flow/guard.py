"""One cancel scope whose deadline moves: every phase of a piece of work has its own time limit.

Opening a scope per phase costs 7 µs each and nests; moving one scope's deadline costs a fraction. A guard knows which
phase it is in, so when time runs out the error names it. The total limit holds over all phases, and can be cut from
outside (a drain), whatever the phase.

Cancellation from outside passes through untouched: only the guard's own deadline becomes an error.

Who keeps the time: the scope itself, or, for guards with a :class:`GuardBook` that runs, the book. Nearly all work ends
long before its deadline, and Trio's heap of deadlines costs more the more begin and end in a second; so the book's
guards have scopes without a deadline, and only those whose time ends within the next ``LOOK_S`` get an alarm. To renew
a phase is an assignment then. A :class:`LineGuard` has no scope at all while it waits for its line.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from types import TracebackType
from typing import Final

import trio

from gateway.core.errors import DeadlineExceeded, Stage

LOOK_S: Final = 1.0


class Guard:
    """``with Guard(total_at=…) as guard: guard.phase("connect", 5.0); …``

    Args:
        total_at: Instant by which everything is over.
        why_total: Which limit that instant is, told to the client; ``timeouts.total_s`` if nothing is said.
        book: Where it is written down while it is entered, so that a drain can reach it; keeps its time, if it runs.

    Attributes:
        at: The end of the current phase.
        alarm_at: For the book: when it will look at this guard, infinite if it has no alarm for it.

    Raises (on leaving the block):
        DeadlineExceeded: The current phase's time ran out; ``stage`` names the phase, or is ``total``.
    """

    __slots__ = ("_book", "_limit_s", "_scope", "_stage", "_why_total", "alarm_at", "at", "total_at")

    def __init__(self, total_at: float = math.inf, book: GuardBook | None = None, *, why_total: str = "") -> None:
        self.total_at = total_at
        self.at = total_at
        self.alarm_at = math.inf
        self._book = book
        self._scope: trio.CancelScope | None = None
        self._stage: Stage = "total"
        self._limit_s = 0.0
        self._why_total = why_total

    def phase(self, stage: Stage, seconds: float, now: float | None = None) -> None:
        """Begin a phase that may take ``seconds``. Also renews the current one; cheap enough for every batch.

        The first phase is best begun before the block is entered: then no deadline has to be moved.
        """
        at = (trio.current_time() if now is None else now) + seconds
        if at < self.total_at:
            self._limit_s = seconds
            self._move(stage, at)
        else:
            self._move("total", self.total_at)

    def cut(self, at: float, why: str) -> None:
        """Bring the total limit forward to ``at``; ``why`` is told to the client."""
        if at < self.total_at:
            self.total_at = at
            self._why_total = why
            if at < self.at:
                self._move("total", at)

    def _move(self, stage: Stage, at: float) -> None:
        sooner = at < self.at
        self._stage, self.at = stage, at
        if self._book is not None and self._book.keeps_time:
            if sooner:
                self._book.look_after(self)
        elif self._scope is not None:
            self._scope.deadline = at

    def settle_time(self) -> None:
        """Give the scope, if there is one, its own deadline, or none if the book keeps the time."""
        if self._scope is not None:
            kept = self._book is not None and self._book.keeps_time
            self._scope.deadline = math.inf if kept else self.at

    def ring(self) -> None:
        """Its time is over. For the book."""
        if self._scope is not None:
            self._scope.cancel()

    def __enter__(self) -> Guard:
        self._scope = trio.CancelScope()
        if self._book is not None:
            self._book.enter(self)
        self.settle_time()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._book is not None:
            self._book.leave(self)
        assert self._scope is not None
        swallowed = bool(self._scope.__exit__(kind, error, trace))
        if self._scope.cancelled_caught:
            raise self.error() from None
        return swallowed

    def error(self) -> DeadlineExceeded:
        """What the end of its time means to the client."""
        if self._stage == "total":
            message = self._why_total or "the request took longer than its total time (timeouts.total_s)"
        else:
            message = _MESSAGES[self._stage].format(self._limit_s)
        return DeadlineExceeded(self._stage, message)


_NOT_THE_LINES = (DeadlineExceeded, trio.BrokenResourceError)  # the latter: nobody takes what is read from the line


class LineGuard(Guard):
    """A guard of work that waits for one line, a provider's connection, and for hardly anything else.

    At its end it closes the line, and whoever reads from that gets an error, which becomes the guard's own. That is
    what its cancellation would do, too, but without a scope, which costs a tenth of a short request. What is waited for
    besides the line stands in ``with guard.waiting():``, which opens a scope for so long. Where no book keeps the time
    when it is entered, it is an ordinary guard; if the book stops after that, nobody closes the line until it goes on.

    Attributes:
        late: Its time is over.
    """

    __slots__ = ("_close", "late")

    def __init__(self, total_at: float = math.inf, book: GuardBook | None = None, *, why_total: str = "") -> None:
        super().__init__(total_at, book, why_total=why_total)
        self._close: Callable[[], object] | None = None
        self.late = False

    def hold(self, close: Callable[[], object]) -> None:
        """What is to be called at the end, instead of what was held before: closes the line, sync and idempotent."""
        self._close = close
        if self.late:
            close()

    def waiting(self) -> Waiting:
        """A block that waits for something else than the line; raises ``DeadlineExceeded`` itself."""
        return Waiting(self)

    def ring(self) -> None:
        self.late = True
        super().ring()
        if self._close is not None:
            self._close()

    def __enter__(self) -> LineGuard:
        if self._book is None or not self._book.keeps_time:
            super().__enter__()
        else:
            self._book.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._scope is not None:
            return super().__exit__(kind, error, trace)
        assert self._book is not None
        self._book.leave(self)
        if self.late and isinstance(error, Exception) and not isinstance(error, _NOT_THE_LINES):
            raise self.error() from error
        return False


class Waiting:
    """See :meth:`LineGuard.waiting`."""

    __slots__ = ("_guard", "_scope")

    def __init__(self, guard: LineGuard) -> None:
        self._guard = guard
        self._scope: trio.CancelScope | None = None

    def __enter__(self) -> None:
        guard = self._guard
        if guard._scope is None:
            guard._scope = self._scope = trio.CancelScope()
            if guard.late:
                self._scope.cancel()
            guard.settle_time()
            self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._scope is None:
            return False
        self._guard._scope = None
        swallowed = bool(self._scope.__exit__(kind, error, trace))
        if self._scope.cancelled_caught:
            raise self._guard.error() from None
        return swallowed


class GuardBook:
    """All guards that are entered: keeps their time, and lets a drain bring their ends forward together.

    A guard whose end is nearer than the next look has an alarm, at its end or before it. What has moved to later
    meanwhile is seen when the alarm goes off.

    Attributes:
        keeps_time: Whether :meth:`run` runs. Otherwise the guards' scopes have deadlines of their own.
    """

    def __init__(self) -> None:
        self.keeps_time = False
        self._entered: set[Guard] = set()
        self._cut: tuple[float, str] | None = None
        self._alarms: list[tuple[float, int, Guard]] = []  # a heap; of one guard, that at its ``alarm_at`` counts
        self._order = itertools.count()
        self._look_at = -math.inf
        self._wakes_at = math.inf
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._entered)

    def enter(self, guard: Guard) -> None:
        """Its block begins."""
        self._entered.add(guard)
        if self._cut is not None:
            guard.cut(*self._cut)
        if self.keeps_time and guard.at < self._look_at:
            self.look_after(guard)

    def leave(self, guard: Guard) -> None:
        """Its block ends."""
        self._entered.discard(guard)

    def cut_all(self, at: float, why: str) -> None:
        """Nothing goes on beyond ``at``, neither what runs now nor what is begun later."""
        self._cut = (at, why)
        for guard in self._entered:
            guard.cut(at, why)

    def look_after(self, guard: Guard) -> None:
        """Its end is sooner than it was: see that nobody looks too late."""
        if guard.at >= self._look_at or guard.at >= guard.alarm_at or guard not in self._entered:
            return
        if guard.at <= trio.current_time():
            guard.ring()
            return
        self._set_alarm(guard)
        if guard.at < self._wakes_at:
            self._wake.set()

    async def run(self) -> None:
        """Keep the time of all guards, until cancelled; then each that has a scope keeps its own again."""
        self.keeps_time = True
        try:
            for guard in self._entered:
                guard.settle_time()
            while True:
                self._ring(trio.current_time())
                self._wakes_at = min(self._look_at, self._alarms[0][0]) if self._alarms else self._look_at
                self._wake = trio.Event()
                with trio.move_on_at(self._wakes_at):
                    await self._wake.wait()
        finally:
            self.keeps_time, self._look_at = False, -math.inf
            self._alarms.clear()
            for guard in self._entered:
                guard.alarm_at = math.inf
                guard.settle_time()

    def _ring(self, now: float) -> None:
        """End those whose time is over; if it is time for a look, set the alarms until the next."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for guard in self._entered:
                if guard.at < self._look_at and guard.at < guard.alarm_at:
                    self._set_alarm(guard)
        while self._alarms and self._alarms[0][0] <= now:
            at, _, guard = heapq.heappop(self._alarms)
            if at != guard.alarm_at:
                continue
            guard.alarm_at = math.inf
            if guard not in self._entered:
                continue
            if guard.at <= now:
                guard.ring()
            elif guard.at < self._look_at:
                self._set_alarm(guard)

    def _set_alarm(self, guard: Guard) -> None:
        guard.alarm_at = guard.at
        heapq.heappush(self._alarms, (guard.at, next(self._order), guard))


_MESSAGES: dict[Stage, str] = {
    "queue": "no worker came free within {:g} s",
    "context": "the context was not loaded within {:g} s",
    "connect": "no connection to the provider within {:g} s (timeouts.connect_s)",
    "first_token": "the provider sent no content within {:g} s (timeouts.first_token_s)",
    "answer": "the provider sent no whole answer within {:g} s (timeouts.answer_s)",
    "stall": "the provider sent nothing for {:g} s (timeouts.stall_s)",
    "total": "",
}
