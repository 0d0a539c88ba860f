"""Promise: tests that need PostgreSQL or Redis get real ones, and a new database each time they ask."""

from __future__ import annotations

import psycopg
import services


def test_postgres_gives_empty_databases_and_survives_being_stopped(postgres: services.Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE t (i int)")
    postgres.kill()
    assert not postgres.answers()
    postgres.start()
    with psycopg.connect(first) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchall() == [(None,)]


def test_redis_gives_empty_databases(redis: services.Redis) -> None:
    assert redis.new_database() != redis.new_database()
    redis.stop()
    assert not redis.answers()
    redis.start()
    assert redis.answers()
