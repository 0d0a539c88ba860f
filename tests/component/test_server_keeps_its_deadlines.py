"""Slow headers, slow bodies and idle connections end when they should, and not because of each other."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from tests.component.server_peer import app_of, read_all, request, running, say

Message = dict[str, Any]
LONG = {"keep_alive_s": 30.0, "header_timeout_s": 30.0, "body_timeout_s": 30.0}


async def test_slow_headers_are_a_408() -> None:
    async with running(**LONG | {"header_timeout_s": 0.05}) as server, await server.connect() as peer:
        await peer.send(request())
        assert (await peer.answer()).status == 200
        await peer.send(b"GET / HTTP/1.1\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.error["code"]) == (408, "header_timeout")
        assert "server.header_timeout_s" in answer.error["message"]
        assert await peer.to_the_end() == b""


async def test_a_trickle_of_header_bytes_does_not_renew_the_deadline() -> None:
    async with (
        running(**LONG | {"header_timeout_s": 0.1}) as server,
        await server.connect() as peer,
        trio.open_nursery() as nursery,
    ):

        async def trickle() -> None:
            while True:
                await peer.send(b"A")
                await trio.sleep(0.01)

        await peer.send(b"GET / HTTP/1.1\r\n")
        nursery.start_soon(trickle)
        assert (await peer.answer()).status == 408
        nursery.cancel_scope.cancel()


async def test_a_slow_body_is_a_408_and_the_app_is_cancelled() -> None:
    unwound = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        try:
            await read_all(receive)
        except trio.Cancelled:
            unwound.set()
            raise

    async with running(app_of(handler), **LONG | {"body_timeout_s": 0.05}) as server, await server.connect() as peer:
        await peer.send(request("/", "Content-Length: 5", method="POST") + b"abc")
        answer = await peer.answer()
        assert (answer.status, answer.error["code"]) == (408, "body_timeout")
        assert await peer.to_the_end() == b""
        assert unwound.is_set()


async def test_a_slow_body_after_the_response_began_breaks_it_off() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await read_all(receive)

    async with running(app_of(handler), **LONG | {"body_timeout_s": 0.05}) as server, await server.connect() as peer:
        await peer.send(request("/", "Content-Length: 5", method="POST"))
        assert b"part" in await peer.until(b"part\r\n")
        assert await peer.closed()


async def test_the_body_deadline_does_not_run_while_the_app_does_not_read() -> None:
    size = 12_000_000
    read = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await read.wait()
        await say(send, b"%d" % len(await read_all(receive)))

    async with (
        running(app_of(handler), **LONG | {"body_timeout_s": 1.0}) as server,
        await server.connect() as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.send, request("/", f"Content-Length: {size}", method="POST") + b"x" * size)
        await trio.sleep(1.2)  # longer than the deadline
        read.set()
        assert (await peer.answer()).body == b"%d" % size


async def test_an_idle_connection_is_closed_quietly() -> None:
    async with running(**LONG | {"keep_alive_s": 0.05}) as server:
        async with await server.connect() as fresh:
            assert await fresh.to_the_end() == b""
        async with await server.connect() as used:
            await used.send(request())
            assert (await used.answer()).status == 200
            assert await used.to_the_end() == b""


async def test_a_long_request_outlives_every_deadline_but_its_own() -> None:
    short = {"keep_alive_s": 0.4, "header_timeout_s": 0.4, "body_timeout_s": 0.4}

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        body = await read_all(receive)
        await trio.sleep(0.6)
        await say(send, body)

    async with running(app_of(handler), **short) as server, await server.connect() as peer:
        for body in (b"one", b"two"):
            await peer.send(request("/", body=body, method="POST"))
            assert (await peer.answer()).body == body
        assert await peer.to_the_end() == b""


async def test_a_reader_that_paused_keeps_the_idle_deadline() -> None:
    go_on = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await go_on.wait()
        await say(send, b"ok")

    async with running(app_of(handler), **LONG | {"keep_alive_s": 0.3}) as server, await server.connect() as peer:
        many = 100
        await peer.send(request("/" + "a" * 2_000) * many)
        await trio.testing.wait_all_tasks_blocked(0.02)
        go_on.set()
        for _ in range(many):
            assert (await peer.answer()).status == 200
        assert await peer.to_the_end() == b""


async def test_a_body_that_times_out_after_the_answer_cancels_nothing() -> None:
    finished = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"early")
        await trio.sleep(0.15)
        finished.set()

    async with running(app_of(handler), **LONG | {"body_timeout_s": 0.05}) as server, await server.connect() as peer:
        await peer.send(request("/", "Content-Length: 5", method="POST"))
        assert (await peer.answer()).body == b"early"
        assert await peer.to_the_end() == b""
        assert finished.is_set()
        assert server.statistics().refused_by_server == 0
