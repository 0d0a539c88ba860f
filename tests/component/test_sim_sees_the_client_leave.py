"""The simulated provider notices at once that a client left, in every phase, and says so in its statistics."""

from __future__ import annotations

import resource
import socket
from typing import Any

import orjson
import pytest
import trio

from gateway.sim import Simulator

STREAMS = 1_000


async def start(nursery: trio.Nursery, **options: Any) -> tuple[Simulator, tuple[str, int]]:
    simulator = Simulator(**options)
    return simulator, await nursery.start(simulator.serve)


def request(model: str, *, stream: bool) -> bytes:
    body = orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def until(simulator: Simulator, **wanted: int) -> None:
    """Wait until the statistics say so."""
    with trio.fail_after(20):
        await simulator.until(lambda now: all(getattr(now, name) == value for name, value in wanted.items()))


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("sim-ttft=600", True),
        ("sim-ttft=600", False),
        ("sim-tokens=1000-tps=1", False),
        ("sim-silence", True),
        ("sim-slow=600", True),
        ("sim-stall=2", True),
        ("sim-tokens=1000-tps=5", True),
    ],
    ids=["before the first token", "unary", "unary, paced", "silence", "slow", "stall", "in the stream"],
)
@pytest.mark.parametrize("abrupt", [False, True], ids=["orderly", "reset"])
async def test_leaving_cancels_the_answer(nursery: trio.Nursery, model: str, stream: bool, abrupt: bool) -> None:
    simulator, address = await start(nursery)
    connection = await trio.open_tcp_stream(*address)
    await connection.send_all(request(model, stream=stream))
    await until(simulator, active=1)
    if abrupt:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await connection.aclose()
    await until(simulator, active=0, connections=0)
    done = simulator.statistics()
    assert (done.started, done.cancelled, done.finished) == (1, 1, 0)


async def test_leaving_is_noticed_behind_pipelined_bytes(nursery: trio.Nursery) -> None:
    simulator, address = await start(nursery)
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("sim-ttft=600", stream=True) + b"GET /stats HTTP/1.1\r\nHost: sim\r\n")
        await until(simulator, active=1)
    await until(simulator, active=0, cancelled=1, connections=0)


async def test_a_client_that_leaves_between_requests_cancels_nothing(nursery: trio.Nursery) -> None:
    simulator, address = await start(nursery)
    async with await trio.open_tcp_stream(*address) as connection:
        for _ in range(2):
            await connection.send_all(request("sim-tokens=1", stream=False))
            with trio.fail_after(5):
                assert (await connection.receive_some()).startswith(b"HTTP/1.1 200 OK")
    await until(simulator, connections=0)
    assert (simulator.statistics().finished, simulator.statistics().cancelled) == (2, 0)


async def test_a_client_that_stops_reading_blocks_only_its_own_answer(nursery: trio.Nursery) -> None:
    simulator, address = await start(nursery, send_buffer_bytes=4_096)
    connection = await trio.open_tcp_stream(*address)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await connection.send_all(request("sim-tokens=50000", stream=True))
    await until(simulator, blocked=1)
    assert simulator.statistics().tokens_sent < 50_000
    async with await trio.open_tcp_stream(*address) as other:
        await other.send_all(request("sim-tokens=1", stream=False))
        with trio.fail_after(5):
            assert (await other.receive_some()).startswith(b"HTTP/1.1 200 OK")
    await connection.aclose()
    await until(simulator, blocked=0, active=0, cancelled=1)


async def test_stopping_the_simulator_closes_its_connections(nursery: trio.Nursery) -> None:
    simulator = Simulator()
    async with trio.open_nursery() as inner:
        address = await inner.start(simulator.serve)
        connection = await trio.open_tcp_stream(*address)
        await connection.send_all(request("sim-silence", stream=True))
        await until(simulator, active=1)
        inner.cancel_scope.cancel()
    assert (simulator.statistics().active, simulator.statistics().connections) == (0, 0)
    with trio.fail_after(5):
        assert await connection.receive_some() == b""
    await connection.aclose()


async def test_a_thousand_streams_run_at_the_same_time(nursery: trio.Nursery) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * STREAMS:
        pytest.skip(f"needs {3 * STREAMS} open files, the limit is {hard}: raise ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * STREAMS), hard))
    simulator, address = await start(nursery)
    finished: list[bool] = []

    async def stalled(leave: trio.Event) -> None:
        async with await trio.open_tcp_stream(*address) as connection:
            await connection.send_all(request("sim-stall=5-tokens=9", stream=True))
            await leave.wait()

    async def complete() -> None:
        async with await trio.open_tcp_stream(*address) as connection:
            await connection.send_all(request("sim-tokens=5-tps=10", stream=True))
            tail = b""
            while not tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                tail = tail[-64:] + await connection.receive_some()
            finished.append(True)

    with trio.fail_after(90):
        async with trio.open_nursery() as clients:
            leave = trio.Event()
            for _ in range(STREAMS):
                clients.start_soon(stalled, leave)
            await until(simulator, active=STREAMS, tokens_sent=5 * STREAMS)
            leave.set()
            await until(simulator, active=0, cancelled=STREAMS)
        simulator.reset()
        async with trio.open_nursery() as clients:
            for _ in range(STREAMS):
                clients.start_soon(complete)
    assert len(finished) == STREAMS
    done = simulator.statistics()
    assert (done.started, done.finished, done.tokens_sent, done.errors) == (STREAMS, STREAMS, 5 * STREAMS, 0)
