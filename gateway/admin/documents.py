"""What the admin API takes and gives: JSON documents, pages, and the words for what is wrong with them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from attrs import frozen

from gateway.core.errors import RequestError
from gateway.identity.keys_command import network, public, state_of
from gateway.identity.spans import moment_s, span_s
from gateway.store.keys import StoredKey

T = TypeVar("T")
_FIELD_NAMED = re.compile(r"(?:required|unknown) field `([^`]*)`")
Document = dict[str, Any]

MAX_BODY_BYTES = 65_536
MOST_PER_PAGE = 1_000
PER_PAGE = 100
_MICRO = 1_000_000
_MOST_CHARS = 100  # of a name that the caller chose, in our words
_MOST_USD = 1_000_000_000
_MOST_OVERLAP_S = 366 * 86_400

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Names = Annotated[list[Name], msgspec.Meta(max_length=1_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of ``POST /admin/api/keys``; as the options of ``sluice keys create``."""

    name: Name
    team: Annotated[str, msgspec.Meta(max_length=200)] = ""
    org: Annotated[str, msgspec.Meta(max_length=200)] = ""
    priority: Literal["high", "normal", "low"] = "normal"
    models: Names = []
    assistants: Names = []
    endpoints: Names = []
    networks: Names = []
    rpm: Count | None = None
    rpd: Count | None = None
    tpm: Count | None = None
    tpd: Count | None = None
    max_concurrent: Count | None = None
    budget_usd: Decimal | None = None
    period: Literal["day", "month", "total"] = "month"
    expires: str | None = None  # 30d, 12h, or a date: 2027-01-31


class Rotation(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of ``POST /admin/api/keys/{id}/rotate``."""

    overlap: str = "24h"


@frozen(kw_only=True, slots=True)
class Call:
    """One call of the API.

    Attributes:
        parts: Of the path behind ``/admin/api/``.
        client: Its address, "" where there is none.
    """

    method: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes
    client: str
    who: str


def parsed(call: Call, kind: type[T]) -> T:
    """The body. Raises: RequestError 400 that names the field, 413."""
    if len(call.body) > MAX_BODY_BYTES:
        raise RequestError("body_too_large", 413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(call.body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        named = _FIELD_NAMED.search(what)  # missing and unknown ones are named by the words, the others by the path
        raise invalid(what, named[1] if named else path.strip(".`") or None) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise invalid(str(error)) from None


def stored_key(new: NewKey) -> StoredKey:
    """The key that the document describes. Raises: RequestError 400."""
    if new.name != new.name.strip() or not new.name.isprintable():
        raise invalid("printable characters without spaces at the ends", "name")
    try:
        networks = tuple(network(each) for each in new.networks)
    except ValueError as error:
        raise invalid(f"{error}; write 10.0.0.0/8 or 192.0.2.7", "networks") from None
    return StoredKey(
        name=new.name,
        team=new.team,
        org=new.org,
        priority=new.priority,
        models=tuple(new.models),
        assistants=tuple(new.assistants),
        endpoints=tuple(new.endpoints),
        networks=networks,
        rpm=new.rpm,
        rpd=new.rpd,
        tpm=new.tpm,
        tpd=new.tpd,
        max_concurrent=new.max_concurrent,
        budget_micro_usd=_micro_usd(new.budget_usd),
        period=new.period,
        expires_s=_future_s(new.expires),
    )


def overlap_s(rotation: Rotation) -> float:
    """Seconds that the old secret works on. Raises: RequestError 400."""
    try:
        seconds = span_s(rotation.overlap)
    except ValueError as error:
        raise invalid(str(error), "overlap") from None
    if seconds > _MOST_OVERLAP_S:
        raise invalid("a year at most", "overlap")
    return seconds


def key_document(key: StoredKey) -> Document:
    """What may be known of a key: not the key, and no digest."""
    return {**public(key), "state": state_of(key, time.time())}


def page(rows: Sequence[Document], query: Mapping[str, str], cursor: str = "") -> Document:
    """``limit`` rows from ``after`` on.

    Args:
        cursor: The field by whose value the next page goes on; "" goes on by the number of rows.
    """
    limit, after = number(query, "limit", PER_PAGE, least=1, most=MOST_PER_PAGE), query.get("after", "")
    start = 0
    if after and cursor:
        places = (place for place, row in enumerate(rows) if str(row[cursor]) == after)
        found = next(places, None)
        if found is None:
            raise invalid("is none of the rows", "after")
        start = found + 1
    elif after:
        start = number(query, "after", 0)
    shown = list(rows[start : start + limit])
    more = start + limit < len(rows)
    following = (str(shown[-1][cursor]) if cursor else str(start + limit)) if more else None
    return {"data": shown, "has_more": more, "next": following}


def check_query(query: Mapping[str, str], known: frozenset[str]) -> None:
    """Refuse fields that would change nothing. Raises: RequestError 400."""
    for name in query:
        if name not in known:
            raise invalid(f"no such field; there is {', '.join(sorted(known)) or 'none here'}", name[:_MOST_CHARS])


def number(query: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
    """A whole number of the query. Raises: RequestError 400."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most):
        raise invalid(f"a whole number from {least} to {most}", name)
    return int(text)


def encoded(document: Document) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def invalid(why: str, param: str | None = None) -> RequestError:
    return RequestError("invalid_request", 400, f"{param}: {why}" if param else why, param=param)


def _micro_usd(usd: Decimal | None) -> int | None:
    if usd is None:
        return None
    whole = usd * _MICRO if usd.is_finite() and 0 < usd <= _MOST_USD else Decimal(-1)
    if whole < 0 or whole != int(whole):
        raise invalid("an amount of dollars above 0, with six digits behind the point at most", "budget_usd")
    return int(whole)


def _future_s(text: str | None) -> float | None:
    if text is None:
        return None
    now_s = time.time()
    try:
        at_s = moment_s(text, now_s)
    except ValueError as error:
        raise invalid(str(error), "expires") from None
    if at_s <= now_s:
        raise invalid("is over", "expires")
    return at_s
