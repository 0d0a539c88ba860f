"""How many extra attempts a provider may get: a share of what succeeded lately, and a few in hand for quiet times.

A count per request does not bound load: when everything fails, two retries each make three times the load, on a
provider that has too much already. A budget per provider does:

* Each success adds ``ratio`` of an extra attempt; what is not used within ``window_s`` is forgotten.
* ``floor`` attempts are in hand at the start, so that a gateway with little to do can retry as well. What was taken of
  them comes back at ``floor_per_s``, but only by successes, one at most with each. Time alone gives nothing back.

So, whatever the rate at which requests come in, and however long it lasts::

    extra attempts ≤ floor + ratio × successes + min(successes, floor_per_s × seconds)
    nothing succeeds:  extra attempts ≤ floor + ratio × the successes of the window before it

With the defaults, 500 requests to a provider that refuses all of them cost at most 510 attempts. The price: a provider
that failed often enough is asked once per request until one of those requests succeeds.

Source: Finagle's ``RetryBudget`` (deposits with a time to live, a reserve); there deposits are made per request and the
reserve is a rate, which lets a slow trickle of requests be retried for ever against a provider that is down.
"""

from __future__ import annotations

from attrs import frozen

from gateway.policy.window import SlidingSum

_ATTEMPT = 1_000_000  # credits that one extra attempt costs


@frozen(kw_only=True, slots=True)
class RetryBudgetStatistics:
    """A moment of a :class:`RetryBudget`.

    Attributes:
        in_hand: Extra attempts that may be made now.
        taken: Extra attempts so far.
        refused: How many were wanted and not allowed so far.
    """

    in_hand: int
    taken: int
    refused: int


class RetryBudget:
    """Extra attempts (retries, hedges) that one provider may get.

    Args:
        ratio: Extra attempts that a success allows.
        floor: Extra attempts in hand when nothing has succeeded yet.
        floor_per_s: How fast those come back while requests succeed.
        window_s: How long a success counts.

    Cost: O(1), about 1 µs.
    """

    __slots__ = ("_credit", "_earned", "_floor", "_floor_per_s", "_refilled_at", "_refused", "_reserve", "_taken")

    def __init__(
        self, ratio: float = 0.2, *, floor: int = 10, floor_per_s: float = 0.1, window_s: float = 10.0
    ) -> None:
        self._credit = round(ratio * _ATTEMPT)
        self._floor = floor * _ATTEMPT
        self._floor_per_s = floor_per_s
        self._reserve = self._floor
        self._refilled_at: float | None = None
        self._earned = SlidingSum(window_s)
        self._taken = 0
        self._refused = 0

    def succeeded(self, now: float) -> None:
        """Note that the provider answered."""
        self._earned.add(self._credit, now)
        if self._reserve < self._floor and self._refilled_at is not None:
            seconds = max(now - self._refilled_at, 0.0)
            back = int(min(self._floor_per_s * seconds, 1.0) * _ATTEMPT)
            self._reserve = min(self._reserve + back, self._floor)
            self._refilled_at = now

    def try_take(self, now: float) -> bool:
        """Take one extra attempt, if there is one."""
        earned = self._earned.total(now)
        if earned + self._reserve < _ATTEMPT:
            self._refused += 1
            return False
        if self._reserve == self._floor:
            self._refilled_at = now
        self._reserve -= _ATTEMPT - self._earned.take(_ATTEMPT, now)
        self._taken += 1
        return True

    def statistics(self, now: float) -> RetryBudgetStatistics:
        return RetryBudgetStatistics(
            in_hand=(self._earned.total(now) + self._reserve) // _ATTEMPT, taken=self._taken, refused=self._refused
        )
