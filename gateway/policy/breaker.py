"""A circuit breaker: a target that keeps failing is left alone for a while, then asked by one request at a time.

::

               consecutive failures, or ratio of the window                     trip(): 401, 403
    CLOSED ───────────────────────────────────────────────► OPEN ◄──────────────────────────────
       ▲                                                     │  ▲
       │ the probe succeeded                   open time over│  │ the probe failed: twice as long, at most max_open_s
       └──────────────────────────────── HALF_OPEN ◄─────────┘  │ it was cancelled: until open_s after its start
                                             └──────────────────┘

Order rules:

* Each attempt is admitted with a :class:`Verdict` and hands it back with its result. So what was begun before the
  breaker opened says nothing about the probe, however late it ends.
* There is one probe at a time. One that is neither heard of nor given back within ``probe_s`` is given up, so that a
  lost one cannot keep a target closed for ever. Its failure is then too late to count, its success is not: a target
  whose answers take longer than that works all the same.
* A probe that ended as neither success nor failure (its client left) says nothing. The next one may go ``open_s``
  after its start, not at once: clients that lose patience with a silent target must not become a stream of probes.
* A breaker that opens again within ``window_s`` of its closing goes on with the doubled times.

* The time after a failed probe runs from its start: one that waited in vain for longer than that is followed at once.

So a target that is down is asked about once per ``max_open_s``, or one by one if it keeps silent for longer; and its
recovery is noticed by the next probe, within ``max_open_s`` or the patience of the one before, if there is traffic.

Source: M. Nygard, "Release It!" (2007); envoy's outlier detection (consecutive and ratio triggers, growing ejections).
"""

from __future__ import annotations

import enum

from attrs import frozen

from gateway.policy.window import SlidingSum

_MOST_DOUBLINGS = 32


class State(enum.Enum):
    """CLOSED lets everything through, OPEN nothing, HALF_OPEN one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@frozen(kw_only=True, slots=True)
class Verdict:
    """Whether an attempt may be made; to be handed back with its result.

    Attributes:
        allowed: It may.
        probe: It is the one that finds out whether the target works again.
        wait_s: When not: seconds until asking again may make sense.
        term: The breaker's own: which of its states the attempt belongs to.
    """

    allowed: bool
    probe: bool = False
    wait_s: float = 0.0
    term: int = 0


@frozen(kw_only=True, slots=True)
class BreakerStatistics:
    """A moment of a :class:`Breaker`.

    Attributes:
        state: Where it stands.
        wait_s: Seconds until a probe may go; 0 when one may go now, or everything.
        why: What opened it last; "" if nothing ever did.
        consecutive: Failures in a row.
        requests: Attempts of the window that had a result.
        failures: How many of them failed.
        opened: How often it opened so far.
        probes: Probes so far.
    """

    state: State
    wait_s: float
    why: str
    consecutive: int
    requests: int
    failures: int
    opened: int
    probes: int


class Breaker:
    """The breaker of one target.

    Args:
        consecutive: Failures in a row that open it.
        ratio: Share of failures in the window that opens it, …
        min_requests: … of at least so many results.
        window_s: How long results count.
        open_s: How long it is open the first time.
        max_open_s: The longest; :meth:`trip` chooses its own.
        probe_s: How long a probe may take before another may go. More than a first token's time.

    Cost: O(1), about 1 µs per attempt; no memory grows.
    """

    def __init__(
        self,
        *,
        consecutive: int = 5,
        ratio: float = 0.5,
        min_requests: int = 20,
        window_s: float = 30.0,
        open_s: float = 5.0,
        max_open_s: float = 15.0,
        probe_s: float = 60.0,
    ) -> None:
        self._consecutive_limit = consecutive
        self._ratio = ratio
        self._min_requests = min_requests
        self._window_s = window_s
        self._open_s = open_s
        self._max_open_s = max(max_open_s, open_s)
        self._probe_s = probe_s
        self._requests = SlidingSum(window_s)
        self._failures = SlidingSum(window_s)
        self._open_until: float | None = None  # None: closed
        self._probe_at: float | None = None  # when the probe that is under way began
        self._closed_at: float | None = None
        self._in_a_row = 0  # openings without a healthy time between them
        self._term = 0
        self._opened_term = 0
        self._passes = Verdict(allowed=True, term=0)  # while it is closed, everybody's
        self._consecutive = 0
        self._why = ""
        self._opened = 0
        self._probes = 0

    def admit(self, now: float) -> Verdict:
        """Whether an attempt may be made now.

        Every verdict that allows one is handed back once by :meth:`succeeded`, :meth:`failed` or :meth:`released`.
        """
        if self._open_until is None:
            return self._passes
        wait_s = self.wait_s(now)
        if wait_s > 0:
            return Verdict(allowed=False, wait_s=wait_s)
        self._term += 1  # a probe that was given up is of the past from here on
        self._probe_at = now
        self._probes += 1
        return Verdict(allowed=True, probe=True, term=self._term)

    def succeeded(self, now: float, verdict: Verdict) -> None:
        """The target answered."""
        if verdict.term != self._term and not self._is_late_probe(verdict):
            return
        if self._open_until is not None:
            self._close(now)
        self._consecutive = 0
        self._requests.add(1, now)

    def failed(self, now: float, verdict: Verdict) -> None:
        """The target failed, in a way that says something about it."""
        if verdict.term != self._term:
            return
        self._consecutive += 1
        self._requests.add(1, now)
        self._failures.add(1, now)
        if self._open_until is not None:
            self._open(now, self._why)
        elif self._consecutive >= self._consecutive_limit:
            self._open(now, f"{self._consecutive} failures in a row")
        elif self._too_many_fail(now):
            share = self._failures.total(now) / self._requests.total(now)
            self._open(now, f"{share:.0%} of the requests of the last {self._window_s:g} s failed")

    def released(self, now: float, verdict: Verdict) -> None:
        """The attempt ended as neither: its client left, or the fault was the client's."""
        if verdict.term == self._term and self._probe_at is not None:
            self._open_until = max(now, self._probe_at + self._open_s)
            self._probe_at = None

    def trip(self, now: float, for_s: float, why: str) -> None:
        """Open it for ``for_s`` whatever was counted, or longer if it is open for longer: the key is not accepted."""
        until = now + for_s
        if self._open_until is None or until > self._open_until:
            if self._open_until is None:
                self._opened += 1
            self._begin_open(until, why)

    def wait_s(self, now: float) -> float:
        """Seconds until an attempt may be made; 0 when one may be now."""
        if self._open_until is None:
            return 0.0
        if self._probe_at is None:
            return max(self._open_until - now, 0.0)
        left_s = max(self._probe_at + self._probe_s - now, 0.0)
        return min(left_s, self._open_s)  # nobody knows how long a probe takes

    def state(self, now: float) -> State:
        """Where it stands; HALF_OPEN from the moment that a probe may go."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until else State.HALF_OPEN

    def statistics(self, now: float) -> BreakerStatistics:
        return BreakerStatistics(
            state=self.state(now),
            wait_s=self.wait_s(now),
            why=self._why,
            consecutive=self._consecutive,
            requests=self._requests.total(now),
            failures=self._failures.total(now),
            opened=self._opened,
            probes=self._probes,
        )

    def _is_late_probe(self, verdict: Verdict) -> bool:
        """Whether it is a probe that was given up, and nothing has failed since."""
        return verdict.probe and self._open_until is not None and verdict.term > self._opened_term

    def _too_many_fail(self, now: float) -> bool:
        requests = self._requests.total(now)
        return requests >= self._min_requests and self._failures.total(now) >= self._ratio * requests

    def _open(self, now: float, why: str) -> None:
        if self._closed_at is not None and now - self._closed_at >= self._window_s:
            self._in_a_row = 0
        doublings = min(self._in_a_row, _MOST_DOUBLINGS)
        self._in_a_row += 1
        self._opened += 1
        began = now if self._probe_at is None else self._probe_at
        self._begin_open(max(now, began + min(self._open_s * 2.0**doublings, self._max_open_s)), why)

    def _begin_open(self, until: float, why: str) -> None:
        self._term += 1
        self._opened_term = self._term
        self._open_until = until
        self._closed_at = None
        self._probe_at = None
        self._why = why

    def _close(self, now: float) -> None:
        self._open_until = None
        self._passes = Verdict(allowed=True, term=self._term)
        self._probe_at = None
        self._closed_at = now
        self._requests.clear()
        self._failures.clear()
