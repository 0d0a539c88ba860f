"""Promise: limits and budgets of a key hold over all processes of a gateway, and nearly all of them can be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import services
import trio
from attrs import define, field

from gateway.sim import Behaviour
from tests.component.served import Served, served
from tests.component.stage import Heard, chat, hear, request_bytes
from tests.component.test_workers_are_processes import serving_pids, until

pytestmark = pytest.mark.alone

FOUR = ("--workers", "4")
START_S = 40.0
RATED, BUDGETED = "sk-rated-0123456789abcdef", "sk-budgeted-0123456789abcdef"
RPM = 120
TEN = f"""
[prices."sim/sim"]
input_usd_per_mtok = 0
output_usd_per_mtok = 10
[[key]]
name = "budgeted"
secret = "{BUDGETED}"
budget_usd = 0.01
period = "total"
"""
COSTS_A_THOUSANDTH = chat(max_tokens=100)  # dollars: a tenth of the budget, estimated and in the end


@define
class Told:
    """What clients were told."""

    heard: list[Heard] = field(factory=list)
    took_s: list[float] = field(factory=list)

    def count(self, status: int) -> int:
        return sum(1 for one in self.heard if one.status == status)

    async def client(self, gateway: Served, key: str, document: object, times: int = 1, pause_s: float = 0.0) -> None:
        """Ask again and again on one connection."""
        async with await gateway.connect() as stream:
            for _ in range(times):
                began = trio.current_time()
                await stream.send_all(request_bytes(document, key=key))
                self.heard.append(await hear(stream, seconds=60))
                self.took_s.append(trio.current_time() - began)
                await trio.sleep(pause_s)


async def burst(gateway: Served, key: str, document: object, clients: int) -> Told:
    """All at the same time."""
    told = Told()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(told.client, gateway, key, document)
    return told


async def all_listen(gateway: Served, count: int = 4) -> None:
    await until(lambda: len(serving_pids(gateway)) >= count, seconds=START_S)


def processes_that_answered(gateway: Served) -> int:
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return len({line["request_id"][:20] for line in lines if line["event"] == "request"})


async def test_four_processes_answer_as_many_as_one_minute_has_and_nearly_all_of_them(tmp_path: Path) -> None:
    key = f'[[key]]\nname = "rated"\nsecret = "{RATED}"\nrpm = {RPM}\n'
    async with served(tmp_path, arguments=FOUR, workers=800, behaviour=Behaviour(tokens=2), more=key) as gateway:
        await all_listen(gateway)
        told, began = Told(), trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(told.client, gateway, RATED, chat(), 3, 0.5)
                await trio.sleep(0.004)
        assert trio.current_time() - began < 50, "one window of the limit"
        assert len(told.heard) == 1_200
        assert {one.status for one in told.heard} == {200, 429}
        assert 0.95 * RPM <= told.count(200) <= RPM
        assert gateway.sim.statistics().started == told.count(200)
        for refused in (one for one in told.heard if one.status == 429):
            error = refused.json()["error"]
            assert error["code"] == "rate_limited"
            assert error["message"].startswith(f"key 'rated' may make {RPM} requests a minute (rpm); ")
            assert int(refused.headers["retry-after"]) >= 1
        assert processes_that_answered(gateway) >= 2


async def test_two_hundred_at_once_against_a_budget_for_ten_are_ten(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=100, tokens_per_s=100)
    async with served(tmp_path, workers=300, behaviour=behaviour, more=TEN) as gateway:
        told = await burst(gateway, BUDGETED, COSTS_A_THOUSANDTH, 200)
        assert (told.count(200), told.count(429)) == (10, 190)
        assert gateway.sim.statistics().started == 10
        message = (await gateway.ask(COSTS_A_THOUSANDTH, key=BUDGETED)).json()["error"]
        assert message["code"] == "budget_exhausted"
        assert message["message"] == "key 'budgeted' may spend 0.01 USD in all; that is spent"


async def test_over_four_processes_two_hundred_at_once_are_never_more_than_ten(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=100, tokens_per_s=100)
    async with served(tmp_path, arguments=FOUR, workers=800, behaviour=behaviour, more=TEN) as gateway:
        await all_listen(gateway)
        told = await burst(gateway, BUDGETED, COSTS_A_THOUSANDTH, 200)
        assert told.count(200) + told.count(429) == 200
        assert 0 < told.count(200) <= 10
        answered = told.count(200)
        with trio.fail_after(20):
            while answered < 10:  # what a process had in hand for nothing goes back, and is there for all
                answered += (await gateway.ask(COSTS_A_THOUSANDTH, key=BUDGETED)).status == 200
        told = await burst(gateway, BUDGETED, COSTS_A_THOUSANDTH, 40)
        assert told.count(429) == 40
        assert gateway.sim.statistics().started == 10


async def test_a_second_without_the_limits_keeper_changes_nothing_for_clients(
    redis: services.Redis, tmp_path: Path
) -> None:
    more = f'[limits]\nurl = "{redis.new_database()}"\n[[key]]\nname = "rated"\nsecret = "{RATED}"\nrpm = 6000\n'
    behaviour = Behaviour(tokens=2)
    async with served(tmp_path, arguments=("--workers", "2"), workers=200, behaviour=behaviour, more=more) as gateway:
        await all_listen(gateway, 2)
        told, during = Told(), Told()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(told.client, gateway, RATED, chat(), 25, 0.1)
                await trio.sleep(0.005)
        redis.pause()
        try:
            with trio.move_on_after(1.0) as cut:
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(during.client, gateway, RATED, chat(), 100, 0.1)
                        await trio.sleep(0.005)
            assert cut.cancelled_caught
        finally:
            redis.resume()
        assert {one.status for one in (*told.heard, *during.heard)} == {200}
        assert len(during.heard) >= 60
        # Of three quarters, for a machine may stand still for a moment: if anybody asked the keeper, all would.
        assert upper_quartile(during.took_s) < max(0.1, 2 * upper_quartile(told.took_s[20:]))


def upper_quartile(values: list[float]) -> float:
    return sorted(values)[len(values) * 3 // 4]
