"""Promise: any client dialect reaches any provider dialect, and the client has exactly what the provider said.

Six client dialects, four provider dialects, streamed and whole, through the real server. What is heard is compared with
what the simulated provider says for the same question, and with what it counted of what it sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations, product

import pytest
import trio

from gateway.core.facts import Kind, Outcome
from gateway.sim import Behaviour
from gateway.sim.answers import answer
from gateway.sim.request import read_chat
from tests.component.stage import Heard, Stage, ask, request_bytes, staged
from tests.component.tongue import Question, Said, Tongue
from tests.component.tongues import TONGUES
from tests.component.tongues_of_openai import OpenAIChat

PROVIDERS = ("openai", "openai-responses", "anthropic", "gemini")
TOKENS = 24
SYSTEM = 'Answer from <context name="docs">Descale it every month.</context>'
FULL = [name for name, tongue in TONGUES.items() if tongue.full]
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
EVERY = pytest.mark.parametrize(("client", "provider"), list(product(TONGUES, PROVIDERS)))
EVERY_FULL = pytest.mark.parametrize(("client", "provider"), list(product(FULL, PROVIDERS)))
TIMEOUTS = "connect_s = 2\nfirst_token_s = 5\nstall_s = 5\ntotal_s = 20"


def tables() -> str:
    """A provider of each dialect, and a model name for any behaviour of each."""
    text = ""
    for name in PROVIDERS:
        base = "${SIM_ROOT}/v1beta" if name == "gemini" else "${SIM}"
        text += f"""
[[provider]]
name = "{name}"
dialect = "{name}"
base_url = "{base}"
api_key = "key-of-the-provider"
on_disconnect = "cancel"
breaker = {{ enabled = false }}
[[model]]
name = "{name}/*"
targets = [{{ provider = "{name}", model = "*" }}]
retry = {{ max = 0 }}
"""
    return text


@asynccontextmanager
async def speaking(more: str = "") -> AsyncIterator[Stage]:
    """A stage with every provider, whose invariants are checked at the end."""
    async with staged(more=tables() + more, timeouts=TIMEOUTS, behaviour=Behaviour(tokens=TOKENS)) as stage:
        stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left()


async def hear(stage: Stage, tongue: Tongue, question: Question, model: str, *, stream: bool) -> Heard:
    document = tongue.document(question, model, stream=stream)
    return await ask(stage, document, path=tongue.path(model, stream=stream))


async def said(stage: Stage, tongue: Tongue, question: Question, model: str, *, stream: bool) -> Said:
    return tongue.said(await hear(stage, tongue, question, model, stream=stream), stream=stream)


def expected(question: Question, tokens: int | None = TOKENS) -> str:
    """What the provider says to this question, found without any dialect's wire."""
    chat = read_chat({"model": "sim", "messages": OpenAIChat().messages(question)})
    return "".join(answer(chat, Behaviour(tokens=tokens)).pieces)


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


@EVERY
@STREAMED
async def test_text_usage_and_end_are_the_providers(client: str, provider: str, stream: bool) -> None:
    tongue, question = TONGUES[client], Question()
    async with speaking() as stage:
        heard = await said(stage, tongue, question, f"{provider}/sim", stream=stream)
        assert heard.text == expected(question)
        assert (heard.finish, heard.ended, heard.error) == (tongue.finishes["stop"], True, None)
        [served] = stage.sim.served()
        assert (served.dialect, served.finished) == (provider, True)
        assert heard.tokens == (served.prompt_tokens, served.tokens_sent)
        assert len(heard.ids) == 1
        await stage.settle()
        [record] = stage.records
        assert (record.outcome, record.stream, len(record.attempts)) == (Outcome.OK, stream, 1)
        assert record.usage is not None
        assert (record.usage.prompt_tokens, record.usage.completion_tokens) == heard.tokens
        assert not record.usage.estimated


@EVERY
@STREAMED
async def test_usage_that_the_provider_leaves_out_is_estimated_and_marked(
    client: str, provider: str, stream: bool
) -> None:
    async with speaking() as stage:
        heard = await hear(stage, TONGUES[client], Question(), f"{provider}/sim-nousage", stream=stream)
        await stage.settle()
        [record] = stage.records
        assert record.usage is not None
        assert record.usage.estimated
        if client == provider and not (client == "openai" and stream):
            return  # the provider's own document passes as it is
        tokens = TONGUES[client].said(heard, stream=stream).tokens
        assert tokens == (record.usage.prompt_tokens, record.usage.completion_tokens)
        assert min(tokens) > 0
        assert heard.body.count(b'"estimated":true') == 1


@EVERY_FULL
@STREAMED
async def test_instructions_and_earlier_turns_arrive(client: str, provider: str, stream: bool) -> None:
    turns = (("user", "Is it a good machine?"), ("assistant", "It is."), ("user", "How do I descale it?"))
    question = Question(system=SYSTEM, turns=turns)
    async with speaking() as stage:
        heard = await said(stage, TONGUES[client], question, f"{provider}/sim-tokens=off", stream=stream)
        assert heard.text == expected(question, None)
        assert "According to docs: Descale it every month." in heard.text
        assert "Before that you had asked: “Is it a good machine?”" in heard.text


@EVERY
@STREAMED
async def test_an_answer_that_was_cut_short_says_so(client: str, provider: str, stream: bool) -> None:
    tongue, question = TONGUES[client], Question(max_tokens=16)
    async with speaking() as stage:
        heard = await said(stage, tongue, question, f"{provider}/sim", stream=stream)
        assert expected(Question()).startswith(heard.text)
        assert heard.tokens is not None
        assert (heard.finish, heard.tokens[1], heard.ended) == (tongue.finishes["length"], 16, True)


NO_STOP = {"openai-responses"}  # the dialect has no stop sequences


@pytest.mark.parametrize(
    ("client", "provider"), list(product(sorted(set(TONGUES) - NO_STOP), sorted(set(PROVIDERS) - NO_STOP)))
)
@STREAMED
async def test_a_stop_sequence_ends_the_answer(client: str, provider: str, stream: bool) -> None:
    tongue, whole = TONGUES[client], expected(Question(), None)
    async with speaking() as stage:
        heard = await said(stage, tongue, Question(stop="descale"), f"{provider}/sim-tokens=off", stream=stream)
        # White space at the end belongs to a token that was never said.
        assert heard.text == whole.partition("descale")[0].rstrip()
        assert heard.ended
        assert heard.finish in {tongue.finishes["stop"], "stop_sequence"}


@EVERY_FULL
@STREAMED
async def test_a_tool_is_called_and_its_result_arrives(client: str, provider: str, stream: bool) -> None:
    tongue = TONGUES[client]
    question = Question(turns=(("user", "Ask the weather in Kiel"),), tool=True)
    async with speaking() as stage:
        asked = await said(stage, tongue, question, f"{provider}/sim-tokens=off", stream=stream)
        [call] = asked.calls
        assert (call.name, asked.text, asked.finish) == ("weather", "", tongue.finishes["tool"])
        assert set(call.arguments) == {"place"}
        assert call.id or client == "gemini"
        then = Question(turns=question.turns, tool=True, called=call, result="Rain, all day.")
        heard = await said(stage, tongue, then, f"{provider}/sim-tokens=off", stream=stream)
        assert "The tool weather returned:" in heard.text
        assert "Rain, all day." in heard.text
        assert (heard.calls, heard.finish) == ((), tongue.finishes["stop"])


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


@EVERY
@STREAMED
async def test_a_providers_error_is_told_in_the_clients_shape(client: str, provider: str, stream: bool) -> None:
    tongue = TONGUES[client]
    async with speaking() as stage:
        limited = await hear(stage, tongue, Question(), f"{provider}/sim-status=429-retry_after=7", stream=stream)
        assert (limited.status, limited.headers["retry-after"]) == (429, "7")
        assert "rate limiting" in tongue.refusal(limited)
        refused = await hear(stage, tongue, Question(), f"{provider}/sim-window=2", stream=stream)
        assert refused.status == 400
        assert "token" in tongue.refusal(refused) or "context window" in tongue.refusal(refused)
        down = await hear(stage, tongue, Question(), f"{provider}/sim-status=503", stream=stream)
        assert (down.status, "retry-after" in down.headers) == (503, True)
        assert "not available" in tongue.refusal(down)


BREAKS = ("cut=8-tps=400", "end=8-tps=400", "error=8-tps=400")


@EVERY
async def test_a_stream_that_breaks_off_ends_with_one_error_of_the_clients(client: str, provider: str) -> None:
    tongue = TONGUES[client]
    async with speaking() as stage:
        for number, fault in enumerate(BREAKS, start=1):
            heard = await said(stage, tongue, Question(), f"{provider}/sim-{fault}", stream=True)
            assert heard.error is not None, fault
            assert (heard.ended, heard.finish) == (False, ""), fault
            assert heard.text, fault
            assert expected(Question()).startswith(heard.text)
            assert len(stage.sim.served()) == number
            await stage.settle()
            assert stage.records[-1].outcome is Outcome.BROKEN


@EVERY
async def test_a_document_that_says_no_reason_for_its_end_is_no_answer(client: str, provider: str) -> None:
    tongue = TONGUES[client]
    async with speaking() as stage:
        heard = await hear(stage, tongue, Question(), f"{provider}/sim-end=8", stream=False)
        assert heard.status == 502
        assert "sent no answer that its dialect allows" in tongue.refusal(heard)


@EVERY
@STREAMED
async def test_a_client_that_leaves_ends_the_providers_work(client: str, provider: str, stream: bool) -> None:
    tongue = TONGUES[client]
    model = f"{provider}/sim-tps=20-tokens=400"
    document = tongue.document(Question(), model, stream=stream)
    async with speaking() as stage:
        async with await stage.connect() as connection:
            await connection.send_all(request_bytes(document, path=tongue.path(model, stream=stream)))
            await stage.sim.until(lambda now: now.tokens_sent > 0 or (not stream and now.active == 1))
            data = b""
            while stream and b"You" not in data:
                data += await connection.receive_some()
        with trio.fail_after(10):  # the answer would have taken twenty
            now = await stage.sim.until(lambda now: now.cancelled == 1)
        assert (now.active, now.finished) == (0, 0)
        await stage.settle()
        assert stage.records[-1].outcome is Outcome.CANCELLED


@pytest.mark.parametrize("client", TONGUES)
@pytest.mark.parametrize(("first", "second"), list(permutations(PROVIDERS, 2)))
async def test_a_stream_that_breaks_off_is_finished_by_a_target_of_another_dialect(
    client: str, first: str, second: str
) -> None:
    """Asked again from the start, and given its own beginning to go on from."""
    models = "".join(
        f"""
[[model]]
name = "{midstream}"
targets = [{{ provider = "{first}", model = "sim-cut=10-tps=400" }}, {{ provider = "{second}", model = "sim" }}]
retry = {{ max = 0 }}
midstream = "{midstream}"
"""
        for midstream in ("restart", "continue")
    )
    tongue, question = TONGUES[client], Question()
    async with speaking(models) as stage:
        for midstream in ("restart", "continue"):
            heard = await said(stage, tongue, question, midstream, stream=True)
            assert heard.text == expected(question), midstream
            assert (heard.finish, heard.ended, heard.error) == (tongue.finishes["stop"], True, None)
            assert len(heard.ids) == 1
            assert heard.tokens is not None
            assert heard.tokens[1] == pytest.approx(TOKENS, abs=1)
            await stage.settle()
            record = stage.records[-1]
            assert [(fact.target.partition("/")[0], fact.kind) for fact in record.attempts] == [
                (first, Kind.PRIMARY),
                (second, Kind.CONTINUATION),
            ]
            assert record.outcome is Outcome.OK
            assert [served.dialect for served in stage.sim.served()[-2:]] == [first, second]


# ── what has no counterpart ──────────────────────────────────────────────────────────────────────────────────────────


def with_field(tongue: Tongue, model: str, fields: dict[str, object]) -> bytes:
    return json.dumps(tongue.document(Question(), model, stream=False) | fields).encode()


DROPPED = [
    ("openai", "anthropic", {"logprobs": True, "top_logprobs": 2, "seed": 7}, {"logprobs", "top_logprobs", "seed"}),
    ("openai", "anthropic", {"frequency_penalty": 0.5, "logit_bias": {"1": 2}}, {"frequency_penalty", "logit_bias"}),
    ("openai", "gemini", {"logit_bias": {"1": 2}}, {"logit_bias"}),
    ("openai", "openai-responses", {"seed": 7, "stop": "x"}, {"seed", "stop"}),
    ("anthropic", "openai", {"top_k": 5}, {"top_k"}),
    ("gemini", "anthropic", {"generationConfig": {"seed": 7}}, {"generationConfig.seed"}),
    ("completions", "anthropic", {"seed": 7}, {"seed"}),
    ("orchestrate", "anthropic", {"seed": 7}, {"seed"}),
]


@pytest.mark.parametrize(("client", "provider", "fields", "names"), DROPPED)
async def test_what_the_provider_cannot_do_is_named_in_a_header(
    client: str, provider: str, fields: dict[str, object], names: set[str]
) -> None:
    tongue = TONGUES[client]
    model = f"{provider}/sim"
    async with speaking() as stage:
        path = tongue.path(model, stream=False)
        heard = await ask(stage, with_field(tongue, model, fields), path=path)
        assert tongue.said(heard, stream=False).text == expected(Question())
        assert set(heard.headers["x-sluice-dropped"].split(", ")) == names


@pytest.mark.parametrize("client", TONGUES)
async def test_nothing_is_named_where_nothing_was_lost(client: str) -> None:
    tongue = TONGUES[client]
    async with speaking() as stage:
        for provider in PROVIDERS:
            heard = await hear(stage, tongue, Question(max_tokens=100), f"{provider}/sim", stream=True)
            assert "x-sluice-dropped" not in heard.headers, provider


REFUSED = [
    ("openai", "anthropic", {"n": 2}, "n"),
    ("openai", "openai-responses", {"n": 2}, "n"),
    ("gemini", "anthropic", {"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
]


@pytest.mark.parametrize(("client", "provider", "fields", "param"), REFUSED)
async def test_what_must_not_be_lost_is_refused_and_named(
    client: str, provider: str, fields: dict[str, object], param: str
) -> None:
    tongue = TONGUES[client]
    model = f"{provider}/sim"
    async with speaking() as stage:
        heard = await ask(stage, with_field(tongue, model, fields), path=tongue.path(model, stream=False))
        assert heard.status == 400
        assert param in tongue.refusal(heard)
        assert stage.sim.statistics().started == 0
