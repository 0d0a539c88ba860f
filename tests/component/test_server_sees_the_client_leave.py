"""The client's leaving cancels the app at once, wherever it is, and is no failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.component.server_peer import PATIENCE_S, Peer, Running, app_of, read_all, request, running, say

Message = dict[str, Any]


class Watched:
    """An app that says when it is at work and when it was cancelled."""

    def __init__(self, work: Callable[[Any, Any], Any]) -> None:
        self.at_work, self.cancelled = trio.Event(), trio.Event()
        self.work = work

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.at_work.set()
        try:
            await self.work(receive, send)
        except BaseException:  # a cancelled nursery raises a group
            self.cancelled.set()
            raise

    async def cancelled_by(self, leave: Callable[[Peer], Any], data: bytes, **settings: Any) -> Running:
        async with running(app_of(self), **settings) as server:
            peer = await server.connect()
            await peer.send(data)
            with trio.fail_after(PATIENCE_S):
                await self.at_work.wait()
                await leave(peer)
                await self.cancelled.wait()
                await server.service.empty()
            await trio.aclose_forcefully(peer.stream)
        return server


async def wait(receive: Any, send: Any) -> None:
    await read_all(receive)
    await trio.sleep_forever()


async def wait_for_news(receive: Any, send: Any) -> None:
    while True:
        await receive()


async def wait_for_the_body(receive: Any, send: Any) -> None:
    await read_all(receive)


async def stream(receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"token", "more_body": True})
        await trio.sleep(0.001)


async def stream_in_a_nursery(receive: Any, send: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await stream(receive, send)


async def flood(receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})


async def close(peer: Peer) -> None:
    await trio.aclose_forcefully(peer.stream)


async def half_close(peer: Peer) -> None:
    await peer.stream.send_eof()


async def reset(peer: Peer) -> None:
    sock = peer.stream.socket
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("leave", [close, half_close, reset])
@pytest.mark.parametrize("work", [wait, wait_for_news, stream, stream_in_a_nursery, flood])
async def test_it_cancels_the_app(work: Any, leave: Any) -> None:
    server = await Watched(work).cancelled_by(leave, request("/", body=b"abc", method="POST"))
    statistics = server.statistics()
    assert (statistics.client_left, statistics.app_failed, statistics.requests_active) == (1, 0, 0)


async def test_it_is_seen_behind_pipelined_bytes() -> None:
    await Watched(wait).cancelled_by(close, request() + request("/next") * 5 + b"GET /half")


async def test_it_is_seen_in_the_middle_of_the_body() -> None:
    await Watched(wait_for_the_body).cancelled_by(close, request("/", "Content-Length: 10", method="POST") + b"abc")


async def test_a_pipelined_request_behind_it_is_never_begun() -> None:
    server = await Watched(wait).cancelled_by(close, request() + request("/next"))
    assert server.statistics().requests == 1


async def test_an_app_that_shields_itself_hears_of_it_by_receive_and_may_send_into_the_void() -> None:
    heard: list[Message] = []
    at_work, done = trio.Event(), trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE_S):
            await receive()
            at_work.set()
            heard.append(await receive())
            await say(send, b"nobody")
            done.set()

    async with running(app_of(handler)) as server:
        peer = await server.connect()
        await peer.send(request())
        await at_work.wait()
        await close(peer)
        await done.wait()
        await server.service.empty()
    assert heard == [{"type": "http.disconnect"}]


async def test_after_the_answer_it_cancels_nothing() -> None:
    closed, finished = trio.Event(), trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"ok")
        await closed.wait()
        await trio.sleep(0.01)
        finished.set()

    async with running(app_of(handler)) as server:
        peer = await server.connect()
        await peer.send(request())
        await peer.answer()
        await close(peer)
        closed.set()
        with trio.fail_after(PATIENCE_S):
            await finished.wait()
            await server.service.empty()
        assert server.statistics().client_left == 0


async def test_two_hundred_that_leave_leave_nothing() -> None:
    at_work = 0
    all_at_work = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        nonlocal at_work
        at_work += 1
        if at_work == 200:
            all_at_work.set()
        await stream(receive, send)

    async with running(app_of(handler)) as server:
        peers = [await server.connect() for _ in range(200)]
        for peer in peers:
            await peer.send(request())
        with trio.fail_after(PATIENCE_S):
            await all_at_work.wait()
        for peer in peers:
            await close(peer)
        with trio.fail_after(PATIENCE_S):
            await server.service.empty()
        statistics = server.statistics()
    assert (statistics.requests_active, statistics.client_left) == (0, 200)
