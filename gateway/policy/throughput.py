"""How fast work is leaving: the measure behind ``Retry-After`` and "that deadline cannot be met".

A window of the last departures gives a drain rate that follows load within a few dozen requests and needs no timer;
a moving average of service times says what one request takes once it runs. Both are plain arithmetic on instants that
are passed in. Source: measured NACK admission, "Go Beyond Models" (2025); Little's law for the estimate of a wait.
"""

from __future__ import annotations

from collections import deque

WINDOW = 64  # departures
SETTLED = 8  # fewer departures than this are no measurement
SMOOTHING = 0.1  # weight of the newest service time


class Throughput:
    """Departures and service times of one pool of permits."""

    def __init__(self) -> None:
        self._departures: deque[float] = deque(maxlen=WINDOW)
        self._service_s: float | None = None
        self._promised_until = 0.0

    def departed(self, now: float, service_s: float) -> None:
        """Note that a request which ran for ``service_s`` seconds has left."""
        self._departures.append(now)
        previous = self._service_s
        self._service_s = service_s if previous is None else previous + SMOOTHING * (service_s - previous)

    @property
    def settled(self) -> bool:
        """Whether enough has been seen to refuse somebody because of it."""
        return len(self._departures) >= SETTLED

    @property
    def service_s(self) -> float:
        """Mean time a request holds its permit, 0 when nothing was measured."""
        return self._service_s or 0.0

    def per_second(self, now: float, permits: int) -> float:
        """Departures per second.

        The newest window counts while it is fresh. After an idle pause it would read far too low, so the rate that
        ``permits`` and the mean service time make possible is the floor: pools are full when anybody asks.
        """
        capacity = permits / self._service_s if self._service_s else 0.0
        if len(self._departures) < 2:
            return capacity
        seen_s = now - self._departures[0]
        return max((len(self._departures) - 1) / seen_s, capacity) if seen_s > 0 else capacity

    def wait_s(self, ahead: int, now: float, permits: int) -> float:
        """Expected wait of somebody with ``ahead`` others in front; 0 when nothing was measured."""
        rate = self.per_second(now, permits)
        return ahead / rate if rate else 0.0

    def retry_after_s(self, waiting: int, now: float, permits: int, *, least_s: float, most_s: float) -> float:
        """When a refused client should come back.

        Refused clients are given successive slots at the drain rate behind the line as it stands, so that they do not
        all return in the same second and are not refused again together.
        """
        rate = self.per_second(now, permits)
        if not rate:
            return least_s
        line_empty_at = now + waiting / rate
        self._promised_until = min(max(self._promised_until, line_empty_at) + 1 / rate, now + most_s)
        return min(max(self._promised_until - now, least_s), most_s)
