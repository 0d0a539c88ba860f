"""Numbered SQL files, applied once each and in order, to SQLite and PostgreSQL alike.

``gateway/store/migrations/<database>/NNNN_name.sql`` is what there is to apply; a table ``migration`` in the database
says what was. A file is applied whole or not at all, in one transaction with all others that are missing, under a lock
that other processes wait for. Nothing is ever taken back: a database that has a number which is not among the files was
made by a newer version, and is refused rather than guessed at.

Rules for files: never change one that was released; no number twice; whatever stands in them must be harmless to
processes of the version before, which run on while the first of the new ones starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from importlib import resources
from typing import Literal

from attrs import frozen

Dialect = Literal["sqlite", "postgresql"]

_FILE = re.compile(r"(?P<number>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")

TABLE = "CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL, at_s REAL NOT NULL)"
APPLIED = "SELECT number FROM migration"


@frozen(kw_only=True, slots=True)
class Migration:
    """A file; ``text`` reads it."""

    number: int
    name: str
    text: Callable[[], str]


class StoreVersionError(Exception):
    """The database was made by a newer version of the program."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the database has schema {found}, this version knows {known}: use the newer version that made it"
        )


def migrations(dialect: Dialect) -> list[Migration]:
    """All there are, in order. Reads the folder, not the files: 0.1 ms."""
    folder = resources.files("gateway.store") / "migrations" / dialect
    found = []
    for file in folder.iterdir():
        match = _FILE.fullmatch(file.name)
        if match:
            text = lambda file=file: file.read_text(encoding="utf-8")  # noqa: E731
            found.append(Migration(number=int(match["number"]), name=match["name"], text=text))
    return sorted(found, key=lambda one: one.number)


def missing(known: Collection[Migration], applied: Collection[int]) -> list[Migration]:
    """What is still to be applied.

    Raises:
        StoreVersionError: One was applied that is not known here.
    """
    newer = set(applied) - {one.number for one in known}
    if newer:
        raise StoreVersionError(max(newer), max((one.number for one in known), default=0))
    return [one for one in known if one.number not in applied]
