"""The load generator: raw sockets on one epoll loop, told what to do over its standard input.

A process of its own on the instrument's core. Each line in is a JSON command with the arguments of one of the methods
named ``do_…`` below, each line out its result. It measures the contestant's CPU itself at the edges of the window it
counts in, so that no message in between blurs them.

Closed loop (each client sends its next request when the answer is complete) is for cost: the contestant is always
busy and never flooded. Open loop (requests leave at fixed times, whatever became of the earlier ones) is for overload:
latency counts from the *intended* time, so a contestant that falls behind cannot hide it by slowing its clients down.

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
from benchmarks.loop import Client, Loop, Outcome
from benchmarks.wire import body, request

_OPEN_RAMP = 64  # connections being opened at the same time while streams are gathered
_START_S = 20.0  # in which all streams of a scenario must have started
_ERRORS_KEPT = 5


class Window:
    """What was counted between two moments, and what it cost."""

    def __init__(self, groups: dict[str, int], core: int) -> None:
        self.groups = groups
        self.core = core
        self.latencies_s: list[float] = []
        self.first_s: list[float] = []
        self.gaps_s: list[float] = []
        self.statuses: dict[int, int] = {}
        self.errors = 0
        self.error_texts: list[str] = []
        self.problems: list[str] = []  # with the run itself, not with one answer
        self.began = 0.0
        self.counted = (0, 0)
        self.cpu: dict[str, float] = {}
        self.busy_s = 0.0

    def restart(self, *, keep_first: bool) -> None:
        """Forget what the warm-up left, in place: callbacks hold these lists."""
        for values in (self.latencies_s, self.gaps_s, self.error_texts, *(() if keep_first else (self.first_s,))):
            values.clear()
        self.statuses.clear()
        self.errors = 0

    def begin(self, loop: Loop) -> None:
        self.cpu = {name: procs.cpu_s(group) for name, group in self.groups.items()}
        self.busy_s = procs.core_busy_s(self.core)
        self.counted = (loop.events, loop.bytes)
        self.began = time.monotonic()

    def end(self, loop: Loop) -> dict[str, Any]:
        """Close the window and return everything counted, times in milliseconds."""
        duration_s = time.monotonic() - self.began
        cpu = {name: procs.cpu_s(group) - self.cpu[name] for name, group in self.groups.items()}
        foreign_s = procs.core_busy_s(self.core) - self.busy_s - cpu.get("contestant", 0.0)
        return {
            "duration_s": duration_s,
            "requests": len(self.latencies_s),
            "events": loop.events - self.counted[0],
            "bytes": loop.bytes - self.counted[1],
            "statuses": self.statuses,
            "errors": self.errors,
            "error_texts": self.error_texts,
            "problems": self.problems,
            "cpu_s": cpu,
            "foreign_percent": max(0.0, foreign_s / duration_s * 100),
            "latency_ms": percentiles(self.latencies_s),
            "first_ms": percentiles(self.first_s),
            "gap_ms": percentiles(self.gaps_s),
        }

    def fail(self, client: Client) -> None:
        self.errors += 1
        if len(self.error_texts) < _ERRORS_KEPT and client.problem not in self.error_texts:
            self.error_texts.append(client.problem)


def percentiles(values_s: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds; empty without values. Nearest rank."""
    if not values_s:
        return {}
    ordered = sorted(values_s)
    last = len(ordered) - 1
    return {name: ordered[round(last * q)] * 1000 for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


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
        """Closed loop of ``clients``; an answer of another status than ``expect`` is an error.

        ``endless`` streams outlast the window: their first bytes are those of the ramp, and the time between two
        pieces of a stream is kept.
        """
        payload = self._request(model, stream, padding_bytes=padding_bytes)
        loop, window = self.loop, Window(self.groups, self.core)
        failed: list[Client] = []

        def on(client: Client, outcome: Outcome) -> None:
            now = time.monotonic()
            if outcome is Outcome.FIRST:
                window.first_s.append(now - client.due)
                return
            if outcome is Outcome.DONE:
                window.statuses[client.status] = window.statuses.get(client.status, 0) + 1
                if client.status == expect:
                    window.latencies_s.append(now - client.due)
                else:
                    client.problem = f"status {client.status}: {client.tail[-200:]!r}"
                    window.fail(client)
            else:
                window.fail(client)
                failed.append(client)
                return
            loop.send(client, payload, now)

        def work(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
            end = time.monotonic() + seconds
            while (left_s := end - time.monotonic()) > 0 and not until():
                loop.poll(min(left_s, 0.05))
                while failed and time.monotonic() - failed[0].due > 0.05:  # a refused connection is not hammered
                    loop.send(failed.pop(0), payload, time.monotonic())

        team = [loop.client(on) for _ in range(clients)]
        if endless:
            self._connect(team, on)
        for start in range(0, clients, _OPEN_RAMP):
            for client in team[start : start + _OPEN_RAMP]:
                loop.send(client, payload, time.monotonic())
            work(0.03 if clients > _OPEN_RAMP else 0)
        if endless:
            work(_START_S, until=lambda: len(window.first_s) >= clients)
            if len(window.first_s) < clients:
                window.problems.append(f"only {len(window.first_s)} of {clients} streams started in {_START_S:g} s")
        loop.gap_sink = window.gaps_s if endless else None
        work(warmup_s)
        window.restart(keep_first=endless)
        window.begin(loop)
        work(window_s)
        result = window.end(loop)
        loop.gap_sink = None
        for client in team:
            loop.drop(client)
        return result

    def _connect(self, team: list[Client], on: Callable[[Client, Outcome], None]) -> None:
        """Have every client get one unary answer, so that streams later start over accepted connections.

        A server with a busy event loop accepts few connections per second; without this step a saturated contestant
        would be measured with as many streams as it happened to accept.
        """
        payload, answered = self._request("unary"), 0

        def count(client: Client, outcome: Outcome) -> None:
            nonlocal answered
            answered += outcome is not Outcome.FIRST

        end = time.monotonic() + _START_S
        for sent, client in enumerate(team):
            client.on = count
            self.loop.send(client, payload, time.monotonic())
            while sent - answered >= _OPEN_RAMP and time.monotonic() < end:
                self.loop.poll(0.05)
        while answered < len(team) and time.monotonic() < end:
            self.loop.poll(0.05)
        for client in team:
            client.on = on

    def _until(self, end: float) -> None:
        poll, now = self.loop.poll, time.monotonic
        while (left_s := end - now()) > 0:
            poll(left_s)

    def do_open(
        self, *, model: str, rate: float, duration_s: float, skip_s: float, grace_s: float, stream: bool = True
    ) -> dict[str, Any]:
        """Open loop at ``rate`` requests per second.

        Counts what completes between ``skip_s`` and ``duration_s``; latencies are of all requests that were to leave
        after ``skip_s``. What has no answer ``grace_s`` after the last was sent counts with the time it waited.
        """
        payload = self._request(model, stream)
        loop, window = self.loop, Window(self.groups, self.core)
        idle: list[Client] = []
        busy: set[Client] = set()
        refused_s: list[float] = []
        good = 0
        start = time.monotonic()
        count_from, end = start + skip_s, start + duration_s

        def on(client: Client, outcome: Outcome) -> None:
            nonlocal good
            now = time.monotonic()
            counts = client.due >= count_from
            if outcome is Outcome.FIRST:
                if counts and client.status == 200:
                    window.first_s.append(now - client.due)
                return
            busy.discard(client)
            if outcome is Outcome.FAILED:
                window.fail(client)
                return
            if client.status == 200:
                good += count_from <= now < end
                if counts:
                    window.latencies_s.append(now - client.due)
            elif client.status in (429, 503):
                if counts:
                    refused_s.append(now - client.due)
            else:
                client.problem = f"status {client.status}: {client.tail[-200:]!r}"
                window.fail(client)
            window.statuses[client.status] = window.statuses.get(client.status, 0) + 1
            idle.append(client)

        window.begin(loop)
        sent, total = 0, int(rate * duration_s)
        while sent < total:
            due = start + sent / rate
            wait_s = due - time.monotonic()
            if wait_s > 0:
                loop.poll(wait_s)
                continue
            client = idle.pop() if idle else loop.client(on)
            busy.add(client)
            loop.send(client, payload, due)
            sent += 1
            if not sent % 16:
                loop.poll(0)
        give_up = time.monotonic() + grace_s
        while busy and time.monotonic() < give_up:
            loop.poll(min(0.1, grace_s))
        now = time.monotonic()
        late = [client for client in busy if client.due >= count_from]
        window.first_s += [now - client.due for client in late if not client.first]
        window.latencies_s += [now - client.due for client in late]
        result = window.end(loop)
        loop.drop_all()
        return result | {
            "good_per_s": good / (duration_s - skip_s),
            "sent": sent,
            "unanswered": len(busy),
            "refused_ms": percentiles(refused_s),
        }

    def do_hold(
        self, *, model: str, clients: int, timeout_s: float, small_window: bool = False, tagged: bool = False
    ) -> dict[str, Any]:
        """Open streams and keep them; returns when each has its first byte or ``timeout_s`` passed."""
        payload = self._request(model, True)
        started, refused, failed = 0, 0, 0
        texts: list[str] = []

        def on(client: Client, outcome: Outcome) -> None:
            nonlocal started, refused, failed
            if outcome is Outcome.FIRST and client.status == 200:
                started += 1
                if small_window:
                    self.loop.ignore(client)
            elif outcome is Outcome.DONE and client.status in (429, 503):
                refused += 1
            elif outcome is not Outcome.FIRST:
                failed += 1
                texts.append(client.problem or f"status {client.status}: {client.tail[-200:]!r}")

        begun, end = time.monotonic(), time.monotonic() + timeout_s
        for opened in range(clients):
            client = self.loop.client(on, small_window=small_window)
            client.tag = str(len(self.held))
            self.held.append(client)
            mine = self._request(model, True, tag=client.tag) if tagged else payload
            self.loop.send(client, mine, time.monotonic())
            while opened + 1 - started - refused - failed >= _OPEN_RAMP and time.monotonic() < end:
                self.loop.poll(0.05)
        while started + refused + failed < clients and time.monotonic() < end:
            self.loop.poll(0.05)
        return {
            "started": started,
            "refused": refused,
            "failed": failed,
            "error_texts": texts[:_ERRORS_KEPT],
            "took_s": time.monotonic() - begun,
        }

    def do_keep(self, *, seconds: float) -> dict[str, Any]:
        """Go on serving the held streams for a while."""
        self._until(time.monotonic() + seconds)
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
