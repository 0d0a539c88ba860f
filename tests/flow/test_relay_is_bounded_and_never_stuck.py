"""The relay's reader: it holds little, a slow client slows the source, a stalled one costs a known time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing

from gateway.core.errors import DeadlineExceeded
from gateway.flow.guard import LineGuard
from gateway.flow.relay import BUFFERED_BATCHES, ClientStalled, Offer, Outlet, pump


class Source:
    """A provider that always has the next read ready, up to ``reads`` of them."""

    def __init__(self, reads: float, pause_s: float = 0.0) -> None:
        self.given = 0
        self._reads = reads
        self._pause_s = pause_s

    async def receive(self) -> bytes:
        await trio.sleep(self._pause_s)
        if self.given >= self._reads:
            return b""
        self.given += 1
        return b"%d " % self.given


class Client:
    """The far end of an outlet: takes what it is sent, after ``pause_s``; or never, once ``stalled``."""

    def __init__(self, pause_s: float = 0.0, *, stalled: bool = False) -> None:
        self.heard: list[bytes] = []
        self.ends: list[bool] = []
        self._pause_s = pause_s
        self._stalled = stalled

    async def send(self, data: bytes, more: bool) -> None:
        if self._stalled:
            await trio.sleep_forever()
        await trio.sleep(self._pause_s)
        self.heard.append(data)
        self.ends.append(not more)


async def relay(
    source: Source,
    outlet: Outlet,
    *,
    transform: Callable[[bytes], bytes] = bytes,
    finished: Callable[[], bool] = lambda: False,
    stall_s: float = 5.0,
    total_s: float = 1_000.0,
) -> None:
    with outlet, LineGuard(trio.current_time() + total_s) as guard:
        await pump(source.receive, transform, finished, outlet, guard, stall_s=lambda: stall_s)


async def test_everything_passes_in_order_and_the_end_comes_once(autojump_clock: trio.testing.MockClock) -> None:
    outlet, client = Outlet(client_stall_s=3.0), Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Source(100), outlet)
        await outlet.write_to(client.send)
    assert b"".join(client.heard).split() == [b"%d" % n for n in range(1, 101)]
    assert client.ends.count(True) == 1
    assert client.ends[-1]


async def test_a_client_that_does_not_read_stops_the_source(autojump_clock: trio.testing.MockClock) -> None:
    outlet, source = Outlet(client_stall_s=3.0), Source(float("inf"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, source, outlet)
        nursery.start_soon(outlet.write_to, Client(stalled=True).send)
        await trio.testing.wait_all_tasks_blocked()
        # What the writer had taken when it got stuck, what the channel holds, and the one in the reader's hand.
        assert BUFFERED_BATCHES < source.given <= 2 * BUFFERED_BATCHES + 2
        given = source.given
        await trio.sleep(2)
        assert source.given == given
        nursery.cancel_scope.cancel()


async def test_a_client_that_takes_nothing_is_given_up_after_client_stall_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    with pytest.raises(ClientStalled, match=r"3 s \(server\.client_stall_s\)"):
        await relay(Source(float("inf")), Outlet(client_stall_s=3.0), stall_s=1.0)
    assert trio.current_time() - began == 3


async def test_a_slow_client_is_not_given_up_and_the_source_is_not_blamed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outlet, client = Outlet(buffered=1, client_stall_s=3.0), Client(pause_s=2.9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Source(10), outlet)
        await outlet.write_to(client.send)
    assert b"".join(client.heard).split() == [b"%d" % n for n in range(1, 11)]


async def test_a_silent_source_is_a_stall_and_each_read_renews_it(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()

    async def silent() -> bytes:
        await trio.sleep(4 if trio.current_time() - began < 20 else float("inf"))
        return b"x"

    source = Source(0)
    source.receive = silent  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded) as caught:
        await relay(source, Outlet(buffered=16, client_stall_s=3.0), stall_s=5.0)
    assert caught.value.stage == "stall"
    assert trio.current_time() - began == 25


async def test_the_total_time_ends_it_while_the_client_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await relay(Source(float("inf")), Outlet(client_stall_s=100.0), total_s=7.0)
    assert (caught.value.stage, trio.current_time()) == ("total", 7)


async def test_it_ends_when_all_was_seen_and_reads_no_further(autojump_clock: trio.testing.MockClock) -> None:
    outlet, source, client = Outlet(client_stall_s=3.0), Source(float("inf")), Client()
    await relay(source, outlet, finished=lambda: source.given == 3)
    await outlet.write_to(client.send)
    assert (client.heard, client.ends) == ([b"1 2 3 "], [True]), "what has gathered goes with the end, in one write"


async def test_what_is_nothing_for_the_client_is_not_sent(autojump_clock: trio.testing.MockClock) -> None:
    outlet, client = Outlet(client_stall_s=3.0), Client()
    await relay(Source(4), outlet, transform=lambda data: data if data == b"2 " else b"")
    await outlet.write_to(client.send)
    assert client.heard == [b"2 "]


async def test_a_writer_that_is_gone_is_said_at_once(autojump_clock: trio.testing.MockClock) -> None:
    outlet = Outlet(client_stall_s=3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.write_to, Client().send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await relay(Source(1), outlet)


async def test_room_costs_no_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    with trio.testing.assert_no_checkpoints():
        await Outlet(client_stall_s=3.0).put(b"x")


class Socket:
    """A server's short way to a socket that takes ``room`` batches, half of the next, and nothing more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.wire: list[bytes] = []
        self.kept = b""

    def offer(self, batch: bytes) -> Offer:
        assert not self.kept, "offered although a part of the last one is unsent"
        self.room -= 1
        if self.room >= 0:
            self.wire.append(batch)
            return Offer.ALL
        if self.room == -1:
            half = len(batch) // 2
            self.wire.append(batch[:half])
            self.kept = batch[half:]
            return Offer.PART
        return Offer.NOTHING

    async def send(self, data: bytes, more: bool) -> None:
        await trio.sleep(1)
        self.wire.append(self.kept + data)
        self.kept = b""


async def test_the_short_way_and_the_channel_keep_the_order(autojump_clock: trio.testing.MockClock) -> None:
    socket = Socket(room=5)
    outlet = Outlet(socket.offer, client_stall_s=3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Source(30, pause_s=0.3), outlet)
        await outlet.write_to(socket.send)
    assert b"".join(socket.wire).split() == [b"%d" % n for n in range(1, 31)]
    assert socket.wire[:5] == [b"%d " % n for n in range(1, 6)]


async def test_the_last_batch_goes_with_the_end_in_one_write(autojump_clock: trio.testing.MockClock) -> None:
    socket, client, source = Socket(room=100), Client(), Source(9)
    outlet = Outlet(socket.offer, client_stall_s=3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(relay, source, outlet, finished=lambda: source.given == 9))
        await outlet.write_to(client.send)
    assert len(socket.wire) == 8
    assert (client.heard, client.ends) == ([b"9 "], [True])
