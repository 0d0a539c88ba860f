"""The load generator: raw sockets on one epoll loop, told what to do over its standard input.

A process of its own on the instrument's core. Each line in is a JSON command with the arguments of one of the methods
named ``do_…`` below, each line out its result. It measures the contestant's CPU itself at the edges of the window it
counts in, so that no message in between blurs them.

Closed loop is for cost, open loop for overload: see the modules of these names. Streams gathered by ``hold`` stay open
for what comes next: a measurement beside them, silence, or leaving all at once.

Limits: HTTP/1.1; one request at a time per connection; latencies are kept one by one, so windows are seconds.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import procs
from benchmarks.closed_loop import RAMP, ClosedLoop
from benchmarks.loop import Client, Loop, Outcome
from benchmarks.open_loop import REFUSALS, OpenLoop
from benchmarks.window import ERRORS_KEPT, Window
from benchmarks.wire import body, request


class Holding:
    """What became of the streams of one ``do_hold``."""

    def __init__(self, loop: Loop, *, small_window: bool) -> None:
        self.loop = loop
        self.small_window = small_window
        self.started = self.refused = self.failed = 0
        self.texts: list[str] = []

    def settled(self) -> int:
        return self.started + self.refused + self.failed

    def on(self, client: Client, outcome: Outcome) -> None:
        if outcome is Outcome.FIRST and client.status == 200:
            self.started += 1
            if self.small_window:
                self.loop.ignore(client)
        elif outcome is Outcome.DONE and client.status in REFUSALS:
            self.refused += 1
        elif outcome is not Outcome.FIRST:
            self.failed += 1
            self.texts.append(client.problem or f"status {client.status}: {client.tail[-200:]!r}")


class Load:
    """The commands. Streams gathered by ``do_hold`` stay open from one command to the next."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.port = 0
        self.path = ""
        self.headers: dict[str, str] = {}
        self.groups: dict[str, int] = {}
        self.core = 0
        self.held: list[Client] = []

    def do_target(
        self, port: int, path: str, headers: dict[str, str], groups: dict[str, int], core: int
    ) -> dict[str, Any]:
        """Where requests go, whose CPU is measured (process groups by name), on which core the contestant is.

        Drops all connections.
        """
        for client in self.held:
            self.loop.drop(client)
        self.held.clear()
        self.loop.drop_all()
        self.loop.address = ("127.0.0.1", port)
        self.port, self.path, self.headers, self.groups, self.core = port, path, headers, groups, core
        return {}

    def _request(self, model: str, stream: bool = False, tag: str = "", padding_bytes: int = 0) -> bytes:
        content = body(model, stream=stream, tag=tag, padding_bytes=padding_bytes)
        return request(self.path, self.port, content, self.headers)

    def do_closed(
        self,
        *,
        model: str,
        clients: int,
        warmup_s: float,
        window_s: float,
        stream: bool = False,
        expect: int = 200,
        padding_bytes: int = 0,
        endless: bool = False,
    ) -> dict[str, Any]:
        """Closed loop; see :class:`ClosedLoop`."""
        closed = ClosedLoop(
            self.loop,
            Window(self.groups, self.core),
            clients=clients,
            payload=self._request(model, stream, padding_bytes=padding_bytes),
            expect=expect,
            endless=endless,
            opener=self._request("unary"),
        )
        return closed.run(warmup_s, window_s)

    def do_open(
        self, *, model: str, rate: float, duration_s: float, skip_s: float, grace_s: float, stream: bool = True
    ) -> dict[str, Any]:
        """Open loop; see :class:`OpenLoop`."""
        run = OpenLoop(
            self.loop,
            Window(self.groups, self.core),
            payload=self._request(model, stream),
            rate=rate,
            duration_s=duration_s,
            skip_s=skip_s,
        )
        return run.run(grace_s)

    def do_hold(
        self, *, model: str, clients: int, timeout_s: float, small_window: bool = False, tagged: bool = False
    ) -> dict[str, Any]:
        """Open streams and keep them; returns when each has its first byte or ``timeout_s`` passed."""
        holding = Holding(self.loop, small_window=small_window)
        payload, end = self._request(model, True), time.monotonic() + timeout_s
        for opened in range(1, clients + 1):
            client = self.loop.client(holding.on, small_window=small_window)
            client.tag = str(len(self.held))
            self.held.append(client)
            mine = self._request(model, True, tag=client.tag) if tagged else payload
            self.loop.send(client, mine, time.monotonic())
            while opened - holding.settled() >= RAMP and time.monotonic() < end:
                self.loop.poll(0.05)
        while holding.settled() < clients and time.monotonic() < end:
            self.loop.poll(0.05)
        return {
            "started": holding.started,
            "refused": holding.refused,
            "failed": holding.failed,
            "error_texts": holding.texts[:ERRORS_KEPT],
        }

    def do_keep(self, *, seconds: float) -> dict[str, Any]:
        """Go on serving the held streams for a while."""
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            self.loop.poll(left_s)
        return {}

    def do_leave(self) -> dict[str, Any]:
        """Close every held stream at once; returns when each was closed, by tag, on CLOCK_MONOTONIC."""
        closed_at: dict[str, float] = {}
        for client in self.held:
            closed_at[client.tag] = time.monotonic()
            self.loop.drop(client)
        self.held.clear()
        return {"closed_at": closed_at}


def main() -> None:
    """Read commands until the input ends."""
    procs.raise_descriptor_limit()
    gc.disable()  # nothing here is cyclic, and a pause would look like the contestant's latency
    load = Load()
    for line in sys.stdin:
        command = json.loads(line)
        do: Callable[..., dict[str, Any]] = getattr(load, "do_" + command.pop("do"))
        answer: dict[str, Any]
        try:
            answer = {"result": do(**command)}
        except OSError as error:
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
