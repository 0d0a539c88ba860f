"""A PostgreSQL database, used from Trio without ever blocking it, and without a query outliving its request.

psycopg in worker threads that come from a limiter of our own: a slow database fills these and nothing else. Each query
has a deadline. Whoever gives up returns at once; the connection's socket is shut down, which ends the thread whatever
the server or the network is doing (a request to cancel would need an answer), and the server sees it within a second
(``client_connection_check_interval``).

Connections are made when they are needed and kept; one that looks as if the other side had ended it (its socket can be
read although nothing was asked) is not used again, so a restarted server costs no failed query. There is no pool in
the background that tries to connect: while the server is away each query tries once and fails with a
:class:`StoreError`, and the first one after it is back succeeds. psycopg's own pool was not chosen for that reason: it
waits between its tries, longer each time, in threads of its own.

The first connection of a process brings the tables up to date (:mod:`gateway.store.migrate`) under an advisory lock.

Needs PostgreSQL 14 or newer, and psycopg (``pip install sluice[postgres]``), which is imported at the first query.

*Cost*, measured on loopback: ``read`` of a row 0.26 ms, ``write`` of one 0.34 ms (a test server without fsync).
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import trio

from gateway.store.database import DatabaseStatistics, StoreError
from gateway.store.migrate import APPLIED, TABLE, Dialect, StoreVersionError, migrations, missing
from gateway.store.sql import Session, Value

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

CONNECTIONS = 8
QUERY_S = 10.0
_CONNECT_S = 3
_CLOSE_S = 2.0
_LOCK = 7_585_823  # of the migrations; any number that is nobody else's in this database
_OPTIONS = "-c client_connection_check_interval=1000 -c timezone=UTC"
_NOTE = "INSERT INTO migration (number, name, at_s) VALUES (%s, %s, %s)"


class Postgres:
    """See the module; a :class:`gateway.store.sql.SqlStore`.

    Args:
        url: ``postgresql://user:password@host:port/database``, as libpq reads it.
        connections: Queries at the same time.
        query_s: How long one may take, with waiting for locks and for a connection to the server.
    """

    dialect: Dialect = "postgresql"

    def __init__(self, url: str, *, connections: int = CONNECTIONS, query_s: float = QUERY_S) -> None:
        self._url = url
        self.where = where(url)
        self._query_s = query_s
        self._limiter = trio.CapacityLimiter(connections)
        self._idle: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._open = 0
        self._writing = 0
        self._count = threading.Lock()
        self._migrating = threading.Lock()
        self._migrated = False
        self._closed = False

    async def read(self, work: Callable[[Session], T]) -> T:
        """See :meth:`gateway.store.sql.SqlStore.read`."""
        return await self._run(work, writing=False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """See :meth:`gateway.store.sql.SqlStore.write`. Isolation is READ COMMITTED: lock the rows you decide by."""
        return await self._run(work, writing=True)

    def statistics(self) -> DatabaseStatistics:
        threads = self._limiter.statistics()
        writing = self._writing
        return DatabaseStatistics(
            reading=max(threads.borrowed_tokens - writing, 0),
            waiting=threads.tasks_waiting,
            writing=writing,
            queued=0,
            connections=self._open,
        )

    async def aclose(self) -> None:
        """Close what is idle now and the rest when its query ends; waits two seconds at most, also when cancelled."""
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await trio.to_thread.run_sync(self._close_idle, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)

    async def _run(self, work: Callable[[Session], T], *, writing: bool) -> T:
        job = _Job()
        try:
            with trio.fail_after(self._query_s):
                return await trio.to_thread.run_sync(
                    self._in_thread, work, writing, job, limiter=self._limiter, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            raise StoreError(
                "the store is too slow", f"{self.where}: no answer within {self._query_s:g} s (PostgreSQL)"
            ) from error
        finally:
            job.give_up()  # means nothing if it is done

    def _in_thread(self, work: Callable[[Session], T], writing: bool, job: _Job) -> T:
        pg = import_psycopg()
        connection: psycopg.Connection[tuple[Any, ...]] | None = None
        healthy = False
        self._writing += writing
        try:
            if self._closed:
                raise StoreError("the store is closed")
            connection = self._take(job)
            job.hold(connection)
            session = _PostgresSession(connection)
            if writing:
                with connection.transaction():
                    result = work(session)
            else:
                result = work(session)
            healthy = True
            return result
        except (pg.Error, StoreVersionError, UnicodeEncodeError) as error:
            healthy = isinstance(error, pg.Error) and not isinstance(error, pg.OperationalError)
            raise self._translated(error) from error
        finally:
            self._writing -= writing
            job.let_go()
            if connection is not None:
                self._give_back(connection, keep=healthy and not job.abandoned)

    def _take(self, job: _Job) -> psycopg.Connection[tuple[Any, ...]]:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(job)
            if _is_quiet(connection):
                return connection
            self._close(connection)

    def _connect(self, job: _Job) -> psycopg.Connection[tuple[Any, ...]]:
        connection: psycopg.Connection[tuple[Any, ...]] = import_psycopg().connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_S,
            application_name="sluice",
            options=_OPTIONS,
            keepalives_idle=30,
            tcp_user_timeout=10_000,
        )
        with self._count:
            self._open += 1
        try:
            job.hold(connection)
            with self._migrating:
                if not self._migrated:
                    _migrate(connection)
                    self._migrated = True
        except BaseException:
            job.let_go()
            self._close(connection)
            raise
        return connection

    def _give_back(self, connection: psycopg.Connection[tuple[Any, ...]], *, keep: bool) -> None:
        if not keep or connection.closed:
            self._close(connection)
            return
        self._idle.append(connection)
        if self._closed:  # closed meanwhile: whoever sees it last closes it
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):
                self._close(self._idle.pop())

    def _close(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        with self._count:
            self._open -= 1
        connection.close()

    def _translated(self, error: Exception) -> StoreError:
        psycopg = import_psycopg()
        if isinstance(error, StoreVersionError):
            return StoreError("the store was made by a newer version", f"{self.where}: it cannot be used ({error})")
        if isinstance(error, psycopg.OperationalError):
            return StoreError("the store cannot be reached", f"{self.where}: {_one_line(error)}")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return StoreError("the store refuses", f"{self.where}: grant the user its rights ({_one_line(error)})")
        if isinstance(error, UnicodeEncodeError):
            return StoreError("text with half a character cannot be stored", f"{self.where}: lone surrogates ({error})")
        return StoreError("the store failed", f"{self.where}: {type(error).__name__}: {_one_line(error)}")


class _Job:
    """A query that somebody waits for, until nobody does; then its connection's socket is shut down."""

    __slots__ = ("_connection", "_lock", "abandoned")

    def __init__(self) -> None:
        self.abandoned = False
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._lock = threading.Lock()

    def hold(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """From now on giving up ends this connection.

        Raises: StoreError, if nobody waits any more.
        """
        with self._lock:
            if self.abandoned:
                raise StoreError("nobody waits for the store any more")
            self._connection = connection

    def let_go(self) -> None:
        with self._lock:
            self._connection = None

    def give_up(self) -> None:
        with self._lock:
            self.abandoned = True
            if self._connection is not None:
                _shut_down(self._connection)


class _PostgresSession:
    __slots__ = ("_connection",)

    dialect: Dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(_placed(sql), values).fetchall()

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        return self._connection.execute(_placed(sql), values).rowcount

    def run_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_placed(sql), values)


def import_psycopg() -> Any:
    """The module, or an error that says how to get it."""
    try:
        import psycopg
    except ImportError as error:
        raise StoreError(
            "the store cannot be opened",
            f"store.url: PostgreSQL needs psycopg; pip install 'sluice[postgres]' ({error})",
        ) from error
    return psycopg


def where(url: str) -> str:
    """The URL without what may be secret: ``postgresql://host:port/database``."""
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _placed(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_quiet(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether the other side has said nothing since the last query: what it says unasked is good-bye."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _shut_down(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """End the connection under the thread that uses it; that thread closes it."""
    with (
        suppress(OSError, import_psycopg().OperationalError),
        socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as copy,
    ):
        copy.shutdown(socket.SHUT_RDWR)


def _migrate(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Apply what is missing. Raises: StoreVersionError, psycopg.Error; then nothing was applied."""
    known = migrations("postgresql")
    if connection.execute("SELECT to_regclass('migration')").fetchall() != [(None,)] and not missing(
        known, _applied(connection)
    ):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(TABLE.replace(" REAL", " DOUBLE PRECISION").encode())
        for one in missing(known, _applied(connection)):
            connection.execute(one.text().encode())
            connection.execute(_NOTE, (one.number, one.name, time.time()))


def _applied(connection: psycopg.Connection[tuple[Any, ...]]) -> set[int]:
    return {cast(int, row[0]) for row in connection.execute(APPLIED).fetchall()}
