"""Every fault × phase × (streamed, whole), with one healthy fallback: the complete answer, in bounded time.

What HTTP can show is done by the simulated provider, what it cannot by a raw server. After each fault: attempts in
bounds, the five invariants, and the provider that failed answers the next request on its own. Without a fallback: one
clear error, in bounded time. Times are those that people configure, by a clock on which waiting costs little
(``tests/faults/clock.py``); an answer has 24 tokens, of which the fault leaves half where it strikes in the middle.

What is told in errors, status by status, is ``test_every_fault_ends_clearly``'s; breakers are off here, and have
``test_answers_survive_their_provider``.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from gateway.core.facts import Kind, Outcome, Record
from gateway.sim import Behaviour
from gateway.sim.grammar import from_model
from tests.component.stage import Heard, Stage, ask, chat, staged
from tests.faults import raw_server as raw
from tests.faults.raw_server import RawServer, Script

CONNECT_S = 5.0
LIMIT_S = 30.0
KEEPALIVE_S = 60.0
PAUSES_S = 0.25 + 0.5  # two retries, at the most
PACE_S = 1.0  # an answer, where it has a pace
TIMEOUTS = f"""
connect_s = {CONNECT_S}
first_token_s = {LIMIT_S}
answer_s = {LIMIT_S}
stall_s = {LIMIT_S}
keepalive_s = {KEEPALIVE_S}
total_s = 600
"""
TOKENS = 24
MOST_ATTEMPTS = 6
ENDINGS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])

BEFORE_HEADERS = [
    *(f"status={status}" for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    *(f"status=429-retry_after=60-retry_form={form}" for form in ("seconds", "date", "ms", "reset")),
    "status=503-retry_after=60",
    "reset",
    "silence",
    "ttft=60",
]
BEFORE_FIRST_TOKEN = ["cut=0", "rst=0", "stall=0", "error=0", "end=0", "error_first", "slow=60", "pings=2"]
IN_THE_MIDDLE = [f"{fault}=12-tps=80" for fault in ("cut", "rst", "stall", "error", "end")] + [
    "pings=2-stall=12-tps=80",
    "error=12",  # together with all that is before it
    "malformed=10",
]
AT_THE_END = [f"{fault}={TOKENS}-tps=80" for fault in ("cut", "rst", "stall", "error", "end")] + [
    f"malformed={TOKENS}",
    "double_finish",
    "nodone",
    "nousage",
    "nousage-nodone",
    "double_finish-nodone",
]
SIMULATED = [*BEFORE_HEADERS, *BEFORE_FIRST_TOKEN, *IN_THE_MIDDLE, *AT_THE_END]
SILENT = ("silence", "ttft", "stall", "slow", "pings")  # left after their time, and not asked again
RETRIED = ("status=408", "status=409", "status=429", "status=503", "status=529")

SCRIPTS: dict[str, Script] = {
    "reset at once": raw.reset_at_once,
    "reset before the head": raw.reset_before_head,
    "close before the head": raw.close_before_head,
    "half a head, close": raw.half_a_head_and_close,
    "half a head, silence": raw.half_a_head_and_silence,
    "garbage": raw.garbage,
    "silence": raw.silence,
    "slow drip": raw.slow_drip(2),
    "slow drip, silence": raw.slow_drip(0.1, limit_bytes=60),
    "reset in the middle": raw.reset_in_the_middle,
    "close in the middle": raw.close_in_the_middle,
    "stall in the middle": raw.stall_in_the_middle,
    "slow drip in the middle": raw.drip_in_the_middle(2),
    "reset in a chunk": raw.reset_in_a_chunk,
    "bad chunk length": raw.bad_chunk_length,
    "length too long": raw.length_too_long,
    "refusal without its document": raw.refusal_without_its_document,
    "redirect": raw.redirect,
    "no content": raw.no_content,
    "web page": raw.web_page,
    "a coding that was not asked for": raw.squeezed,
    "huge head": raw.huge_head,
}
HARMLESS: dict[str, Script] = {
    "double finish": raw.double_finish,
    "interim answers": raw.hints_first,
    "trailers": raw.trailers,
}
RAW_TEXT = "".join(raw.WORDS)


def model(midstream: str, *, retry: str = "") -> str:
    return f"""
[[model]]
name = "m"
targets = [{{ provider = "primary", model = "flaky" }}, {{ provider = "backup", model = "sim" }}]
midstream = "{midstream}"
{retry}
[[model]]
name = "alone"
targets = [{{ provider = "primary", model = "flaky" }}]
{retry}
"""


def provider(name: str, base_url: str) -> str:
    quirks = "breaker = { enabled = false }\nquirks = { prefill = true }"
    return f'[[provider]]\nname = "{name}"\nbase_url = "{base_url}"\n{quirks}\n'


@asynccontextmanager
async def before(more: str) -> AsyncIterator[Stage]:
    async with staged(timeouts=TIMEOUTS, more=more, behaviour=Behaviour(tokens=TOKENS)) as stage:
        yield stage
        await stage.settle()
        stage.assert_nothing_left(requests=len(stage.records))


@asynccontextmanager
async def simulated(fault: str, midstream: str = "restart") -> AsyncIterator[Stage]:
    more = provider("primary", "${SIM}") + provider("backup", "${SIM}") + model(midstream)
    async with before(more) as stage:
        stage.remember_baseline()
        stage.sim.behave(from_model(f"sim-{fault}", Behaviour(tokens=TOKENS)), model="flaky")
        yield stage


@asynccontextmanager
async def broken(script: Script, tls: ssl.SSLContext | None = None, *, https: bool = False) -> AsyncIterator[Stage]:
    """A raw provider that fails once, and one that is healthy."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(RawServer(script, raw.answer, tls=tls))
        backup = await stack.enter_async_context(RawServer(raw.answer))
        address = primary.url.replace("http:", "https:") if https else primary.url
        tables = provider("primary", f"{address}/v1") + provider("backup", f"{backup.url}/v1")
        yield await stack.enter_async_context(before(tables + model("restart", retry="retry = { max = 0 }")))


async def timed(stage: Stage, name: str, *, stream: bool) -> Heard:
    """An answer, which came in time: a silent target costs its time once, one that is only kept alive a bit more."""
    began = trio.current_time()
    options = {"stream_options": {"include_usage": True}} if stream else {}
    heard = await ask(stage, chat(name, stream=stream, **options), seconds=600)
    assert trio.current_time() - began <= max(LIMIT_S, KEEPALIVE_S) + 2 * PACE_S + PAUSES_S
    return heard


def text_of(heard: Heard) -> str:
    assert (heard.status, heard.whole) == (200, True), heard.body
    if not heard.headers["content-type"].startswith("text/event-stream"):
        return str(heard.json()["choices"][0]["message"]["content"])
    assert heard.finished, heard.events[-1]
    assert heard.events.count("[DONE]") == 1
    chunks = [json.loads(event) for event in heard.events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage"]["completion_tokens"] > 0, "who asked for usage gets it"
    return heard.text


async def last(stage: Stage) -> Record:
    await stage.settle()
    return stage.records[-1]


def asked(record: Record, name: str) -> int:
    return sum(fact.target.startswith(f"{name}/") for fact in record.attempts)


# ── with a healthy fallback ──────────────────────────────────────────────────────────────────────────────────────────


@ENDINGS
@pytest.mark.parametrize("fault", SIMULATED)
async def test_a_simulated_fault_leaves_a_complete_answer(fault: str, stream: bool) -> None:
    async with simulated(fault) as stage:
        expected = text_of(await timed(stage, "sim/sim", stream=stream))
        text = text_of(await timed(stage, "m", stream=stream))
        if fault.startswith("malformed") and stream:  # one event cannot be read, the rest is whole
            assert 0 < len(expected) - len(text) < 15
        else:
            assert text == expected
        record = await last(stage)
        assert record.outcome is Outcome.OK
        assert len(record.attempts) <= MOST_ATTEMPTS
        assert asked(record, "backup") <= 1
        if fault.startswith(SILENT):
            assert asked(record, "primary") == 1
        if fault.startswith(RETRIED):
            assert asked(record, "primary") == (1 if "retry_after" in fault else 3)
        stage.sim.behave(None, model="flaky")
        assert text_of(await timed(stage, "m", stream=stream)) == expected
        # Who said when to come back is not asked before.
        again = "backup/sim" if fault.startswith("status=429-retry_after") else "primary/flaky"
        assert [(fact.target, fact.kind) for fact in (await last(stage)).attempts] == [(again, Kind.PRIMARY)]


@pytest.mark.parametrize("fault", [*IN_THE_MIDDLE[:-1], *AT_THE_END[:5]])
async def test_a_stream_that_breaks_is_gone_on_with_from_its_part(fault: str) -> None:
    async with simulated(fault, "continue") as stage:
        expected = text_of(await timed(stage, "sim/sim", stream=True))
        assert text_of(await timed(stage, "m", stream=True)) == expected
        record = await last(stage)
        assert (asked(record, "primary"), asked(record, "backup"), record.outcome) == (1, 1, Outcome.OK)


@ENDINGS
@pytest.mark.parametrize("name", [*SCRIPTS, *HARMLESS])
async def test_a_fault_below_http_leaves_a_complete_answer(name: str, stream: bool) -> None:
    async with broken(SCRIPTS.get(name) or HARMLESS[name]) as stage:
        assert text_of(await timed(stage, "m", stream=stream)) == RAW_TEXT
        record = await last(stage)
        assert asked(record, "primary") == 1
        assert asked(record, "backup") == (0 if name in HARMLESS else 1)
        assert text_of(await timed(stage, "m", stream=stream)) == RAW_TEXT
        assert [fact.target for fact in (await last(stage)).attempts] == ["primary/flaky"]


@ENDINGS
@pytest.mark.parametrize("fault", ["wrong certificate", "no TLS there", "no handshake"])
async def test_a_fault_of_tls_leaves_a_complete_answer(fault: str, stream: bool) -> None:
    tls = raw.wrong_certificate() if fault == "wrong certificate" else None
    script = raw.silence if fault == "no handshake" else raw.plain_bytes
    async with broken(script, tls, https=True) as stage:
        assert text_of(await timed(stage, "m", stream=stream)) == RAW_TEXT
        record = await last(stage)
        assert (asked(record, "primary"), asked(record, "backup")) == (1, 1)


@ENDINGS
async def test_a_port_that_takes_no_connection_leaves_a_complete_answer(stream: bool) -> None:
    async with raw.full_backlog() as port, RawServer(raw.answer) as backup:
        tables = provider("primary", f"http://127.0.0.1:{port}/v1") + provider("backup", f"{backup.url}/v1")
        async with before(tables + model("restart")) as stage:
            assert text_of(await timed(stage, "m", stream=stream)) == RAW_TEXT
            assert asked(await last(stage), "primary") == 1


# ── with nobody else ─────────────────────────────────────────────────────────────────────────────────────────────────

NEVER_WHOLE = [*BEFORE_FIRST_TOKEN, *IN_THE_MIDDLE[:-1], *AT_THE_END[:5], "reset", "silence", "status=503"]


def assert_one_clear_error(heard: Heard) -> None:
    """A status and a document; or, behind content, one error event and no ``[DONE]``."""
    assert heard.whole
    if heard.status != 200:
        assert heard.status in (502, 503, 504)
        assert "data:" not in heard.body.decode()
        error = heard.json()["error"]
    else:
        documents = [json.loads(event) for event in heard.events]
        assert ["error" in document for document in documents] == [False] * (len(documents) - 1) + [True]
        error = documents[-1]["error"]
    assert error["code"].startswith(("upstream_", "first_token_", "answer_", "stall_", "connect_"))
    assert error["message"]


@ENDINGS
@pytest.mark.parametrize("fault", NEVER_WHOLE)
async def test_a_simulated_fault_of_the_only_target_is_one_clear_error(fault: str, stream: bool) -> None:
    async with simulated(fault) as stage:
        heard = await timed(stage, "alone", stream=stream)
        assert_one_clear_error(heard)
        record = await last(stage)
        assert record.outcome in (Outcome.FAILED, Outcome.BROKEN)
        assert len(record.attempts) <= 3
        stage.sim.behave(None, model="flaky")
        text_of(await timed(stage, "alone", stream=stream))


@ENDINGS
@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_fault_below_http_of_the_only_target_is_one_clear_error(name: str, stream: bool) -> None:
    async with broken(SCRIPTS[name]) as stage:
        assert_one_clear_error(await timed(stage, "alone", stream=stream))
        assert len((await last(stage)).attempts) == 1
        assert text_of(await timed(stage, "alone", stream=stream)) == RAW_TEXT
