"""Promise: a query never outlives who waits for it, a dead server is an error at once and works again when it is back,
and what is committed is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import services
import trio

from gateway.store.database import StoreError
from gateway.store.postgresql import Postgres, where
from gateway.store.sql import Session

BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"


def sleep(session: Session) -> None:
    session.rows("SELECT pg_sleep(60)")


def one(session: Session) -> int:
    return int(session.rows("SELECT 1")[0][0])


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[Postgres]:
    base = Postgres(url, **options)  # type: ignore[arg-type]
    try:
        yield base
    finally:
        await base.aclose()


async def test_a_write_happens_whole_or_not_at_all(postgres: services.Postgres) -> None:
    async with opened(postgres.new_database()) as base:
        await base.write(lambda session: session.run("CREATE TABLE t (i BIGINT PRIMARY KEY)"))

        def twice(session: Session) -> None:
            session.run("INSERT INTO t VALUES (?)", (1,))
            session.run("INSERT INTO t VALUES (?)", (1,))

        with pytest.raises(StoreError, match="UniqueViolation"):
            await base.write(twice)
        await base.write(lambda session: session.run_many("INSERT INTO t VALUES (?)", [(number,) for number in (5, 6)]))
        assert await base.read(lambda session: session.rows("SELECT i FROM t ORDER BY i")) == [(5,), (6,)]
        assert base.statistics().connections == 1


async def test_who_gives_up_returns_at_once_and_the_server_stops(postgres: services.Postgres) -> None:
    async with opened(postgres.new_database(), connections=2) as base:
        assert await base.read(one) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(base.read, sleep)
            with trio.fail_after(10):
                while await base.read(lambda session: session.rows(BACKENDS)) != [(1,)]:
                    await trio.sleep(0.01)
            before = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - before < 10  # the statement would have taken a minute
        with trio.fail_after(10):
            while base.statistics().reading:
                await trio.sleep(0.01)
            while await base.read(lambda session: session.rows(BACKENDS)) != [(0,)]:
                await trio.sleep(0.05)


async def test_a_server_that_says_nothing_is_an_error_in_time(postgres: services.Postgres) -> None:
    async with opened(postgres.new_database(), query_s=0.3) as base:
        assert await base.read(one) == 1
        postgres.pause()
        try:
            with pytest.raises(StoreError, match=r"no answer within 0\.3 s"):
                await base.read(one)
        finally:
            postgres.resume()
        with trio.fail_after(10):
            while base.statistics().reading:
                await trio.sleep(0.01)
        assert await base.read(one) == 1


async def test_a_server_that_is_away_is_an_error_and_the_first_query_after_it_is_back_succeeds(
    postgres: services.Postgres,
) -> None:
    async with opened(postgres.new_database()) as base:
        assert await base.read(one) == 1
        await trio.to_thread.run_sync(postgres.kill)
        with pytest.raises(StoreError) as caught:
            await base.read(one)
        assert caught.value.public_message == "the store cannot be reached"
        await trio.to_thread.run_sync(postgres.start)
        assert await base.read(one) == 1
        await trio.to_thread.run_sync(postgres.stop)
        await trio.to_thread.run_sync(postgres.start)
        assert await base.read(one) == 1  # the connection it had is not used again


async def test_a_closed_store_keeps_no_connection(postgres: services.Postgres) -> None:
    async with opened(postgres.new_database()) as base:
        await base.read(one)
    assert base.statistics().connections == 0
    with pytest.raises(StoreError, match="closed"):
        await base.read(one)


def test_a_password_is_never_shown() -> None:
    assert where("postgresql://anna:secret@db.example:5432/sluice?sslmode=require") == (
        "postgresql://db.example:5432/sluice"
    )
