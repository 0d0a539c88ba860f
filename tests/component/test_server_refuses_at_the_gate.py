"""The gate's no costs no task and no body, and the client reads it whatever it is still sending."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio

from gateway.edge.gate import Reply
from tests.component.server_peer import Peer, app_of, echo, lifespan, read_all, request, running, say

Message = dict[str, Any]
BUSY = Reply(429, [(b"retry-after", b"2"), (b"content-type", b"application/json")], b'{"error":{}}')


class Doorman:
    """Lets in what does not ask for ``/no``."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []

    def knock(self, scope: Message) -> Reply | None:
        self.scopes.append(scope)
        if scope["path"] == "/break":
            raise ValueError("broken gate")
        if scope["path"] == "/inject":
            return Reply(429, [(b"x", b"a\r\nb: c")], b"")
        scope["state"]["permit"] = len(self.scopes)
        return BUSY if scope["path"] == "/no" else None


async def never(scope: Message, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan", "the app heard of a refused request"
    await lifespan(receive, send)


async def test_a_refusal_is_the_gates_and_the_app_never_hears_of_it() -> None:
    async with running(never, gate=Doorman()) as server, await server.connect() as peer:
        for _ in range(3):
            await peer.send(request("/no"))
            answer = await peer.answer()
            assert answer.status == 429
            assert answer.headers["retry-after"] == "2"
            assert answer.body == BUSY.body
            assert "date" in answer.headers
            assert "connection" not in answer.headers
        await peer.send(request("/no", method="HEAD"))
        assert (await peer.answer(bodiless=True)).headers["content-length"] == str(len(BUSY.body))
        statistics = server.statistics()
    assert (statistics.refused_by_gate, statistics.requests, statistics.connections_open) == (4, 0, 1)


async def test_what_the_gate_gives_arrives_even_if_the_client_has_left() -> None:
    permits: list[int] = []
    arrived = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        permits.append(scope["state"]["permit"])
        arrived.set()
        await trio.sleep_forever()

    async with running(app_of(handler), gate=Doorman()) as server:
        peer = await server.connect()
        await peer.send(request("/yes"))
        await trio.aclose_forcefully(peer.stream)
        await arrived.wait()
        await server.service.empty()
        assert permits == [1]
        assert server.statistics().client_left == 1


@pytest.mark.parametrize("passes", range(4))
@pytest.mark.parametrize("asked_before", [False, True])
async def test_what_the_gate_gives_arrives_even_if_the_server_ends(asked_before: bool, passes: int) -> None:
    doorman, arrived = Doorman(), 0

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        nonlocal arrived
        arrived += 1
        await say(send, b"")

    for _ in range(5):
        async with running(app_of(handler), gate=doorman) as server, trio.open_nursery() as nursery:
            peers = [await server.connect() for _ in range(10)]
            for peer in peers if asked_before else ():
                await peer.send(request())
                await peer.answer()
            for peer in peers:
                nursery.start_soon(peer.send, request())
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        for peer in peers:
            await trio.aclose_forcefully(peer.stream)
        assert arrived == len(doorman.scopes)


async def test_a_refusal_does_not_wait_for_the_body() -> None:
    async with running(never, gate=Doorman()) as server, await server.connect() as peer:
        await peer.send(request("/no", "Content-Length: 10000000", method="POST"))
        answer = await peer.answer()
        assert answer.status == 429
        assert answer.headers["connection"] == "close"
        assert await peer.to_the_end() == b""


async def test_a_small_rest_of_a_body_keeps_the_connection() -> None:
    async with running(echo, gate=Doorman()) as server, await server.connect() as peer:
        data = request("/no", body=b"x" * 1_000, method="POST")
        await peer.send(data[:-10])
        assert "connection" not in (await peer.answer()).headers
        await peer.send(data[-10:] + request("/yes", body=b"hi", method="POST"))
        assert (await peer.answer()).body == b"hi"


@pytest.mark.parametrize("header", ["Expect: 100-continue", "Transfer-Encoding: chunked"])
async def test_a_body_that_may_never_come_ends_the_connection(header: str) -> None:
    length = () if "chunked" in header else ("Content-Length: 5",)
    async with running(never, gate=Doorman()) as server:
        answer = await server.ask(request("/no", header, *length, method="POST"))
        assert answer.status == 429
        assert answer.headers["connection"] == "close"


async def test_a_client_still_sending_reads_the_refusal_and_no_reset() -> None:
    async with running(never, gate=Doorman()) as server, await server.connect() as peer:
        await peer.send(request("/no", "Content-Length: 9000000", method="POST") + b"x" * 9_000_000)
        assert (await peer.answer()).status == 429
        assert await peer.to_the_end() == b""


async def test_pipelined_refusals_are_answered_in_order() -> None:
    async with running(gate=Doorman()) as server, await server.connect() as peer:
        paths = ["/a", "/no", "/no", "/b", "/no", "/c"]
        await peer.send(b"".join(request(path) for path in paths))
        assert [(await peer.answer()).status for _ in paths] == [200, 429, 429, 200, 429, 200]


async def test_a_gate_that_fails_is_a_500_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with running(gate=Doorman()) as server, await server.connect() as peer:
        for path in ("/break", "/inject", "/fine"):
            await peer.send(request(path))
        assert [(await peer.answer()).status for _ in range(3)] == [500, 500, 200]
    assert "broken gate" in caplog.text


async def test_http2_knocks_too() -> None:
    async with running(gate=Doorman()) as server, httpx.AsyncClient(http1=False, http2=True) as client:
        assert (await client.post(server.url + "/no", content=b"x")).status_code == 429
        assert (await client.post(server.url + "/yes", content=b"x")).status_code == 200
        statistics = server.statistics()
    assert (statistics.refused_by_gate, statistics.requests) == (1, 1)


async def test_an_admitted_body_is_read_by_the_app() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, await read_all(receive))

    async with running(app_of(handler), gate=Doorman()) as server:
        assert (await server.ask(request("/", body=b"abc", method="POST"))).body == b"abc"


async def test_a_thousand_refusals_leave_nothing() -> None:
    async with running(never, gate=Doorman()) as server:

        async def client() -> None:
            peer: Peer
            async with await server.connect() as peer:
                for _ in range(20):
                    await peer.send(request("/no"))
                    assert (await peer.answer()).status == 429

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client)
        await server.service.empty()
        assert server.statistics().refused_by_gate == 1_000


class Busy:
    """Refuses everybody; on ``/block`` it lets another client speak, and holds up the loop for ``hold_s``."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.meanwhile: Callable[[], object] = lambda: None

    def knock(self, scope: Message) -> Reply | None:
        if scope["path"] == "/block":
            self.meanwhile()
            time.sleep(self.hold_s)
        return BUSY


async def test_a_request_that_arrives_with_an_old_deadline_of_its_connection_is_answered() -> None:
    gate = Busy(hold_s=0.4)
    async with (
        running(never, gate=gate, header_timeout_s=0.2, keep_alive_s=30.0) as server,
        await server.connect() as one,
        await server.connect() as other,
    ):
        await other.send(request("/no"))
        assert (await other.answer()).status == 429
        sock = other.stream.socket  # type: ignore[attr-defined]
        gate.meanwhile = lambda: os.write(sock.fileno(), request("/no"))
        await one.send(request("/block"))
        assert (await one.answer()).status == 429
        assert (await other.answer()).status == 429
        await other.send(request("/no"))
        assert (await other.answer()).status == 429


async def test_a_head_that_was_begun_behind_a_refused_request_has_the_deadline_of_a_head() -> None:
    async with (
        running(gate=Doorman(), header_timeout_s=0.05, keep_alive_s=30.0) as server,
        await server.connect() as peer,
    ):
        await peer.send(request("/no") + b"GET / HTTP/1.1\r\n")
        assert (await peer.answer()).status == 429
        assert (await peer.answer()).error["code"] == "header_timeout"
        assert await peer.to_the_end() == b""
