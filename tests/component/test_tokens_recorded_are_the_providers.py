"""Promise: the tokens in the ledger are the provider's count, in every dialect; of what a client left, within 2 %."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest
import trio

from gateway.sim import Behaviour
from tests.component.stage import Stage, ask, chat, request_bytes, staged
from tests.component.test_every_dialect_reaches_every_provider import PROVIDERS, tables
from tests.component.tongue import Question
from tests.component.tongues import TONGUES
from tests.faults.raw_server import DONE, LAST_CHUNK, SSE_HEAD, Peer, RawServer, chunk, event

LEFT_AFTER = 800  # tokens; 2 % of them are 16
SOON = 3  # reads later, so that what was on its way when a busy machine stood still has arrived
PRICES = "".join(
    f'[prices."{name}/sim"]\ninput_usd_per_mtok = 2\noutput_usd_per_mtok = 10\n' for name in (*PROVIDERS, "unsure")
)
UNSURE = """
[[provider]]
name = "unsure"
base_url = "${SIM}"
on_disconnect = "drain"
drain_max_tokens = 100000
[[model]]
name = "unsure/*"
targets = [{ provider = "unsure", model = "*" }]
"""
MANY_AT_ONCE = """
[[provider]]
name = "many"
base_url = "{url}/v1"
[[model]]
name = "many"
targets = [{{ provider = "many", model = "m" }}]
[prices."many/m"]
input_usd_per_mtok = 2
output_usd_per_mtok = 10
"""


@asynccontextmanager
async def accounted(folder: Path, behaviour: Behaviour) -> AsyncIterator[Stage]:
    """A stage with every provider, which has written all it has to write when it is left."""
    url = f"sqlite:///{folder}/sluice.db"
    async with staged(more=tables() + UNSURE + PRICES, store=url, behaviour=behaviour) as stage:
        yield stage
        await stage.settle()
        with trio.fail_after(10):
            while stage.gateway.drains.active:
                await trio.sleep(0.001)
        stage.shutdown.set()
        await stage.stopped.wait()


def ledger(folder: Path) -> list[sqlite3.Row]:
    with sqlite3.connect(folder / "sluice.db") as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM usage_entry ORDER BY at_s").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize(("client", "stream"), list(product(TONGUES, [True, False])))
async def test_of_what_was_answered_they_are_exactly_those(client: str, stream: bool, tmp_path: Path) -> None:
    tongue = TONGUES[client]
    async with accounted(tmp_path, Behaviour(tokens=37)) as stage:
        for provider in PROVIDERS:
            model = f"{provider}/sim"
            heard = await ask(
                stage, tongue.document(Question(), model, stream=stream), path=tongue.path(model, stream=stream)
            )
            assert heard.status == 200
        counted = stage.sim.served()
    rows = ledger(tmp_path)
    assert [row["target"] for row in rows] == [f"{name}/sim" for name in PROVIDERS]
    assert [one.finished for one in counted] == [True] * len(PROVIDERS)
    for row, one in zip(rows, counted, strict=True):
        assert (row["prompt_tokens"], row["completion_tokens"]) == (one.prompt_tokens, one.tokens_sent)
        assert (row["usage_source"], row["outcome"]) == ("reported", "ok")
        assert row["cost_micro_usd"] == 2 * one.prompt_tokens + 10 * one.tokens_sent
        assert row["lost_micro_usd"] == 0


@pytest.mark.parametrize("client", TONGUES)
async def test_of_what_a_client_left_they_differ_by_two_percent_at_most(client: str, tmp_path: Path) -> None:
    tongue = TONGUES[client]
    async with accounted(tmp_path, Behaviour(tokens=100_000, tokens_per_s=400)) as stage:
        requests = {}
        for provider in PROVIDERS:
            model = f"{provider}/sim"
            document = tongue.document(Question(max_tokens=100_000), model, stream=True)
            requests[provider] = request_bytes(document, path=tongue.path(model, stream=True))
        await leave(stage, *requests.values())
        await stage.settle()
        counted = {one.dialect: one for one in stage.sim.served()}
    rows = {row["target"].partition("/")[0]: row for row in ledger(tmp_path)}
    assert set(rows) == set(counted) == set(PROVIDERS)
    for provider, row in rows.items():
        sent = counted[provider].tokens_sent
        source = "reported" if provider == "gemini" else "estimated"  # it says with every event how many there were
        assert (row["outcome"], row["phase"], row["usage_source"]) == ("cancelled", "stream", source)
        assert sent > 0.9 * LEFT_AFTER
        if provider in ("anthropic", "gemini"):  # they tell it with their first event
            assert row["prompt_tokens"] == counted[provider].prompt_tokens
        assert abs(row["completion_tokens"] - sent) <= 0.02 * sent, provider
        assert row["tokens_delivered"] == row["completion_tokens"]
        assert abs(row["tokens_generated"] - sent) <= 0.05 * sent, provider
        assert row["cost_micro_usd"] == 2 * row["prompt_tokens"] + 10 * row["completion_tokens"]


async def test_a_provider_that_sends_many_tokens_at_once_is_not_counted_by_its_events(tmp_path: Path) -> None:
    """Twenty events of seven tokens each, told at the end; then a stream that is left after ten."""
    said = event({"content": "seven tokens are in this"})
    used = {"prompt_tokens": 9, "completion_tokens": 140 + 30, "completion_tokens_details": {"reasoning_tokens": 30}}
    end = b"data: " + json.dumps({"choices": [], "usage": used}).encode() + b"\n\n" + DONE
    whole = SSE_HEAD + chunk(20 * said + event({}, "stop") + end) + LAST_CHUNK

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole)
        await peer.request()
        await peer.say(SSE_HEAD + chunk(10 * said))
        await peer.until_gone()

    async with RawServer(script) as server:
        more = MANY_AT_ONCE.format(url=server.url)
        async with staged(more=more, store=f"sqlite:///{tmp_path}/sluice.db") as stage:
            document = chat("many", stream=True)
            assert (await ask(stage, document)).finished
            async with await stage.connect() as stream:
                await stream.send_all(request_bytes(document))
                answer = b""
                while answer.count(b"seven tokens") < 10:
                    answer += await stream.receive_some()
            await stage.settle()
            stage.shutdown.set()
            await stage.stopped.wait()
    answered, left = ledger(tmp_path)
    assert (answered["usage_source"], answered["completion_tokens"]) == ("reported", 170)
    assert (left["outcome"], left["usage_source"], left["completion_tokens"]) == ("cancelled", "estimated", 70)
    assert left["tokens_delivered"] == 70
    assert left["cost_micro_usd"] == 2 * left["prompt_tokens"] + 10 * 70


async def leave(stage: Stage, *requests: bytes) -> None:
    """Ask, and leave when all answers together have a quarter more than :data:`LEFT_AFTER` tokens each."""
    enough = trio.Event()

    async def client(request: bytes) -> None:
        async with await stage.connect() as stream:
            await stream.send_all(request)
            left = SOON
            while left and await stream.receive_some():
                left -= enough.is_set()

    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(client, request)
        await stage.sim.until(lambda now: now.tokens_sent >= 1.25 * LEFT_AFTER * len(requests))
        enough.set()


async def test_what_a_provider_bills_anyway_is_read_to_its_end_and_is_its_count(tmp_path: Path) -> None:
    async with accounted(tmp_path, Behaviour(tokens=4000, tokens_per_s=1600)) as stage:
        document = TONGUES["openai"].document(Question(), "unsure/sim", stream=True)
        await leave(stage, request_bytes(document))
        with trio.fail_after(10):
            await stage.sim.until(lambda now: now.finished == 1)
        [counted] = stage.sim.served()
    [row] = ledger(tmp_path)
    assert (row["outcome"], row["phase"]) == ("cancelled", "stream")
    assert (row["completion_tokens"], counted.tokens_sent) == (4000, 4000)
    assert (row["prompt_tokens"], row["usage_source"]) == (counted.prompt_tokens, "reported")
    assert row["tokens_saved"] == 0
