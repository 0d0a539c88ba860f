"""Passages of text files, found by the words of a question.

Ranking is bm25 over headings (which count three times) and bodies, done by SQLite's FTS5. The text of a question never
reaches FTS5's query language: it is taken apart into words, each is quoted, and they are joined with OR, so that no
input is a syntax error and more matching words rank higher.

Limits: a question counts with its first 32 different words, without the commonest English ones. The weights are
computed over all collections of the store together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from gateway.store.database import Database, all_rows

if TYPE_CHECKING:
    import apsw

_MAX_TERMS = 32
_MAX_TERM_CHARS = 64
_MAX_SCANNED_CHARS = 20_000
_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about am an and any are as at be been but by can could did do does for from get had has have how i if in
        into is it its just me my no not of on or our please she so some that the their them then there these they this
        to up us was we were what when where which who why will with would you your""",
    )
)


@frozen(kw_only=True, slots=True)
class Passage:
    """A piece of a file. ``heading`` is the way to it, "Care › Cleaning"; empty at the top of a file."""

    heading: str
    body: str


@frozen(kw_only=True, slots=True)
class Found:
    """A passage that answers a question; a higher ``score`` is a better match (only within one search)."""

    path: str
    heading: str
    body: str
    score: float

    @property
    def source(self) -> str:
        return f"{self.path} › {self.heading}" if self.heading else self.path


@frozen(kw_only=True, slots=True)
class FileState:
    """What tells whether a file has changed: the cheap signs, and the certain one."""

    mtime_ns: int
    size_bytes: int
    digest: bytes


def match_expression(question: str) -> str:
    """``question`` in FTS5's language: its words, quoted, any of them; empty if it has none."""
    words = [word[:_MAX_TERM_CHARS] for word in _WORD.findall(question[:_MAX_SCANNED_CHARS].casefold())]
    telling = [word for word in words if word not in _STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in list(dict.fromkeys(telling))[:_MAX_TERMS])


class Documents:
    """The collections of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, collection: str, query: str, top_k: int) -> list[Found]:
        """The best ``top_k`` passages of ``collection`` for ``query``, best first.

        *Cancellation*: returns at once, the search stops.
        """
        expression = match_expression(query)
        if not expression or top_k < 1:
            return []

        def work(connection: apsw.Connection) -> list[Found]:
            rows = all_rows(connection, _SEARCH, (expression, collection, top_k))
            return [Found(path=path, heading=heading, body=body, score=-rank) for path, heading, body, rank in rows]

        return await self._database.read(work)

    async def files(self, collection: str) -> dict[str, FileState]:
        """Every indexed file by its path within the collection."""

        def work(connection: apsw.Connection) -> dict[str, FileState]:
            rows = all_rows(connection, _FILES, (collection,))
            return {path: FileState(mtime_ns=m, size_bytes=s, digest=d) for path, m, s, d in rows}

        return await self._database.read(work)

    async def put(self, collection: str, files: Mapping[str, tuple[FileState, Sequence[Passage] | None]]) -> None:
        """Index ``files`` in one transaction; passages of None mean that only the file's state is new."""

        def work(connection: apsw.Connection) -> None:
            for path, (state, passages) in files.items():
                _put_one(connection, collection, path, state, passages)

        await self._database.write(work)

    async def remove(self, collection: str, paths: Sequence[str]) -> None:
        """Forget files and their passages."""

        def work(connection: apsw.Connection) -> None:
            for path in paths:
                _drop_passages(connection, collection, path)
                connection.execute("DELETE FROM file WHERE collection = ? AND path = ?", (collection, path))

        await self._database.write(work)

    async def count(self, collection: str) -> int:
        """Passages in ``collection``."""

        def work(connection: apsw.Connection) -> int:
            return int(connection.execute(_COUNT, (collection,)).get)

        return await self._database.read(work)


def _put_one(
    connection: apsw.Connection, collection: str, path: str, state: FileState, passages: Sequence[Passage] | None
) -> None:
    row = (collection, path, state.mtime_ns, state.size_bytes, state.digest)
    file_id = connection.execute(_PUT_FILE, row).get
    if passages is None:
        return
    _drop_passages(connection, collection, path)
    connection.executemany(
        "INSERT INTO passage (file, heading, body) VALUES (?, ?, ?)",
        [(file_id, passage.heading, passage.body) for passage in passages],
    )


def _drop_passages(connection: apsw.Connection, collection: str, path: str) -> None:
    connection.execute(
        "DELETE FROM passage WHERE file = (SELECT id FROM file WHERE collection = ? AND path = ?)", (collection, path)
    )


_SEARCH = """
SELECT file.path, passage.heading, passage.body, passage_words.rank
FROM passage_words JOIN passage ON passage.id = passage_words.rowid JOIN file ON file.id = passage.file
WHERE passage_words MATCH ? AND file.collection = ?
ORDER BY passage_words.rank LIMIT ?
"""
_FILES = "SELECT path, mtime_ns, size_bytes, digest FROM file WHERE collection = ?"
_COUNT = "SELECT count(*) FROM passage JOIN file ON file.id = passage.file WHERE file.collection = ?"
_PUT_FILE = """
INSERT INTO file (collection, path, mtime_ns, size_bytes, digest) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (collection, path) DO UPDATE
SET mtime_ns = excluded.mtime_ns, size_bytes = excluded.size_bytes, digest = excluded.digest
RETURNING id
"""
