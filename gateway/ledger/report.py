"""Usage added up: by team, model, key, day, target, outcome and others, over a span of time.

A row's sums are exact: whole tokens, whole micro-dollars. ``unpriced`` counts the requests of a row with tokens whose
price is not known, which are in none of its sums of money. ``estimated`` counts those whose tokens no provider counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from gateway.store.ledger import DIMENSIONS, MEASURES, sums
from gateway.store.sql import SqlStore

Row = dict[str, Any]
_EPOCH: Final = date(1970, 1, 1)
_SPAN: Final = re.compile(r"(?P<count>[0-9]{1,6})\s*(?P<unit>s|m|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


async def usage_report(sql: SqlStore, by: Sequence[str], since_s: float, until_s: float) -> list[Row]:
    """The requests that began from ``since_s`` on and before ``until_s``, added up; dearest first.

    Args:
        by: Of ``gateway.store.ledger.DIMENSIONS``; none gives one row.
        since_s, until_s: Seconds since the epoch.

    Returns:
        For each row the values of ``by`` (``day`` as ``2027-01-31``, UTC), then the sums of
        ``gateway.store.ledger.MEASURES``.

    Raises: ValueError for what a report cannot be by; StoreError.
    """
    by = parse_by(",".join(by))
    names = [*by, *MEASURES]
    rows = [dict(zip(names, row, strict=True)) for row in await sums(sql, by, since_s, until_s)]
    for row in rows:
        if "day" in row:
            row["day"] = (_EPOCH + timedelta(days=row["day"])).isoformat()
    return rows


def parse_by(text: str) -> list[str]:
    """``team,model`` as a list without repetitions. Raises: ValueError."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in DIMENSIONS]
    if unknown:
        raise ValueError(f"a report cannot be by {', '.join(unknown)}; it can be by {', '.join(DIMENSIONS)}")
    return names


def moment_s(text: str, now_s: float) -> float:
    """Seconds since the epoch of a date (its beginning, UTC), of a date with a time, or of a span before now.

    Raises: ValueError, with what to write.
    """
    text = text.strip()
    span = _SPAN.fullmatch(text.lower())
    if span is not None:
        return now_s - int(span["count"]) * _UNIT_S[span["unit"]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is no time; write 7d, 24h, 2027-01-31 or 2027-01-31T18:00") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
