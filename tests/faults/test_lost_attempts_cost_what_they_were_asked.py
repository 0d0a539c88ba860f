"""Promise: an attempt that came to nothing is in the ledger with what it cost: one that was refused nothing, one that
was asked and given up its prompt, one whose answer could not be used what was read of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.facts import AttemptFact
from tests.component.stage import ask, chat, staged
from tests.faults.raw_server import LAST_CHUNK, SSE_HEAD, Peer, RawServer, Script, chunk, event

PROMPT = "x" * 4_000  # a thousand tokens
FALLBACK = """
[[provider]]
name = "fails"
base_url = "{url}/v1"
breaker = {{ enabled = false }}
[[model]]
name = "paid"
targets = [{{ provider = "fails", model = "m" }}, {{ provider = "sim", model = "sim" }}]
retry = {{ max = 0 }}
timeouts = {{ first_token_s = 0.3 }}
[prices."fails/m"]
input_usd_per_mtok = 2
output_usd_per_mtok = 10
[prices."sim/sim"]
input_usd_per_mtok = 2
output_usd_per_mtok = 10
"""
USED = {"id": "x", "choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 7, "total_tokens": 907}}


async def lost(script: Script, *, stream: bool) -> AttemptFact:
    """The fact of an attempt that this script failed, after which another target answered."""
    async with RawServer(script) as server, staged(more=FALLBACK.format(url=server.url)) as stage:
        assert (await ask(stage, chat("paid", stream=stream, content=PROMPT))).status == 200
        await stage.settle()
        [record] = stage.records
        [failed, answered] = record.attempts
        prices = stage.gateway.accounts.prices
        costs = [prices.of("sim/sim").micro_usd(fact.usage) for fact in (failed, answered) if fact.usage]
        assert record.cost_micro_usd == sum(cost or 0 for cost in costs)
    assert (failed.outcome, answered.outcome) == ("failed", "ok")
    return failed


def saying(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(data)

    return script


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.until_gone()


async def silent_after_its_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(SSE_HEAD)
    await peer.until_gone()


def refusal(status: int) -> bytes:
    return b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\n{}" % status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_refusal_costs_nothing(status: int, stream: bool) -> None:
    assert (await lost(saying(refusal(status)), stream=stream)).usage is None


async def test_a_connection_that_ends_before_its_answer_begins_costs_nothing() -> None:
    assert (await lost(saying(b""), stream=True)).usage is None


@pytest.mark.parametrize("script", [silent, silent_after_its_head])
async def test_silence_costs_the_prompt(script: Script) -> None:
    usage = (await lost(script, stream=True)).usage
    assert usage is not None
    assert (usage.estimated, usage.completion_tokens) == (True, 0)
    assert 1_000 <= usage.prompt_tokens <= 1_100


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", False),
        (SSE_HEAD + LAST_CHUNK, True),
        (SSE_HEAD + chunk(b'data: {"error": {"message": "no"}}\n\n') + LAST_CHUNK, True),
        (SSE_HEAD + chunk(event({"role": "assistant", "content": ""})), True),
    ],
)
async def test_an_answer_that_is_none_costs_the_prompt(data: bytes, stream: bool) -> None:
    usage = (await lost(saying(data), stream=stream)).usage
    assert usage is not None
    assert usage.estimated
    assert 1_000 <= usage.prompt_tokens <= 1_100


async def test_what_it_reported_before_it_failed_is_what_it_cost() -> None:
    said = b"data: " + json.dumps(USED).encode() + b"\n\n" + b'data: {"error": {"message": "no"}}\n\n'
    usage: Any = (await lost(saying(SSE_HEAD + chunk(said) + LAST_CHUNK), stream=True)).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (900, 7, False)
