"""How slow a target is just now: a moving average of first-token times that believes bad news at once.

A value above the average replaces it; one below moves it by how much time has passed. So a target that became slow
loses its share with the first slow answer, and gets it back within a few ``decay_s``. What is not heard of for long is
taken for fast again: otherwise a slow target would never be asked again, and nobody would learn that it recovered.

Limits: only answers count. A target that fails fast looks fast; leaving it out is the breaker's work.

Source: Finagle's peak EWMA load metric; the weight of a value by the time since the one before it.
"""

from __future__ import annotations

import math

from attrs import frozen

UNKNOWN_LOAD = 1e9  # of a target that is being asked for the first time: one request finds out, not all of them


@frozen(kw_only=True, slots=True)
class PeakEwmaStatistics:
    """A moment of a :class:`PeakEwma`.

    Attributes:
        value_s: The average, aged; 0 if nothing was observed.
        samples: Observations so far.
    """

    value_s: float
    samples: int


class PeakEwma:
    """The average of one target.

    Args:
        decay_s: Mean lifetime of an observation.

    Cost: O(1), one exponential.
    """

    __slots__ = ("_at", "_decay_s", "_samples", "_value")

    def __init__(self, decay_s: float = 10.0) -> None:
        self._decay_s = decay_s
        self._value = 0.0
        self._at = -math.inf
        self._samples = 0

    def observe(self, value: float, now: float) -> None:
        """Note a first-token time, in seconds."""
        if self._samples and value < self._value:
            weight = self._weight(now)
            value = self._value * weight + value * (1.0 - weight)
        self._value = value
        self._at = now
        self._samples += 1

    def value_s(self, now: float) -> float:
        """The average, less the longer nothing was observed; 0 if nothing ever was."""
        return self._value * self._weight(now) if self._samples else 0.0

    def load(self, in_flight: int, now: float) -> float:
        """What one more request would be added to: seconds × requests. Compare it, do not read it.

        Args:
            in_flight: Requests that the target is working on.
        """
        if not self._samples:
            return UNKNOWN_LOAD + in_flight if in_flight else 0.0
        return self.value_s(now) * (in_flight + 1)

    def statistics(self, now: float) -> PeakEwmaStatistics:
        return PeakEwmaStatistics(value_s=self.value_s(now), samples=self._samples)

    def _weight(self, now: float) -> float:
        return math.exp(-max(now - self._at, 0.0) / self._decay_s)
