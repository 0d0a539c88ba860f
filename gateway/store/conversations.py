"""The earlier turns of conversations, bounded in every direction.

A conversation belongs to a tenant (the key that asks): two tenants that choose the same id never see each other's
turns. A turn is one message, of the user or of the assistant. Every ``append`` prunes the conversation it touches and,
a few at a time, whatever has grown too old anywhere, so no job has to run at night.

Turns are written in the background, after their answer. So that a client which goes on at once finds its last turn,
the writer announces turns (:meth:`Conversations.expect`) and reading waits for those that are announced: in the same
process only, the turns of other processes are seen once they are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import trio
from attrs import define, field, frozen

from gateway.store.database import Database, all_rows

if TYPE_CHECKING:
    import apsw

_EXPIRED_PER_APPEND = 200


@frozen(kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@frozen(kw_only=True, slots=True)
class ConversationLimits:
    """What a conversation may keep.

    Attributes:
        turns: Newest turns that stay.
        chars: Newest characters that stay, in whole turns.
        turn_chars: A longer turn is cut.
        age_s: A turn is forgotten after so long.
    """

    turns: int = 200
    chars: int = 200_000
    turn_chars: int = 32_000
    age_s: float = 30 * 86_400


@define(slots=True)
class _Expected:
    """Announced turns of one conversation that are not settled yet."""

    count: int = 0
    settled: trio.Event = field(factory=trio.Event)


class Conversations:
    """The conversations of a store.

    Args:
        database: Where they are kept.
        limits: What each may keep.
        now: Seconds since the epoch; turns outlive the process, so this is wall-clock time.
    """

    def __init__(
        self, database: Database, limits: ConversationLimits | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._limits = limits or ConversationLimits()
        self._now = now
        self._expected: dict[tuple[str, str], _Expected] = {}

    def expect(self, tenant: str, conversation: str) -> None:
        """Announce turns: :meth:`recent` waits for them until :meth:`settle` is called, exactly once for each call."""
        self._expected.setdefault((tenant, conversation), _Expected()).count += 1

    def settle(self, tenant: str, conversation: str) -> None:
        """Announced turns were added, or are lost."""
        expected = self._expected[tenant, conversation]
        expected.count -= 1
        if not expected.count:
            del self._expected[tenant, conversation]
            expected.settled.set()

    async def recent(self, tenant: str, conversation: str, max_turns: int) -> list[Turn]:
        """The last ``max_turns`` turns, oldest first; nothing for an unknown conversation. Waits for expected ones.

        *Cancellation*: returns at once.
        """
        expected = self._expected.get((tenant, conversation))
        if expected is not None:
            await expected.settled.wait()
        oldest_s = self._now() - self._limits.age_s

        def work(connection: apsw.Connection) -> list[Turn]:
            rows = all_rows(connection, _RECENT, (tenant, conversation, oldest_s, max(0, max_turns)))
            return [Turn(role=role, text=body) for role, body in reversed(rows)]

        return await self._database.read(work)

    async def append(self, tenant: str, conversation: str, turns: Sequence[Turn]) -> None:
        """Add ``turns`` in order and prune.

        *Cancellation*: either all of them were added or none.
        """
        limits, now_s = self._limits, self._now()
        rows = [(tenant, conversation, turn.role, turn.text[: limits.turn_chars], now_s) for turn in turns]

        def work(connection: apsw.Connection) -> None:
            connection.executemany(_APPEND, rows)
            connection.execute(_PRUNE, (tenant, conversation, limits.turns, limits.chars))
            connection.execute(_EXPIRE, (now_s - limits.age_s, _EXPIRED_PER_APPEND))

        await self._database.write(work)

    async def forget(self, tenant: str, conversation: str) -> None:
        """Delete all turns of a conversation."""

        def work(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM turn WHERE tenant = ? AND conversation = ?", (tenant, conversation))

        await self._database.write(work)


_RECENT = """
SELECT role, body FROM turn WHERE tenant = ? AND conversation = ? AND at_s > ? ORDER BY id DESC LIMIT ?
"""
_APPEND = "INSERT INTO turn (tenant, conversation, role, body, at_s) VALUES (?, ?, ?, ?, ?)"
_PRUNE = """
DELETE FROM turn WHERE id IN (
    SELECT id FROM (
        SELECT id,
               row_number() OVER newest_first AS number,
               sum(length(body)) OVER newest_first AS chars
        FROM turn WHERE tenant = ? AND conversation = ?
        WINDOW newest_first AS (ORDER BY id DESC)
    ) WHERE number > ? OR (chars > ? AND number > 1)
)
"""
_EXPIRE = "DELETE FROM turn WHERE id IN (SELECT id FROM turn WHERE at_s <= ? ORDER BY at_s LIMIT ?)"
