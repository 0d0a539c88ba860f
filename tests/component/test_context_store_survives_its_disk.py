"""Promise: whatever is wrong with the store's file, the gateway lives; an error says what to do, a query ends with its
request, and nothing is left open."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.store.conversations import Turn
from gateway.store.database import Database, StoreError
from gateway.store.sqlite import Store, database_path

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@asynccontextmanager
async def database(path: Path, *, readers: int = 1, busy_s: float = 0.05) -> AsyncIterator[Database]:
    made = Database(str(path), readers=readers, busy_s=busy_s)
    try:
        yield made
    finally:
        await made.aclose()


def open_files(folder: Path) -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


async def users(base: Database) -> list[str]:
    return await Store(base).profiles.users()


async def test_a_missing_file_is_made_at_the_first_query_and_closed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with Store.open(f"sqlite:///{path}") as store:
        assert not path.exists()
        assert await store.profiles.get("anna") is None
        await store.profiles.put({"anna": {"plan": "gold"}})
        assert await store.profiles.get("anna") == {"plan": "gold"}
        assert open_files(tmp_path) != []
    assert open_files(tmp_path) == []
    async with Store.open(f"sqlite:///{path}") as store:
        assert await store.profiles.get("anna") == {"plan": "gold"}


async def test_many_first_queries_at_once_make_one_schema(tmp_path: Path) -> None:
    async with database(tmp_path / "new.db", readers=4, busy_s=5) as base:
        store = Store(base)
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(store.profiles.get, f"u{number}")
                nursery.start_soon(store.profiles.put, {f"u{number}": {}})
        assert len(await store.profiles.users()) == 8


async def test_a_missing_folder_is_named_and_once_made_the_store_works(tmp_path: Path) -> None:
    async with database(tmp_path / "later" / "x.db") as base:
        with pytest.raises(StoreError, match=r"folder .*later does not exist; make it, or change store\.url") as caught:
            await users(base)
        assert caught.value.public_message == "the store cannot be opened"
        (tmp_path / "later").mkdir()
        assert await users(base) == []


async def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    async with database(tmp_path) as base:
        with pytest.raises(StoreError, match=r"it is a folder; store\.url must name a file"):
            await users(base)


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"this is my diary " * 500)
    async with database(path) as base:
        with pytest.raises(StoreError, match="not a SQLite database") as caught:
            await users(base)
        assert caught.value.public_message == "the store is damaged"
    assert path.read_bytes().startswith(b"this is my diary")
    assert open_files(tmp_path) == []


async def test_damage_in_the_middle_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with database(path) as base:
        await Store(base).profiles.put({f"user{number}": {"text": "x" * 500} for number in range(200)})
    content = bytearray(path.read_bytes())
    content[len(content) // 4 :] = b"\xa5" * (len(content) - len(content) // 4)
    path.write_bytes(content)
    async with database(path) as base:
        with pytest.raises(StoreError) as caught:
            await Store(base).profiles.users(limit=500)
        assert caught.value.public_message == "the store is damaged"


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    other = apsw.Connection(str(path))
    other.pragma("user_version", 99)
    other.close()
    async with database(path) as base:
        with pytest.raises(StoreError, match=r"schema 99, this version knows \d+: use the newer"):
            await users(base)


async def test_a_full_disk_fails_the_write_as_a_whole_and_readers_go_on(tmp_path: Path) -> None:
    async with database(tmp_path / "x.db") as base:
        store = Store(base)
        await store.profiles.put({"anna": {}})

        def fill(connection: apsw.Connection) -> None:
            connection.pragma("max_page_count", connection.pragma("page_count"))
            connection.execute("UPDATE profile SET fields = 'lost'")
            connection.execute("INSERT INTO profile VALUES ('big', ?)", ("x" * 100_000,))

        with pytest.raises(StoreError) as caught:
            await base.write(fill)
        assert caught.value.public_message == "the store's disk is full"
        assert await store.profiles.get("anna") == {}
        await store.profiles.put({"ben": {}})  # on a fresh connection, which has no limit
        assert await store.profiles.users() == ["anna", "ben"]


async def test_a_connection_for_reading_cannot_write(tmp_path: Path) -> None:
    async with database(tmp_path / "x.db") as base:
        with pytest.raises(StoreError) as caught:
            await base.read(lambda connection: connection.execute("DELETE FROM profile").fetchall())
        assert caught.value.public_message == "the store is read-only"


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    other = apsw.Connection(str(path))
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def test_a_lock_held_elsewhere_delays_writers_for_a_bounded_time_and_readers_not_at_all(tmp_path: Path) -> None:
    async with database(tmp_path / "x.db") as base:
        await users(base)
        with locked_by_another_process(tmp_path / "x.db"):
            with pytest.raises(StoreError, match=r"write lock for more than 0\.05 s") as caught:
                await Store(base).profiles.put({"anna": {}})
            assert caught.value.public_message == "the store is busy"
            assert await users(base) == []
        await Store(base).profiles.put({"anna": {}})
        assert await users(base) == ["anna"]


class Watched:
    """Work for a database whose start and end the test can wait for."""

    def __init__(self, work: Callable[[apsw.Connection], object]) -> None:
        self.started = trio.Event()
        self.ended = trio.Event()
        self._work = work
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self, connection: apsw.Connection) -> object:
        self._token.run_sync_soon(self.started.set)
        try:
            return self._work(connection)
        finally:
            self._token.run_sync_soon(self.ended.set)


async def test_a_query_that_nobody_waits_for_stops_and_frees_its_place(tmp_path: Path) -> None:
    async with database(tmp_path / "x.db", readers=1) as base:
        endless = Watched(lambda connection: connection.execute(ENDLESS).get)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(base.read, endless)
            await endless.started.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await endless.ended.wait()
            assert await users(base) == []  # the only reader's place is free again
        assert base.statistics().connections == 1


async def test_a_write_given_up_while_it_waits_for_a_lock_stops_waiting(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with database(path, busy_s=3_600) as base:
        await Store(base).profiles.put({})
        with locked_by_another_process(path):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Store(base).profiles.put, {"late": {}})
                await wait_all_tasks_blocked()
                assert base.statistics().writing == 1
                nursery.cancel_scope.cancel()
            with trio.fail_after(5):
                while base.statistics().writing:  # a thread's end has no event; the lock is still held
                    await trio.sleep(0.005)
        assert await users(base) == []


async def test_a_store_on_a_stuck_disk_still_closes(tmp_path: Path) -> None:
    """A thread that the kernel does not give back costs the closing its two seconds at most, and its own place."""
    release = threading.Event()
    base = Database(str(tmp_path / "x.db"), readers=1)
    stuck = Watched(lambda _connection: release.wait(20))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(base.read, stuck)
        await stuck.started.wait()
        nursery.cancel_scope.cancel()
    with trio.move_on_after(0) as late:  # its place is taken: waiting for it is bounded by the caller
        await users(base)
    assert late.cancelled_caught
    with trio.fail_after(5):
        await base.aclose()
        release.set()
        await stuck.ended.wait()
    with pytest.raises(StoreError, match="closed"):
        await users(base)
    assert open_files(tmp_path) == []


async def test_text_with_half_a_character_is_refused_and_nothing_breaks() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        with pytest.raises(StoreError) as caught:
            await store.profiles.get("\ud800")
        assert caught.value.public_message == "text with half a character cannot be stored"
        await store.conversations.append("k", "c", [Turn(role="user", text="hi")])
        assert len(await store.conversations.recent("k", "c", 5)) == 1


@pytest.mark.parametrize("url", ["", "sluice.db", "postgres://x/y", "sqlite://", "sqlite:///"])
async def test_an_address_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="is no address of a store; write sqlite:///"):
        database_path(url)


def test_addresses_name_relative_and_absolute_files() -> None:
    assert database_path("sqlite:///a/b.db") == "a/b.db"
    assert database_path("sqlite:////var/b.db") == "/var/b.db"
