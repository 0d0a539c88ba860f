"""Responses on their way into the store: taken at once, written in the background, bounded in number and bytes.

The end of an answer must not wait for a disk. :meth:`ResponseQueue.keep` therefore only takes a response and announces
it (see ``store/responses``); one task writes them in order. What does not fit is lost and counted, and so is what the
store does not take: a client that goes on from it is told that it is not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from gateway.store.responses import Responses

MAX_WAITING: Final = 1_000
MAX_WAITING_BYTES: Final = 67_108_864
WRITE_S: Final = 10.0


@frozen(kw_only=True, slots=True)
class QueueStatistics:
    """What a queue is doing.

    Attributes:
        waiting: Responses that are not written yet.
        waiting_bytes: Their size.
        lost: Those that were not written, ever.
    """

    waiting: int
    waiting_bytes: int
    lost: int


@frozen(kw_only=True, slots=True)
class _Waiting:
    tenant: str
    id: str
    previous: str | None
    data: bytes


class ResponseQueue:
    """See the module.

    Args:
        responses: Where they are written; asked for when one is, because a store is opened later than a queue is made.
        on_loss: Told why one was lost.
        max_waiting, max_waiting_bytes: What may wait; a single one of any size always may.
    """

    def __init__(
        self,
        responses: Callable[[], Responses],
        on_loss: Callable[[str], None],
        *,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._responses = responses
        self._on_loss = on_loss
        self._max_waiting_bytes = max_waiting_bytes
        self._in, self._out = trio.open_memory_channel[_Waiting](max_waiting)
        self._written = trio.Event()  # all of them, at the end
        self._waiting = self._waiting_bytes = self._lost = 0

    def keep(self, tenant: str, id: str, previous: str | None, data: bytes) -> None:
        """Take a response. Sync; full means lost and counted, never waited for."""
        if self._waiting and self._waiting_bytes + len(data) > self._max_waiting_bytes:
            self._lose("too many bytes wait to be written")
            return
        try:
            self._in.send_nowait(_Waiting(tenant=tenant, id=id, previous=previous, data=data))
        except (trio.WouldBlock, trio.ClosedResourceError):
            self._lose("too many responses wait to be written, or the gateway is ending")
            return
        self._waiting += 1
        self._waiting_bytes += len(data)
        self._responses().expect(tenant, id)

    async def run(self) -> None:
        """Write what is taken, until :meth:`finish`.

        *Cancellation*: the one that is being written is kept or not, those behind it are not.
        """
        async for one in self._out:
            responses = self._responses()
            try:
                with trio.fail_after(WRITE_S):
                    if not await responses.put(one.tenant, one.id, one.previous, one.data):
                        self._lose("it is larger than what is kept")
            except Exception as error:
                self._lose(repr(error))
            finally:
                responses.settle(one.tenant, one.id)
                self._waiting -= 1
                self._waiting_bytes -= len(one.data)
        self._written.set()

    async def finish(self, timeout_s: float) -> None:
        """Take no more, and let what waits be written; what the store does not take in time is lost."""
        self._in.close()
        with trio.move_on_after(timeout_s):
            await self._written.wait()

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(waiting=self._waiting, waiting_bytes=self._waiting_bytes, lost=self._lost)

    def _lose(self, why: str) -> None:
        self._lost += 1
        self._on_loss(why)
