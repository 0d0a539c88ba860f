"""Promise: spill files survive what disks do: torn lines, full disks, other processes; what is lost is counted."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import CONFIG, Said, record, rows, running, until

from gateway.config import Ledger as LedgerRules
from gateway.ledger.ledger import Ledger
from gateway.ledger.prices import Prices
from gateway.ledger.spill import Spill, SpillError
from gateway.store.sqlite import Store

MANY = 1 << 30


@contextmanager
def full_beyond(size_bytes: int) -> Iterator[None]:
    """No file of this process may become larger: a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def drained(spill: Spill, most: int = 3) -> list[int]:
    """Replay everything; which documents came."""
    found: list[int] = []
    while documents := spill.oldest(most):
        found += [document["n"] for document in documents]
        spill.arrived()
    return found


def documents(*numbers: int) -> list[dict[str, Any]]:
    return [{"n": number} for number in numbers]


def test_what_was_appended_comes_back_in_order_and_the_file_goes(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "new" / "folder", MANY)
    spill.append(documents(1, 2, 3, 4))
    spill.append(documents(5))
    assert spill.waiting_bytes > 0
    assert drained(spill) == [1, 2, 3, 4, 5]
    assert (spill.waiting_bytes, list((tmp_path / "new" / "folder").iterdir())) == (0, [])
    spill.append(documents(6))
    assert drained(spill) == [6]


def test_a_batch_that_has_not_arrived_comes_again(tmp_path: Path) -> None:
    spill = Spill(tmp_path, MANY)
    spill.append(documents(1, 2, 3))
    assert spill.oldest(2) == documents(1, 2)
    assert spill.oldest(2) == documents(1, 2)
    spill.arrived()
    spill.append(documents(4))  # while the file is being replayed
    assert drained(spill) == [3, 4]


def test_files_of_living_processes_are_left_alone_and_those_of_dead_ones_taken_over(tmp_path: Path) -> None:
    one, other = Spill(tmp_path, MANY), Spill(tmp_path, MANY)
    one.append(documents(1))
    other.adopt()
    assert drained(other) == []
    one.close()
    other.adopt()
    other.append(documents(2))
    assert drained(other) == [1, 2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(cut=st.integers(0, 200), flips=st.lists(st.integers(0, 199), max_size=2))
def test_torn_and_damaged_lines_cost_only_themselves(tmp_path: Path, cut: int, flips: list[int]) -> None:
    spill = Spill(tmp_path, MANY)
    spill.append(documents(*range(10)))
    spill.close()
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    data = bytearray(whole)
    for flip in flips:
        data[flip % len(data)] ^= 1
    path.write_bytes(data[: len(data) - cut % len(data)])
    spill.adopt()
    found = drained(spill)
    assert found == sorted(set(found))
    assert set(found) <= set(range(10))
    untouched = path_lines_untouched(whole, bytes(data[: len(data) - cut % len(data)]))
    assert set(found) >= untouched
    assert list(tmp_path.iterdir()) == []


def path_lines_untouched(before: bytes, after: bytes) -> set[int]:
    """The lines that are as they were written, where they were."""
    at, kept = 0, set()
    for number, line in enumerate(before.splitlines(keepends=True)):
        if after[at : at + len(line)] == line and (at == 0 or after[at - 1 : at] == b"\n"):
            kept.add(number)
        at += len(line)
    return kept


def test_a_batch_for_which_there_is_no_room_is_not_written_at_all(tmp_path: Path) -> None:
    spill = Spill(tmp_path, MANY)
    spill.append(documents(1))
    [path] = tmp_path.iterdir()
    size_bytes = path.stat().st_size
    with full_beyond(size_bytes + 10), pytest.raises(SpillError, match=r"File too large \(ledger\.spill_dir\)"):
        spill.append(documents(2, 3))
    assert path.stat().st_size == size_bytes
    spill.append(documents(4))
    assert drained(spill) == [1, 4]


def test_the_bound_holds_and_says_which(tmp_path: Path) -> None:
    spill = Spill(tmp_path, 40)
    spill.append(documents(1))
    with pytest.raises(SpillError, match=r"ledger\.spill_max_bytes"):
        spill.append(documents(*range(10)))
    assert drained(spill) == [1]


async def test_without_database_and_disk_memory_is_bounded_and_the_loss_counted(tmp_path: Path) -> None:
    said = Said()
    (tmp_path / "spill").write_text("in the way: no folder can be made")
    broken = tmp_path / "is-a-folder"
    broken.mkdir()
    async with running(f"sqlite:///{broken}", tmp_path, said, queue=100) as (ledger, _):
        ledger.write(record(0))
        await until(lambda: ledger.statistics().degraded)
        for number in range(1, 250):
            ledger.write(record(number))
        assert (ledger.statistics().waiting, ledger.statistics().lost) == (100, 150)
        assert ledger.gauges()["sluice_ledger_degraded"] == {(): 1.0}
        assert said.events[:3] == ["ledger_database_away", "ledger_degraded", "ledger_entries_lost"]
        (tmp_path / "spill").unlink()  # somebody makes room
        await until(lambda: ledger.statistics().waiting == 0)
        assert not ledger.statistics().degraded
        assert ledger.statistics().spilled == 100


async def test_a_full_disk_is_no_crash_and_is_over_when_it_is_over(tmp_path: Path) -> None:
    """Database and spill file are on the same disk, and it is full."""
    said, url = Said(), f"sqlite:///{tmp_path}/sluice.db"
    async with running(url, tmp_path, said) as (ledger, store):
        ledger.write(record(0))
        await until(lambda: ledger.statistics().written == 1)
        with full_beyond(1):
            for number in range(1, 300):
                ledger.write(record(number))
            await until(lambda: ledger.statistics().degraded)
        await until(lambda: ledger.statistics().waiting == 0)
        await until(lambda: not ledger.statistics().away)
        await until(lambda: not ledger.statistics().spilled_bytes)
        assert [row["request_id"] for row in await rows(store)] == [f"r{number}" for number in range(300)]
    assert "ledger_degraded" in said.events


async def test_the_end_waits_for_its_deadline_only_and_leaves_the_rest_on_disk(tmp_path: Path) -> None:
    held, let_go = threading.Event(), threading.Event()
    url = f"sqlite:///{tmp_path}/sluice.db"
    async with Store.open(url) as store, trio.open_nursery() as nursery:
        ledger = Ledger(LedgerRules(spill_dir=str(tmp_path / "spill")), Prices(CONFIG), lambda: store.sql, Said())

        def hold(session: object) -> None:
            held.set()
            let_go.wait(10)

        nursery.start_soon(store.sql.write, hold)
        await until(held.is_set)
        ledger.write(record(1))
        with trio.fail_after(5):
            await ledger.finish(0.1)
        ledger.write(record(2))  # of a request that ended later still
        ledger.close()
        let_go.set()
    async with running(url, tmp_path) as (ledger, store):
        await until(lambda: ledger.statistics().replayed == 2)
        assert [row["request_id"] for row in await rows(store)] == ["r1", "r2"]
    assert os.listdir(tmp_path / "spill") == []
