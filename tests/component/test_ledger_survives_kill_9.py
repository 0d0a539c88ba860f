"""Promise: a process that is killed loses at most the entries of its last batch interval; what it had spilled is
written by whoever comes next, once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import services
from ledgers import record, rows, running, until

from gateway.config import Ledger as LedgerRules
from gateway.ledger.entry import document_of
from gateway.ledger.spill import Spill
from gateway.store.sqlite import Store

HERE = Path(__file__).parent
SLACK_S = 0.5  # for a machine that is busy with other tests


def killed_after(seconds: float, url: str, folder: Path) -> tuple[list[int], dict[int, float]]:
    """Run the process, kill it; what it said it wrote, and when."""
    environ = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ledger_process.py"), url, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        lines.append(process.stdout.readline())
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    said = {int(number): float(at_s) for number, at_s in (line.split() for line in lines if line.endswith("\n"))}
    return sorted(said), said


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_at_most_the_last_interval_is_lost(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/sluice.db"
    if database == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    numbers, said = killed_after(2.3, url, tmp_path)
    async with Store.open(url, local_url=f"sqlite:///{tmp_path}/local.db") as store:
        found = [int(row["request_id"][1:]) for row in await rows(store)]
    assert found == numbers[: len(found)]  # nothing twice, no gap
    assert len(found) > 100
    lost = numbers[len(found) :]
    if lost:
        assert said[lost[-1]] - said[lost[0]] <= LedgerRules().flush_s + SLACK_S


async def test_a_process_killed_between_writing_and_deleting_leaves_nothing_twice(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/sluice.db", tmp_path / "spill"
    async with running(url, tmp_path) as (ledger, _):
        entries = [ledger.write(record(number)) for number in range(700)]
    spill = Spill(folder, 1 << 30, "")
    spill.append([document_of(entry.row()) for entry in entries])
    spill.oldest(500)  # which had arrived, and then it was killed: the lock is gone, the file is not
    spill.close()
    assert list(folder.iterdir())
    async with running(url, tmp_path) as (ledger, store):
        await until(lambda: ledger.statistics().replayed == 700)
        await until(lambda: not list(folder.iterdir()))
        assert [row["request_id"] for row in await rows(store)] == [f"r{number}" for number in range(700)]


async def test_what_a_killed_process_had_spilled_is_written_by_the_next(
    postgres: services.Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    postgres.stop()
    numbers, said = killed_after(2.3, url, tmp_path)
    assert list((tmp_path / "spill").iterdir())
    postgres.start()
    async with running(url, tmp_path) as (ledger, store):
        await until(lambda: not list((tmp_path / "spill").iterdir()))
        found = [int(row["request_id"][1:]) for row in await rows(store)]
        assert ledger.statistics().replayed == len(found) > 100
    assert found == numbers[: len(found)]
    lost = numbers[len(found) :]
    if lost:
        assert said[lost[-1]] - said[lost[0]] <= LedgerRules().flush_s + SLACK_S
