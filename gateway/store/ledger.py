"""The ledger's table: rows are added once, pruned by age, and added up for reports. Nothing is ever changed.

A row's ``id`` is given by the process that writes it, and adding it again does nothing: so whoever does not know
whether a batch arrived sends it again, and each row is there exactly once. Where time decides, it is when the request
began.

The same statements serve SQLite and PostgreSQL; the columns' meaning is :class:`gateway.ledger.entry.Entry`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from gateway.store.sql import Session, SqlStore, Value

COLUMNS: Final = (
    "id", "request_id", "at_s", "day", "key_name", "key_id", "team", "org", "endpoint", "model", "assistant", "target",
    "attempts", "prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens",
    "usage_source", "price_version", "cost_micro_usd", "lost_micro_usd", "queue_ms", "context_ms", "loaders", "ttft_ms",
    "total_ms", "status", "outcome", "phase", "code", "finish", "tokens_delivered", "tokens_generated", "tokens_saved",
    "saved_micro_usd",
)  # fmt: skip

# What a report can be by, and the column for it.
DIMENSIONS: Final[Mapping[str, str]] = {
    "team": "team",
    "org": "org",
    "model": "model",
    "key": "key_name",
    "key_id": "key_id",
    "assistant": "assistant",
    "endpoint": "endpoint",
    "target": "target",
    "outcome": "outcome",
    "day": "day",
}
_UNPRICED = "CASE WHEN cost_micro_usd IS NULL OR lost_micro_usd IS NULL THEN 1 ELSE 0 END"
_ESTIMATED = "CASE WHEN usage_source = 'estimated' THEN 1 ELSE 0 END"
# What a report adds up: name → what is added up.
MEASURES: Final[Mapping[str, str]] = {
    "requests": "1",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cached_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "estimated": _ESTIMATED,
    "cost_micro_usd": "cost_micro_usd",
    "lost_micro_usd": "lost_micro_usd",
    "unpriced": _UNPRICED,
    "tokens_delivered": "tokens_delivered",
    "tokens_generated": "tokens_generated",
    "tokens_saved": "tokens_saved",
    "saved_micro_usd": "saved_micro_usd",
}
# Without the columns' names, which are the table's in its order: SQLite looks the text up anew for each row. A process
# that runs on while a newer one adds a column can add no rows until it is started again: they go to its spill files.
_ADD = f"INSERT INTO usage_entry VALUES ({','.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO NOTHING"  # noqa: S608
# Whose spending a budget limits, and which rows are theirs. A key's goes by name and id, see identity/belonging.
Spender = Literal["key", "team", "org"]
SPENDERS: Final[Mapping[Spender, str]] = {
    "key": "(key_id = '' AND key_name = ?) OR (key_id <> '' AND key_name || '#' || substr(key_id, 5, 12) = ?)",
    "team": "team = ?",
    "org": "org = ?",
}
_PRUNE = "DELETE FROM usage_entry WHERE id IN (SELECT id FROM usage_entry WHERE at_s < ? ORDER BY at_s LIMIT ?)"


def add_rows(session: Session, rows: Iterable[Sequence[Value]]) -> None:
    """Add rows, each in the order of :data:`COLUMNS`; those whose id is there already change nothing."""
    session.run_many(_ADD, rows)


async def prune(sql: SqlStore, before_s: float, most: int) -> int:
    """Delete the oldest ``most`` rows that began before ``before_s``. Returns how many there were.

    Raises: StoreError.
    *Cancellation*: either all of them were deleted or none.
    """
    return await sql.write(lambda session: session.run(_PRUNE, (before_s, most)))


async def sums(sql: SqlStore, by: Sequence[str], since_s: float, until_s: float) -> list[tuple[Any, ...]]:
    """Rows added up: the values of ``by``, each of :data:`DIMENSIONS`, then the :data:`MEASURES`; dearest first.

    Args:
        since_s, until_s: Seconds since the epoch, from and before when requests began.

    Raises: StoreError; KeyError for an unknown dimension.
    *Cost*: one pass over the rows in between: a million 1.7 s in SQLite; a row is about 530 bytes.
    """
    columns = [DIMENSIONS[name] for name in by]
    measured = [f"COALESCE(SUM({what}), 0)" for what in MEASURES.values()]
    statement = f"SELECT {', '.join([*columns, *measured])} FROM usage_entry WHERE at_s >= ? AND at_s < ?"  # noqa: S608
    if columns:
        places = ", ".join(str(place) for place in range(1, len(columns) + 1))
        cost = len(columns) + 1 + list(MEASURES).index("cost_micro_usd")
        statement += f" GROUP BY {places} ORDER BY {cost} DESC, {places}"
    rows = await sql.read(lambda session: session.rows(statement, (since_s, until_s)))
    return [(*row[: len(by)], *(int(number) for number in row[len(by) :])) for row in rows]


async def spent_micro_usd(sql: SqlStore, whose: Spender, owner: str, since_s: float, until_s: float) -> int:
    """What a budget's owner has spent, cost and loss, as far as prices are known.

    Raises: StoreError.
    """
    rows = SPENDERS[whose]
    statement = (
        "SELECT COALESCE(SUM(COALESCE(cost_micro_usd, 0) + COALESCE(lost_micro_usd, 0)), 0) FROM usage_entry "  # noqa: S608
        f"WHERE ({rows}) AND at_s >= ? AND at_s < ?"
    )
    values: list[Value] = [*[owner] * rows.count("?"), since_s, until_s]
    [(total,)] = await sql.read(lambda session: session.rows(statement, values))
    return int(total)
