"""Promise: a response can be gone on from by who asked for it, with all before it, and what is kept is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing

from gateway.store.database import MEMORY, Database
from gateway.store.responses import ResponseLimits, Responses
from gateway.store.sqlite import Store

DAY_S = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_784_000_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def kept(limits: ResponseLimits | None = None) -> AsyncIterator[tuple[Responses, Clock]]:
    database, clock = Database(MEMORY), Clock()
    try:
        yield Responses(database, limits, clock), clock
    finally:
        await database.aclose()


async def conversation(responses: Responses, *ids: str, tenant: str = "a") -> None:
    """Responses, each of which goes on from the one before it; their data is their id."""
    previous: str | None = None
    for id in ids:
        assert await responses.put(tenant, id, previous, id.encode())
        previous = id


async def chain(responses: Responses, id: str, tenant: str = "a") -> list[bytes]:
    return (await responses.chains(tenant, [id]))[id]


async def test_a_response_comes_with_all_before_it_oldest_first() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await conversation(store.responses, "1", "2", "3")
        await store.responses.put("a", "branch", "1", b"branch")
        assert await chain(store.responses, "3") == [b"1", b"2", b"3"]
        found = await store.responses.chains("a", ["branch", "1", "never", "1"])
        assert found == {"branch": [b"1", b"branch"], "1": [b"1"], "never": []}
        assert await store.responses.chains("a", []) == {}
        assert await store.responses.get("a", "2") == b"2"


async def test_another_tenant_has_nothing_of_it() -> None:
    async with kept() as (responses, _):
        await conversation(responses, "1", "2")
        await conversation(responses, "2", tenant="b")
        assert await chain(responses, "1", tenant="b") == []
        assert await chain(responses, "2", tenant="b") == [b"2"]
        assert await responses.get("b", "1") is None
        assert not await responses.delete("b", "1")
        assert await chain(responses, "2") == [b"1", b"2"]


async def test_half_a_conversation_is_none() -> None:
    async with kept() as (responses, _):
        await conversation(responses, "1", "2", "3")
        assert await responses.delete("a", "1")
        assert not await responses.delete("a", "1")
        assert await chain(responses, "3") == []
        assert await responses.get("a", "3") == b"3"


async def test_a_circle_of_responses_has_no_beginning_and_ends() -> None:
    async with kept() as (responses, _):
        await responses.put("a", "1", "2", b"1")
        await responses.put("a", "2", "1", b"2")
        assert await chain(responses, "1") == []


async def test_going_on_keeps_the_whole_conversation_young() -> None:
    async with kept() as (responses, clock):
        await conversation(responses, "1", "2")
        await conversation(responses, "other")
        clock.now_s += 29 * DAY_S
        await responses.put("a", "3", "2", b"3")
        clock.now_s += 2 * DAY_S
        assert await chain(responses, "3") == [b"1", b"2", b"3"]
        assert await chain(responses, "other") == []
        assert await responses.get("a", "other") is None


async def test_what_is_too_old_is_forgotten_whoever_puts_next() -> None:
    database, clock = Database(MEMORY), Clock()
    responses = Responses(database, now=clock)
    await conversation(responses, "1", "2")
    clock.now_s += 31 * DAY_S
    await responses.put("b", "x", None, b"x")
    count = await database.read(lambda connection: connection.execute("SELECT count(*) FROM response").get)
    assert count == 1
    await database.aclose()


async def test_a_tenant_keeps_the_responses_it_used_last() -> None:
    async with kept(ResponseLimits(count=3)) as (responses, clock):
        await conversation(responses, "old-1", "old-2", tenant="b")
        for id in ("1", "2", "3", "4"):
            clock.now_s += 1
            await responses.put("a", id, None, id.encode())
        assert [bool(await responses.get("a", id)) for id in ("1", "2", "3", "4")] == [False, True, True, True]
        assert await chain(responses, "old-2", tenant="b") == [b"old-1", b"old-2"]


async def test_a_tenant_keeps_so_many_bytes_and_the_last_response_in_any_case() -> None:
    async with kept(ResponseLimits(size_bytes=100, response_bytes=150)) as (responses, clock):
        for id, size in (("1", 40), ("2", 40), ("3", 40), ("4", 150)):
            clock.now_s += 1
            assert await responses.put("a", id, None, b"x" * size)
            if id == "3":
                assert [bool(await responses.get("a", each)) for each in ("1", "2", "3")] == [False, True, True]
        assert [bool(await responses.get("a", each)) for each in ("2", "3", "4")] == [False, False, True]
        assert not await responses.put("a", "5", None, b"x" * 151)
        assert await responses.get("a", "5") is None


async def test_a_conversation_beyond_the_limits_cannot_be_gone_on_from() -> None:
    async with kept(ResponseLimits(chain=2)) as (responses, _):
        await conversation(responses, "1", "2", "3")
        assert [len(await chain(responses, id)) for id in ("2", "3")] == [2, 0]
    async with kept(ResponseLimits(chain_bytes=2)) as (responses, _):
        await conversation(responses, "1", "2", "3")
        assert [len(await chain(responses, id)) for id in ("2", "3")] == [2, 0]


async def test_the_same_id_again_replaces_what_was_kept() -> None:
    async with kept() as (responses, _):
        await responses.put("a", "1", None, b"old")
        await responses.put("a", "1", None, b"new")
        assert await responses.get("a", "1") == b"new"


async def test_reading_waits_for_a_response_that_is_being_written() -> None:
    async with kept() as (responses, _):
        responses.expect("a", "1")
        responses.expect("a", "1")
        found: list[list[bytes]] = []

        async def read() -> None:
            found.append(await chain(responses, "1"))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                assert await chain(responses, "1", tenant="b") == []  # others do not wait
                responses.settle("a", "1")
                await trio.testing.wait_all_tasks_blocked()
                assert found == []
                await responses.put("a", "1", None, b"1")
                responses.settle("a", "1")
        assert found == [[b"1"]]


async def test_they_outlive_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sluice.db'}"
    async with Store.open(url) as store:
        await conversation(store.responses, "1", "2")
    async with Store.open(url) as store:
        assert await chain(store.responses, "2") == [b"1", b"2"]
