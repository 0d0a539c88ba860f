"""How a connection to an SQLite file is prepared, and the file brought up to date.

The tables are in ``migrations/sqlite``, see :mod:`gateway.store.migrate`. The newest number stands in ``user_version``,
too: versions that had no table of migrations look there, and refuse a file that is newer than they are. Theirs have 1
there, and what :data:`_BEFORE_THE_TABLE` says was applied.

Write-ahead logging lets readers go on while somebody writes; ``synchronous = NORMAL`` may lose the last transactions in
a power cut but never damages the file. The file's folder must be writable, also for readers.

Stemming is English (``porter``); other languages are found by whole words. Scripts without spaces between words
(Chinese, Japanese, Thai) are found by whole runs only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gateway.store.migrate import APPLIED, TABLE, Migration, migrations, missing

if TYPE_CHECKING:
    import apsw

_RETRY_S = 0.002
_BEFORE_THE_TABLE = frozenset({1})
_HAS_TABLE = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'migration'"
_NOTE = "INSERT OR IGNORE INTO migration (number, name, at_s) VALUES (?, ?, ?)"


def prepare(connection: apsw.Connection, busy_s: float) -> None:
    """Set what must hold per connection, and make the tables in a new file.

    Args:
        busy_s: How long others may be at the same with a new file.

    Raises: apsw.Error; StoreVersionError for a file of a newer version.
    """
    _write_ahead(connection, busy_s)
    connection.pragma("synchronous", "normal")
    connection.pragma("foreign_keys", True)
    connection.pragma("trusted_schema", False)
    known = migrations("sqlite")
    if not missing(known, _applied(connection)):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection, known)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: apsw.Connection, known: list[Migration]) -> None:
    """Apply what nobody applied while we waited for the lock."""
    applied = _applied(connection)
    connection.execute(TABLE)
    for number in applied & _BEFORE_THE_TABLE:
        connection.execute(_NOTE, (number, "before_migrations", time.time()))
    for one in missing(known, applied):
        connection.execute(one.text())
        connection.execute(_NOTE, (one.number, one.name, time.time()))
    connection.pragma("user_version", known[-1].number)


def _applied(connection: apsw.Connection) -> set[int]:
    """The numbers that the file has."""
    version: int = connection.execute("PRAGMA user_version").get
    if version in {0, *_BEFORE_THE_TABLE}:
        return {version} - {0}
    if connection.execute(_HAS_TABLE).get:
        numbers: Any = connection.execute(APPLIED).fetchall()
        return {number for (number,) in numbers} | {version}
    return {version}


def _write_ahead(connection: apsw.Connection, busy_s: float) -> None:
    """Turn on write-ahead logging. Where two do so for a new file, SQLite turns one away without its busy handler."""
    import apsw

    until = time.monotonic() + busy_s
    while True:
        try:
            connection.pragma("journal_mode", "wal")
            return
        except apsw.BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(_RETRY_S)
