"""What is known of a user: one row of named fields per user id, loaded from a file by a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.store.database import Database, all_rows

if TYPE_CHECKING:
    import apsw

Profile = dict[str, Any]  # field name to any JSON value


class Profiles:
    """The profile table of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user: str) -> Profile | None:
        """The fields of ``user`` in the order of the file, or None if nobody has that id.

        *Cancellation*: returns at once.
        """
        import orjson

        def work(connection: apsw.Connection) -> str | None:
            found: str | None = connection.execute("SELECT fields FROM profile WHERE user = ?", (user,)).get
            return found

        fields = await self._database.read(work)
        return None if fields is None else dict(orjson.loads(fields))

    async def put(self, profiles: Mapping[str, Profile]) -> None:
        """Add or replace all of ``profiles`` in one transaction; users not named keep what they have."""
        import orjson

        rows = [(user, orjson.dumps(fields).decode()) for user, fields in profiles.items()]

        def work(connection: apsw.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO profile (user, fields) VALUES (?, ?)", rows)

        await self._database.write(work)

    async def users(self, limit: int = 100) -> list[str]:
        """The first ``limit`` user ids, sorted."""

        def work(connection: apsw.Connection) -> list[str]:
            rows = all_rows(connection, "SELECT user FROM profile ORDER BY user LIMIT ?", (limit,))
            return [row[0] for row in rows]

        return await self._database.read(work)
