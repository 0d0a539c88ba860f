"""The ledger: takes one entry per request at once, and gets it into the database whatever happens.

:meth:`Ledger.write` only makes the entry and queues it. One task writes: every ``flush_s``, or as soon as
``BATCH`` entries wait, in one transaction of at most so many. While the database is away (an error, or no answer within
``WRITE_S``), batches go to a file (:mod:`gateway.ledger.spill`) instead, and the database is tried again after
``RETRY_S``; once it takes something, the files are replayed beside the new entries. An entry has an id, so one that may
or may not have arrived is sent again without harm: each is there exactly once.

Memory is bounded by ``ledger.queue`` entries. When they are reached while a write waits for the database, that write is
given up and everything goes to the file. Only when the file cannot be written either (a full disk,
``ledger.spill_max_bytes``) do entries stay in memory, and what comes beyond the bound is lost: counted, told, and shown
as ``sluice_ledger_degraded``.

**What is lost** when the process is killed: what was written to the ledger since the last batch, ``flush_s`` as a
rule, and ``WRITE_S`` more in the moment the database stops answering; measured by
``tests/component/test_ledger_survives_kill_9.py``. A power cut may also take what SQLite has not synced. Nothing is
lost at an orderly end: :meth:`Ledger.finish`, then :meth:`Ledger.close`.

The writer also deletes rows older than ``ledger.retention_days``, in small batches.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from attrs import frozen

from gateway.config import Ledger as LedgerRules
from gateway.core.facts import Record
from gateway.ledger.entry import Entry, document_of, make_entry, row_of
from gateway.ledger.prices import Prices
from gateway.ledger.spill import Spill, SpillError
from gateway.ledger.unread import Lengths
from gateway.store.database import StoreError
from gateway.store.ledger import add_rows, prune
from gateway.store.sql import SqlStore, Value

BATCH: Final = 500
WRITE_S: Final = 2.0
RETRY_S: Final = 1.0
ADOPT_EVERY_S: Final = 10.0
PRUNE_EVERY_S: Final = 60.0
PRUNED_AT_ONCE: Final = 1_000
_DAY_S = 86_400.0


class Say(Protocol):
    """A line for the log."""

    def __call__(self, level: str, event: str, /, **about: Any) -> None: ...


@frozen(kw_only=True, slots=True)
class LedgerStatistics:
    """What a ledger is doing.

    Attributes:
        waiting: Entries in memory.
        spilled_bytes: On disk, yet to be replayed, as far as this process knows.
        written, spilled, replayed, lost: Entries that went into the database at once, to the disk, from there into the
            database, and nowhere; ever.
        torn: Lines of spill files that could not be read.
        pruned: Rows deleted for their age.
        away: Whether the database is.
        degraded: Whether entries can go neither to the database nor to the disk.
    """

    waiting: int
    spilled_bytes: int
    written: int
    spilled: int
    replayed: int
    lost: int
    torn: int
    pruned: int
    away: bool
    degraded: bool


class Ledger:
    """See the module.

    Args:
        rules: ``[ledger]``.
        prices: Replaced by assigning :attr:`prices` when the configuration changes.
        sql: Where rows go; asked for when there are some, because a store is opened later than a ledger is made.
        say: Told when the database goes and comes back, and of losses.
        database: Names the database to spill files; see :func:`gateway.ledger.spill.name_of`.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        rules: LedgerRules,
        prices: Prices,
        sql: Callable[[], SqlStore],
        say: Say,
        now: Callable[[], float] = time.time,
        *,
        database: str = "",
    ) -> None:
        self.prices = prices
        self._rules = rules
        self._sql = sql
        self._say = say
        self._now = now
        self._lengths = Lengths()
        self._spill = Spill(Path(rules.spill_dir), rules.spill_max_bytes, database)
        self._origin, self._count = secrets.token_hex(8), 0
        self._queue: deque[Entry] = deque()
        self._wake = trio.Event()
        self._writing = trio.Lock()
        self._disk = trio.CapacityLimiter(1)
        self._attempt: trio.CancelScope | None = None  # the write that waits for the database
        self._retry_at = -float("inf")
        self._away = self._degraded = False
        self._has_spilled = True  # perhaps: files of processes that are no more
        self._adopt_at = self._prune_at = -float("inf")
        self._written = self._spilled = self._replayed = self._lost = self._pruned = 0

    # ── the request path ─────────────────────────────────────────────────────────────────────────────────────────

    def write(self, record: Record) -> Entry:
        """Take in a closed record, exactly once. Sync, never waits; *cost* about 15 µs.

        Returns:
            The entry, for what else goes by its cost: reservations, metrics.
        """
        self._count += 1
        id = f"{self._origin}-{self._count}"
        entry = make_entry(record, id=id, now_s=self._now(), prices=self.prices, lengths=self._lengths)
        waiting = len(self._queue)
        if waiting >= self._rules.queue:
            if self._attempt is not None:
                self._attempt.cancel()  # then everything goes to the disk
            if self._degraded or waiting >= 2 * self._rules.queue:
                self._lose()
                return entry
        self._queue.append(entry)
        if waiting + 1 >= BATCH:
            self._wake.set()
        return entry

    def usual_tokens(self, target: str) -> int:
        """How long the target's answers are as a rule; 0 before there was one."""
        return self._lengths.usual(target)

    def _lose(self) -> None:
        self._lost += 1
        if self._lost & (self._lost - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            self._say(
                "error",
                "ledger_entries_lost",
                lost=self._lost,
                fix="bring the store back, or make room for ledger.spill_dir (ledger.spill_max_bytes)",
            )

    # ── the writer ───────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Write what is taken, until cancelled.

        *Cancellation*: what was not written stays in memory, for :meth:`finish` and :meth:`close`.
        """
        await trio.to_thread.run_sync(self.prices.learn, abandon_on_cancel=True)
        while True:
            with trio.move_on_after(self._rules.flush_s):
                await self._wake.wait()
            self._wake = trio.Event()
            async with self._writing:
                await self._flush()
                await self._replay()
                await self._prune()

    async def finish(self, timeout_s: float) -> None:
        """Write all that waits, and what does not arrive within ``timeout_s`` to the disk.

        *Cancellation*: what was not written stays in memory, for :meth:`close`.
        """
        with trio.move_on_after(timeout_s):
            async with self._writing:
                await self._flush()

    def close(self) -> None:
        """Write to the disk what is in memory still. Blocks, for some 10 ms; the last thing to do with a ledger."""
        try:
            while self._queue:
                batch = list(islice(self._queue, BATCH))
                self._spill.append(_documents(batch))
                self._drop(len(batch))
                self._spilled += len(batch)
            self._spill.close()
        except SpillError as error:
            self._lost += len(self._queue)
            self._say("error", "ledger_entries_lost", lost=self._lost, error=str(error))
            self._queue.clear()

    async def _flush(self) -> None:
        """Get the queue into the database, or onto the disk; what goes to neither stays in it."""
        while self._queue:
            batch = list(islice(self._queue, BATCH))
            if trio.current_time() >= self._retry_at and await self._insert(partial(_rows, batch)):
                self._written += len(batch)
                self._degraded = False
            elif await self._to_disk(batch):
                self._spilled += len(batch)
            else:
                return
            self._drop(len(batch))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()

    async def _insert(self, make_rows: Callable[[], list[list[Value]]]) -> bool:
        """Add rows, which are made in the database's thread. Says whether they are there."""
        error = "it does not answer"
        with trio.move_on_after(WRITE_S) as self._attempt:
            try:
                await self._sql().write(lambda session: add_rows(session, make_rows()))
                if self._away:
                    self._say("info", "ledger_database_is_back")
                self._away, self._retry_at = False, -float("inf")
                return True
            except StoreError as failure:
                error = str(failure)
            finally:
                self._attempt = None
        if not self._away:
            self._say("error", "ledger_database_away", error=error, instead=self._rules.spill_dir)
        self._away, self._retry_at = True, trio.current_time() + RETRY_S
        return False

    async def _to_disk(self, batch: list[Entry]) -> bool:
        def append() -> None:
            self._spill.append(_documents(batch))

        try:
            await trio.to_thread.run_sync(append, limiter=self._disk, abandon_on_cancel=True)
        except SpillError as error:
            if not self._degraded:
                self._say("error", "ledger_degraded", error=str(error), waiting=len(self._queue))
            self._degraded = True
            return False
        self._degraded = False
        self._has_spilled = True
        return True

    async def _replay(self) -> None:
        """Bring spilled entries into the database, while it takes them and nothing new waits for long."""
        now = trio.current_time()
        if now < self._retry_at:
            return
        try:
            if now >= self._adopt_at:
                self._adopt_at = now + ADOPT_EVERY_S
                await trio.to_thread.run_sync(self._spill.adopt, limiter=self._disk, abandon_on_cancel=True)
                self._has_spilled = True
            while self._has_spilled and len(self._queue) < BATCH:
                documents = await trio.to_thread.run_sync(
                    self._spill.oldest, BATCH, limiter=self._disk, abandon_on_cancel=True
                )
                if not documents:
                    self._has_spilled = False
                elif await self._insert(partial(_rows_of, documents)):
                    self._replayed += len(documents)
                    await trio.to_thread.run_sync(self._spill.arrived, limiter=self._disk, abandon_on_cancel=True)
                else:
                    return
        except SpillError as error:
            self._has_spilled = False  # until the folder is looked at again
            self._say("error", "ledger_spill_unreadable", error=str(error))

    async def _prune(self) -> None:
        now = trio.current_time()
        if now < self._prune_at or now < self._retry_at:
            return
        before_s = self._now() - self._rules.retention_days * _DAY_S
        pruned = 0
        with trio.move_on_after(WRITE_S):
            try:
                pruned = await prune(self._sql(), before_s, PRUNED_AT_ONCE)
            except StoreError as error:
                self._say("warning", "ledger_not_pruned", error=str(error))
        self._pruned += pruned
        self._prune_at = now if pruned == PRUNED_AT_ONCE else now + PRUNE_EVERY_S

    # ── what can be seen ─────────────────────────────────────────────────────────────────────────────────────────

    def statistics(self) -> LedgerStatistics:
        return LedgerStatistics(
            waiting=len(self._queue),
            spilled_bytes=self._spill.waiting_bytes,
            written=self._written,
            spilled=self._spilled,
            replayed=self._replayed,
            lost=self._lost,
            torn=self._spill.torn,
            pruned=self._pruned,
            away=self._away,
            degraded=self._degraded,
        )

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """The statistics as gauges, by metric and labels."""
        now = self.statistics()
        fates = {name: getattr(now, name) for name in ("written", "spilled", "replayed", "lost", "torn", "pruned")}
        return {
            "sluice_ledger_entries": {(fate,): float(count) for fate, count in fates.items()},
            "sluice_ledger_waiting": {(): float(now.waiting)},
            "sluice_ledger_spilled_bytes": {(): float(now.spilled_bytes)},
            "sluice_ledger_away": {(): float(now.away)},
            "sluice_ledger_degraded": {(): float(now.degraded)},
        }


def _rows(batch: list[Entry]) -> list[list[Value]]:
    return [entry.row() for entry in batch]


def _documents(batch: list[Entry]) -> list[dict[str, Value]]:
    return [document_of(entry.row()) for entry in batch]


def _rows_of(documents: list[dict[str, Any]]) -> list[list[Value]]:
    return [row_of(document) for document in documents]
