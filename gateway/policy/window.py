"""A sum over the last seconds, in a fixed number of slots: what the retry budget and the breaker count with.

Whole slots are forgotten at a time, so an amount counts for between ``(SLOTS - 1) / SLOTS`` of the window and all of
it. Amounts are whole numbers: nothing is lost to rounding, however long it runs.
"""

from __future__ import annotations

SLOTS = 10


class SlidingSum:
    """Amounts added during the last ``window_s`` seconds.

    Cost: O(1), at most ``SLOTS`` steps, and that only after a pause; no memory grows.
    """

    __slots__ = ("_newest", "_slot_s", "_slots", "_total")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slots = [0] * SLOTS
        self._newest: int | None = None  # which slot of all time is the newest
        self._total = 0

    def add(self, amount: int, now: float) -> None:
        """Count ``amount`` at ``now``; a clock that steps back counts as standing still."""
        slot = int(now // self._slot_s)
        if slot != self._newest:
            slot = self._advance(now)
        self._slots[slot % SLOTS] += amount
        self._total += amount

    def total(self, now: float) -> int:
        """What was added and not taken during the window."""
        self._advance(now)
        return self._total

    def take(self, amount: int, now: float) -> int:
        """Take up to ``amount`` out, what would be forgotten first before the rest; returns how much it was."""
        newest = self._advance(now)
        wanted = min(amount, self._total)
        left = wanted
        for age in range(SLOTS - 1, -1, -1):
            if not left:
                break
            slot = (newest - age) % SLOTS
            part = min(left, self._slots[slot])
            self._slots[slot] -= part
            left -= part
        self._total -= wanted
        return wanted

    def clear(self) -> None:
        """Forget everything."""
        self._slots = [0] * SLOTS
        self._total = 0

    def _advance(self, now: float) -> int:
        slot = int(now // self._slot_s)
        if self._newest is None:
            self._newest = slot
        elif slot - self._newest >= SLOTS:
            self.clear()
            self._newest = slot
        else:
            while self._newest < slot:
                self._newest += 1
                self._total -= self._slots[self._newest % SLOTS]
                self._slots[self._newest % SLOTS] = 0
        return self._newest
