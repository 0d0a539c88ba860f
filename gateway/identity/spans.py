"""Times as people write them: ``90m``, ``24h``, ``30d``, ``2w``; ``2027-01-31``, ``2027-01-31T18:00+01:00``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(?P<count>[0-9]{1,6})\s*(?P<unit>s|m|h|d|w)")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_HINT = "write a span as 90m, 24h, 30d or 2w"
_LATEST_S = 253_370_764_800.0  # 9999-01-01; later than that no time can be written


def span_s(text: str) -> float:
    """Seconds of a span. Raises: ValueError, with what to write."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"'{text}' is no span of time; {_HINT}")
    return int(match["count"]) * _UNIT_S[match["unit"]]


def moment_s(text: str, now_s: float) -> float:
    """Seconds since the epoch of a date (its end, UTC), of a date with a time (UTC by default), or of a span from now.

    Raises: ValueError, with what to write.
    """
    text = text.strip()
    try:
        at_s = now_s + span_s(text) if _SPAN.fullmatch(text.lower()) else _date_s(text)
    except OverflowError:
        at_s = _LATEST_S
    except ValueError:
        raise ValueError(f"'{text}' is no time; write a date as 2027-01-31 or 2027-01-31T18:00, or {_HINT}") from None
    if at_s >= _LATEST_S:
        raise ValueError(f"'{text}' is too far away; leave it out for what never ends")
    return at_s


def written(at_s: float | None) -> str:
    """A time for people: ``2027-01-31 18:00 UTC``; "" for None."""
    if at_s is None:
        return ""
    return datetime.fromtimestamp(min(at_s, _LATEST_S), UTC).strftime("%Y-%m-%d %H:%M UTC")


def _date_s(text: str) -> float:
    at = datetime.fromisoformat(text)
    if len(text) == len("2027-01-31"):
        at += timedelta(days=1)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
