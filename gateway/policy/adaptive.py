"""How many requests a target can work on at the same time, found out by trying.

Nobody tells a client a provider's real capacity, and it changes. What can be seen: a 429 or an overload says that there
was too much (loss), and first tokens that come later than they used to say that there is a line (delay). So:

* A success while at least half of the limit is in use adds ``1 / limit``, one per round of requests. Until there was
  ever too much it adds 1, which doubles the limit per round: as TCP starts.
* A refusal multiplies it by 0.7, once per round: what was under way at that moment is refused for the same reason.
* Each second with samples enough, the mean first-token time is compared with its long-term mean. If it is more than
  ``TOLERANCE`` times that, there is too much: the limit shrinks by up to a tenth and does not grow, until times are
  better, or until the long-term mean has taken the new times for the usual ones.

The limit never leaves ``floor``…``ceiling``, and a floor of at least 1 means that there is always a next result.

Limits: first-token times depend on the prompts as well; hence the tolerance. The long-term mean follows what we cause
ourselves, too: a target that queues for ever and refuses nothing is pushed further by about one request in two seconds,
until the ceiling. And of one that was overloaded from the first request on, the overload's times are the usual ones.

Source: D.-M. Chiu, R. Jain, AIMD (1989); TCP slow start, V. Jacobson (1988); Netflix concurrency-limits, Gradient2.
"""

from __future__ import annotations

import enum
import math

from attrs import frozen

CUT = 0.7
LEAST_BETWEEN_CUTS_S = 1.0
MOST_BETWEEN_CUTS_S = 10.0
SAMPLE_S = 1.0
QUEUEING_S = 10.0  # how long a sample that was too slow keeps the limit from growing, if none follows
SAMPLES = 10
TOLERANCE = 2.0
LEAST_GRADIENT = 0.5
SMOOTHING = 0.2  # of the shrinking: with LEAST_GRADIENT, a tenth per second at most
LONG_TERM = 0.02  # weight of the newest mean in the long-term one
UNLEARN = 0.9  # per sample, while the long-term mean is far above what is measured


class Release(enum.Enum):
    """What an attempt's end says of the target's capacity."""

    SUCCESS = "success"
    IGNORED = "ignored"  # nothing: cancelled, the client's own fault, a broken connection
    DROPPED = "dropped"  # it had too much to do: 429, 503, 529, no first token in time


@frozen(kw_only=True, slots=True)
class AdaptiveLimitStatistics:
    """A moment of an :class:`AdaptiveLimit`.

    Attributes:
        limit: How many may be in flight.
        in_flight: How many are; more than the limit for a while after it shrank.
        floor, ceiling: Its bounds.
        ttft_s: Mean first-token time of the last sample; 0 if there is none yet.
        usual_ttft_s: Its long-term mean.
        cuts: How often a refusal made the limit smaller so far.
    """

    limit: int
    in_flight: int
    floor: int
    ceiling: int
    ttft_s: float
    usual_ttft_s: float
    cuts: int


class AdaptiveLimit:
    """The limit of one target.

    Args:
        floor, ceiling: Bounds of the limit; ``1 <= floor <= start <= ceiling``.
        start: Where it begins.

    Cost: O(1), under 1 µs; no memory grows.
    """

    def __init__(self, *, floor: int = 1, ceiling: int = 100, start: int = 20) -> None:
        if not 1 <= floor <= start <= ceiling:
            raise ValueError("an adaptive limit needs 1 <= floor <= start <= ceiling")
        self.floor = floor
        self.ceiling = ceiling
        self.in_flight = 0
        self._limit = float(start)
        self._doubles_below = math.inf
        self._cut_at = -math.inf
        self._cuts = 0
        self._sample_until = -math.inf
        self._sample_sum_s = 0.0
        self._sample_count = 0
        self._ttft_s = 0.0
        self._usual_ttft_s = 0.0
        self._queueing_until = -math.inf

    @property
    def limit(self) -> int:
        """How many may be in flight."""
        return int(self._limit)

    def try_acquire(self) -> bool:
        """Count one more in flight, if the limit allows. To be released exactly once."""
        if self.in_flight >= int(self._limit):
            return False
        self.in_flight += 1
        return True

    def release(self, outcome: Release, ttft_s: float | None, now: float) -> None:
        """Count one less in flight, and learn from how it ended.

        Args:
            ttft_s: Its first-token time, if it had one; only a success's counts.
        """
        in_use = 2 * self.in_flight >= self._limit
        self.in_flight -= 1
        if outcome is Release.DROPPED:
            self._cut(now)
        elif outcome is Release.SUCCESS:
            if ttft_s is not None:
                self._sample(ttft_s, now, in_use)
            if in_use and now >= self._queueing_until:
                step = 1.0 if self._limit < self._doubles_below else 1.0 / self._limit
                self._limit = min(self._limit + step, self.ceiling)

    def statistics(self) -> AdaptiveLimitStatistics:
        return AdaptiveLimitStatistics(
            limit=self.limit,
            in_flight=self.in_flight,
            floor=self.floor,
            ceiling=self.ceiling,
            ttft_s=self._ttft_s,
            usual_ttft_s=self._usual_ttft_s,
            cuts=self._cuts,
        )

    def _cut(self, now: float) -> None:
        round_s = min(max(self._ttft_s, LEAST_BETWEEN_CUTS_S), MOST_BETWEEN_CUTS_S)
        if now - self._cut_at < round_s:
            return
        self._cut_at = now
        self._cuts += 1
        self._limit = max(self._limit * CUT, self.floor)
        self._doubles_below = self._limit

    def _sample(self, ttft_s: float, now: float, in_use: bool) -> None:
        self._sample_sum_s += ttft_s
        self._sample_count += 1
        if now < self._sample_until or self._sample_count < SAMPLES:
            return
        newest = self._ttft_s = self._sample_sum_s / self._sample_count
        self._sample_until = now + SAMPLE_S
        self._sample_sum_s, self._sample_count = 0.0, 0
        usual = self._usual_ttft_s
        if not usual:
            usual = newest
        usual += LONG_TERM * (newest - usual)
        if usual > 2 * newest:
            usual *= UNLEARN
        self._usual_ttft_s = usual
        self._queueing_until = -math.inf
        if in_use and newest > TOLERANCE * usual:
            self._queueing_until = now + QUEUEING_S
            gradient = max(TOLERANCE * usual / newest, LEAST_GRADIENT)
            self._limit = max(self._limit * (1 - SMOOTHING * (1 - gradient)), self.floor)
            self._doubles_below = min(self._doubles_below, self._limit)
