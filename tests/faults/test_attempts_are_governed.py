"""Hedges, breakers, limits, balance and drains: what is asked of whom, and that nothing of it is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gateway.core.facts import Kind, Outcome, Record
from gateway.sim import Behaviour
from tests.component.stage import Stage, ask, chat, request_bytes, staged

TIMEOUTS = "connect_s = 2\nfirst_token_s = 5\nstall_s = 5\ntotal_s = 20"


@asynccontextmanager
async def governed(*tables: str, tokens: int = 20) -> AsyncIterator[Stage]:
    async with staged(timeouts=TIMEOUTS, more="\n".join(tables), behaviour=Behaviour(tokens=tokens)) as stage:
        stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left()
        states = stage.gateway.health.states()
        assert [state["in_flight"] for state in states] == [0] * len(states)


def provider(name: str, rules: str = "") -> str:
    return f'[[provider]]\nname = "{name}"\nbase_url = "${{SIM}}"\n{rules}\n'


def model(targets: str, rules: str = "") -> str:
    return f'[[model]]\nname = "m"\ntargets = [{targets}]\n{rules}\n'


def target(provider: str, name: str, more: str = "") -> str:
    return f'{{ provider = "{provider}", model = "{name}"{more} }}'


async def last(stage: Stage) -> Record:
    await stage.settle()
    return stage.records[-1]


def told(record: Record) -> list[tuple[str, Kind, str]]:
    return [(fact.target.partition("/")[0], fact.kind, fact.outcome) for fact in record.attempts]


# ── hedges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [True, False])
async def test_a_slow_target_is_overtaken_and_its_connection_closed(stream: bool) -> None:
    targets = target("a", "sim-ttft=4") + ", " + target("b", "sim")
    async with governed(provider("a"), provider("b"), model(targets, "hedge = { delay_s = 0.1 }")) as stage:
        began = trio.current_time()
        heard = await ask(stage, chat("m", stream=stream))
        assert trio.current_time() - began < 2
        assert (heard.status, heard.headers["x-sluice-target"]) == (200, "b/sim")
        assert told(await last(stage)) == [("a", Kind.PRIMARY, "cancelled"), ("b", Kind.HEDGE, "ok")]
        assert (await last(stage)).attempts[0].usage is not None  # the loser has read the prompt
        now = await stage.sim.until(lambda now: now.cancelled == 1)
        assert now.finished == 1


async def test_a_quick_target_is_not_hedged() -> None:
    targets = target("a", "sim") + ", " + target("b", "sim")
    async with governed(provider("a"), provider("b"), model(targets, "hedge = { delay_s = 1.0 }")) as stage:
        assert (await ask(stage, chat("m", stream=True))).finished
        assert told(await last(stage)) == [("a", Kind.PRIMARY, "ok")]


async def test_a_hedge_that_fails_leaves_the_first_alone() -> None:
    targets = target("a", "sim-ttft=0.5") + ", " + target("b", "sim-status=500")
    async with governed(provider("a"), provider("b"), model(targets, "hedge = { delay_s = 0.1 }")) as stage:
        heard = await ask(stage, chat("m", stream=True))
        assert (heard.finished, heard.headers["x-sluice-target"]) == (True, "a/sim-ttft=0.5")
        assert sorted(told(await last(stage)), key=str) == sorted(
            [("a", Kind.PRIMARY, "ok"), ("b", Kind.HEDGE, "failed")], key=str
        )


async def test_hedges_are_paid_from_the_retry_budget_of_who_is_slow() -> None:
    targets = target("a", "sim-ttft=0.3") + ", " + target("b", "sim-ttft=0.3")
    none = "retry_budget = { ratio = 0.0, floor = 0 }"
    async with governed(provider("a", none), provider("b"), model(targets, "hedge = { delay_s = 0.05 }")) as stage:
        assert (await ask(stage, chat("m", stream=True))).finished
        assert told(await last(stage)) == [("a", Kind.PRIMARY, "ok")]


async def slow_end(hedge: str) -> tuple[float, float]:
    """Time to first token that 99 of 100 requests do not exceed, and attempts per request, of a heavy-tailed provider:
    about 0.3 s, and 4.5 s for five of a hundred."""
    slow = target("a", "sim-uneven"), target("b", "sim-uneven")
    async with governed(provider("a"), provider("b"), model(", ".join(slow), hedge)) as stage:
        stage.gateway.health.rng.seed(1)
        pace = Behaviour(tokens=5, ttft_s=0.3, ttft_sigma=0.3, late_share=0.05, late_ttft_s=4.5)
        stage.sim.behave(pace, model="sim-uneven")
        numbers = iter(range(300))

        async def client() -> None:
            for _ in numbers:
                heard = await ask(stage, chat("m", stream=True))
                assert heard.finished, heard.body

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client)
        await stage.settle()
        records = stage.records[50:]  # the delay is learnt by then
        times = sorted(record.ttft_s for record in records)
        return times[len(times) * 99 // 100], sum(len(record.attempts) for record in records) / len(records)


async def test_hedging_halves_the_slow_end_for_seven_per_cent_more_calls() -> None:
    alone_s, _ = await slow_end("")
    hedged_s, attempts = await slow_end("hedge = {}")
    assert hedged_s <= alone_s / 2
    assert 1.02 < attempts <= 1.07


async def test_a_client_that_leaves_takes_the_hedge_with_it() -> None:
    targets = target("a", "sim-silence") + ", " + target("b", "sim-silence")
    async with governed(provider("a"), provider("b"), model(targets, "hedge = { delay_s = 0.05 }")) as stage:
        async with await stage.connect() as client:
            await client.send_all(request_bytes(chat("m", stream=True)))
            await stage.sim.until(lambda now: now.active == 2)
        record = await last(stage)
        assert record.outcome is Outcome.CANCELLED
        assert [fact.outcome for fact in record.attempts] == ["cancelled", "cancelled"]
        assert {state["breaker"] for state in stage.gateway.health.states()} == {"closed"}


# ── breakers and keys ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refused_key_opens_the_breaker_for_long_and_later_requests_go_elsewhere() -> None:
    targets = target("a", "sim-status=401") + ", " + target("b", "sim")
    async with governed(provider("a"), provider("b"), model(targets)) as stage:
        assert (await ask(stage, chat("m"))).status == 502
        assert (await ask(stage, chat("m"))).headers["x-sluice-target"] == "b/sim"
        assert told(await last(stage)) == [("b", Kind.PRIMARY, "ok")]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_of_loudly_and_tried_again_after_five_minutes(status: int, tmp_path: Path) -> None:
    targets = target("a", f"sim-status={status}") + ", " + target("b", "sim")
    tables = "\n".join((provider("a", 'api_key = "sk-secret-0123456789"'), provider("b"), model(targets)))
    with (tmp_path / "log").open("wb") as log:
        async with staged(timeouts=TIMEOUTS, more=tables, log='level = "error"', log_fd=log.fileno()) as stage:
            assert (await ask(stage, chat("m"))).status == 502
            for wait_s, who in ((0, "b"), (298, "b"), (4, "a")):
                await trio.sleep(wait_s)
                heard = await ask(stage, chat("m"))
                assert heard.headers["x-sluice-target"].partition("/")[0] == who
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    refused = [line for line in said if line["event"] == "provider_refuses_our_key"]
    assert len(refused) == 2
    for line in refused:
        about = line["level"], line["target"], line["key"], line["left_alone_s"]
        assert about == ("error", f"a/sim-status={status}", 1, 300)
    assert "sk-secret" not in (tmp_path / "log").read_text()


async def test_access_to_one_model_says_nothing_of_the_others() -> None:
    wild = '[[model]]\nname = "a/*"\ntargets = [{ provider = "a", model = "*" }]\n'
    async with governed(provider("a"), wild) as stage:
        assert (await ask(stage, chat("a/sim-status=403"))).status == 502
        assert (await ask(stage, chat("a/sim-status=403"))).json()["error"]["code"] == "upstream_forbidden"
        assert (await last(stage)).attempts == []  # not even asked
        assert (await ask(stage, chat("a/sim"))).status == 200


async def test_the_clients_mistakes_and_leaving_open_no_breaker() -> None:
    quick = provider("a", "breaker = { consecutive = 2 }")
    async with governed(quick, model(target("a", "sim-status=400"))) as stage:
        for _ in range(5):
            assert (await ask(stage, chat("m"))).status == 400
        assert {state["breaker"] for state in stage.gateway.health.states()} == {"closed"}


async def test_an_open_breaker_refuses_at_once_and_says_when_to_come_back() -> None:
    quick = provider("a", "breaker = { consecutive = 2, open_s = 5 }")
    async with governed(quick, model(target("a", "sim-status=500"), "retry = { max = 0 }")) as stage:
        for _ in range(2):
            assert (await ask(stage, chat("m"))).status == 502
        heard = await ask(stage, chat("m"))
        assert (heard.status, heard.json()["error"]["code"]) == (503, "upstream_circuit_open")
        assert 1 <= int(heard.headers["retry-after"]) <= 5
        assert stage.sim.statistics().started == 2


async def test_a_probe_whose_client_leaves_makes_room_for_the_next() -> None:
    quick = provider("a", "breaker = { consecutive = 1, open_s = 5 }")
    async with governed(quick, model(target("a", "sim-x"), "retry = { max = 0 }")) as stage:
        stage.sim.behave(Behaviour(status=500), model="sim-x")
        assert (await ask(stage, chat("m"))).status == 502
        await trio.sleep(5)
        stage.sim.behave(Behaviour(silence=True), model="sim-x")
        async with await stage.connect() as client:
            await client.send_all(request_bytes(chat("m")))
            await stage.sim.until(lambda now: now.active == 1)
            assert (await ask(stage, chat("m"))).json()["error"]["code"] == "upstream_circuit_open"
        await stage.settle()
        stage.sim.behave(None, model="sim-x")
        assert (await ask(stage, chat("m"))).json()["error"]["code"] == "upstream_circuit_open"
        await trio.sleep(5)
        assert (await ask(stage, chat("m"))).status == 200
        assert {state["breaker"] for state in stage.gateway.health.states()} == {"closed"}


async def test_the_metrics_show_attempts_and_breakers() -> None:
    quick = provider("a", "breaker = { consecutive = 1 }")
    targets = target("a", "sim-status=500") + ", " + target("b", "sim")
    async with governed(quick, provider("b"), model(targets)) as stage:
        await ask(stage, chat("m"))
        await stage.settle()
        text = stage.gateway.metrics.expose()[0].decode()
        assert 'sluice_attempts_total{kind="primary",outcome="failed",target="a/sim-status=500"} 1.0' in text
        assert 'sluice_attempts_total{kind="failover",outcome="ok",target="b/sim"} 1.0' in text
        assert 'sluice_breaker_state{target="a/sim-status=500"} 2.0' in text


# ── balance and limits ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_equals_share_by_weight() -> None:
    targets = target("a", "sim", ", weight = 3") + ", " + target("b", "sim", ", weight = 1")
    async with governed(provider("a"), provider("b"), model(targets, 'balance = "weighted"')) as stage:
        stage.gateway.health.rng.seed(1)
        for _ in range(200):
            await ask(stage, chat("m"))
        await stage.settle()
        share = Counter(record.target for record in stage.records)["a/sim"] / 200
        assert 0.6 < share < 0.9


async def test_the_less_loaded_of_two_gets_the_request() -> None:
    targets = target("a", "sim-ttft=0.2") + ", " + target("b", "sim")
    async with governed(provider("a"), provider("b"), model(targets, 'balance = "least_loaded"')) as stage:
        for _ in range(30):
            await ask(stage, chat("m", stream=True))
        await stage.settle()
        assert Counter(record.target for record in stage.records)["b/sim"] > 20


async def test_a_saturated_target_is_passed_over_for_a_free_one() -> None:
    one = provider("a", "concurrency = { floor = 1, ceiling = 1, start = 1 }")
    targets = target("a", "sim-ttft=0.5") + ", " + target("b", "sim")
    async with governed(one, provider("b"), model(targets)) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(ask, stage, chat("m", stream=True))
        await stage.sim.until(lambda now: now.active == 1)
        assert (await ask(stage, chat("m"))).headers["x-sluice-target"] == "b/sim"


async def test_where_all_are_saturated_one_waits_in_order() -> None:
    one = provider("a", "concurrency = { floor = 1, ceiling = 1, start = 1 }")
    async with governed(one, model(target("a", "sim-ttft=0.1"))) as stage, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, stage, chat("m", stream=True))
        most = 0
        while len(stage.records) < 5:
            most = max(most, stage.sim.statistics().active)
            await trio.sleep(0.01)
        assert most == 1
        assert {record.outcome for record in stage.records} == {Outcome.OK}


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def leave_after_first_bytes(stage: Stage) -> None:
    async with await stage.connect() as client:
        await client.send_all(request_bytes(chat("m", stream=True)))
        data = b""
        while b'"content"' not in data:
            data += await client.receive_some()


async def test_a_provider_that_bills_all_the_same_is_heard_to_its_end() -> None:
    async with governed(provider("a", 'on_disconnect = "drain"'), model(target("a", "sim-tps=100-tokens=40"))) as stage:
        await leave_after_first_bytes(stage)
        with trio.fail_after(1):
            while stage.gateway.admission.statistics().in_flight:
                await trio.sleep(0.001)
        assert stage.gateway.drains.active == 1  # the permit is free, the stream goes on
        now = await stage.sim.until(lambda now: now.finished == 1)
        assert now.cancelled == 0
        with trio.fail_after(5):
            while not stage.records:
                await trio.sleep(0.001)
        [record] = stage.records
        assert record.outcome is Outcome.CANCELLED
        assert record.usage is not None
        assert (record.usage.completion_tokens, record.usage.estimated) == (40, False)
        assert 0 < record.tokens < 40  # what the client got, not what was read after it
        assert told(record) == [("a", Kind.PRIMARY, "drained")]


@pytest.mark.parametrize("bound", ["drain_max_s = 0.2", "drain_max_tokens = 5", "drain_max_streams = 1"])
async def test_reading_on_has_its_bounds(bound: str) -> None:
    rules = f'on_disconnect = "drain"\n{bound}'
    async with governed(provider("a", rules), model(target("a", "sim-tps=20-tokens=400"))) as stage:
        await leave_after_first_bytes(stage)
        if "streams" in bound:
            await leave_after_first_bytes(stage)
        await stage.sim.until(lambda now: now.cancelled == 1)
        if "streams" in bound:
            assert stage.gateway.drains.active == 1
            with trio.fail_after(5):
                while not stage.records:
                    await trio.sleep(0.001)
            [record] = stage.records
            assert told(record) == [("a", Kind.PRIMARY, "cancelled")]
            stage.gateway.drains.stop()
            await stage.sim.until(lambda now: now.cancelled == 2)


async def test_one_that_stops_at_once_is_cancelled_at_once() -> None:
    async with governed(provider("a"), model(target("a", "sim-tps=20-tokens=400"))) as stage:
        await leave_after_first_bytes(stage)
        await stage.sim.until(lambda now: now.cancelled == 1)
        assert told(await last(stage)) == [("a", Kind.PRIMARY, "cancelled")]


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_keep_alives_put_the_stall_off_only_up_to_a_limit() -> None:
    more = model(target("sim", "sim-pings=0.1-stall=5-tps=100"), "retry = { max = 0 }")
    timeouts = "stall_s = 0.3\nkeepalive_s = 0.8"
    async with staged(timeouts=timeouts, more=more, behaviour=Behaviour(tokens=20)) as stage:
        began = trio.current_time()
        heard = await ask(stage, chat("m", stream=True))
        assert 0.8 <= trio.current_time() - began < 3
        assert json.loads(heard.events[-1])["error"]["code"] == "stall_timeout"
