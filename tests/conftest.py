"""Servers made once per test session, when the first test asks for one; see ``tests/component/services.py``."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import services
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # what a busy one takes says nothing about the code
settings.load_profile("any machine")

# A shell starts what it runs in the background with SIGINT ignored, and so would be all servers that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[services.Postgres]:
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.Redis]:
    with services.redis() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: services.Postgres) -> services.Postgres:
    """A PostgreSQL server that runs, whatever the test before did to it."""
    if not postgres_server.answers():
        postgres_server.stop()
        postgres_server.start()
    return postgres_server


@pytest.fixture
def redis(redis_server: services.Redis) -> services.Redis:
    """A Redis server that runs, whatever the test before did to it."""
    if not redis_server.answers():
        redis_server.stop()
        redis_server.start()
    return redis_server
