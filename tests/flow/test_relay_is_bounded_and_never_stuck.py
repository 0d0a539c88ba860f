"""The relay's reader: it holds little, a slow client slows the source, a stalled one costs a known time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from gateway.core.errors import DeadlineExceeded
from gateway.flow.guard import Guard
from gateway.flow.relay import BUFFERED_BATCHES, ClientStalled, pump, send_or_give_up


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


async def relay(
    source: Source,
    tx: trio.MemorySendChannel[bytes],
    *,
    transform: Callable[[bytes], bytes] = bytes,
    finished: Callable[[], bool] = lambda: False,
    stall_s: float = 5.0,
    client_stall_s: float = 3.0,
    total_s: float = 1_000.0,
) -> None:
    with tx, Guard(trio.current_time() + total_s) as guard:
        await pump(source.receive, transform, finished, tx, guard, stall_s=stall_s, client_stall_s=client_stall_s)


async def test_everything_passes_in_order_and_the_channel_ends(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Source(100), tx)
        heard = b"".join([batch async for batch in rx])
    assert heard.split() == [b"%d" % n for n in range(1, 101)]


async def test_a_client_that_does_not_read_stops_the_source(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    source = Source(float("inf"))
    with rx:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, source, tx)
            await trio.testing.wait_all_tasks_blocked()
            assert source.given == BUFFERED_BATCHES + 1, "what the channel holds, and the one in hand"
            await rx.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert source.given == BUFFERED_BATCHES + 2
            nursery.cancel_scope.cancel()


async def test_a_client_that_takes_nothing_is_given_up_after_client_stall_s(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    began = trio.current_time()
    with rx, pytest.raises(ClientStalled, match=r"3 s \(server\.client_stall_s\)"):
        await relay(Source(float("inf")), tx, client_stall_s=3.0, stall_s=1.0)
    assert trio.current_time() - began == 3


async def test_a_slow_client_is_not_given_up_and_the_source_is_not_blamed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tx, rx = trio.open_memory_channel[bytes](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Source(10), tx)
        heard = 0
        async for _ in rx:
            heard += 1
            await trio.sleep(2.9)
    assert heard == 10


async def test_a_silent_source_is_a_stall_and_each_read_renews_it(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](16)
    began = trio.current_time()

    async def silent() -> bytes:
        await trio.sleep(4 if trio.current_time() - began < 20 else float("inf"))
        return b"x"

    source = Source(0)
    source.receive = silent  # type: ignore[method-assign]
    with rx, pytest.raises(DeadlineExceeded) as caught:
        await relay(source, tx, stall_s=5.0)
    assert caught.value.stage == "stall"
    assert trio.current_time() - began == 25


async def test_the_total_time_ends_it_while_the_client_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](0)
    with rx, pytest.raises(DeadlineExceeded) as caught:
        await relay(Source(float("inf")), tx, client_stall_s=100.0, total_s=7.0)
    assert (caught.value.stage, trio.current_time()) == ("total", 7)


async def test_it_ends_when_all_was_seen_and_reads_no_further(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    source = Source(float("inf"))
    await relay(source, tx, finished=lambda: source.given == 3)
    assert [batch async for batch in rx] == [b"1 ", b"2 ", b"3 "]


async def test_what_is_nothing_for_the_client_is_not_sent(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    await relay(Source(4), tx, transform=lambda data: data if data == b"2 " else b"")
    assert [batch async for batch in rx] == [b"2 "]


async def test_a_writer_that_is_gone_is_said_at_once(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](BUFFERED_BATCHES)
    rx.close()
    with pytest.raises(trio.BrokenResourceError):
        await relay(Source(1), tx)


async def test_room_costs_no_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    tx, rx = trio.open_memory_channel[bytes](1)
    with tx, rx, Guard() as guard:
        with trio.testing.assert_no_checkpoints():
            await send_or_give_up(tx, b"x", guard, 1.0)
        assert rx.receive_nowait() == b"x"
