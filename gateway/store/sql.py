"""What SQLite and PostgreSQL have in common, so that a table needs one set of statements.

A :class:`SqlStore` runs a piece of work in a thread, with a :class:`Session` whose statements have ``?`` for values, in
both databases. Columns are INTEGER/BIGINT, TEXT, REAL/DOUBLE PRECISION; upserts (``ON CONFLICT``) and ``RETURNING`` are
the same in both. What only one of them can do asks for ``session.dialect``.

Limit: no ``?`` and no ``%`` may stand in a statement but as a place for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateway.store.database import Database, DatabaseStatistics
from gateway.store.migrate import Dialect

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")
Value = str | int | float | bytes | None


class Session(Protocol):
    """A connection while a piece of work has it; not to be kept."""

    @property
    def dialect(self) -> Dialect: ...

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of the answer; the caller knows the columns' types from the schema."""

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run a statement without an answer. Returns the number of rows it changed."""

    def run_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """Run a statement once for each of ``values``."""


class SqlStore(Protocol):
    """A database of either kind."""

    @property
    def dialect(self) -> Dialect: ...

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a thread; each of its statements sees what is committed when it starts.

        Raises: StoreError.
        *Cancellation*: returns at once; the query is stopped and its result dropped.
        """

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in one transaction.

        Raises: StoreError; then nothing was changed, unless the database went away during the commit.
        *Cancellation*: returns at once; either all of the transaction happened or nothing.
        """

    def statistics(self) -> DatabaseStatistics: ...

    async def aclose(self) -> None:
        """Close all connections; waits two seconds at most, also when cancelled."""


class SqliteSql:
    """A :class:`SqlStore` over an SQLite file. One write at a time, and they are serial; reads go on beside them."""

    dialect: Dialect = "sqlite"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, work: Callable[[Session], T]) -> T:
        return await self._database.read(lambda connection: work(_SqliteSession(connection)))

    async def write(self, work: Callable[[Session], T]) -> T:
        return await self._database.write(lambda connection: work(_SqliteSession(connection)))

    def statistics(self) -> DatabaseStatistics:
        return self._database.statistics()

    async def aclose(self) -> None:
        await self._database.aclose()


class _SqliteSession:
    __slots__ = ("_connection",)

    dialect: Dialect = "sqlite"

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(sql, values).fetchall())

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        self._connection.execute(sql, values)
        return int(self._connection.changes())

    def run_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        self._connection.executemany(sql, values)
