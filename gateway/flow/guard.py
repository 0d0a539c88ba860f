"""One cancel scope whose deadline moves: every phase of a piece of work has its own time limit.

Opening a scope per phase costs 7 µs each and nests; moving one scope's deadline costs a fraction. A guard knows which
phase it is in, so when time runs out the error names it. The total limit holds over all phases, and can be cut from
outside (a drain), whatever the phase.

Cancellation from outside passes through untouched: only the guard's own deadline becomes an error.
"""

from __future__ import annotations

import math
from types import TracebackType

import trio

from gateway.core.errors import DeadlineExceeded, Stage


class Guard:
    """``with Guard(total_at=…) as guard: guard.phase("connect", 5.0); …``

    Args:
        total_at: Instant by which everything is over.
        why_total: Which limit that instant is, told to the client; ``timeouts.total_s`` if nothing is said.
        book: Where it is written down while it is entered, so that a drain can reach it.

    Raises (on leaving the block):
        DeadlineExceeded: The current phase's time ran out; ``stage`` names the phase, or is ``total``.
    """

    __slots__ = ("_at", "_book", "_limit_s", "_scope", "_stage", "_why_total", "total_at")

    def __init__(self, total_at: float = math.inf, book: GuardBook | None = None, *, why_total: str = "") -> None:
        self.total_at = total_at
        self._at = total_at  # the end of the current phase
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
            if at < self._at:
                self._move("total", at)

    def _move(self, stage: Stage, at: float) -> None:
        self._stage, self._at = stage, at
        if self._scope is not None:
            self._scope.deadline = at

    def __enter__(self) -> Guard:
        if self._book is not None:
            self._book.enter(self)
        self._scope = trio.CancelScope(deadline=self._at)
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
            raise DeadlineExceeded(self._stage, self._message()) from None
        return swallowed

    def _message(self) -> str:
        if self._stage == "total":
            return self._why_total or "the request took longer than its total time (timeouts.total_s)"
        return _MESSAGES[self._stage].format(self._limit_s)


class GuardBook:
    """All guards that are entered, so that a drain can bring their ends forward together."""

    def __init__(self) -> None:
        self._entered: set[Guard] = set()
        self._cut: tuple[float, str] | None = None

    def __len__(self) -> int:
        return len(self._entered)

    def enter(self, guard: Guard) -> None:
        self._entered.add(guard)
        if self._cut is not None:
            guard.cut(*self._cut)

    def leave(self, guard: Guard) -> None:
        self._entered.discard(guard)

    def cut_all(self, at: float, why: str) -> None:
        """Nothing goes on beyond ``at``, neither what runs now nor what is begun later."""
        self._cut = (at, why)
        for guard in self._entered:
            guard.cut(at, why)


_MESSAGES: dict[Stage, str] = {
    "queue": "no worker came free within {:g} s",
    "context": "the context was not loaded within {:g} s",
    "connect": "no connection to the provider within {:g} s (timeouts.connect_s)",
    "first_token": "the provider sent no content within {:g} s (timeouts.first_token_s)",
    "answer": "the provider sent no whole answer within {:g} s (timeouts.answer_s)",
    "stall": "the provider sent nothing for {:g} s (timeouts.stall_s)",
    "total": "",
}
