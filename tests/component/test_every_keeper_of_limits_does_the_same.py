"""The contract of the limits' keepers, against each of them: in memory, SQLite, PostgreSQL, Redis; all real."""

import gc
import random
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.core.limits import FOREVER_S, HELD_S, Claim
from gateway.quota.backend import MemoryLimits
from gateway.store.database import Database, StoreError
from gateway.store.limits_redis import RedisLimits
from gateway.store.limits_sql import SqlLimits
from gateway.store.postgresql import Postgres
from gateway.store.sql import SqliteSql

# coredis leaves a pair of anyio's streams to the garbage collector for each connection that fails.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


class Clock:
    at_s = 1_800_000_000.0

    def __call__(self):
        return self.at_s


@asynccontextmanager
async def sql_limits(store):
    try:
        yield SqlLimits(store)
    finally:
        await store.aclose()


@asynccontextmanager
async def memory_limits():
    yield MemoryLimits()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "redis"])
def opened(request, tmp_path):
    """Makes the keeper: ``async with opened() as keeper``."""
    if request.param == "memory":
        return memory_limits
    if request.param == "sqlite":
        return lambda: sql_limits(SqliteSql(Database(str(tmp_path / "sluice.db"))))
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
        return lambda: sql_limits(Postgres(url))
    url = request.getfixturevalue("redis").new_database()
    return lambda: RedisLimits.open(url)


def claim(name="x", *, window_s=HELD_S, amount=100, used=0, returned=0, target=0, need=0):
    return Claim(name=name, amount=amount, window_s=window_s, used=used, returned=returned, target=target, need=need)


async def settle(keeper, holder, *claims, lease_s=60.0, new=False):
    return await keeper.settle(holder, lease_s, claims, new=new)


async def test_a_slice_is_granted_given_back_and_granted_to_another(opened):
    async with opened() as keeper:
        first = await settle(keeper, "a", claim(target=80), new=True)
        assert (first.holders, first.grants[0].granted, first.grants[0].remaining) == (1, 80, 20)
        second = await settle(keeper, "b", claim(target=40, need=40), new=True)
        assert (second.holders, second.grants[0].granted, second.grants[0].remaining) == (2, 0, 20)
        await settle(keeper, "a", claim(returned=60))
        second = await settle(keeper, "b", claim(target=40, need=40))
        assert (second.grants[0].granted, second.grants[0].remaining) == (40, 40)


async def test_what_is_told_twice_counts_once(opened):
    async with opened() as keeper:
        told = claim(window_s=FOREVER_S, used=10, target=30)
        await settle(keeper, "a", claim(window_s=FOREVER_S, target=30), new=True)
        once = await settle(keeper, "a", told)
        assert await settle(keeper, "a", told) == once
        assert (once.grants[0].granted, once.grants[0].remaining) == (40, 60)


async def test_a_holder_that_is_not_known_is_told_so_and_nothing_changes(opened):
    async with opened() as keeper:
        assert await settle(keeper, "a", claim(target=30)) is None
        assert (await settle(keeper, "b", claim(), new=True)).holders == 1
        assert (await settle(keeper, "b", claim())).grants[0].remaining == 100


async def test_many_pools_in_one_round(opened):
    async with opened() as keeper:
        claims = [claim(f"pool-{number}", amount=number + 10, target=5) for number in range(500)]
        answer = await settle(keeper, "a", *claims, new=True)
        assert [grant.remaining for grant in answer.grants] == [number + 5 for number in range(500)]
        assert [grant.name for grant in answer.grants] == [one.name for one in claims]


async def test_used_units_of_a_rate_come_back_a_window_later(opened):
    async with opened() as keeper:
        await settle(keeper, "a", claim(window_s=0.64, target=100), new=True)
        used = claim(window_s=0.64, used=100)
        grant = (await settle(keeper, "a", used)).grants[0]
        assert grant.remaining == 0
        assert 0.55 < grant.reset_s <= 0.66
        with trio.fail_after(30):
            while (await settle(keeper, "a", used)).grants[0].remaining == 0:
                await trio.sleep(0.02)


async def test_when_used_units_come_back_is_told_alike(opened):
    async with opened() as keeper:
        await settle(keeper, "a", claim(window_s=3600.0, target=100), new=True)
        first = (await settle(keeper, "a", claim(window_s=3600.0, used=30))).grants[0]
        second = (await settle(keeper, "a", claim(window_s=3600.0, used=70))).grants[0]
        assert (first.back[-1][1], second.back[-1][1]) == (30, 70)
        assert all(3599 < after_s <= 3600 * 65 / 64 for after_s, _ in (*first.back, *second.back))


async def test_a_lease_that_is_over_frees_slots_charges_rates_and_loses_money_until_it_is_reconciled(opened):
    async with opened() as keeper:
        pools = (("slots", HELD_S), ("rate", 3600.0), ("usd:key:x:total:", FOREVER_S))
        claims = [claim(name, window_s=window_s, target=40) for name, window_s in pools]
        await settle(keeper, "a", *claims, new=True)
        asked = [claim(name, window_s=window_s) for name, window_s in pools]
        assert [g.remaining for g in (await settle(keeper, "b", *asked, new=True)).grants] == [60, 60, 60]
        await settle(keeper, "a", lease_s=0.001)  # the last that is heard of it
        answer = await settle(keeper, "b", *asked)
        with trio.fail_after(30):
            while answer.holders > 1:
                await trio.sleep(0.002)
                answer = await settle(keeper, "b", *asked)
        assert [g.remaining for g in answer.grants] == [100, 60, 60]
        assert await keeper.reconcile("usd:key:x:total:", 15) == 25
        assert await keeper.reconcile("usd:key:x:total:", 15) == 0
        assert [g.remaining for g in (await settle(keeper, "b", *asked)).grants] == [100, 60, 85]
        assert await settle(keeper, "a", *claims) is None


async def test_who_leaves_gives_back_all_but_what_its_requests_hold_which_is_written_off(opened):
    async with opened() as keeper:
        await settle(keeper, "a", claim(window_s=FOREVER_S, target=50), new=True)
        await keeper.leave("a", [claim(window_s=FOREVER_S, used=10, returned=5, target=7)])
        await keeper.leave("a", [])
        answer = await settle(keeper, "b", claim(window_s=FOREVER_S), new=True)
        assert (answer.holders, answer.grants[0].remaining) == (1, 83)


async def test_any_story_ends_as_it_does_in_memory(opened):
    rng, memory = random.Random(7), MemoryLimits()
    totals = {}
    async with opened() as keeper:
        for holder in "abc":
            for one in (keeper, memory):
                await settle(one, holder, new=True)
        for _ in range(60):
            holder, (name, window_s) = rng.choice("abc"), rng.choice([("c", HELD_S), ("m", FOREVER_S)])
            granted, used, returned = totals.get((holder, name), (0, 0, 0))
            in_hand = granted - used - returned
            back = rng.randint(0, max(in_hand, 0))
            spent = rng.randint(0, max(in_hand - back, 0) + rng.choice([0, 0, 3])) if window_s == FOREVER_S else 0
            told = claim(
                name, window_s=window_s, used=used + spent, returned=returned + back, target=rng.randint(0, 40),
                need=rng.choice([0, 0, rng.randint(0, 30)]),
            )  # fmt: skip
            here, there = await settle(keeper, holder, told), await settle(memory, holder, told)
            assert here == there
            totals[holder, name] = (here.grants[0].granted, told.used, told.returned)


async def test_redis_that_is_away_says_so_and_works_when_it_is_back(redis):
    async with RedisLimits.open(redis.new_database()) as keeper:
        await settle(keeper, "a", claim(target=1), new=True)
        redis.stop()
        try:
            with (
                pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:\d+/\d+: ConnectionError") as caught,
                trio.fail_after(5),
            ):
                await settle(keeper, "a", claim(target=1))
            assert caught.value.public_message == "the limits cannot be reached"
        finally:
            redis.start()
        assert await settle(keeper, "a", claim(target=1)) is None
        assert (await settle(keeper, "a", claim(target=1), new=True)).grants[0].granted == 1


async def test_a_machines_clock_that_is_set_back_costs_one_window_and_no_lease_outlives_it(tmp_path):
    clock = Clock()
    store = SqliteSql(Database(str(tmp_path / "sluice.db")))
    for keeper in (MemoryLimits(clock), SqlLimits(store, clock)):
        clock.at_s = 1_800_000_000.0
        used = claim(window_s=60.0, used=60)
        await settle(keeper, "a", claim(window_s=60.0, target=60), new=True)
        assert (await settle(keeper, "a", used)).grants[0].remaining == 40
        await settle(keeper, "b", claim("slots", target=50), new=True, lease_s=600.0)
        clock.at_s -= 86_400.0
        grant = (await settle(keeper, "a", used)).grants[0]
        assert (grant.remaining, grant.back) == (40, ((60.9375 - clock.at_s % 0.9375, 60),))
        clock.at_s += 61.0
        assert (await settle(keeper, "c", claim(window_s=60.0), new=True)).grants[0].remaining == 100
        clock.at_s += 600.0
        answer = await settle(keeper, "d", claim("slots"), new=True)
        assert (answer.holders, answer.grants[0].remaining) == (1, 100)
    await store.aclose()


async def test_pools_that_nobody_has_asked_for_in_forty_days_are_deleted_but_for_endless_budgets(tmp_path):
    store = SqliteSql(Database(str(tmp_path / "sluice.db")))
    keeper, names = SqlLimits(store), ("usd:key:dev:day:2027-01-15", "usd:key:dev:total:", "rpm:key:dev")
    await settle(keeper, "a", *(claim(name, window_s=FOREVER_S, target=1) for name in names), new=True)
    await keeper.leave("a", [])
    await settle(keeper, "b", claim("rpm:key:held", target=1), new=True)  # and has it in hand all the time
    await store.write(lambda session: session.run("UPDATE limit_pool SET seen_s = seen_s - ?", (41 * 86_400.0,)))
    await settle(keeper, "c", claim("rpm:key:other"), new=True)
    found = await store.read(lambda session: session.rows("SELECT name FROM limit_pool ORDER BY name"))
    assert [name for (name,) in found] == ["rpm:key:held", "rpm:key:other", "usd:key:dev:total:"]
    await store.aclose()
