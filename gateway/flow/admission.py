"""Admission: at most ``permits`` requests run, at most ``queue`` wait, the next one is refused at once.

A synchronous core decides (:meth:`Admission.try_enter`, :meth:`Admission.release`) and one thin async method waits
(:meth:`Place.wait`). The request's own task holds the permit and does the work: handing the work to separate worker
tasks would cut its cancellation.

Order rules:

* First in, first out within a priority. Between priorities that wait at the same time, permits are shared 8 : 3 : 1
  (stride scheduling), so that ``high`` goes first and ``low`` still moves: no class starves.
* A freed permit is handed to the next in line in the same step; a newcomer cannot overtake those who wait.
* Whoever cannot be served in time is refused on entry: when the wait and service time as measured exceed its deadline,
  or when twice its allowed waiting would not do. Nothing measured yet, nothing refused for it; nor when nobody else is
  at work, so that there is always a next measurement.

Limits: permits and places are per process; the composition root shares the instance's figures out among processes.

Source: bounded queue with fast rejection, "Go Beyond Models" (2025); stride scheduling, Waldspurger & Weihl (1995).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType

import trio
from attrs import frozen

from gateway.core.errors import Rejected
from gateway.core.principal import Priority
from gateway.policy.throughput import Throughput

SHARES = {Priority.HIGH: 8, Priority.NORMAL: 3, Priority.LOW: 1}
_STRIDES = {priority: math.lcm(*SHARES.values()) // share for priority, share in SHARES.items()}
LEAST_RETRY_S = 1.0
MOST_RETRY_S = 60.0


@frozen(kw_only=True, slots=True)
class AdmissionStatistics:
    """A moment of an :class:`Admission`.

    Attributes:
        permits: How many may run.
        in_flight: How many hold a permit.
        queue: How many may wait.
        waiting: How many wait, all priorities together.
        waiting_by_priority: The same by priority name.
        admitted: Permits given out so far.
        refused: Refusals so far by code.
        left: Waiters that gave up so far, their client gone.
        service_s: Mean time a permit is held; 0 when not measured yet.
        per_second: Measured drain rate; 0 when not measured yet.
    """

    permits: int
    in_flight: int
    queue: int
    waiting: int
    waiting_by_priority: dict[str, int]
    admitted: int
    refused: dict[str, int]
    left: int
    service_s: float
    per_second: float


class Place:
    """One request's standing: waiting, then in flight, then gone.

    A context manager: leaving the block gives back whatever is held, in every case. ``release()`` may be called
    earlier and any number of times.
    """

    __slots__ = ("_admission", "_granted", "_released", "deadline", "entered_at", "priority", "started_at")

    def __init__(self, admission: Admission, priority: Priority, entered_at: float, deadline: float) -> None:
        self._admission = admission
        self._granted: trio.Event | None = None
        self._released = False
        self.priority = priority
        self.entered_at = entered_at
        self.deadline = deadline
        self.started_at: float | None = None

    @property
    def holds_permit(self) -> bool:
        return self.started_at is not None and not self._released

    async def wait(self) -> None:
        """Wait until a permit is held.

        Raises:
            Rejected: ``queue_timeout`` when none came free before ``deadline``.

        Cancellation: the place in the line is given up; a permit granted in the same step goes to the next.
        Cost: no checkpoint when the permit is already held.
        """
        if self.started_at is not None:
            return
        self._granted = trio.Event()
        try:
            with trio.move_on_at(self.deadline):
                await self._granted.wait()
        except BaseException:
            self.release()
            raise
        if self.started_at is None:
            raise self._admission.give_up(self)

    def release(self, now: float | None = None) -> None:
        """Give back the permit, or the place in the line. Idempotent, sync, cannot fail. ``now``: by the clock."""
        if not self._released:
            self._released = True
            self._admission.release(self, now)

    def grant(self, now: float) -> None:
        """Called by :class:`Admission` only: the permit is this place's from now on."""
        self.started_at = now
        if self._granted is not None:
            self._granted.set()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Admission:
    """Permits and a bounded line.

    Args:
        permits: Requests that may run at the same time.
        queue: Requests that may wait.
        max_wait_s: The longest anybody waits.
        clock: Seconds; the clock of every deadline that comes in.
    """

    def __init__(
        self, *, permits: int, queue: int, max_wait_s: float, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.permits = permits
        self.queue = queue
        self.max_wait_s = max_wait_s
        self._clock = clock
        self._in_flight = 0
        self._waiting = 0
        # Ordered dicts: the first of a plain one is found by walking over everybody who was removed before it.
        self._lines: dict[Priority, OrderedDict[Place, None]] = {priority: OrderedDict() for priority in Priority}
        self._passes: dict[Priority, int] = dict.fromkeys(Priority, 0)
        self._turn = 0  # the pass that was served last; passes only mean something in relation to it
        self._throughput = Throughput()
        self._admitted = 0
        self._refused: dict[str, int] = {}
        self._left = 0

    def try_enter(
        self, priority: Priority = Priority.NORMAL, deadline: float = math.inf, now: float | None = None
    ) -> Place | Rejected:
        """Take a permit or a place in the line, or say at once why not.

        Args:
            priority: Class of service.
            deadline: Instant by which the whole request must be over; ``inf`` if the client set none.
            now: By the clock, from who has just looked at it.

        Returns:
            A place to release exactly once (it is a context manager), or the refusal with its ``retry_after_s``.

        Cost: O(1), no checkpoint.
        """
        if now is None:
            now = self._clock()
        if self._in_flight < self.permits and not self._waiting:
            # Who finds nobody at work is let in whatever was measured: else a bad measurement would be the last one.
            refusal = self._too_late(0.0, deadline, now) if self._in_flight else None
            if refusal is None:
                place = Place(self, priority, now, min(deadline, now + self.max_wait_s))
                self._start(place, now)
                return place
        elif self._waiting >= self.queue:
            refusal = self._refuse(
                "queue_full",
                f"queue full: {self._waiting} waiting (admission.queue), {self._in_flight} in flight "
                f"(admission.workers)",
                now,
            )
        else:
            wait_s = self._throughput.wait_s(self._waiting + 1, now, self.permits)
            refusal = self._too_late(wait_s, deadline, now)
            if refusal is None:
                place = Place(self, priority, now, min(deadline, now + self.max_wait_s))
                self._line_up(place)
                return place
        return refusal

    def _too_late(self, wait_s: float, deadline: float, now: float) -> Rejected | None:
        """The refusal of somebody who would not be served in time, judging by what was measured."""
        if not self._throughput.settled:
            return None
        needed_s = wait_s + self._throughput.service_s
        if now + needed_s > deadline:
            return self._refuse(
                "deadline_unmeetable",
                f"the request's deadline is {max(deadline - now, 0):.1f} s away (x-request-timeout-ms), but waiting "
                f"and answering take about {needed_s:.1f} s now",
                now,
            )
        if wait_s > 2 * self.max_wait_s:
            return self._refuse(
                "queue_timeout",
                f"the wait would be about {wait_s:.1f} s, more than admission.max_wait_s = {self.max_wait_s:g}",
                now,
            )
        return None

    def give_up(self, place: Place) -> Rejected:
        """The refusal of a place whose waiting time is over; called by :meth:`Place.wait`."""
        now = self._clock()
        waited_s = now - place.entered_at
        self._leave_line(place)
        own = place.deadline < place.entered_at + self.max_wait_s
        limit = "x-request-timeout-ms" if own else f"admission.max_wait_s = {self.max_wait_s:g}"
        return self._refuse("queue_timeout", f"no free worker within {waited_s:.1f} s ({limit})", now)

    def _refuse(self, code: str, why: str, now: float) -> Rejected:
        self._refused[code] = self._refused.get(code, 0) + 1
        after_s = self._throughput.retry_after_s(
            self._waiting, now, self.permits, least_s=LEAST_RETRY_S, most_s=MOST_RETRY_S
        )
        return Rejected(code, 429, f"{why}; retry after {math.ceil(after_s)} s", retry_after_s=after_s)

    def _start(self, place: Place, now: float) -> None:
        self._in_flight += 1
        self._admitted += 1
        place.grant(now)

    def _line_up(self, place: Place) -> None:
        line = self._lines[place.priority]
        if not line:
            # A class that was empty starts level with the others: neither turns it saved up, nor a debt of turns that
            # the others did not want while it was alone.
            self._passes[place.priority] = max(self._passes[place.priority], self._turn)
        line[place] = None
        self._waiting += 1

    def release(self, place: Place, now: float | None = None) -> None:
        """Take back what ``place`` holds; called by :meth:`Place.release`."""
        if place.started_at is None:
            self._left += self._leave_line(place)
            return
        if now is None:
            now = self._clock()
        self._in_flight -= 1
        self._throughput.departed(now, now - place.started_at)
        self._hand_out(now)

    def resize(self, *, permits: int, queue: int, max_wait_s: float) -> None:
        """Change the limits. Who runs or waits stays, even beyond lower ones; those take effect as places come free."""
        self.permits, self.queue, self.max_wait_s = permits, queue, max_wait_s
        if self._waiting:
            self._hand_out(self._clock())

    def _hand_out(self, now: float) -> None:
        while self._waiting and self._in_flight < self.permits:
            self._start(self._next_in_line(), now)

    def _leave_line(self, place: Place) -> bool:
        line = self._lines[place.priority]
        if place not in line:
            return False
        del line[place]
        self._waiting -= 1
        return True

    def _next_in_line(self) -> Place:
        priority = min((p for p in Priority if self._lines[p]), key=lambda p: (self._passes[p], p))
        self._turn = self._passes[priority]
        self._passes[priority] += _STRIDES[priority]
        place, _ = self._lines[priority].popitem(last=False)
        self._waiting -= 1
        return place

    @property
    def is_full(self) -> bool:
        """Whether the next request would be refused for want of a place."""
        return self._waiting >= self.queue and self._in_flight >= self.permits

    def statistics(self) -> AdmissionStatistics:
        return AdmissionStatistics(
            permits=self.permits,
            in_flight=self._in_flight,
            queue=self.queue,
            waiting=self._waiting,
            waiting_by_priority={p.name.lower(): len(self._lines[p]) for p in Priority},
            admitted=self._admitted,
            refused=dict(self._refused),
            left=self._left,
            service_s=self._throughput.service_s,
            per_second=self._throughput.per_second(self._clock(), self.permits),
        )
