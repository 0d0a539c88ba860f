"""Promise: a database of any earlier version is brought up to date once, whoever else tries at the same time, and one
of a newer version is refused. SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import ledgers
import psycopg
import pytest
import services
import trio

from gateway.ledger.entry import make_entry
from gateway.ledger.prices import Prices
from gateway.ledger.unread import Lengths
from gateway.store.database import Database, StoreError
from gateway.store.ledger import COLUMNS, add_rows
from gateway.store.migrate import migrations
from gateway.store.postgresql import Postgres
from gateway.store.sql import Session, SqliteSql, SqlStore
from gateway.store.sqlite import Store

APPLIED = "SELECT number FROM migration ORDER BY number"


def applied(session: Session) -> list[int]:
    return [row[0] for row in session.rows(APPLIED)]


@asynccontextmanager
async def closing(store: SqlStore) -> AsyncIterator[SqlStore]:
    try:
        yield store
    finally:
        await store.aclose()


def file_of_the_first_version(path: Path) -> None:
    """As it was before there was a table of migrations."""
    connection = apsw.Connection(str(path))
    connection.execute(migrations("sqlite")[0].text())
    connection.pragma("user_version", 1)
    connection.execute("INSERT INTO profile (user, fields) VALUES ('anna', '{\"plan\":\"gold\"}')")
    connection.close()


async def test_a_file_from_before_the_migrations_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    file_of_the_first_version(path)
    async with Store.open(f"sqlite:///{path}") as store:
        assert await store.profiles.get("anna") == {"plan": "gold"}
        assert await store.sql.read(applied) == [one.number for one in migrations("sqlite")]
    version = apsw.Connection(str(path)).pragma("user_version")
    assert version == migrations("sqlite")[-1].number  # so the version before refuses the file


async def test_many_connections_migrate_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    file_of_the_first_version(path)
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(migrate_sqlite, path)


async def migrate_sqlite(path: Path) -> None:
    async with closing(SqliteSql(Database(str(path)))) as store:
        assert await store.read(applied) == [one.number for one in migrations("sqlite")]


async def test_many_processes_migrate_postgresql_once(postgres: services.Postgres) -> None:
    url = postgres.new_database()
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(migrate_postgresql, url)


async def migrate_postgresql(url: str) -> None:
    async with closing(Postgres(url)) as store:
        assert await store.read(applied) == [one.number for one in migrations("postgresql")]


async def test_a_migration_that_came_with_a_lower_number_is_applied_too(postgres: services.Postgres) -> None:
    url = postgres.new_database()
    async with closing(Postgres(url)) as store:
        await store.read(applied)
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE key_secret, virtual_key, key_state")
        connection.execute("DELETE FROM migration WHERE number = 10")
    async with closing(Postgres(url)) as store:
        assert await store.read(lambda session: session.rows("SELECT count(*) FROM virtual_key")) == [(0,)]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_newer_database_is_refused_and_left_alone(
    kind: str, tmp_path: Path, postgres: services.Postgres
) -> None:
    url = postgres.new_database()

    def make() -> SqlStore:
        return SqliteSql(Database(str(tmp_path / "x.db"))) if kind == "sqlite" else Postgres(url)

    async with closing(make()) as store:
        await store.write(lambda session: session.run("INSERT INTO migration VALUES (9001, 'later', 0)"))
    async with closing(make()) as store:
        with pytest.raises(StoreError, match=r"schema 9001, this version knows \d+: use the newer version") as caught:
            await store.read(applied)
        assert caught.value.public_message == "the store was made by a newer version"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_ledger_loses_an_index_and_no_row(kind: str, tmp_path: Path, postgres: services.Postgres) -> None:
    url = postgres.new_database()

    def make() -> SqlStore:
        return SqliteSql(Database(str(tmp_path / "x.db"))) if kind == "sqlite" else Postgres(url)

    entry = make_entry(ledgers.record(), id="e1", now_s=1.8e9, prices=Prices(ledgers.CONFIG), lengths=Lengths())

    def as_it_was(session: Session) -> None:
        session.run("CREATE INDEX usage_entry_by_key ON usage_entry (key_id, at_s)")
        session.run("DELETE FROM migration WHERE number = 50")
        add_rows(session, [entry.row()])

    async with closing(make()) as store:
        await store.write(as_it_was)
    if kind == "sqlite":
        apsw.Connection(str(tmp_path / "x.db")).pragma("user_version", 40)
    async with closing(make()) as store:
        rows = await store.read(lambda session: session.rows(f"SELECT {', '.join(COLUMNS)} FROM usage_entry"))
        assert rows == [tuple(entry.row())]
        indexes = "SELECT count(*) FROM {} WHERE {} = 'usage_entry_by_key'"
        where = ("sqlite_schema", "name") if kind == "sqlite" else ("pg_indexes", "indexname")
        assert await store.read(lambda session: session.rows(indexes.format(*where))) == [(0,)]
