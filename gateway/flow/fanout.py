"""Run named async callables side by side, each with its own timeout and all under one budget.

This is the mechanism of the context fan-out without its meaning: a branch ends as ``done``, ``failed``, ``timeout``,
``unstarted`` (the budget was gone before it began) or ``stopped`` (another branch's outcome made the rest useless),
and the outcomes come back in the order of the branches, whatever the order in which they ended.

Each branch gets one cancel scope whose deadline is the nearer of its own timeout and the common end, so the budget
costs no extra scope and no extra task. Errors become values inside the branch's task; the nursery never sees one.

Limits: a branch that blocks the thread blocks everything. Only ``Exception`` becomes a value: ``Cancelled`` and
``KeyboardInterrupt`` unwind.

*Cost*, measured: no branch 1 µs, one branch 11 µs (it needs no nursery), 3 branches 64 µs, 8 branches 127 µs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, TypeVar

import trio
from attrs import frozen

from gateway.flow.groups import unwrapped

T = TypeVar("T")

Status = Literal["done", "failed", "timeout", "unstarted", "stopped"]


@frozen(kw_only=True, slots=True)
class Branch(Generic[T]):
    """One thing to run. ``timeout_s`` counts from its start."""

    name: str
    run: Callable[[], Awaitable[T]]
    timeout_s: float = math.inf


@frozen(kw_only=True, slots=True)
class Outcome(Generic[T]):
    """How a branch ended: ``value`` if ``done``, ``error`` if ``failed``."""

    name: str
    status: Status
    elapsed_s: float = 0.0
    value: T | None = None
    error: Exception | None = None


def _never(_outcome: Outcome[T]) -> bool:
    return False


def _nothing(*_: object) -> None:
    return


async def fan_out(
    branches: Sequence[Branch[T]],
    *,
    until: float = math.inf,
    stops: Callable[[Outcome[T]], bool] = _never,
    on_start: Callable[[int], None] = _nothing,
    on_end: Callable[[int, Outcome[T]], None] = _nothing,
) -> list[Outcome[T]]:
    """Run all branches at once and wait until the last has ended.

    Args:
        branches: What to run.
        until: When all must have ended, on Trio's clock.
        stops: Asked with every outcome; True cancels the branches that still run and joins them.
        on_start: Called with each branch's index before it starts, in the order of the branches.
        on_end: Called with the index and the outcome the moment a branch ends (not for ``stopped`` ones).

    Returns:
        One outcome per branch, in order.

    *Cancellation*: cancels every branch and joins it; ``on_end`` is not called for what was cancelled.
    """
    fan = _Fan(branches, until, stops, on_end)
    if len(branches) == 1:
        on_start(0)
        await fan.run(0)
    elif branches:
        with unwrapped():
            async with trio.open_nursery() as nursery:
                fan.scope = nursery.cancel_scope
                for index in range(len(branches)):
                    on_start(index)
                    nursery.start_soon(fan.run, index)
    return [
        outcome or Outcome(name=branch.name, status="stopped")
        for branch, outcome in zip(branches, fan.outcomes, strict=True)
    ]


class _Fan(Generic[T]):
    """The state that the branches of one :func:`fan_out` share."""

    __slots__ = ("branches", "on_end", "outcomes", "scope", "started", "stops", "until")

    def __init__(
        self,
        branches: Sequence[Branch[T]],
        until: float,
        stops: Callable[[Outcome[T]], bool],
        on_end: Callable[[int, Outcome[T]], None],
    ) -> None:
        self.branches = branches
        self.started = trio.current_time()
        self.until = until
        self.stops = stops
        self.on_end = on_end
        self.outcomes: list[Outcome[T] | None] = [None] * len(branches)
        self.scope: trio.CancelScope | None = None

    async def run(self, index: int) -> None:
        if self.scope is not None and self.scope.cancel_called:
            return
        branch = self.branches[index]
        outcome = await _run_one(branch, self.started, min(self.started + branch.timeout_s, self.until))
        self.outcomes[index] = outcome
        self.on_end(index, outcome)
        if self.scope is not None and self.stops(outcome):
            self.scope.cancel()


async def _run_one(branch: Branch[T], started: float, deadline: float) -> Outcome[T]:
    if started >= deadline:
        return Outcome(name=branch.name, status="unstarted")
    try:
        with trio.CancelScope(deadline=deadline):
            value = await branch.run()
            return Outcome(name=branch.name, status="done", elapsed_s=trio.current_time() - started, value=value)
    except Exception as error:  # the branch's own failure is this function's result
        elapsed_s = trio.current_time() - started
        return Outcome(name=branch.name, status="failed", elapsed_s=elapsed_s, error=error)
    return Outcome(name=branch.name, status="timeout", elapsed_s=trio.current_time() - started)
