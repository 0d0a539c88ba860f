"""CPU per upstream request: this transport against httpx's own pool, in alternation and in one run.

``python benchmarks/micro_transport.py [--requests N] [--rounds N] [--bytes N]`` starts a raw HTTP server in a process
of its own (on the second core, if there is one) and sends small keep-alive POSTs from this one (on the first), one task
at a time and 32 at a time. What is printed is user plus system time of the client process per request, the median of
the rounds. The server's time is not in it; the event loop's is.

Limits: loopback, no TLS, one origin. ``raw`` is what the gateway's hot path calls.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe

import httpx
import trio

from gateway.upstream.transport import HeaderBlock, Origin, Transport, make_client

Once = Callable[[], Awaitable[None]]
HEADERS = [
    (b"authorization", b"Bearer sk-benchmark"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"user-agent", b"sluice"),
]
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


def serve(pipe: Pipe, body_bytes: int) -> None:
    """Answer every request on every connection; send the port through ``pipe``."""
    _pin(1)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: 1\r\ncontent-length: %d\r\n\r\n"
    answer = head % body_bytes + b"x" * body_bytes

    async def handle(stream: trio.SocketStream) -> None:
        sock = stream.socket
        try:
            while data := await sock.recv(65_536):
                if data.endswith(BODY):
                    await sock.send(answer)
        except OSError:
            return

    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1_024)
        pipe.send(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    trio.run(main)


def contestants(port: int) -> dict[str, tuple[Once, Callable[[], Awaitable[None]]]]:
    """Name → (one request, clean-up)."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    origin = Origin("http", "127.0.0.1", port)
    block = HeaderBlock.of(HEADERS)
    raw, adapted, lent = Transport(), Transport(), Transport()
    default = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100, max_keepalive_connections=100))
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=100, max_keepalive_connections=100))
    ours = make_client(lent)

    async def raw_once() -> None:
        with await raw.send(b"POST", origin, b"/v1/chat/completions", block, BODY) as response:
            while await response.receive():
                pass

    def direct(transport: httpx.AsyncBaseTransport) -> Once:
        async def once() -> None:
            request = httpx.Request("POST", url, headers=HEADERS, content=BODY)
            await (await transport.handle_async_request(request)).aread()

        return once

    def through(client: httpx.AsyncClient) -> Once:
        async def once() -> None:
            await client.post(url, headers=HEADERS, content=BODY)

        return once

    return {
        "raw: Transport.send": (raw_once, raw.aclose),
        "Transport.handle_async_request": (direct(adapted), adapted.aclose),
        "httpx.AsyncClient over Transport": (through(ours), lent.aclose),
        "httpx.AsyncHTTPTransport": (direct(default), default.aclose),
        "httpx.AsyncClient, default pool": (through(client), client.aclose),
    }


async def measure(once: Once, requests: int, tasks: int) -> float:
    """CPU microseconds per request."""

    async def many() -> None:
        for _ in range(requests // tasks):
            await once()

    start = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(many)
    return (time.process_time() - start) / (requests // tasks * tasks) * 1e6


async def compare(port: int, requests: int, rounds: int) -> None:
    entrants = contestants(port)
    for tasks in (1, 32):
        figures: dict[str, list[float]] = {name: [] for name in entrants}
        for turn in range(rounds + 1):  # the first warms up
            for name, (once, _) in entrants.items():
                figure = await measure(once, requests, tasks)
                if turn:
                    figures[name].append(figure)
        own = statistics.median(figures["raw: Transport.send"])
        print(f"\n{tasks} at a time: CPU µs per request, median of {rounds} rounds of {requests}")
        for name, values in figures.items():
            middle = statistics.median(values)
            print(f"  {name:<34} {middle:8.1f}  (min {min(values):.1f})  {middle / own:5.1f}×")
    for _, close in entrants.values():
        await close()


def _pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3_200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=400, help="of each answer's body")
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, options.bytes), daemon=True)
    server.start()
    port: int = here.recv()
    _pin(0)
    try:
        trio.run(compare, port, options.requests, options.rounds)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
