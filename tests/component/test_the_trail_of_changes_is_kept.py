"""Promise: what operators change stands in the trail before it is made, in either database, until it is too old."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.store.audit import BEGUN, Audit
from gateway.store.sqlite import Store
from tests.component import services

DAY_S = 86_400.0


@asynccontextmanager
async def trail(url: str, clock: list[float]) -> AsyncIterator[Audit]:
    async with Store.open(url) as store:
        yield Audit(store.sql, now=lambda: clock[0])


async def check(url: str) -> None:
    clock = [1_000 * DAY_S]
    async with trail(url, clock) as audit:
        first = await audit.begin(who="w", client="::1", action="keys.create", subject="app", keep_days=30)
        [row] = await audit.list(before=None, limit=10)
        assert (row["subject"], row["outcome"], row["at_s"]) == ("app", BEGUN, clock[0])
        await audit.end(first, subject="key_1", outcome="done")
        await audit.end(first, subject="key_2", outcome="key_refused")  # what has ended stays as it is
        clock[0] += 20 * DAY_S
        second = await audit.begin(who="w", client="::1", action="keys.revoke", subject="key_1", keep_days=30)
        rows = await audit.list(before=None, limit=10)
        assert [(each["id"], each["subject"], each["outcome"]) for each in rows] == [
            (second, "key_1", BEGUN),
            (first, "key_1", "done"),
        ]
        assert [each["id"] for each in await audit.list(before=second, limit=10)] == [first]
        assert [each["id"] for each in await audit.list(before=None, limit=1)] == [second]
        clock[0] += 20 * DAY_S
        third = await audit.begin(who="w", client="::1", action="keys.create", subject="b", keep_days=30)
        assert [each["id"] for each in await audit.list(before=None, limit=10)] == [third, second]


async def test_in_sqlite(tmp_path: Path) -> None:
    await check(f"sqlite:///{tmp_path}/sluice.db")


async def test_in_postgresql(postgres: services.Postgres) -> None:
    await check(postgres.new_database())
