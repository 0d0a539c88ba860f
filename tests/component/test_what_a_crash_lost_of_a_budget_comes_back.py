"""Promise: what a killed process had of a budget is spent until the ledger shows what really was; the rest is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import services
from ledgers import record, running
from test_every_keeper_of_limits_does_the_same import claim, settle

from gateway.core.limits import FOREVER_S, LimitRule
from gateway.ledger.losses import recover
from gateway.store.limits_sql import SqlLimits

AMOUNT = 100_000
SPENT = 2_700  # what ledgers.record costs, in micro-dollars


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sluice.db"
    server: services.Postgres = request.getfixturevalue("postgres")
    return server.new_database()


def budget(scope: str, owner: str, period: str) -> LimitRule:
    return LimitRule(scope=scope, owner=owner, kind="usd", amount=AMOUNT, period=period)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scope", "owner", "period"),
    [
        ("key", "dev#0123456789ab", "total"),
        ("key", "dev", "month"),
        ("team", "blue: 'a'\"--", "day"),
        ("org", "acme", "total"),
    ],
)
async def test_what_the_ledger_does_not_show_as_spent_comes_back_once(
    url: str, tmp_path: Path, scope: str, owner: str, period: str
) -> None:
    key_id = "key_0123456789abcdef" if "#" in owner else ""
    its = {"team": "blue: 'a'\"--", "org": "acme", "key_id": key_id}
    rule = budget(scope, owner, period)
    async with running(url, tmp_path) as (ledger, store):
        keeper = SqlLimits(store.sql)
        name = rule.pool_name(rule.period_at(time.time())[0])
        other = {"team": "red", "org": "umbrella", "key_id": "key_ffffffffffff0000", "principal": "dev"}

        async def left(holder: str, **told: int) -> int:
            asked = claim(name, window_s=FOREVER_S, amount=AMOUNT, **told)
            return (await settle(keeper, holder, asked)).grants[0].remaining

        for holder in ("dead", "living"):
            await settle(keeper, holder, new=True)
        await left("dead", target=40_000)
        await left("dead", used=SPENT, target=40_000)
        for number in range(3):  # two more than it could tell of
            ledger.write(record(number, **its))
        ledger.write(record(9, **other))
        await ledger.finish(5)
        await settle(keeper, "dead", lease_s=0.001)
        while (await settle(keeper, "living")).holders > 1:
            pass
        assert await left("living") == AMOUNT - 40_000 - SPENT
        assert await recover(keeper, store.sql, 60.0) == {}, "somebody used it a moment ago"
        assert await recover(keeper, store.sql, 0.0) == {name: 40_000 - 2 * SPENT}
        assert await left("living") == AMOUNT - 3 * SPENT
        assert await recover(keeper, store.sql, 0.0) == {}


async def test_a_budget_that_somebody_holds_a_slice_of_waits(url: str, tmp_path: Path) -> None:
    rule = budget("team", "blue", "month")
    async with running(url, tmp_path) as (_, store):
        keeper = SqlLimits(store.sql)
        name = rule.pool_name(rule.period_at(time.time())[0])
        slice_of: Callable[..., object] = lambda **told: claim(name, window_s=FOREVER_S, amount=AMOUNT, **told)  # noqa: E731
        await settle(keeper, "dead", slice_of(target=100), new=True, lease_s=0.001)
        while (await settle(keeper, "living", slice_of(target=100), new=True)).holders > 1:
            pass
        assert await recover(keeper, store.sql, 0.0) == {}
        await settle(keeper, "living", slice_of(returned=100))
        assert await recover(keeper, store.sql, 0.0) == {name: 100}
