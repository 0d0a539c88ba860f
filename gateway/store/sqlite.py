"""The store: documents, profiles, conversations and responses in an SQLite file; keys, limits and the ledger there or
elsewhere.

With ``postgresql://…`` all machines share what has to be shared (``Store.sql``: keys, budgets, ledger); all else stays
in a file of each machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store.conversations import ConversationLimits, Conversations
from gateway.store.database import MEMORY, Database, DatabaseStatistics, StoreError
from gateway.store.documents import Documents
from gateway.store.postgresql import Postgres
from gateway.store.profiles import Profiles
from gateway.store.responses import Responses
from gateway.store.sql import SqliteSql, SqlStore

__all__ = ["Store", "StoreError", "database_path", "is_postgresql"]

_PREFIX = "sqlite:///"


class Store:
    """An open store."""

    def __init__(
        self, database: Database, limits: ConversationLimits | None = None, sql: SqlStore | None = None
    ) -> None:
        self.sql: SqlStore = sql or SqliteSql(database)
        self.documents = Documents(database)
        self.profiles = Profiles(database)
        self.conversations = Conversations(database, limits)
        self.responses = Responses(database)
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, local_url: str = "sqlite:///sluice.db", limits: ConversationLimits | None = None
    ) -> AsyncIterator[Store]:
        """Have a store for the length of the block.

        Args:
            url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite:///:memory:`` (gone at the end), or
                ``postgresql://user:password@host/database``.
            local_url: The SQLite file that goes with PostgreSQL; not read otherwise.
            limits: What conversations may keep.

        Raises:
            StoreError: ``url`` is none of these. A file that cannot be opened shows at the first query instead.

        *Cancellation*: the end of the block takes four seconds at most.
        """
        shared = Postgres(url) if is_postgresql(url) else None
        database = Database(database_path(url if shared is None else local_url))
        try:
            yield cls(database, limits, shared)
        finally:
            await database.aclose()  # shields itself, for a bounded time
            if shared is not None:
                await shared.aclose()  # shields itself, for a bounded time

    def statistics(self) -> DatabaseStatistics:
        return self._database.statistics()


def is_postgresql(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def database_path(url: str) -> str:
    """The file that ``url`` names."""
    path = url.removeprefix(_PREFIX)
    if path == url or not path:
        message = (
            f"store.url: '{url}' is no address of a store; write sqlite:///sluice.db or sqlite:////var/lib/sluice.db"
        )
        raise StoreError(message)
    return MEMORY if path == MEMORY else path
