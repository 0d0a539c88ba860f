"""Promise: exactly one entry per request, with all that was known of it, in SQLite and in PostgreSQL; also when the
database was away in between, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import services
import trio
import trio.lowlevel
from ledgers import CONFIG, Said, attempt, record, rows, running, until

from gateway.config import Ledger as LedgerRules
from gateway.core.facts import Kind, Outcome, Phase, Usage
from gateway.ledger.ledger import BATCH, Ledger
from gateway.ledger.prices import Prices
from gateway.ledger.report import usage_report
from gateway.store.sqlite import Store

pytestmark = pytest.mark.alone


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sluice.db"
    return str(request.getfixturevalue("postgres").new_database())


async def test_an_entry_says_all_that_was_known(url: str, tmp_path: Path) -> None:
    lost = Usage(prompt_tokens=1_000, estimated=True)
    attempts = [
        attempt(kind=Kind.PRIMARY, outcome="failed", status=503, code="upstream_error", usage=lost),
        attempt(kind=Kind.RETRY, usage=Usage(prompt_tokens=1_000, completion_tokens=100, cached_tokens=200)),
    ]
    async with running(url, tmp_path) as (ledger, store):
        entry = ledger.write(record(7, attempts=attempts, org="acme", queue_s=0.25))
        assert (entry.cost_micro_usd, entry.lost_micro_usd, entry.spent_micro_usd) == (2_700, 2_000, 4_700)
        await until(lambda: ledger.statistics().written == 1)
        [row] = await rows(store)
    assert row["id"] == entry.id
    expected = {
        "request_id": "r7", "key_name": "dev", "key_id": "key_1", "team": "blue", "org": "acme", "model": "chat",
        "target": "own/m", "prompt_tokens": 1_000, "completion_tokens": 100, "cached_tokens": 200,
        "usage_source": "reported", "cost_micro_usd": 2_700, "lost_micro_usd": 2_000, "queue_ms": 250.0,
        "ttft_ms": 500.0, "total_ms": 3_000.0, "outcome": "ok", "phase": "done", "finish": "stop", "status": 200,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["day"] == int(row["at_s"] // 86_400)
    assert row["price_version"].startswith("config/")
    told = [(one["kind"], one["outcome"], one["status"], one["cost_micro_usd"]) for one in json.loads(row["attempts"])]
    assert told == [("primary", "failed", 503, 2_000), ("retry", "ok", 200, 2_700)]
    assert json.loads(row["loaders"]) == [{"loader": "docs", "outcome": "ok", "ms": 12.5}]


async def test_every_end_leaves_one_entry(url: str, tmp_path: Path) -> None:
    async with running(url, tmp_path) as (ledger, store):
        for number, outcome in enumerate(Outcome):
            ledger.write(record(number, outcome=outcome, phase=Phase.STREAM))
        ledger.write(record(90, outcome=Outcome.REFUSED, usage=None, attempts=[], target="", phase=Phase.QUEUE))
        ledger.write(record(91, model="\x00half \ud800 " + "x" * 5_000))  # what a client may ask for
        await until(lambda: ledger.statistics().written == 8)
        found = await rows(store)
    assert [row["outcome"] for row in found] == [*(one.value for one in Outcome), "refused", "ok"]
    assert (found[-2]["cost_micro_usd"], found[-2]["usage_source"]) == (0, "none")
    assert found[-1]["model"].startswith("half ? xxx")


async def test_all_are_there_after_the_end(url: str, tmp_path: Path) -> None:
    async with running(url, tmp_path, flush_s=60.0) as (ledger, _):
        for number in range(BATCH + 7):
            ledger.write(record(number))
    async with Store.open(url) as store:
        assert [row["request_id"] for row in await rows(store)] == [f"r{number}" for number in range(BATCH + 7)]


async def test_what_the_database_missed_is_there_once_when_it_is_back(
    postgres: services.Postgres, tmp_path: Path
) -> None:
    said = Said()
    async with running(postgres.new_database(), tmp_path, said) as (ledger, store):
        ledger.write(record(0))
        await until(lambda: ledger.statistics().written == 1)
        postgres.stop()
        for number in range(1, 1_200):
            ledger.write(record(number))
        await until(lambda: ledger.statistics().spilled >= 1_199)
        assert (ledger.statistics().away, ledger.statistics().waiting) == (True, 0)
        assert ledger.gauges()["sluice_ledger_away"] == {(): 1.0}
        postgres.start()
        ledger.write(record(1_200))
        await until(lambda: not ledger.statistics().spilled_bytes)
        found = await rows(store)
        assert not ledger.statistics().away
    assert [row["request_id"] for row in found] == [f"r{number}" for number in range(1_201)]
    of_the_database = [event for event in said.events if event.startswith("ledger_database")]
    assert of_the_database == ["ledger_database_away", "ledger_database_is_back"]
    assert not list((tmp_path / "spill").iterdir())


async def test_a_database_that_hangs_is_left_alone_and_nothing_is_there_twice(
    postgres: services.Postgres, tmp_path: Path
) -> None:
    async with running(postgres.new_database(), tmp_path, queue=2_000) as (ledger, store):
        ledger.write(record(0))
        await until(lambda: ledger.statistics().written == 1)
        postgres.pause()
        try:
            began = trio.current_time()
            for number in range(1, 2_500):  # more than memory may hold: the write that hangs is given up at once
                ledger.write(record(number))
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            await until(lambda: ledger.statistics().spilled >= 2_499)
            assert trio.current_time() - began < 5
        finally:
            postgres.resume()
        await until(lambda: not ledger.statistics().spilled_bytes)
        found = await rows(store)
        assert ledger.statistics().lost == 0
    assert [row["request_id"] for row in found] == [f"r{number}" for number in range(2_500)]


async def test_a_batch_that_is_sent_twice_is_there_once(url: str, tmp_path: Path) -> None:
    said = Said()
    async with Store.open(url, local_url=f"sqlite:///{tmp_path}/local.db") as store:
        ledger = Ledger(LedgerRules(spill_dir=str(tmp_path / "spill")), Prices(CONFIG), lambda: store.sql, said)
        for number in range(5):
            ledger.write(record(number))
        copies = list(ledger._queue)
        await ledger.finish(5)
        ledger._queue.extend(copies)  # as after a commit whose answer was lost
        await ledger.finish(5)
        ledger.close()
        assert len(await rows(store)) == 5
        [total] = await usage_report(store.sql, (), 0, 4e9)
    assert (total["requests"], total["cost_micro_usd"]) == (5, 5 * 2_700)
    assert said.events == []
