"""The relay: an upstream reader, one bounded channel, a client writer.

:func:`pump` is the reader. It takes batches (whatever one network read brought), lets ``transform`` decide what the
client gets, and puts that into the :class:`Outlet`. When the client is slow the outlet's channel fills, the reader
stops reading, and the provider's socket feels the backpressure. When the client takes nothing for ``client_stall_s``
the reader gives up, so a stalled client never holds a permit or an upstream connection.

:meth:`Outlet.write_to` is the writer. It needs no deadline of this module's because the reader has both.

The channel is for clients that are slower than their provider. While the writer has nothing to do, a server that can
is offered a batch directly (``offer``): what the client's socket takes at once needs no second task to be woken, which
is a third of what relaying a token costs. The order is kept because nothing is offered while anything is queued.

Limits: ``BUFFERED_BATCHES`` batches of at most one network read (64 KiB) each per stream. That many are for a stalled
client; a healthy one has its batch before the next is read.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import TracebackType

import trio

from gateway.flow.guard import LineGuard
from gateway.flow.pace import Pace

BUFFERED_BATCHES = 4


class Offer(enum.Enum):
    """What a server did with a batch that was offered to it."""

    ALL = "all"  # it is on its way
    PART = "part"  # the server keeps the rest; the next send writes it first
    NOTHING = "nothing"  # it cannot now


class ClientStalled(Exception):
    """The client took no byte for the time it is allowed."""


class Outlet:
    """The way to one client: its socket, or a bounded channel and the writer that drains it.

    Args:
        offer: Writes a batch without waiting, as far as that goes; None where the server has no such thing.
        client_stall_s: The longest that a batch waits for room in the channel.
        buffered: Batches that the channel holds.
    """

    def __init__(
        self,
        offer: Callable[[bytes], Offer] | None = None,
        *,
        client_stall_s: float,
        buffered: int = BUFFERED_BATCHES,
    ) -> None:
        self._client_stall_s = client_stall_s
        self._tx, self._rx = trio.open_memory_channel[bytes](buffered)
        self._offer = offer
        self._queued = 0  # batches that the writer has not sent yet

    def put_nowait(self, batch: bytes, *, last: bool = False) -> None:
        """Give a batch on its way.

        Args:
            last: Nothing follows: the writer sends it together with the end.

        Raises:
            trio.WouldBlock: The channel is full.
            trio.BrokenResourceError: The writer is gone.
        """
        if self._offer is not None and not self._queued and not last:
            taken = self._offer(batch)
            if taken is Offer.ALL:
                return
            if taken is Offer.PART:
                batch = b""  # what the writer sends next sends the rest first
        self._tx.send_nowait(batch)
        self._queued += 1

    async def put(self, batch: bytes, *, guard: LineGuard | None = None, last: bool = False) -> None:
        """The same, waiting for room if need be.

        Args:
            guard: Its ``stall`` phase is put off meanwhile: the source is not to blame.

        Raises:
            ClientStalled: There was none within ``client_stall_s``.
            trio.BrokenResourceError: The writer is gone.

        Cost: no checkpoint and no scope while there is room.
        """
        try:
            self.put_nowait(batch, last=last)
            return
        except trio.WouldBlock:
            if guard is not None:
                guard.phase("stall", self._client_stall_s + 1)
        with guard.waiting() if guard is not None else nullcontext():
            with trio.move_on_after(self._client_stall_s) as patience:
                await self._tx.send(batch)
                self._queued += 1
        if patience.cancelled_caught:
            raise ClientStalled(f"the client took nothing for {self._client_stall_s:g} s (server.client_stall_s)")

    async def write_to(self, send: Callable[[bytes, bool], Awaitable[None]]) -> None:
        """The client writer: sends what is queued, however many batches at a time, until the outlet is closed.

        Args:
            send: ``send(data, more)``; ``more`` is False once, at the end.

        Cancellation: what is queued is lost with the connection.
        """
        with self._rx:
            more = True
            while more:
                gathered: list[bytes] = []
                try:
                    gathered.append(await self._rx.receive())
                    while True:
                        gathered.append(self._rx.receive_nowait())
                except trio.WouldBlock:
                    pass
                except trio.EndOfChannel:
                    more = False
                await send(b"".join(gathered) if len(gathered) != 1 else gathered[0], more)
                self._queued -= len(gathered)

    def close(self) -> None:
        """Nothing more comes. Idempotent, sync."""
        self._tx.close()

    def __enter__(self) -> Outlet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def pump(
    receive: Callable[[], Awaitable[bytes]],
    transform: Callable[[bytes], bytes],
    finished: Callable[[], bool],
    outlet: Outlet,
    guard: LineGuard,
    *,
    stall_s: Callable[[], float],
    pace: Pace | None = None,
) -> None:
    """Read until the source ends or ``finished()`` says that all was seen.

    Args:
        receive: One network read; b"" at the end of the source.
        transform: What the client gets for a read; b"" for nothing.
        outlet: Where it goes.
        guard: The exchange's guard, entered; its phase is ``stall`` while the source is waited for.
        stall_s: Longest silence of the source from now on.
        pace: Lets bytes gather between reads when the loop lags.

    Raises:
        ClientStalled: The channel stayed full.
        trio.BrokenResourceError: The writer is gone.

    Cancellation: at most the batch in hand is lost; the caller closes the source.
    Cost: per batch one deadline moved and one channel hop, about 10 µs; nothing per token.
    """
    while True:
        guard.phase("stall", stall_s())
        data = await receive()
        if not data:
            return
        batch = transform(data)
        if batch:
            await outlet.put(batch, guard=guard, last=finished())
        if finished():
            return
        if pace is not None and pace.lagging:
            await pace.gather()
