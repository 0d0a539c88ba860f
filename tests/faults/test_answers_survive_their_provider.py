"""With one healthy fallback, whatever the first provider does, the client gets a complete answer in bounded time.

Two simulated targets behind one model: the first has the fault, the second is healthy. Two retries, timeouts of 30 s:
what people configure, by a clock on which waiting costs little (``tests/faults/clock.py``). What is asserted is when
the answer came, what was asked of whom, and that it is whole.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.core.facts import Kind, Outcome, Record
from gateway.sim import Behaviour
from gateway.sim.grammar import from_model
from tests.component.stage import Heard, Stage, ask, chat, staged

LIMIT_S = 30.0
PAUSES_S = 0.25 + 0.5  # two retries, at the most
TIMEOUTS = f"connect_s = 5\nfirst_token_s = {LIMIT_S}\nanswer_s = {LIMIT_S}\nstall_s = {LIMIT_S}\ntotal_s = 600"
TOKENS = 60
ENDINGS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def model(first: str, second: str = "sim", *, rules: str = "", provider: str = "") -> str:
    """A model ``m``: target ``first``, then ``second`` at another provider. ``provider``: lines for the first one."""
    return f"""
[[provider]]
name = "primary"
base_url = "${{SIM}}"
{provider}
[[provider]]
name = "backup"
base_url = "${{SIM}}"
quirks = {{ prefill = true }}
[[model]]
name = "m"
targets = [{{ provider = "primary", model = "{first}" }}, {{ provider = "backup", model = "{second}" }}]
{rules}
"""


@asynccontextmanager
async def surviving(more: str, *, requests: int = 1, workers: int = 20) -> AsyncIterator[Stage]:
    """A stage whose invariants are checked at the end."""
    behaviour = Behaviour(tokens=TOKENS)
    async with staged(timeouts=TIMEOUTS, more=more, behaviour=behaviour, workers=workers) as stage:
        stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left(requests=requests)


async def healthy_answer(stage: Stage) -> str:
    """What the provider says when nothing is wrong."""
    heard = await ask(stage, chat("sim/sim", stream=True))
    assert heard.finished
    return heard.text


def text_of(heard: Heard) -> str:
    """The answer's text, streamed or whole, which is complete."""
    assert (heard.status, heard.whole) == (200, True), heard.body
    if heard.headers["content-type"].startswith("text/event-stream"):
        assert heard.finished
        return heard.text
    return str(heard.json()["choices"][0]["message"]["content"])


async def seconds_of(stage: Stage, name: str = "m", *, stream: bool = False) -> float:
    """How long a complete answer takes."""
    began = trio.current_time()
    text_of(await ask(stage, chat(name, stream=stream), seconds=600))
    return trio.current_time() - began


def kinds(record: Record) -> list[tuple[str, Kind]]:
    return [(fact.target.partition("/")[0], fact.kind) for fact in record.attempts]


async def last_record(stage: Stage) -> Record:
    await stage.settle()
    return stage.records[-1]


# ── before the commit point ──────────────────────────────────────────────────────────────────────────────────────────

FAILING_AT_ONCE = [
    "status=429-retry_after=2",
    "status=429",
    "status=503",
    "status=500",
    "status=529",
    "status=408",
    "status=409",
    "reset",
    "error=0",
    "cut=0",
]


@ENDINGS
@pytest.mark.parametrize("fault", FAILING_AT_ONCE)
async def test_what_fails_at_once_is_answered_by_the_fallback(fault: str, stream: bool) -> None:
    async with surviving(model(f"sim-{fault}"), requests=2) as stage:
        expected = await healthy_answer(stage)
        began = trio.current_time()
        heard = await ask(stage, chat("m", stream=stream))
        assert trio.current_time() - began <= PAUSES_S
        assert text_of(heard) == expected
        assert heard.headers["x-sluice-target"] == "backup/sim"
        record = await last_record(stage)
        assert int(heard.headers["x-sluice-attempts"]) == len(record.attempts) <= 6
        assert record.attempts[-1].kind is Kind.FAILOVER
        assert all(fact.outcome == "failed" for fact in record.attempts[:-1])
        assert (record.attempts[-1].outcome, record.outcome) == ("ok", Outcome.OK)


@ENDINGS
@pytest.mark.parametrize("fault", ["silence", "slow=60", "stall=0", "ttft=60"])
async def test_a_silent_target_is_asked_once_and_left_after_its_time(fault: str, stream: bool) -> None:
    async with surviving(model(f"sim-{fault}")) as stage:
        assert await seconds_of(stage, stream=stream) == pytest.approx(LIMIT_S, abs=1)
        record = await last_record(stage)
        assert kinds(record) == [("primary", Kind.PRIMARY), ("backup", Kind.FAILOVER)]


@ENDINGS
async def test_a_first_token_after_20_s_where_10_are_allowed_is_the_fallbacks_within_15(stream: bool) -> None:
    async with surviving(model("sim-ttft=20", rules="timeouts = { first_token_s = 10, answer_s = 10 }")) as stage:
        assert 10 <= await seconds_of(stage, stream=stream) < 15
        assert kinds(await last_record(stage)) == [("primary", Kind.PRIMARY), ("backup", Kind.FAILOVER)]


@ENDINGS
async def test_who_wants_to_be_asked_again_after_two_seconds_is_left_at_once(stream: bool) -> None:
    async with surviving(model("sim-status=429-retry_after=2")) as stage:
        assert await seconds_of(stage, stream=stream) < 0.1
        assert kinds(await last_record(stage)) == [("primary", Kind.PRIMARY), ("backup", Kind.FAILOVER)]


@ENDINGS
@pytest.mark.parametrize("status", [429, 503])
async def test_who_refuses_everything_is_asked_three_times_and_then_the_fallback(status: int, stream: bool) -> None:
    async with surviving(model(f"sim-status={status}")) as stage:
        assert await seconds_of(stage, stream=stream) <= PAUSES_S
        asked = kinds(await last_record(stage))
        assert asked == [
            ("primary", Kind.PRIMARY),
            ("primary", Kind.RETRY),
            ("primary", Kind.RETRY),
            ("backup", Kind.FAILOVER),
        ]


async def test_retry_after_is_obeyed_where_there_is_nobody_else() -> None:
    alone = """
[[model]]
name = "alone"
targets = [{ provider = "sim", model = "sim-flap=1-status=429-retry_after=2" }]
"""
    async with surviving(alone) as stage:
        assert await seconds_of(stage, "alone") == pytest.approx(2, abs=0.1)
        assert kinds(await last_record(stage)) == [("sim", Kind.PRIMARY), ("sim", Kind.RETRY)]


@pytest.mark.parametrize(("fault", "status"), [("status=400", 400), ("status=404", 404), ("status=401", 502)])
async def test_the_clients_own_mistakes_and_our_keys_are_not_asked_twice(fault: str, status: int) -> None:
    async with surviving(model(f"sim-{fault}")) as stage:
        heard = await ask(stage, chat("m"))
        assert heard.status == status
        assert kinds(await last_record(stage)) == [("primary", Kind.PRIMARY)]


async def test_attempts_are_bounded_in_all() -> None:
    rules = "retry = { max = 10 }\nmax_attempts = 4"
    async with surviving(model("sim-status=503", "sim-status=503", rules=rules)) as stage:
        heard = await ask(stage, chat("m"))
        assert heard.status == 503
        assert len((await last_record(stage)).attempts) == 4


# ── in the middle ────────────────────────────────────────────────────────────────────────────────────────────────────

BREAKING = {"cut=40-tps=50": (0, 2), "stall=20-tps=50": (10, 45), "error=40-tps=50": (0, 2)}


@pytest.mark.parametrize("midstream", ["continue", "restart"])
@pytest.mark.parametrize("fault", BREAKING)
async def test_a_stream_that_breaks_is_gone_on_with(fault: str, midstream: str) -> None:
    more = model(f"sim-{fault}", rules=f'midstream = "{midstream}"\ntimeouts = {{ stall_s = 10 }}')
    soonest_s, latest_s = BREAKING[fault]
    async with surviving(more, requests=2) as stage:
        expected = await healthy_answer(stage)
        began = trio.current_time()
        heard = await ask(stage, chat("m", stream=True, stream_options={"include_usage": True}), seconds=60)
        assert soonest_s <= trio.current_time() - began < latest_s
        assert text_of(heard) == expected
        chunks = [json.loads(event) for event in heard.events[:-1]]
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert {chunk["model"] for chunk in chunks} >= {f"sim-{fault}", "sim"}
        assert chunks[-1]["usage"]["completion_tokens"] == pytest.approx(TOKENS, abs=1)
        record = await last_record(stage)
        assert kinds(record) == [("primary", Kind.PRIMARY), ("backup", Kind.CONTINUATION)]
        assert [fact.outcome for fact in record.attempts] == ["broken", "ok"]
        assert (record.outcome, record.finish_reason) == (Outcome.OK, "stop")


async def test_without_leave_a_broken_stream_ends_with_an_error() -> None:
    async with surviving(model("sim-cut=40-tps=50", rules='midstream = "error"')) as stage:
        heard = await ask(stage, chat("m", stream=True))
        assert not heard.finished
        assert json.loads(heard.events[-1])["error"]["code"] == "upstream_read"
        assert kinds(await last_record(stage)) == [("primary", Kind.PRIMARY)]


async def test_a_fallback_that_refuses_prefill_is_asked_from_the_start_and_the_client_sees_nothing_of_it() -> None:
    more = model("sim-cut=40-tps=50", "sim-prefill=refuse", rules='midstream = "continue"')
    async with surviving(more, requests=2) as stage:
        expected = await healthy_answer(stage)
        heard = await ask(stage, chat("m", stream=True))
        assert text_of(heard) == expected
        record = await last_record(stage)
        assert [fact.outcome for fact in record.attempts] == ["broken", "failed", "ok"]
        assert record.attempts[1].code == "prefill_unsupported"


async def test_an_answer_that_differs_is_no_continuation() -> None:
    more = model("sim-cut=40-tps=50", "sim-echo", rules='midstream = "restart"').replace(
        "quirks = { prefill = true }", ""
    )
    async with surviving(more) as stage:
        heard = await ask(stage, chat("m", stream=True))
        assert not heard.finished
        assert "error" in json.loads(heard.events[-1])
        record = await last_record(stage)
        other = record.attempts[-1]
        assert other.code == "upstream_diverged"
        assert other.usage is not None, "it was asked, and has begun to answer: that is paid for"
        assert (other.usage.estimated, other.usage.completion_tokens > 0) == (True, True)
        assert record.outcome is Outcome.BROKEN


async def test_what_a_restart_says_again_is_paid_for_again() -> None:
    more = model("sim-cut=40-tps=50", "sim-nousage", rules='midstream = "restart"')
    async with surviving(more) as stage:
        assert (await ask(stage, chat("m", stream=True))).finished
        record = await last_record(stage)
        tokens = [fact.usage.completion_tokens for fact in record.attempts if fact.usage is not None]
        assert tokens == [pytest.approx(40, abs=1), pytest.approx(TOKENS, abs=2)]
        assert record.tokens == pytest.approx(TOKENS, abs=1), "the client has each once"


@ENDINGS
@pytest.mark.parametrize("fault", ["malformed=10", "nodone"])
async def test_small_faults_need_no_second_target(fault: str, stream: bool) -> None:
    async with surviving(model(f"sim-{fault}")) as stage:
        began = trio.current_time()
        heard = await ask(
            stage, chat("m", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        )
        text_of(heard)
        assert trio.current_time() - began < 0.1, "nothing is waited for"
        record = await last_record(stage)
        # A whole answer that is no JSON is of no use to anybody; of a stream only the one event is.
        assert len(record.attempts) == (2 if fault.startswith("malformed") and not stream else 1)
        assert record.usage is not None
        if stream:
            assert json.loads(heard.events[-2])["usage"]["completion_tokens"] >= TOKENS - 1


async def test_tool_calls_are_never_gone_on_with() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with surviving(model("sim-tool-cut=1-tps=20", rules='midstream = "continue"')) as stage:
        heard = await ask(stage, chat("m", stream=True, tools=tools, tool_choice="required"))
        assert any("tool_calls" in event for event in heard.events)
        assert not heard.finished
        assert "error" in json.loads(heard.events[-1])
        assert kinds(await last_record(stage)) == [("primary", Kind.PRIMARY)]


# ── over time ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_retry_storm_does_not_happen() -> None:
    alone = """
[[provider]]
name = "down"
base_url = "${SIM}"
breaker = { enabled = false }
[[model]]
name = "alone"
targets = [{ provider = "down", model = "sim-status=503" }]
"""
    async with surviving(alone, requests=500) as stage:

        async def one(limit: trio.CapacityLimiter) -> None:
            async with limit:
                assert (await ask(stage, chat("alone"))).status == 503

        limit = trio.CapacityLimiter(20)
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(one, limit)
        await stage.settle()
        assert sum(len(record.attempts) for record in stage.records) <= 600


@pytest.mark.parametrize(("fault", "known_s"), [("status=503", 1), ("reset", 3), ("silence", LIMIT_S + 3)])
async def test_a_primary_that_is_down_for_a_minute_is_probed_seldom_and_back_within_half_a_minute(
    fault: str, known_s: float
) -> None:
    """Two requests a second for a minute and a half, all answered; from ``known_s`` on the breaker knows."""
    async with surviving(model("sim-down"), requests=180, workers=100) as stage:
        stage.sim.behave(from_model(f"sim-{fault}", Behaviour(tokens=TOKENS)), model="sim-down")
        began = trio.current_time()
        answered_by: list[tuple[float, str]] = []

        async def one() -> None:
            asked_s = trio.current_time() - began
            heard = await ask(stage, chat("m"), seconds=60)
            text_of(heard)
            answered_by.append((asked_s, heard.headers["x-sluice-target"].partition("/")[0]))

        async with trio.open_nursery() as nursery:
            for number in range(180):
                if number == 120:
                    stage.sim.behave(None, model="sim-down")
                nursery.start_soon(one)
                await trio.sleep_until(began + (number + 1) / 2)
        assert {who for asked_s, who in answered_by if asked_s < 60} == {"backup"}
        assert {who for asked_s, who in answered_by if asked_s > 85} == {"primary"}
        facts = [fact for record in stage.records for fact in record.attempts if fact.target == "primary/sim-down"]
        probes = [fact.began_at - began for fact in facts if known_s < fact.began_at - began and fact.outcome != "ok"]
        assert 1 <= len(probes) <= 6
