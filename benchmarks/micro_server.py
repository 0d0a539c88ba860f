"""CPU per request of a bare ASGI app: plain Hypercorn against Sluice's own HTTP/1.1 under it, in one run.

``python -m benchmarks.micro_server [--seconds 2] [--clients 32] [--rounds 3]``

Each contestant is a process of its own pinned to core 0; the load (this process, raw epoll, a few µs per request) runs
on core 1. What is counted is the contestant's user and system time between two readings of /proc, divided by the
requests answered in between; contestants alternate, the median of the rounds is shown. Besides unary requests there are
streams of 64 unpaced messages and refusals by the gate.

Limits: one machine with two cores, closed loop, bodies of 140 bytes in and 150 out: good for ratios, not for absolute
figures. Plain Hypercorn has no gate, so its app answers the refusal.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import trio

BODY = b'{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"%b"}}]}' % (b"x" * 70)
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n' * 3
HEADERS = [(b"content-type", b"application/json"), (b"x-request-id", b"0123456789abcdef")]
HEAD = (
    b"POST /%b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nAuthorization: Bearer sk-test\r\n"
    b"Content-Type: application/json\r\nContent-Length: 140\r\n\r\n"
) + b"x" * 140
SCENARIOS = {"unary": 1, "stream": 64, "refusal": 1}  # with their messages
CONTESTANTS = ("hypercorn", "sluice")
TICKS = os.sysconf("SC_CLK_TCK")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, then answers with one message or with 64."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/refusal":
        await send({"type": "http.response.start", "status": 429, "headers": [*HEADERS, (b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        for _ in range(64):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    length = (b"content-length", b"%d" % len(BODY))
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": BODY})


class Refuse:
    """A gate for the refusals."""

    def knock(self, scope: dict[str, Any]) -> Any:
        from gateway.edge.gate import Reply

        return Reply(429, HEADERS, b"{}") if scope["path"] == "/refusal" else None


async def _serve_sluice() -> None:
    from gateway.config import Server
    from gateway.edge.serve import serve

    async with trio.open_nursery() as nursery:
        print((await nursery.start(_started, serve, app, Server(bind="127.0.0.1:0")))[0], flush=True)


async def _started(serve: Any, app: Any, config: Any, task_status: Any) -> None:
    await serve(app, config, gate=Refuse(), task_status=task_status)


async def _serve_hypercorn() -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 10**9
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(lambda task_status: serve(app, config, task_status=task_status))
        print(urls[0], flush=True)


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Load:
    """Closed loop: every connection asks again as soon as it has its answer."""

    def __init__(self, port: int, path: str, clients: int) -> None:
        self.request = HEAD % path.encode()
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.left: dict[int, int] = {}
        self.done = 0
        self.size = self._learn(port)
        for _ in range(clients):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets[sock.fileno()] = sock
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            self._ask(sock.fileno())

    def _learn(self, port: int) -> int:
        """The size of an answer: the same for each of a scenario."""
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(self.request)
            data = sock.recv(1 << 20)
            sock.settimeout(0.2)
            try:
                while piece := sock.recv(1 << 20):
                    data += piece
            except TimeoutError:
                return len(data)
        raise SystemExit(f"the contestant closed the connection: {data[:200]!r}")

    def _ask(self, fd: int) -> None:
        self.left[fd] = self.size
        os.write(fd, self.request)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for fd, _ in self.epoll.poll(0.1):
                data = os.read(fd, 1 << 18)
                if not data:
                    raise SystemExit("the contestant closed a connection")
                self.left[fd] -= len(data)
                if self.left[fd] <= 0:
                    self.done += 1
                    self._ask(fd)

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()
        self.epoll.close()


def measure(contestant: str, scenario: str, clients: int, seconds: float) -> tuple[float, float]:
    """CPU in µs per request, and requests per second."""
    command = [sys.executable, "-m", "benchmarks.micro_server", "--serve", contestant]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: _pin(0))
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        load = Load(port, scenario, clients)
        load.run(seconds / 4)
        before, done, started = _cpu_s(process.pid), load.done, time.monotonic()
        load.run(seconds)
        requests = load.done - done
        result = (_cpu_s(process.pid) - before) / requests * 1e6, requests / (time.monotonic() - started)
        load.close()
        return result
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _pin(core: int) -> None:
    cores = os.sched_getaffinity(0)
    if core in cores:
        os.sched_setaffinity(0, {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(_serve_sluice if options.serve == "sluice" else _serve_hypercorn)
        return
    _pin(1)
    print(f"{'scenario':10} {'contestant':10} {'µs CPU/request':>15} {'per message':>12} {'requests/s':>11}")
    for scenario, messages in SCENARIOS.items():
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(options.rounds):
            for name in CONTESTANTS:
                found[name].append(measure(name, scenario, options.clients, options.seconds))
        medians = {name: statistics.median(cost for cost, _ in results) for name, results in found.items()}
        for name in CONTESTANTS:
            rate = statistics.median(rate for _, rate in found[name])
            print(f"{scenario:10} {name:10} {medians[name]:15.1f} {medians[name] / messages:12.1f} {rate:11.0f}")
        print(f"{scenario:10} {'ratio':10} {medians['hypercorn'] / medians['sluice']:15.1f}")


if __name__ == "__main__":
    main()
