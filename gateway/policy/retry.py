"""When to ask again: the delay we choose, and the one a provider asks for.

:class:`Backoff` is exponential with full jitter: clients that failed together do not come back together.

:func:`retry_after_s` reads what providers say in their headers; the first of these that is there and makes sense:

==========================================  ============================  ==========================================
header                                      form                          counts
==========================================  ============================  ==========================================
``retry-after-ms``                          ``1500``                      always (OpenAI, Azure)
``retry-after``                             ``2``, or an HTTP date        always
``x-ratelimit-reset-requests|-tokens``      ``20ms``, ``1s``, ``6m0s``    429, and its ``remaining`` is 0
``anthropic-ratelimit-<limit>-reset``       ``2026-01-27T12:00:30Z``      429, and its ``remaining`` is 0
==========================================  ============================  ==========================================

Resets stand in every answer and say when a limit is *full* again, so they count only for a limit that is used up, and
the latest of those that are. What is no number, no date or no duration counts as not said; nothing is ever more than a
day or less than 0. Gemini says it in the error's body: :func:`retry_delay_of_body`.

Limits: an HTTP date has whole seconds and trusts both clocks.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015); RFC 9110 §10.2.3; OpenAI's and
Anthropic's "Rate limits" pages; the retry rules of the ``openai`` client; google.rpc.RetryInfo.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any

import orjson
from attrs import frozen

MOST_S = 86_400.0
TOO_MANY_REQUESTS = 429
_MOST_DOUBLINGS = 64  # further ones would only overflow
_OPENAI_LIMITS = (b"requests", b"tokens")
_ANTHROPIC_LIMITS = (
    b"requests",
    b"tokens",
    b"input-tokens",
    b"output-tokens",
    b"priority-input-tokens",
    b"priority-output-tokens",
)
_NUMBER = re.compile(rb"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_DURATION = re.compile(rb"(?:[0-9]{1,18}(?:\.[0-9]{1,18})?(?:d|h|ms|m|s|us|\xc2\xb5s|ns))+")
_PART = re.compile(rb"([0-9.]+)([^0-9.]+)")
_UNITS_S = {
    b"d": 86_400.0,
    b"h": 3_600.0,
    b"m": 60.0,
    b"s": 1.0,
    b"ms": 1e-3,
    b"us": 1e-6,
    b"\xc2\xb5s": 1e-6,
    b"ns": 1e-9,
}

Headers = Callable[[bytes], bytes | None] | Iterable[tuple[bytes, bytes]]


@frozen(slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    Attributes:
        base_s: The longest delay before the first retry.
        max_s: The longest delay before any.
    """

    base_s: float
    max_s: float

    def delay_s(self, retry_number: int, rng: Random) -> float:
        """How long to wait before a retry: anything from 0 to the limit, which doubles from retry to retry.

        Args:
            retry_number: 1 for the first.

        Cost: O(1).
        """
        doublings = min(max(retry_number, 1) - 1, _MOST_DOUBLINGS)
        return rng.uniform(0.0, min(self.max_s, math.ldexp(self.base_s, doublings)))


def retry_after_s(headers: Headers, wall_now: float, *, status: int = TOO_MANY_REQUESTS) -> float | None:
    """How long a provider asks us to stay away.

    Args:
        headers: Gives the value of a name in lower case, or is the headers, names in lower case.
        wall_now: Seconds since the epoch, for dates.
        status: Of the provider's answer; resets of limits mean something with 429 only.

    Returns:
        Seconds, 0…86,400; None if nothing that can be understood is said.

    Cost: one pass over the headers, about 3 µs; only ever for failed attempts.
    """
    get: Callable[[bytes], bytes | None] = headers if callable(headers) else _first_values(headers).get
    told = _number(get(b"retry-after-ms"))
    if told is not None:
        return _clamped(told / 1_000)
    value = get(b"retry-after")
    if value is not None:
        told = _number(value)
        if told is None:
            told = _seconds_until(_http_date(value), wall_now)
        if told is not None:
            return _clamped(told)
    return _reset_s(get, wall_now) if status == TOO_MANY_REQUESTS else None


def retry_delay_of_body(body: bytes) -> float | None:
    """What an error document of Google's shape says in its ``RetryInfo``: seconds, 0…86,400, or None.

    Args:
        body: ``{"error": {"details": [{"@type": "….RetryInfo", "retryDelay": "34.07s"}]}}``, alone or in an array.

    Cost: a substring search for documents without one.
    """
    if b"RetryInfo" not in body:
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    for each in document if isinstance(document, list) else [document]:
        for detail in _details(each):
            if isinstance(detail, dict) and str(detail.get("@type")).endswith("google.rpc.RetryInfo"):
                delay = detail.get("retryDelay")
                told = _duration_s(delay.encode()) if isinstance(delay, str) else None
                if told is not None:
                    return _clamped(told)
    return None


def _details(document: Any) -> list[Any]:
    error = document.get("error") if isinstance(document, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return details if isinstance(details, list) else []


def _first_values(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value)
    return found


def _reset_s(get: Callable[[bytes], bytes | None], wall_now: float) -> float | None:
    """The latest reset of the limits that are used up."""
    resets = []
    for limit in _OPENAI_LIMITS:
        if _number(get(b"x-ratelimit-remaining-" + limit)) == 0:
            resets.append(_duration_s(get(b"x-ratelimit-reset-" + limit)))
    for limit in _ANTHROPIC_LIMITS:
        if _number(get(b"anthropic-ratelimit-" + limit + b"-remaining")) == 0:
            at = get(b"anthropic-ratelimit-" + limit + b"-reset")
            resets.append(_seconds_until(_rfc3339(at), wall_now))
    told = [reset for reset in resets if reset is not None]
    return _clamped(max(told)) if told else None


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), MOST_S)


def _number(value: bytes | None) -> float | None:
    text = value.strip() if value is not None else b""
    return float(text) if _NUMBER.fullmatch(text) else None


def _duration_s(value: bytes | None) -> float | None:
    """``6m0s``, ``20ms``, ``34.07s``; a bare number is seconds, unless it is so large that it must be a date."""
    text = value.strip() if value is not None else b""
    bare = _number(text)
    if bare is not None:
        return bare if bare <= MOST_S else None
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def _http_date(value: bytes) -> datetime | None:
    try:
        return parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, OverflowError):
        return None


def _rfc3339(value: bytes | None) -> datetime | None:
    try:
        return datetime.fromisoformat(value.strip().decode("ascii")) if value is not None else None
    except ValueError:
        return None


def _seconds_until(at: datetime | None, wall_now: float) -> float | None:
    if at is None:
        return None
    zoned = at if at.tzinfo is not None else at.replace(tzinfo=UTC)  # "-0000" and no zone at all: UTC
    try:
        return zoned.timestamp() - wall_now
    except (OverflowError, ValueError):
        return None
