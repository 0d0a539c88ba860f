"""The embedded store: documents, profiles and conversations in one SQLite file.

The seam for other databases is the three attributes of :class:`Store`; whatever has their methods can stand in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.store.conversations import ConversationLimits, Conversations
from gateway.store.database import MEMORY, Database, DatabaseStatistics, StoreError
from gateway.store.documents import Documents
from gateway.store.profiles import Profiles

__all__ = ["Store", "StoreError", "database_path"]

_PREFIX = "sqlite:///"


class Store:
    """An open store."""

    def __init__(self, database: Database, limits: ConversationLimits | None = None) -> None:
        self.documents = Documents(database)
        self.profiles = Profiles(database)
        self.conversations = Conversations(database, limits)
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, limits: ConversationLimits | None = None) -> AsyncIterator[Store]:
        """Have a store for the length of the block.

        Args:
            url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or ``sqlite:///:memory:`` (gone at the end).
            limits: What conversations may keep.

        Raises:
            StoreError: ``url`` is none of these. A file that cannot be opened shows at the first query instead.

        *Cancellation*: the end of the block takes two seconds at most.
        """
        database = Database(database_path(url))
        try:
            yield cls(database, limits)
        finally:
            await database.aclose()  # shields itself, for a bounded time

    def statistics(self) -> DatabaseStatistics:
        return self._database.statistics()


def database_path(url: str) -> str:
    """The file that ``url`` names."""
    path = url.removeprefix(_PREFIX)
    if path == url or not path:
        message = (
            f"store.url: '{url}' is no address of a store; write sqlite:///sluice.db or sqlite:////var/lib/sluice.db"
        )
        raise StoreError(message)
    return MEMORY if path == MEMORY else path
