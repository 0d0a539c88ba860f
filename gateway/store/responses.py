"""Responses that a later request may go on from (``previous_response_id``), bounded in every direction.

A response belongs to a tenant (the key that asks): nobody else can go on from it. One is kept with what was asked in
its own turn, and leads to the response before it; so a conversation costs its text once, however long it grows. Going
on from a response makes it and all before it young again: a conversation grows too old as a whole.

A response whose predecessor was forgotten or deleted is of no use to go on from: half a conversation is not given out
as if it were all of it.

Responses are written in the background, after their answer. So that a client which goes on at once finds the last one,
the writer announces it (:meth:`Responses.expect`) and reading waits for those that are announced: in the same process
only. Every ``put`` forgets, a few at a time, what has grown too old anywhere, and prunes its tenant if need be.

*Cost*, measured in the writer's thread: 1 to 3 ms for a ``put`` among thousands, 16 ms for the one in hundreds that
prunes; a conversation of 100 responses is read in 2 ms, and made young again in 6.

Source: OpenAI keeps responses for 30 days ("Conversation state").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from gateway.store.database import Database, all_rows

if TYPE_CHECKING:
    import apsw

_EXPIRED_PER_PUT = 200
_SPARE = 20  # a full tenant is pruned to a twentieth below its limits, so that not every put has to


@frozen(kw_only=True, slots=True)
class ResponseLimits:
    """What is kept of one tenant.

    Attributes:
        count: Responses that stay, those used last.
        size_bytes: Their size in all.
        response_bytes: A larger one is not kept.
        chain: Longest conversation that can be gone on from, in responses.
        chain_bytes: Likewise, in bytes.
        age_s: A response is forgotten so long after it was used last.
    """

    count: int = 10_000
    size_bytes: int = 268_435_456
    response_bytes: int = 33_554_432
    chain: int = 1_000
    chain_bytes: int = 67_108_864
    age_s: float = 30 * 86_400


@define(slots=True)
class _Expected:
    """An announced response that is not settled yet."""

    count: int = 0
    settled: trio.Event = field(factory=trio.Event)


class Responses:
    """The responses of a store.

    Args:
        database: Where they are kept.
        limits: What each tenant may keep.
        now: Seconds since the epoch; responses outlive the process, so this is wall-clock time.
    """

    def __init__(
        self, database: Database, limits: ResponseLimits | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._limits = limits or ResponseLimits()
        self._now = now
        self._expected: dict[tuple[str, str], _Expected] = {}

    def expect(self, tenant: str, id: str) -> None:
        """Announce a response: reading waits for it until :meth:`settle` is called, exactly once for each call."""
        self._expected.setdefault((tenant, id), _Expected()).count += 1

    def settle(self, tenant: str, id: str) -> None:
        """The announced response was put, or is lost."""
        expected = self._expected[tenant, id]
        expected.count -= 1
        if not expected.count:
            del self._expected[tenant, id]
            expected.settled.set()

    async def put(self, tenant: str, id: str, previous: str | None, data: bytes) -> bool:
        """Keep a response, in place of one of the same id, and prune.

        Returns:
            Whether it is kept; not if it is too large.

        Raises: StoreError.
        *Cancellation*: either it is kept or nothing was changed.
        """
        limits, now_s = self._limits, self._now()
        if len(data) > limits.response_bytes:
            return False
        row = (tenant, id, previous, now_s, len(data), data)

        def work(connection: apsw.Connection) -> None:
            connection.execute(_PUT, row)
            if previous is not None:
                connection.execute(_USE, (tenant, previous, limits.chain, now_s))
            [(count, size)] = all_rows(connection, _TOTAL, (tenant,))
            if count > limits.count or size > limits.size_bytes:
                left = limits.count - limits.count // _SPARE, limits.size_bytes - limits.size_bytes // _SPARE
                connection.execute(_PRUNE, (tenant, *left))
            connection.execute(_EXPIRE, (now_s - limits.age_s, _EXPIRED_PER_PUT))

        await self._database.write(work)
        return True

    async def chains(self, tenant: str, ids: Iterable[str]) -> dict[str, list[bytes]]:
        """Responses with all before them.

        Returns:
            For each of ``ids`` what was put, oldest first; nothing for one that is unknown, or whose beginning is, or
            that is longer than the limits. Waits for expected ones.

        Raises: StoreError.
        *Cancellation*: returns at once.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        for id in wanted:
            await self._wait_for(tenant, id)
        limits, oldest_s = self._limits, self._now() - self._limits.age_s

        def chain(connection: apsw.Connection, id: str) -> list[bytes]:
            rows = all_rows(connection, _CHAIN, (tenant, id, oldest_s, limits.chain))
            whole = bool(rows) and rows[-1][1] is None and sum(size for _, _, size in rows) <= limits.chain_bytes
            if not whole:
                return []
            return [body for number, _, _ in reversed(rows) for (body,) in all_rows(connection, _BODY, (number,))]

        return await self._database.read(lambda connection: {id: chain(connection, id) for id in wanted})

    async def get(self, tenant: str, id: str) -> bytes | None:
        """One response as it was put; None if it is unknown. Waits for an expected one.

        Raises: StoreError.
        *Cancellation*: returns at once.
        """
        await self._wait_for(tenant, id)
        oldest_s = self._now() - self._limits.age_s

        def work(connection: apsw.Connection) -> bytes | None:
            rows = all_rows(connection, _GET, (tenant, id, oldest_s))
            return rows[0][0] if rows else None

        return await self._database.read(work)

    async def delete(self, tenant: str, id: str) -> bool:
        """Forget a response; whether there was one. Those that go on from it are of no use afterwards.

        Raises: StoreError.
        *Cancellation*: either it was forgotten or nothing was changed.
        """
        await self._wait_for(tenant, id)

        def work(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM response WHERE tenant = ? AND id = ?", (tenant, id))
            return bool(connection.changes())

        return await self._database.write(work)

    async def _wait_for(self, tenant: str, id: str) -> None:
        expected = self._expected.get((tenant, id))
        if expected is not None:
            await expected.settled.wait()


_PUT = """
INSERT OR REPLACE INTO response (tenant, id, previous, used_s, size_bytes, body) VALUES (?, ?, ?, ?, ?, ?)
"""
_GET = "SELECT body FROM response WHERE tenant = ? AND id = ? AND used_s > ?"
_BODY = "SELECT body FROM response WHERE number = ?"
# The limit ends it, also where responses lead to each other in a circle.
_CHAIN = """
WITH RECURSIVE chain (number, tenant, previous, size_bytes) AS (
    SELECT number, tenant, previous, size_bytes FROM response WHERE tenant = ? AND id = ? AND used_s > ?
    UNION ALL
    SELECT response.number, response.tenant, response.previous, response.size_bytes
    FROM chain JOIN response ON response.tenant = chain.tenant AND response.id = chain.previous
    LIMIT ?
)
SELECT number, previous, size_bytes FROM chain
"""
_USE = """
WITH RECURSIVE chain (number, tenant, previous) AS (
    SELECT number, tenant, previous FROM response WHERE tenant = ? AND id = ?
    UNION ALL
    SELECT response.number, response.tenant, response.previous
    FROM chain JOIN response ON response.tenant = chain.tenant AND response.id = chain.previous
    LIMIT ?
)
UPDATE response SET used_s = ? WHERE number IN (SELECT number FROM chain)
"""
_TOTAL = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM response WHERE tenant = ?"
_PRUNE = """
DELETE FROM response WHERE number IN (
    SELECT number FROM (
        SELECT number,
               row_number() OVER last_used_first AS place,
               sum(size_bytes) OVER last_used_first AS size_bytes
        FROM response WHERE tenant = ?
        WINDOW last_used_first AS (ORDER BY used_s DESC, number DESC)
    ) WHERE place > ? OR (size_bytes > ? AND place > 1)
)
"""
_EXPIRE = "DELETE FROM response WHERE number IN (SELECT number FROM response WHERE used_s <= ? ORDER BY used_s LIMIT ?)"
