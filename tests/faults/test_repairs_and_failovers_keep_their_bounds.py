"""A repair or a failover gives back what it took, pays for what it asks, and tells what all of it was.

What is asserted is mostly what is left afterwards: nothing in flight at any target, drains that are counted to zero,
attempts that the retry budget paid for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from gateway.core.facts import Kind, Outcome, Record
from gateway.sim import Behaviour
from tests.component.stage import Heard, Stage, ask, chat, request_bytes, staged

TIMEOUTS = "connect_s = 5\nfirst_token_s = 30\nanswer_s = 30\nstall_s = 30\ntotal_s = 600"
TOKENS = 60


def provider(name: str, rules: str = "") -> str:
    return f'[[provider]]\nname = "{name}"\nbase_url = "${{SIM}}"\n{rules}\n'


def model(*targets: str, rules: str = "") -> str:
    named = ", ".join(
        f'{{ provider = "{name}", model = "{sim}" }}' for name, _, sim in (one.partition("/") for one in targets)
    )
    return f'[[model]]\nname = "m"\ntargets = [{named}]\n{rules}\n'


@asynccontextmanager
async def bounded(*tables: str, tokens: int = TOKENS) -> AsyncIterator[Stage]:
    async with staged(timeouts=TIMEOUTS, more="\n".join(tables), behaviour=Behaviour(tokens=tokens)) as stage:
        stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left()
        states = stage.gateway.health.states()
        assert [state["in_flight"] for state in states] == [0] * len(states)


async def last(stage: Stage) -> Record:
    await stage.settle()
    return stage.records[-1]


def told(record: Record) -> list[tuple[str, Kind, str]]:
    return [(fact.target.partition("/")[0], fact.kind, fact.outcome) for fact in record.attempts]


PREFILL = "quirks = { prefill = true }"


async def test_a_repair_that_ran_out_of_attempts_holds_nothing() -> None:
    targets = ("a/sim-cut=40-tps=50", "b/sim-prefill=refuse")
    rules = 'midstream = "continue"\nmax_attempts = 2'
    async with bounded(provider("a"), provider("b", PREFILL), model(*targets, rules=rules)) as stage:
        heard = await ask(stage, chat("m", stream=True))
        assert not heard.finished
        record = await last(stage)
        assert told(record) == [("a", Kind.PRIMARY, "broken"), ("b", Kind.CONTINUATION, "failed")]
        assert record.target == "a/sim-cut=40-tps=50"  # whose answer the client has


async def test_the_usage_of_an_answer_of_three_parts_counts_them_all() -> None:
    targets = ("a/sim-cut=20-tps=50", "b/sim-cut=20-tps=50", "c/sim")
    providers = [provider("a"), provider("b", PREFILL), provider("c", PREFILL)]
    async with bounded(*providers, model(*targets, rules='midstream = "continue"')) as stage:
        heard = await ask(stage, chat("m", stream=True, stream_options={"include_usage": True}))
        assert heard.finished
        record = await last(stage)
        assert [fact.outcome for fact in record.attempts] == ["broken", "broken", "ok"]
        assert record.tokens == pytest.approx(TOKENS, abs=2)
        assert json.loads(heard.events[-2])["usage"]["completion_tokens"] == pytest.approx(TOKENS, abs=2)


@pytest.mark.parametrize("midstream", ["continue", "restart"])
async def test_an_answer_of_two_parts_has_no_more_tokens_than_the_client_allows(midstream: str) -> None:
    targets = ("a/sim-cut=20-tps=50", "b/sim")
    rules = f'midstream = "{midstream}"'
    async with bounded(provider("a"), provider("b", PREFILL), model(*targets, rules=rules)) as stage:
        heard = await ask(stage, chat("m", stream=True, max_tokens=30, stream_options={"include_usage": True}))
        assert heard.finished
        record = await last(stage)
        assert [fact.outcome for fact in record.attempts] == ["broken", "ok"]
        assert (record.tokens, record.finish_reason) == (pytest.approx(30, abs=1), "length")


async def test_a_prompt_that_is_too_long_for_a_repair_goes_to_a_larger_window() -> None:
    targets = (
        '{ provider = "a", model = "sim-cut=20-tps=50", context_tokens = 100 }',
        '{ provider = "b", model = "sim-window=2", context_tokens = 20 }',
        '{ provider = "c", model = "sim-equal", context_tokens = 20 }',
        '{ provider = "d", model = "sim", context_tokens = 100 }',
    )
    rules = f'[[model]]\nname = "m"\ntargets = [{", ".join(targets)}]'
    async with bounded(*(provider(name, PREFILL) for name in "abcd"), rules) as stage:
        assert (await ask(stage, chat("m", stream=True, content="a longer prompt"))).finished
        assert told(await last(stage)) == [
            ("a", Kind.PRIMARY, "broken"),
            ("b", Kind.CONTINUATION, "failed"),
            ("d", Kind.CONTINUATION, "ok"),
        ]


@pytest.mark.parametrize("way", ["continue", "restart"])
async def test_keep_alives_alone_are_no_progress_of_a_repair(way: str) -> None:
    targets = ("a/sim-cut=20-tps=50", "b/sim-pings=5")
    async with bounded(provider("a"), provider("b", PREFILL), model(*targets, rules=f'midstream = "{way}"')) as stage:
        began = trio.current_time()
        heard = await ask(stage, chat("m", stream=True), seconds=600)
        assert trio.current_time() - began < 2 + 2 * 30, "each way has its time once"
        assert json.loads(heard.events[-1])["error"]["code"] == "upstream_read"
        assert (await last(stage)).outcome is Outcome.BROKEN


async def ask_many(stage: Stage, times: int) -> list[Heard]:
    return [await ask(stage, chat("m")) for _ in range(times)]


async def test_another_target_of_a_provider_that_failed_is_paid_from_its_retry_budget() -> None:
    off = "breaker = { enabled = false }"
    targets = ("a/sim-status=500", "a/sim-status=503", "a/sim-status=502")
    async with bounded(provider("a", off), model(*targets, rules="retry = { max = 0 }")) as stage:
        assert {heard.status for heard in await ask_many(stage, 40)} <= {502, 503}
        await stage.settle()
        assert sum(len(record.attempts) for record in stage.records) == 40 + 10  # the floor of the budget


async def test_another_provider_is_asked_without_paying() -> None:
    off = "breaker = { enabled = false }\nretry_budget = { ratio = 0.0, floor = 0 }"
    async with bounded(provider("a", off), provider("b", off), model("a/sim-status=500", "b/sim")) as stage:
        assert {heard.status for heard in await ask_many(stage, 20)} == {200}


async def test_a_limit_of_one_model_is_no_failure_of_its_provider() -> None:
    off = "breaker = { enabled = false }\nretry_budget = { ratio = 0.0, floor = 0 }"
    async with bounded(provider("a", off), model("a/sim-status=429", "a/sim")) as stage:
        assert {heard.status for heard in await ask_many(stage, 20)} == {200}


async def test_a_fallback_that_is_full_is_waited_for_when_the_first_has_failed() -> None:
    one = "concurrency = { floor = 1, ceiling = 1, start = 1 }"
    async with bounded(provider("a"), provider("b", one), model("a/sim-status=500", "b/sim-ttft=0.1")) as stage:
        heard: list[Heard] = []

        async def ask_one() -> None:
            heard.append(await ask(stage, chat("m", stream=True)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask_one)
        assert [one.status for one in heard] == [200] * 3


async def test_a_repair_waits_for_a_fallback_that_is_full() -> None:
    one = "concurrency = { floor = 1, ceiling = 1, start = 1 }"
    tables = provider("a"), provider("b", one + "\n" + PREFILL), model("a/sim-cut=20-tps=50", "b/sim-ttft=3")
    async with bounded(*tables) as stage:
        heard: list[Heard] = []

        async def ask_one() -> None:
            heard.append(await ask(stage, chat("m", stream=True)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask_one)
        assert [one.finished for one in heard] == [True] * 3


async def test_who_waited_in_vain_for_a_full_target_is_told_so() -> None:
    one = "concurrency = { floor = 1, ceiling = 1, start = 1 }"
    async with bounded(provider("a", one), model("a/sim-ttft=25-tps=1")) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, stage, chat("m", stream=True), seconds=600))
        await stage.sim.until(lambda now: now.active == 1)
        heard = await ask(stage, chat("m", stream=True), seconds=600)
        assert (heard.status, heard.json()["error"]["code"]) == (503, "upstream_saturated")
        assert int(heard.headers["retry-after"]) >= 1
        await stage.settle(600)
        assert [record.outcome for record in stage.records] == [Outcome.FAILED, Outcome.OK]


async def test_retry_after_is_waited_for_where_the_others_cannot_be_asked() -> None:
    off = "breaker = { consecutive = 1, open_s = 600, max_open_s = 600 }"
    tables = provider("a"), provider("b", off), model("a/sim-flap=1-status=429-retry_after=2", "b/sim-status=500")
    down = '[[model]]\nname = "down"\ntargets = [{ provider = "b", model = "sim-status=500" }]'
    async with bounded(*tables, down) as stage:
        assert (await ask(stage, chat("down"))).status == 502
        began = trio.current_time()
        assert (await ask(stage, chat("m"))).status == 200
        assert 2 <= trio.current_time() - began < 3
        assert told(await last(stage)) == [("a", Kind.PRIMARY, "failed"), ("a", Kind.RETRY, "ok")]


async def test_a_client_that_leaves_while_its_repair_waits_takes_nothing_along() -> None:
    one = "concurrency = { floor = 1, ceiling = 1, start = 1 }"
    tables = provider("a"), provider("b", one + "\n" + PREFILL), model("a/sim-cut=20-tps=50", "b/sim-tps=2")
    busy = '[[model]]\nname = "busy"\ntargets = [{ provider = "b", model = "sim-tps=2" }]'
    async with bounded(*tables, busy) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, stage, chat("busy", stream=True), seconds=60))
        await stage.sim.until(lambda now: now.active == 1)
        async with await stage.connect() as client:
            await client.send_all(request_bytes(chat("m", stream=True)))
            await trio.sleep(2)
            assert stage.sim.statistics().active == 1, "the first has broken off, the second is busy"
        await stage.settle(60)
        left = next(record for record in stage.records if record.model == "m")
        assert (told(left), left.outcome) == ([("a", Kind.PRIMARY, "broken")], Outcome.CANCELLED)
        assert (await ask(stage, chat("busy", stream=True), seconds=60)).finished
