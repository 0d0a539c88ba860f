"""Waiting in order for a place at a target whose limit is found out as it works.

:class:`ConcurrencyLimit` is an :class:`AdaptiveLimit` with a line. Places are handed over: one that comes free belongs
to the first in the line in the same step, and a newcomer cannot overtake those who wait. A waiter that is cancelled
leaves the line; one that had been given its place in that very step passes it on.

Limits: the line is as long as there are requests under way, which admission bounds; how long one waits is bounded by
the caller's deadline. Per process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import trio
from attrs import frozen

from gateway.policy.adaptive import AdaptiveLimit, AdaptiveLimitStatistics, Release


@frozen(kw_only=True, slots=True)
class ConcurrencyLimitStatistics:
    """A moment of a :class:`ConcurrencyLimit`.

    Attributes:
        adaptive: Of the limit itself.
        waiting: How many wait for a place.
        waited: How many had to wait so far, whether they got one or not.
        left: How many of those gave up so far.
    """

    adaptive: AdaptiveLimitStatistics
    waiting: int
    waited: int
    left: int


class ConcurrencyLimit:
    """Places at one target.

    Args:
        limit: What decides; nobody else may acquire from it.
        clock: Seconds.

    Cost: without waiting O(1) and no checkpoint.
    """

    def __init__(self, limit: AdaptiveLimit, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._limit = limit
        self._clock = clock
        self._line: OrderedDict[trio.Event, None] = OrderedDict()
        self._waited = 0
        self._left = 0

    @property
    def is_full(self) -> bool:
        """Whether who enters now would wait."""
        return self._limit.in_flight >= self._limit.limit

    @property
    def in_flight(self) -> int:
        """How many hold a place."""
        return self._limit.in_flight

    def try_enter(self) -> bool:
        """Take a place, if there is one. To be given back exactly once, by :meth:`leave`."""
        return self._limit.try_acquire()  # nobody waits while a place is free: leave() hands it over

    async def enter(self) -> None:
        """Take a place, waiting for it in order. To be given back exactly once, by :meth:`leave`.

        Cancellation: nothing is held and the line is left; a place given in the same step goes to the next.
        Cost: no checkpoint if there is a place.
        """
        if self.try_enter():
            return
        mine = trio.Event()
        self._line[mine] = None
        self._waited += 1
        try:
            await mine.wait()
        except BaseException:
            self._left += 1
            if mine.is_set():
                self.leave(Release.IGNORED)
            else:
                del self._line[mine]
            raise

    def leave(self, outcome: Release, ttft_s: float | None = None) -> None:
        """Give a place back, and say how it ended. Sync, cannot fail.

        Args:
            ttft_s: Time to the first token, if there was one.
        """
        self._limit.release(outcome, ttft_s, self._clock())
        while self._line and self._limit.try_acquire():
            first, _ = self._line.popitem(last=False)
            first.set()

    def statistics(self) -> ConcurrencyLimitStatistics:
        return ConcurrencyLimitStatistics(
            adaptive=self._limit.statistics(), waiting=len(self._line), waited=self._waited, left=self._left
        )
