"""What the gateway remembers of answers: turns of conversations, and responses that are gone on from by their id.

Both are taken at once at the end of an answer, which must not wait for a disk, and written by a task of their own; what
does not fit, or the store does not take, is lost, counted and said. Reading has a deadline and may fail: a store that
is away is a 503 for who goes on from a response, and an empty history for a conversation (``context/load.py``).

Metrics: ``sluice_turns_lost``, ``sluice_responses_lost``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from gateway.core.errors import GatewayError
from gateway.store.conversations import Turn
from gateway.store.database import StoreError
from gateway.store.response_queue import ResponseQueue
from gateway.store.responses import Responses
from gateway.store.sqlite import Store

T = TypeVar("T")

MAX_TURNS_WAITING = 1_000
WRITE_S = 10.0
RECALL_S = 5.0  # how long the store may take to find the responses that a request goes on from


class Memory:
    """See the module.

    Args:
        on_loss: Told ``(event, why, lost so far)``.
    """

    def __init__(self, on_loss: Callable[[str, str, int], None]) -> None:
        self._on_loss = on_loss
        self._store: Store | None = None
        self._turns_in, self._turns_out = trio.open_memory_channel[tuple[str, str, list[Turn]]](MAX_TURNS_WAITING)
        self._turns_kept = trio.Event()  # all of them, at the end
        self._turns_lost = 0
        self._responses = ResponseQueue(self._kept_responses, self._response_lost)

    def open(self, store: Store) -> None:
        """Use this store from now on."""
        self._store = store

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """What has to run for anything to be written."""
        return [self.keep_turns, self._responses.run]

    # ── conversations ────────────────────────────────────────────────────────────────────────────────────────────

    def remember(self, tenant: str, conversation: str, asked: str, answered: str) -> None:
        """Queue a finished turn for the store. Sync; full means lost and counted, never waited for."""
        turns = [Turn(role="user", text=asked), Turn(role="assistant", text=answered)]
        try:
            self._turns_in.send_nowait((tenant, conversation, turns))
        except (trio.WouldBlock, trio.ClosedResourceError):
            self._turns_lost += 1
        else:
            assert self._store is not None
            self._store.conversations.expect(tenant, conversation)

    async def keep_turns(self) -> None:
        """Write finished turns; a store that is away costs these turns, and says so."""
        async for tenant, conversation, turns in self._turns_out:
            assert self._store is not None
            try:
                with trio.fail_after(WRITE_S):
                    await self._store.conversations.append(tenant, conversation, turns)
            except Exception as error:
                self._turns_lost += 1
                self._on_loss("turn_not_kept", repr(error), self._turns_lost)
            finally:
                self._store.conversations.settle(tenant, conversation)
        self._turns_kept.set()

    # ── responses ────────────────────────────────────────────────────────────────────────────────────────────────

    def keep_response(self, tenant: str, id: str, previous: str | None, data: bytes) -> None:
        """Queue a whole response for who goes on from it. Sync, as :meth:`remember`."""
        self._responses.keep(tenant, id, previous, data)

    async def recall(self, tenant: str, ids: Sequence[str]) -> dict[str, list[bytes]]:
        """Kept responses with all before them; see :meth:`Responses.chains`.

        Raises:
            GatewayError: 503, the store is away.
        """
        return await self._from_store(self._kept_responses().chains(tenant, ids))

    async def find_response(self, tenant: str, id: str) -> bytes | None:
        """A kept response; raises as :meth:`recall`."""
        return await self._from_store(self._kept_responses().get(tenant, id))

    async def delete_response(self, tenant: str, id: str) -> bool:
        """Forget a kept response, if there is one; raises as :meth:`recall`."""
        return await self._from_store(self._kept_responses().delete(tenant, id))

    async def _from_store(self, query: Awaitable[T]) -> T:
        try:
            with trio.fail_after(RECALL_S):
                return await query
        except (StoreError, trio.TooSlowError) as error:
            what = "the store of earlier responses is away; try again, or send the whole conversation as input"
            raise GatewayError("store_unavailable", 503, what, retry_after_s=RECALL_S) from error

    def _kept_responses(self) -> Responses:
        assert self._store is not None
        return self._store.responses

    def _response_lost(self, why: str) -> None:
        self._on_loss("response_not_kept", why, self._responses.statistics().lost)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def finish(self, timeout_s: float) -> None:
        """Let what waits be written; what the store does not take in time is lost."""
        self._turns_in.close()
        with trio.move_on_after(timeout_s):
            await self._turns_kept.wait()
        await self._responses.finish(timeout_s)

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """For the metrics."""
        return {
            "sluice_turns_lost": {(): float(self._turns_lost)},
            "sluice_responses_lost": {(): float(self._responses.statistics().lost)},
        }
