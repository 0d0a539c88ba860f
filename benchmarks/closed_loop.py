"""Closed loop: every client sends its next request when its answer is complete. For cost.

The contestant is always busy and never flooded. A slow one gets a longer window, until each client was answered twice
on average, so that what was begun before the window and what is left at its end weigh little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.loop import Client, Loop, Outcome
from benchmarks.window import Window

RAMP = 64  # connections opened at the same time
_START_S = 20.0  # in which all streams that outlast the window must have started
_LONGEST = 5  # times the window and the warm-up that were asked for
_RETRY_S = 0.05


class ClosedLoop:
    """One run.

    Args:
        payload: The request every client sends.
        expect: The status of a right answer.
        endless: The answers outlast the window. Then their first bytes are those of the ramp, the time between two
            pieces of a stream is kept, and ``opener`` is a request with a short answer that every client sends first:
            a server with a busy event loop accepts few connections a second, and would otherwise be measured with as
            many streams as it happened to accept.
    """

    def __init__(
        self, loop: Loop, window: Window, *, clients: int, payload: bytes, expect: int, endless: bool, opener: bytes
    ) -> None:
        self.loop = loop
        self.window = window
        self.payload = payload
        self.expect = expect
        self.endless = endless
        self.opener = opener
        self.opened = 0
        self.sent = 0  # requests that are counted or not, without the openers
        self.failed: list[Client] = []
        self.team = [loop.client(self._on) for _ in range(clients)]

    def run(self, warmup_s: float, window_s: float) -> dict[str, Any]:
        """Ramp up, warm up, count; closes its clients. Returns :meth:`Window.end` and how many were ``sent`` in all."""
        loop, window, clients = self.loop, self.window, len(self.team)
        if self.endless:
            self._open()
        for start in range(0, clients, RAMP):
            for client in self.team[start : start + RAMP]:
                self._send(client, time.monotonic())
            self._work(0.03 if clients > RAMP else 0)
        if self.endless:
            self._work(_START_S, until=lambda: len(window.first_s) >= clients)
            if len(window.first_s) < clients:
                window.problems.append(f"only {len(window.first_s)} of {clients} streams started in {_START_S:g} s")
        loop.gap_sink = window.gaps_s if self.endless else None
        self._work_at_least(warmup_s, clients)
        window.restart(keep_first=self.endless)
        window.begin(loop)
        self._work_at_least(window_s, 2 * clients)
        result = window.end(loop) | {"sent": self.sent}
        loop.gap_sink = None
        for client in self.team:
            loop.drop(client)
        return result

    def _send(self, client: Client, now: float) -> None:
        self.sent += 1
        self.loop.send(client, self.payload, now)

    def _work_at_least(self, seconds: float, answers: int) -> None:
        self._work(seconds)
        if not self.endless:
            window = self.window
            self._work(seconds * (_LONGEST - 1), until=lambda: len(window.latencies_s) + window.errors >= answers)

    def _work(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0 and not until():
            self.loop.poll(min(left_s, _RETRY_S))
            # A server that refuses connections is asked again, not hammered.
            while self.failed and time.monotonic() - self.failed[0].due > _RETRY_S:
                self._send(self.failed.pop(0), time.monotonic())

    def _on(self, client: Client, outcome: Outcome) -> None:
        now, window = time.monotonic(), self.window
        if outcome is Outcome.FIRST:
            window.first_s.append(now - client.due)
        elif outcome is Outcome.DONE:
            right = client.status == self.expect
            window.answered(client, expected=right)
            if right:
                window.latencies_s.append(now - client.due)
            self._send(client, now)
        else:
            window.fail(client)
            self.failed.append(client)

    def _open(self) -> None:
        """Have every client get one short answer."""
        end = time.monotonic() + _START_S
        for sent, client in enumerate(self.team):
            client.on = self._on_opened
            self.loop.send(client, self.opener, time.monotonic())
            while sent - self.opened >= RAMP and time.monotonic() < end:
                self.loop.poll(_RETRY_S)
        while self.opened < len(self.team) and time.monotonic() < end:
            self.loop.poll(_RETRY_S)
        for client in self.team:
            client.on = self._on

    def _on_opened(self, client: Client, outcome: Outcome) -> None:
        self.opened += outcome is not Outcome.FIRST
