"""What a request knew is freed once it is over: no connection that waits for the next one keeps it, and no cycle."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from gateway.exchange import Exchange
from gateway.sim import Behaviour
from tests.component.server_peer import Peer, app_of, read_all, request, running, say
from tests.component.stage import chat, hear, request_bytes, staged

Message = dict[str, Any]

BODY_BYTES = 30_000


class Knowledge:
    """What a request knew: an exchange with its prompt."""


@contextmanager
def no_collector() -> Iterator[None]:
    """What is freed is freed at once, or it counts as held."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def ask(peer: Peer, path: str = "/", size: int = 0) -> None:
    await peer.send(request(path, body=bytes(size), method="POST"))
    assert (await peer.answer()).status == 200


class Remembered:
    """An app that tells afterwards which of its requests are still held."""

    def __init__(self, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        self._work = work
        self._known: list[weakref.ref[Knowledge]] = []
        self.begun = trio.Event()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        knowledge = scope["state"]["knowledge"] = Knowledge()
        self._known.append(weakref.ref(knowledge))
        self.begun.set()
        await self._work(receive, send)

    def held(self) -> list[bool]:
        return [ref() is not None for ref in self._known]


async def answer(receive: Any, send: Any) -> None:
    await read_all(receive)
    await say(send, b"done")


async def wait(receive: Any, send: Any) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("body_bytes", [0, BODY_BYTES])
async def test_behind_its_answer(body_bytes: int) -> None:
    app = Remembered(answer)
    with no_collector():
        async with running(app_of(app)) as server, await server.connect() as peer:
            for _ in range(3):
                await ask(peer, size=body_bytes)
            await trio.testing.wait_all_tasks_blocked()
            assert app.held() == [False] * 3
            assert server.statistics().connections_open == 1


async def test_behind_the_last_answer_of_a_connection() -> None:
    app = Remembered(answer)
    with no_collector():
        async with running(app_of(app)) as server:
            await server.ask(request("/", "Connection: close"))
            await server.service.empty()
            await trio.testing.wait_all_tasks_blocked()
            assert app.held() == [False]


async def test_behind_a_client_that_left() -> None:
    app = Remembered(wait)
    with no_collector():
        async with running(app_of(app)) as server:
            async with await server.connect() as peer:
                await peer.send(request())
                await app.begun.wait()
            await server.service.empty()
            await trio.testing.wait_all_tasks_blocked()
            assert app.held() == [False]


async def test_its_bytes_behind_its_answer() -> None:
    n = 50
    async with running() as server:
        peers = [await server.connect() for _ in range(n)]
        for peer in peers:
            await ask(peer)
        await trio.testing.wait_all_tasks_blocked()
        with no_collector():
            tracemalloc.start()
            try:
                for peer in peers:
                    await ask(peer, size=BODY_BYTES)
                await trio.testing.wait_all_tasks_blocked()
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        for peer in peers:
            await trio.aclose_forcefully(peer.stream)
    assert held < n * BODY_BYTES / 4


def exchanges() -> set[int]:
    """Those that somebody in this process holds; a test before may have left some to an error's traceback."""
    return {id(known) for known in gc.get_objects() if isinstance(known, Exchange)}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_gateways_exchange_behind_its_answer(stream: bool) -> None:
    with no_collector():
        before = exchanges()
        async with staged() as stage, await stage.connect() as client:
            for _ in range(3):
                await client.send_all(request_bytes(chat(stream=stream)))
                assert (await hear(client)).status == 200
            await trio.testing.wait_all_tasks_blocked()
            assert exchanges() <= before


async def test_the_gateways_exchange_behind_a_client_that_left() -> None:
    with no_collector():
        before = exchanges()
        async with staged(behaviour=Behaviour(ttft_s=60.0)) as stage:
            async with await stage.connect() as client:
                await client.send_all(request_bytes(chat()))
                await stage.sim.until(lambda now: now.active == 1)
            await stage.settle()
            await trio.testing.wait_all_tasks_blocked()
            assert exchanges() <= before
