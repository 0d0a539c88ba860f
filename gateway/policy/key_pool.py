"""Several keys of one provider: used in turn, and one that hit its limit is left out until it is good again."""

from __future__ import annotations

import math

from attrs import frozen


@frozen(kw_only=True, slots=True)
class KeyPoolStatistics:
    """A moment of a :class:`KeyPool`.

    Attributes:
        keys: How many there are.
        cooling: How many are left out now.
        soonest_s: Seconds until one can be used; 0 if one can be now.
        cooled: How often one had to be left out so far.
    """

    keys: int
    cooling: int
    soonest_s: float
    cooled: int


class KeyPool:
    """The keys of one provider, by position.

    Args:
        keys: How many; at least 1.

    Cost: O(keys), a handful; one comparison while none is cooling.
    """

    __slots__ = ("_cool_until", "_cooled", "_next")

    def __init__(self, keys: int) -> None:
        if keys < 1:
            raise ValueError("a pool needs at least one key")
        self._cool_until = [-math.inf] * keys
        self._next = 0
        self._cooled = 0

    def pick(self, now: float) -> int | None:
        """The next key in turn that is not cooling; None if all are."""
        keys = len(self._cool_until)
        if keys == 1:
            return 0 if self._cool_until[0] <= now else None
        for step in range(keys):
            index = (self._next + step) % keys
            if self._cool_until[index] <= now:
                self._next = (index + 1) % keys
                return index
        return None

    def wait_s(self, index: int, now: float) -> float:
        """Seconds until that key can be used; 0 if it can be now."""
        return max(self._cool_until[index] - now, 0.0)

    def cool(self, index: int, now: float, for_s: float) -> None:
        """Leave a key out for ``for_s``, or for longer if it was to be."""
        self._cool_until[index] = max(self._cool_until[index], now + for_s)
        self._cooled += 1

    def soonest_s(self, now: float) -> float:
        """Seconds until a key can be used; 0 if one can be now."""
        return max(min(self._cool_until) - now, 0.0)

    def statistics(self, now: float) -> KeyPoolStatistics:
        return KeyPoolStatistics(
            keys=len(self._cool_until),
            cooling=sum(until > now for until in self._cool_until),
            soonest_s=self.soonest_s(now),
            cooled=self._cooled,
        )
