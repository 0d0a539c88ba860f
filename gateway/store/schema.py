"""The tables, and how a connection is prepared for them.

A file says in ``user_version`` which schema it has: 0 is empty and gets the tables, a higher number than ours was made
by a newer version and is refused rather than guessed at. Write-ahead logging lets readers go on while somebody writes;
``synchronous = NORMAL`` may lose the last transactions in a power cut but never damages the file, which is right for an
index that can be made again and for conversation turns. The file's folder must be writable, also for readers.

Stemming is English (``porter``); other languages are found by whole words. Scripts without spaces between words
(Chinese, Japanese, Thai) are found by whole runs only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

VERSION = 1
_RETRY_S = 0.002

TABLES = """
CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    path TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (collection, path)
) STRICT;

CREATE TABLE passage (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
    heading TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX passage_of_file ON passage (file);

CREATE VIRTUAL TABLE passage_words USING fts5 (
    heading, body, content = 'passage', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO passage_words (passage_words, rank) VALUES ('rank', 'bm25(3.0, 1.0)');
CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO passage_words (rowid, heading, body) VALUES (new.id, new.heading, new.body);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO passage_words (passage_words, rowid, heading, body) VALUES ('delete', old.id, old.heading, old.body);
END;

CREATE TABLE profile (
    user TEXT PRIMARY KEY,
    fields TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE turn (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    conversation TEXT NOT NULL,
    role TEXT NOT NULL,
    body TEXT NOT NULL,
    at_s REAL NOT NULL
) STRICT;
CREATE INDEX turn_of_conversation ON turn (tenant, conversation, id);
CREATE INDEX turn_by_age ON turn (at_s);
"""


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
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) == 0:  # nobody made them while we waited for the lock
            connection.execute(TABLES)
            connection.pragma("user_version", VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if _version(connection) != VERSION:
        raise StoreVersionError(_version(connection))


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


class StoreVersionError(Exception):
    """The file was made by a newer version of the program."""

    def __init__(self, found: int) -> None:
        super().__init__(
            f"the file has schema {found}, this version knows {VERSION}: use the newer version that made it"
        )


def _version(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version") or 0)
