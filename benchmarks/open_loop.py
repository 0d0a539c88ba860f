"""Open loop: requests leave at fixed times, whatever became of the earlier ones. For overload.

Latency counts from the *intended* time, so a contestant that falls behind cannot hide it by slowing its clients down.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.loop import Client, Loop, Outcome
from benchmarks.window import Window, percentiles

REFUSALS = (429, 503)


class OpenLoop:
    """One run at ``rate`` requests per second for ``duration_s``.

    What completes between ``skip_s`` and ``duration_s`` is goodput; latencies are those of all requests that were to
    leave after ``skip_s``.
    """

    def __init__(
        self, loop: Loop, window: Window, *, payload: bytes, rate: float, duration_s: float, skip_s: float
    ) -> None:
        self.loop = loop
        self.window = window
        self.payload = payload
        self.rate = rate
        self.total = int(rate * duration_s)
        self.start = time.monotonic()
        self.count_from = self.start + skip_s
        self.end = self.start + duration_s
        self.idle: list[Client] = []
        self.busy: set[Client] = set()
        self.refused_s: list[float] = []
        self.good = 0

    def run(self, grace_s: float) -> dict[str, Any]:
        """Send everything, then wait ``grace_s`` for what is missing; it counts with the time it waited by then."""
        loop, window = self.loop, self.window
        window.begin(loop)
        self._send_all()
        give_up = time.monotonic() + grace_s
        while self.busy and time.monotonic() < give_up:
            loop.poll(0.1)
        now = time.monotonic()
        late = [client for client in self.busy if client.due >= self.count_from]
        window.first_s += [now - client.due for client in late if not client.first]
        window.latencies_s += [now - client.due for client in late]
        result = window.end(loop)
        loop.drop_all()
        return result | {
            "good_per_s": self.good / (self.end - self.count_from),
            "sent": self.total,
            "unanswered": len(self.busy),
            "refused_ms": percentiles(self.refused_s),
        }

    def _send_all(self) -> None:
        loop, sent = self.loop, 0
        while sent < self.total:
            due = self.start + sent / self.rate
            wait_s = due - time.monotonic()
            if wait_s > 0:
                loop.poll(wait_s)
                continue
            client = self.idle.pop() if self.idle else loop.client(self._on)
            self.busy.add(client)
            loop.send(client, self.payload, due)
            sent += 1
            if not sent % 16:  # answers are read also while sending is behind its times
                loop.poll(0)

    def _on(self, client: Client, outcome: Outcome) -> None:
        now, window = time.monotonic(), self.window
        counts = client.due >= self.count_from
        if outcome is Outcome.FIRST:
            if counts and client.status == 200:
                window.first_s.append(now - client.due)
            return
        self.busy.discard(client)
        if outcome is Outcome.FAILED:
            window.fail(client)
            return
        self.idle.append(client)
        window.answered(client, expected=client.status == 200 or client.status in REFUSALS)
        if client.status == 200:
            self.good += self.count_from <= now < self.end
        if counts and client.status == 200:
            window.latencies_s.append(now - client.due)
        elif counts and client.status in REFUSALS:
            self.refused_s.append(now - client.due)
