"""Nobody wants the answer any more: the connection is gone in the same moment, and the pool is consistent."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from gateway.upstream.transport import Origin, Transport, TransportError
from tests.component.transport_peer import OK, Peer, ask, body_of, provider, transport

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
NOTICE_S = 0.1  # promise 2


class Watcher:
    """A provider that says the given pieces, a step of the event loop apart, and notes when the client is gone."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.said = trio.Event()
        self.gone = trio.Event()
        self.gone_at = math.inf
        self.was_reset = False

    async def script(self, peer: Peer) -> None:
        await peer.request()
        for piece in self.pieces:
            await peer.say(piece)
        self.said.set()
        await peer.until_gone()
        self.gone_at = trio.current_time()
        self.was_reset = peer.was_reset
        self.gone.set()


async def test_leaving_in_the_middle_of_a_stream_is_seen_by_the_provider_at_once() -> None:
    notices = []
    for _ in range(3):  # the best of three: the machine may be busy
        watcher = Watcher(STREAM_HEAD + b"2\r\nhi\r\n")
        async with transport() as made, provider(watcher.script) as origin:
            with await made.send(b"POST", origin, b"/", [], b"{}") as response:
                assert await response.receive() == b"hi"
                left_at = trio.current_time()
            counts = made.statistics()[origin]
            assert (counts.open, counts.aborted) == (0, 1)
            await watcher.gone.wait()
            assert watcher.was_reset
            notices.append(watcher.gone_at - left_at)
    assert min(notices) < NOTICE_S


async def test_cancelling_before_the_first_byte_is_seen_by_the_provider_at_once() -> None:
    watcher = Watcher()
    async with transport() as made, provider(watcher.script) as origin:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, made, origin)
                await watcher.said.wait()
                scope.cancel()
        assert made.statistics()[origin].aborted == 1
        await watcher.gone.wait()


async def test_a_call_that_is_cancelled_already_sends_nothing() -> None:
    asked = []

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            asked.append(request)
            await peer.say(OK)

    async with transport() as made, provider(script) as origin:
        await ask(made, origin)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(made, origin)
        assert scope.cancelled_caught
        await ask(made, origin)
        assert len(asked) == 2
        assert made.statistics()[origin].opened == 1


async def test_closing_twice_and_reading_after_closing_are_harmless_and_clear() -> None:
    watcher = Watcher(STREAM_HEAD + b"2\r\nhi\r\n")
    async with transport() as made, provider(watcher.script) as origin:
        response = await made.send(b"POST", origin, b"/", [], b"{}")
        response.close()
        response.close()
        with pytest.raises(trio.ClosedResourceError):
            await response.receive()
        assert made.statistics()[origin].aborted == 1


async def test_a_response_closed_by_another_task_wakes_its_reader() -> None:
    watcher = Watcher(STREAM_HEAD)
    woken = trio.Event()

    async def read(made: Transport, origin: Origin) -> None:
        with pytest.raises(TransportError, match="closed"):
            await response.receive()
        woken.set()

    async with transport() as made, provider(watcher.script) as origin, trio.open_nursery() as nursery:
        response = await made.send(b"POST", origin, b"/", [], b"{}")
        nursery.start_soon(read, made, origin)
        await trio.testing.wait_all_tasks_blocked()
        response.close()
        await woken.wait()


class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` when ``task`` is about to run for the n-th time."""

    def __init__(self, scope: trio.CancelScope, n: int) -> None:
        self.scope = scope
        self.left = n
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def slow_script(peer: Peer) -> None:
    """An answer in many pieces, after hints, to as many requests as come."""
    pieces = [b"HTTP/1.1 103 Early Hints\r\n\r\n", STREAM_HEAD, b"2\r\nhe\r\n", b"3\r\nllo", b"\r\n", b"0\r\n", b"\r\n"]
    while await peer.request():
        for piece in pieces:
            await peer.say(piece)
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("size", [2, 8_000_000], ids=["small body", "large body"])
async def test_cancelled_at_any_checkpoint_nothing_is_left_behind(warm: bool, size: int) -> None:
    body = b"x" * size
    cancelled = 0
    finished = False
    async with provider(slow_script) as origin:
        for n in range(1, 200):
            async with transport(max_connections=1) as made:
                if warm:
                    assert await ask(made, origin) == (200, b"hello")
                with trio.CancelScope() as scope:
                    instrument = CancelAt(scope, n)
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        assert await ask(made, origin, b"POST", body) == (200, b"hello")
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                if not scope.cancelled_caught:
                    finished = True
                    break
                cancelled += 1
                counts = made.statistics()[origin]
                assert (counts.in_use, counts.connecting, counts.waiting) == (0, 0, 0)
                assert counts.opened == counts.idle + counts.aborted + counts.dead + counts.closed + counts.expired
                assert await ask(made, origin) == (200, b"hello")
    assert finished
    assert cancelled >= 5


async def test_a_body_half_read_and_cancelled_is_gone_from_the_pool() -> None:
    watcher = Watcher(STREAM_HEAD + b"2\r\nhi\r\n")
    async with transport() as made, provider(watcher.script) as origin:
        with await made.send(b"POST", origin, b"/", [], b"{}") as response:
            assert await response.receive() == b"hi"
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(body_of, response)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            assert made.statistics()[origin].open == 0
            await watcher.gone.wait()
