"""Promise: `sluice usage` adds up exactly, by whatever it is asked, in each format; old rows go."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import CONFIG, Said, attempt, record, rows, running, until

from gateway.cli import sluice
from gateway.config import Ledger as LedgerRules
from gateway.core.facts import Outcome, Phase, Usage
from gateway.ledger.ledger import Ledger
from gateway.ledger.prices import Prices
from gateway.ledger.report import moment_s, usage_report
from gateway.store.ledger import MEASURES
from gateway.store.sqlite import Store

DAY_S = 86_400
NOW_S = 1_800_000_000.0 // DAY_S * DAY_S + 12 * 3_600  # a noon


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sluice.db"
    return str(request.getfixturevalue("postgres").new_database())


def usage(prompt: int, completion: int) -> dict[str, Any]:
    counted = Usage(prompt_tokens=prompt, completion_tokens=completion)
    return {"usage": counted, "attempts": [attempt(usage=counted)]}


async def fill(url: str, folder: Path, records: list[tuple[float, Any]]) -> None:
    """Write records that ended at these times."""
    async with Store.open(url, local_url=f"sqlite:///{folder}/local.db") as store:
        at_s = [NOW_S]
        rules = LedgerRules(spill_dir=str(folder / "spill"))
        ledger = Ledger(rules, Prices(CONFIG), lambda: store.sql, Said(), now=lambda: at_s[0])
        for when_s, one in records:
            at_s[0] = when_s
            ledger.write(one)
        await ledger.finish(10)
        ledger.close()
        assert ledger.statistics().written == len(records)


async def test_sums_are_by_what_they_are_asked_by(url: str, tmp_path: Path) -> None:
    unknown = [attempt(target="own/?", usage=Usage(prompt_tokens=5))]
    left = Usage(prompt_tokens=1_000, completion_tokens=100, estimated=True)
    cancelled = attempt(outcome="cancelled", usage=left)
    given = [
        (NOW_S, record(1, team="blue", **usage(1_000, 300))),
        (NOW_S, record(2, team="blue", **usage(500, 10))),
        (NOW_S - DAY_S, record(3, team="red", target="own/?", attempts=unknown, usage=Usage(prompt_tokens=5))),
        (NOW_S, record(4, team="red", outcome=Outcome.CANCELLED, phase=Phase.STREAM, usage=left, attempts=[cancelled],
                       max_tokens=301)),
    ]  # fmt: skip
    await fill(url, tmp_path, given)
    async with Store.open(url, local_url=f"sqlite:///{tmp_path}/local.db") as store:
        blue, red = sorted(await usage_report(store.sql, ["team"], 0, 4e9), key=lambda row: row["team"])
        by_day = await usage_report(store.sql, ["day", "outcome"], 0, 4e9)
        [today] = await usage_report(store.sql, [], NOW_S - 3_600, NOW_S + 1)
        nothing = await usage_report(store.sql, ["team"], 0, 1)
    assert (blue["requests"], blue["prompt_tokens"], blue["completion_tokens"]) == (2, 1_500, 310)
    assert (blue["cost_micro_usd"], blue["unpriced"], blue["estimated"]) == (5_000 + 1_100, 0, 0)
    assert (red["requests"], red["cost_micro_usd"], red["unpriced"], red["estimated"]) == (2, 3_000, 1, 1)
    assert (red["tokens_delivered"], red["tokens_generated"]) == (100, 101)
    assert (red["tokens_saved"], red["saved_micro_usd"]) == (199, 1_990)
    assert [(row["day"], row["outcome"], row["requests"]) for row in by_day] == [
        ("2027-01-15", "ok", 2), ("2027-01-15", "cancelled", 1), ("2027-01-14", "ok", 1),
    ]  # fmt: skip
    assert (today["requests"], nothing) == (3, [])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=30
    )
)
def test_sums_are_right_to_the_micro_dollar(tmp_path_factory: Any, counts: list[tuple[str, int, int]]) -> None:
    folder = tmp_path_factory.mktemp("sums")
    url = f"sqlite:///{folder}/sluice.db"
    expected: Counter[str] = Counter()
    for team, prompt, completion in counts:
        expected[team] += prompt * 2 + completion * 10

    async def run() -> list[dict[str, Any]]:
        given = [
            (NOW_S, record(n, team=team, **usage(asked, answered))) for n, (team, asked, answered) in enumerate(counts)
        ]
        await fill(url, folder, given)
        async with Store.open(url) as store:
            return await usage_report(store.sql, ["team"], 0, 4e9)

    assert {row["team"]: row["cost_micro_usd"] for row in trio.run(run)} == dict(expected)


def asked(tmp_path: Path, url: str, *arguments: str) -> Result:
    config = tmp_path / "sluice.toml"
    config.write_text(f'[store]\nurl = "{url}"\nlocal_url = "sqlite:///{tmp_path}/local.db"\n')
    return CliRunner().invoke(sluice, ["usage", "--config", str(config), *arguments])


@pytest.fixture
def used(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/sluice.db"
    now_s = time.time()
    given = [(now_s, record(1, team="=1+1", **usage(1_000, 100))), (now_s - 10 * DAY_S, record(2, **usage(1_000, 0)))]
    trio.run(fill, url, tmp_path, given)
    return url


def test_each_format_says_the_same(tmp_path: Path, used: str) -> None:
    table = asked(tmp_path, used, "--by", "team,model").output
    assert table.splitlines()[0].split() == ["team", "model", "requests", "in", "out", "USD"]
    assert table.splitlines()[1].split() == ["=1+1", "chat", "1", "1,000", "100", "0.003000"]
    found = json.loads(asked(tmp_path, used, "--by", "team,model", "--format", "json").output)
    assert [(row["team"], row["cost_micro_usd"]) for row in found] == [("=1+1", 3_000), ("blue", 2_000)]
    lines = list(csv.DictReader(io.StringIO(asked(tmp_path, used, "--by", "team,model", "--format", "csv").output)))
    assert list(lines[0]) == ["team", "model", *MEASURES]
    assert [(row["team"], int(row["cost_micro_usd"])) for row in lines] == [("'=1+1", 3_000), ("blue", 2_000)]


def test_parquet_has_the_same_columns(tmp_path: Path, used: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    data = asked(tmp_path, used, "--by", "team", "--format", "parquet").stdout_bytes
    read = parquet.read_table(io.BytesIO(data))
    assert read.column_names == ["team", *MEASURES]
    assert read.column("cost_micro_usd").to_pylist() == [3_000, 2_000]


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = asked(tmp_path, used, "--format", "parquet")
    assert result.exit_code == 1
    assert "pip install 'sluice[parquet]'" in result.output


def test_since_and_until_are_spans_or_dates(tmp_path: Path, used: str) -> None:
    assert json.loads(asked(tmp_path, used, "--since", "7d", "--format", "json").output)[0]["requests"] == 1
    assert json.loads(asked(tmp_path, used, "--since", "2020-01-01", "--format", "json").output)[0]["requests"] == 2
    assert (
        asked(tmp_path, used, "--since", "2020-01-01", "--until", "2020-01-02").output == "no requests in this time\n"
    )
    assert moment_s("2027-01-31", 0) == moment_s("2027-01-31T01:00+01:00", 0)
    assert moment_s("2w", 2_000_000) == 2_000_000 - 14 * DAY_S


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--by", "colour"], "--by: a report cannot be by colour; it can be by team, org, model, key"),
        (["--since", "soon"], "--since: 'soon' is no time; write 7d, 24h, 2027-01-31"),
        (["--until", "2027-13-01"], "--until: '2027-13-01' is no time"),
    ],
)
def test_what_cannot_be_asked_is_said(tmp_path: Path, used: str, arguments: list[str], says: str) -> None:
    result = asked(tmp_path, used, *arguments)
    assert result.exit_code == 1
    assert says in result.output


@pytest.mark.parametrize(
    ("url", "says"), [("sqlite:///{}/other.db", "there is no ledger at"), ("sqlite:///:memory:", "is in memory")]
)
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, url: str, says: str) -> None:
    result = asked(tmp_path, url.format(tmp_path))
    assert result.exit_code == 1
    assert says in result.output
    assert not list(tmp_path.glob("*.db*"))


async def test_rows_that_are_too_old_go_a_few_at_a_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.ledger.PRUNED_AT_ONCE", 10)
    now_s = time.time()
    old = [(now_s - 8 * DAY_S, record(number)) for number in range(35)]
    await fill(url, tmp_path, [*old, (now_s - 6 * DAY_S, record(100))])
    async with running(url, tmp_path, retention_days=7) as (ledger, store):
        await until(lambda: ledger.statistics().pruned == 35)
        assert [row["request_id"] for row in await rows(store)] == ["r100"]
