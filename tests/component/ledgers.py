"""Records and ledgers for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, evolve, field

from gateway.config import Config, Price, Provider
from gateway.config import Ledger as LedgerRules
from gateway.core.facts import AttemptFact, Kind, LoaderFact, Outcome, Phase, Record, Usage
from gateway.ledger.ledger import Ledger
from gateway.ledger.prices import Prices
from gateway.store.ledger import COLUMNS
from gateway.store.sqlite import Store

CONFIG = Config(
    provider=(Provider(name="own", base_url="http://127.0.0.1:1/v1"),),
    prices={"own/m": Price(input_usd_per_mtok=2.0, output_usd_per_mtok=10.0, cached_usd_per_mtok=0.5)},
)


def record(number: int = 0, **fields: Any) -> Record:
    """A request that was answered with 100 tokens for 1,000, a fifth of them cached: 1,600 + 100 + 1,000 µ$."""
    usage = fields.pop("usage", Usage(prompt_tokens=1_000, completion_tokens=100, cached_tokens=200))
    given: dict[str, Any] = {
        "request_id": f"r{number}", "endpoint": "/v1/chat/completions", "received_at": 100.0, "ended_at": 103.0,
        "asked_at": 100.5, "first_token_at": 101.0, "principal": "dev", "key_id": "key_1", "team": "blue",
        "model": "chat", "target": "own/m", "target_label": "own/m", "tokens": 100, "finish_reason": "stop",
        "usage": usage, "status": 200, "phase": Phase.DONE, "outcome": Outcome.OK,
        "attempts": [attempt(usage=usage)], "loaders": [LoaderFact(loader="docs", outcome="ok", ms=12.5)],
    }  # fmt: skip
    return Record(**{**given, **fields})


def attempt(**fields: Any) -> AttemptFact:
    given: dict[str, Any] = {
        "target": "own/m", "label": "own/m", "kind": Kind.PRIMARY, "began_at": 100.5, "outcome": "ok", "status": 200,
    }  # fmt: skip
    return AttemptFact(**{**given, **fields})


@define
class Said:
    """The log's lines."""

    lines: list[tuple[str, dict[str, Any]]] = field(factory=list)

    def __call__(self, level: str, event: str, /, **about: Any) -> None:
        self.lines.append((event, about))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


@asynccontextmanager
async def running(
    url: str, folder: Path, said: Said | None = None, **rules: Any
) -> AsyncIterator[tuple[Ledger, Store]]:
    """A ledger that writes into a store, its files in ``folder``; ended as a gateway ends it."""
    given = evolve(LedgerRules(flush_s=0.02, spill_dir=str(folder / "spill")), **rules)
    async with Store.open(url, local_url=f"sqlite:///{folder}/local.db") as store:
        ledger = Ledger(given, Prices(CONFIG), lambda: store.sql, said or Said())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ledger.run)
                yield ledger, store
                await ledger.finish(5)
                nursery.cancel_scope.cancel()
        finally:
            ledger.close()


async def rows(store: Store) -> list[dict[str, Any]]:
    """What is in the table, in order of the requests' ids."""
    found = await store.sql.read(lambda session: session.rows(f"SELECT {', '.join(COLUMNS)} FROM usage_entry"))
    return sorted((dict(zip(COLUMNS, row, strict=True)) for row in found), key=lambda row: int(row["request_id"][1:]))


async def until(condition: Any, timeout_s: float = 10.0) -> None:
    """Wait until ``condition()`` holds."""
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.005)
