"""One SQLite file, used from Trio without ever blocking it, and without a query outliving its request.

Each query runs in a worker thread that comes from limiters of our own (one for the readers, one for the single
writer): a slow disk fills these and nothing else, DNS and everybody else's threads go on. Waiting is ended by the
caller's deadline. A caller that gives up returns at once; its query sees that at the next progress check (every few
thousand steps of SQLite's machine, well under a millisecond apart) or within the busy wait, stops, and only then does
its connection go back to the pool. A thread stuck in the kernel keeps its slot until the kernel lets go.

apsw's own async connections were not chosen: they need one thread per connection and import asyncio (60 ms at
start-up), a call that is cancelled blocks the next one behind it, and the busy wait cannot be interrupted.

Nothing is opened before it is needed, so a gateway whose store is broken starts and serves; each query then fails with
a :class:`StoreError`, and the first one after the repair succeeds. A connection that saw an error other than "busy" is
closed and opened anew.

Limits: one write at a time. FTS5 computes the weights of a term without progress checks, so an abandoned search over
millions of passages may take some hundred milliseconds to stop.

*Cost*, measured: one ``read`` of a row 85 µs of which the thread hop is 60; a search for three words among 30 passages
200 µs more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from attrs import frozen

from gateway.store.migrate import StoreVersionError
from gateway.store.schema import prepare

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")

MEMORY = ":memory:"
_READERS = 4
_BUSY_S = 2.0  # a writer waits so long for a writer of another process
_CLOSE_S = 2.0
_STEPS_PER_CHECK = 5_000


class StoreError(Exception):
    """The store cannot do it now.

    Attributes:
        public_message: Fit for a client's eyes: no paths. ``str()`` of the error says more, for the log and the
            command line.
    """

    def __init__(self, public_message: str, detail: str = "") -> None:
        super().__init__(detail or public_message)
        self.public_message = public_message


@frozen(kw_only=True, slots=True)
class DatabaseStatistics:
    """What a database is doing.

    Attributes:
        reading: Reads that hold a thread.
        waiting: Reads that wait for one.
        writing: Writes that hold the writer's thread; 0 or 1.
        queued: Writes that wait for it.
        connections: Open connections, in use or idle.
    """

    reading: int
    waiting: int
    writing: int
    queued: int
    connections: int


class _Job:
    """A query that somebody waits for, until nobody does."""

    __slots__ = ("abandoned",)

    def __init__(self) -> None:
        self.abandoned = False


class _Link:
    """A connection and the job that uses it. Only one thread at a time has it."""

    def __init__(self, connection: apsw.Connection, busy_s: float) -> None:
        self.connection = connection
        self.job: _Job | None = None
        self._busy_s = busy_s
        self._busy_since = 0.0
        connection.set_progress_handler(self._given_up, _STEPS_PER_CHECK)
        connection.set_busy_handler(self._wait_again)

    def _given_up(self) -> bool:
        return self.job is not None and self.job.abandoned

    def _wait_again(self, attempt: int) -> bool:
        now = time.monotonic()
        if attempt == 0:
            self._busy_since = now
        if self._given_up() or now - self._busy_since > self._busy_s:
            return False
        time.sleep(min(0.02, 0.001 * 2 ** min(attempt, 5)))
        return True


class Database:
    """See the module. Make it inside a Trio program and end it with :meth:`aclose`.

    Args:
        path: The file, or ``MEMORY``.
        readers: Reads at the same time.
        busy_s: How long a query waits for a lock that another process holds.
    """

    def __init__(self, path: str, *, readers: int = _READERS, busy_s: float = _BUSY_S) -> None:
        self.path = path
        self._busy_s = busy_s
        self._idle: dict[bool, list[_Link]] = {False: [], True: []}  # key: for writing
        self._open = 0
        self._closed = False
        self._count = threading.Lock()
        self._write_limiter = trio.CapacityLimiter(1)
        # A database in memory belongs to its one connection, which reads and writes in turn.
        self._read_limiter = self._write_limiter if path == MEMORY else trio.CapacityLimiter(readers)

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work`` with a connection, in a thread; it must not keep the connection or a cursor.

        Raises: StoreError.
        *Cancellation*: returns at once; the query stops by itself and its result is dropped.
        """
        return await self._run(work, writing=False)

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work`` in one transaction, after all writes before it.

        Raises: StoreError, and then nothing was changed.
        *Cancellation*: returns at once; either all of the transaction happened or nothing.
        """

        def in_transaction(connection: apsw.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._run(in_transaction, writing=True)

    def statistics(self) -> DatabaseStatistics:
        reads, writes = self._read_limiter.statistics(), self._write_limiter.statistics()
        return DatabaseStatistics(
            reading=reads.borrowed_tokens,
            waiting=reads.tasks_waiting,
            writing=writes.borrowed_tokens,
            queued=writes.tasks_waiting,
            connections=self._open,
        )

    async def aclose(self) -> None:
        """Close what is idle now and the rest when its query ends; waits two seconds at most, also when cancelled."""
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await trio.to_thread.run_sync(self._close_idle, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)

    async def _run(self, work: Callable[[apsw.Connection], T], *, writing: bool) -> T:
        limiter = self._write_limiter if writing else self._read_limiter
        job = _Job()
        try:
            return await trio.to_thread.run_sync(
                self._in_thread, work, writing, job, limiter=limiter, abandon_on_cancel=True
            )
        finally:
            job.abandoned = True  # means nothing if it is done

    def _in_thread(self, work: Callable[[apsw.Connection], T], writing: bool, job: _Job) -> T:
        import apsw

        link: _Link | None = None
        healthy = False
        try:
            if self._closed:
                raise StoreError("the store is closed")
            link = self._take(writing)
            link.job = job
            result = work(link.connection)
            healthy = True
            return result
        except (apsw.BusyError, apsw.LockedError, apsw.InterruptError) as error:
            healthy = True
            raise self._translated(error) from error
        except (apsw.Error, StoreVersionError, UnicodeEncodeError) as error:
            raise self._translated(error) from error
        finally:
            if link is not None:
                self._give_back(link, writing, keep=healthy and not link.connection.in_transaction)

    def _take(self, writing: bool) -> _Link:
        try:
            return self._idle[writing or self.path == MEMORY].pop()
        except IndexError:
            return self._connect(writing)

    def _connect(self, writing: bool) -> _Link:
        import apsw

        connection = apsw.Connection(self.path)
        try:
            link = _Link(connection, self._busy_s)
            prepare(connection, self._busy_s)
            if not writing and self.path != MEMORY:
                connection.pragma("query_only", True)
        except BaseException:
            connection.close()
            raise
        with self._count:
            self._open += 1
        return link

    def _give_back(self, link: _Link, writing: bool, *, keep: bool) -> None:
        link.job = None
        if not keep and self.path != MEMORY:
            self._close(link)
            return
        self._idle[writing or self.path == MEMORY].append(link)
        if self._closed:  # closed meanwhile: whoever sees it last closes it
            self._close_idle()

    def _close_idle(self) -> None:
        for links in self._idle.values():
            while links:
                try:
                    self._close(links.pop())
                except IndexError:
                    break

    def _close(self, link: _Link) -> None:
        with self._count:
            self._open -= 1
        link.connection.close(True)

    def _translated(self, error: Exception) -> StoreError:
        import apsw

        name = f"store {self.path}"
        for kind, public, detail in (
            (
                apsw.BusyError,
                "the store is busy",
                f"another process held the write lock for more than {self._busy_s:g} s",
            ),
            (apsw.LockedError, "the store is busy", "locked by another query"),
            (apsw.InterruptError, "the query was given up", "interrupted"),
            (apsw.CantOpenError, "the store cannot be opened", _why_not_open(self.path)),
            (
                apsw.ReadOnlyError,
                "the store is read-only",
                "the file or its folder cannot be written; check who owns it",
            ),
            (apsw.FullError, "the store's disk is full", "free some space and try again"),
            (apsw.NotADBError, "the store is damaged", "the file is not a SQLite database; move it away or restore it"),
            (
                apsw.CorruptError,
                "the store is damaged",
                "the file is corrupt; restore it, or delete it and index again",
            ),
            (apsw.IOError, "the store's disk fails", "reading or writing the file failed"),
            (StoreVersionError, "the store was made by a newer version", "it cannot be used"),
            (UnicodeEncodeError, "text with half a character cannot be stored", "lone surrogates in the text"),
        ):
            if isinstance(error, kind):
                return StoreError(public, f"{name}: {detail} ({error})")
        return StoreError("the store failed", f"{name}: {type(error).__name__}: {error}")


def all_rows(connection: apsw.Connection, sql: str, values: Sequence[str | int | float | bytes]) -> list[Any]:
    """Every row at once, so that no cursor is left open; the caller knows the columns' types from the schema."""
    return connection.execute(sql, values).fetchall()


def _why_not_open(path: str) -> str:
    file = Path(path)
    if file.is_dir():
        return "it is a folder; store.url must name a file"
    if not file.parent.is_dir():
        return f"the folder {file.parent} does not exist; make it, or change store.url"
    return "the file or its folder may not be opened; check their permissions"
