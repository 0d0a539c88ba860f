"""The relay: an upstream reader, one bounded channel, a client writer.

:func:`pump` is the reader. It takes batches (whatever one network read brought), lets ``transform`` decide what the
client gets, and puts that into the channel. When the client is slow the channel fills, the reader stops reading, and
the provider's socket feels the backpressure. When the client takes nothing for ``client_stall_s`` the reader gives up,
so a stalled client never holds a permit or an upstream connection.

The writer is whoever drains the channel; it needs no deadline of this module's because the reader has both.

Limits: ``BUFFERED_BATCHES`` batches of at most one network read (64 KiB) each per stream. That many are for a stalled
client; a healthy one has its batch before the next is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from gateway.flow.guard import Guard
from gateway.flow.pace import Pace

BUFFERED_BATCHES = 4


class ClientStalled(Exception):
    """The client took no byte for the time it is allowed."""


async def pump(
    receive: Callable[[], Awaitable[bytes]],
    transform: Callable[[bytes], bytes],
    finished: Callable[[], bool],
    tx: trio.MemorySendChannel[bytes],
    guard: Guard,
    *,
    stall_s: float,
    client_stall_s: float,
    pace: Pace | None = None,
) -> None:
    """Read until the source ends or ``finished()`` says that all was seen.

    Args:
        receive: One network read; b"" at the end of the source.
        transform: What the client gets for a read; b"" for nothing.
        tx: Where it goes.
        guard: The exchange's guard, entered; its phase is ``stall`` while the source is waited for.
        stall_s: Longest silence of the source.
        client_stall_s: Longest time that one batch waits for room in the channel.
        pace: Lets bytes gather between reads when the loop lags.

    Raises:
        ClientStalled: The channel stayed full.
        trio.BrokenResourceError: The writer is gone.

    Cancellation: at most the batch in hand is lost; the caller closes the source.
    Cost: per batch one deadline moved and one channel hop, about 10 µs; nothing per token.
    """
    while True:
        guard.phase("stall", stall_s)
        data = await receive()
        if not data:
            return
        batch = transform(data)
        if batch:
            await send_or_give_up(tx, batch, guard, client_stall_s)
        if finished():
            return
        if pace is not None and pace.lagging:
            await pace.gather()


async def send_or_give_up(tx: trio.MemorySendChannel[bytes], batch: bytes, guard: Guard, client_stall_s: float) -> None:
    """Put a batch into the channel; wait for room at most ``client_stall_s``.

    Raises:
        ClientStalled: There was no room in that time.

    Cost: no checkpoint and no scope while there is room.
    """
    try:
        tx.send_nowait(batch)
        return
    except trio.WouldBlock:
        guard.phase("stall", client_stall_s + 1)  # the source is not to blame; the inner limit fires first
    with trio.move_on_after(client_stall_s) as patience:
        await tx.send(batch)
    if patience.cancelled_caught:
        raise ClientStalled(f"the client took nothing for {client_stall_s:g} s (server.client_stall_s)")
