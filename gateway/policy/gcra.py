"""The generic cell rate algorithm: how many units a second, with how many at once; one number of state.

The state is the theoretical arrival time of the next unit if all came evenly spaced. A unit that comes before it by no
more than the tolerance conforms, and moves it on by one interval. In any window ``w`` at most
``burst + rate × w`` units pass (rounded up): with ``burst`` 1 never more than the rate in any of its windows.

Here it limits what one process decides alone: callers of the admin API, and a limit whose keeper is away. Limits shared
by processes are windows of slices (:mod:`gateway.policy.lease` says why).

Source: ITU-T I.371 (GCRA, virtual scheduling).
"""

from __future__ import annotations

EPSILON_S = 1e-9  # sums of intervals are not exact; a unit that is due must not be refused for that


class Gcra:
    """``amount`` units per ``window_s`` evenly, ``burst`` of them at once.

    Args:
        amount: Units per window; at least 1.
        burst: Units that may come at the same time; at least 1.

    Cost: O(1), 0.3 µs.
    """

    __slots__ = ("_interval_s", "_next_at", "_tolerance_s")

    def __init__(self, amount: int, window_s: float, *, burst: int = 1) -> None:
        self._interval_s = window_s / amount
        self._tolerance_s = (burst - 1) * self._interval_s
        self._next_at = float("-inf")

    def take(self, now_s: float, units: int = 1) -> float:
        """Take ``units`` and return 0.0, or take nothing and return in how many seconds they would conform.

        More units than ``burst`` conform when the whole burst is free: else they never would.
        """
        next_at = max(self._next_at, now_s)
        wait_s = next_at + (units - 1) * self._interval_s - self._tolerance_s - now_s
        wait_s = min(wait_s, next_at - now_s)  # nothing outstanding: let it pass, the next ones pay for it
        if wait_s > EPSILON_S:
            return wait_s
        self._next_at = next_at + units * self._interval_s
        return 0.0
