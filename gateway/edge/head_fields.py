"""What the door reads in a request's head: who, how urgent, for how long; each checked, each refused by name."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from gateway.core.errors import RequestError
from gateway.core.principal import Principal, Priority

SANE_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
MAX_ID = 128
MAX_CONVERSATION = 200
MAX_TIMEOUT_DIGITS = 10


def key_of(headers: Mapping[bytes, bytes], query: bytes) -> bytes | None:
    """The key as Google's clients send it, in a header or in the query; or as others do, beside ``Authorization``."""
    key = headers.get(b"x-goog-api-key") or headers.get(b"x-api-key")
    if key is None and b"key=" in query:
        # As latin-1, byte for byte: parse_qs of bytes fails on all that is no ASCII, also where it is %-encoded.
        found = parse_qs(query.decode("latin-1"), encoding="latin-1").get("key")
        key = found[0].encode("latin-1") if found else None
    return key


def is_local(client: Any) -> bool:
    """Whether an ASGI scope's ``client`` is on this machine; a Unix socket's (None) is."""
    try:
        return client is None or ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def sane_id(value: bytes | None) -> str | None:
    """The client's own request id, if it is one that may go into logs and headers."""
    if value and len(value) <= MAX_ID and SANE_ID.issuperset(value):
        return value.decode("ascii")
    return None


def conversation_of(value: bytes | None) -> str | None:
    if not value:
        return None
    if len(value) > MAX_CONVERSATION or not SANE_ID.issuperset(value):
        raise RequestError(
            "invalid_request",
            400,
            f"x-sluice-conversation: letters, digits and -_.: only, {MAX_CONVERSATION} characters at most",
            param="x-sluice-conversation",
        )
    return value.decode("ascii")


def priority_of(principal: Principal, asked: bytes | None) -> Priority:
    """The key's priority, or a lower one if the client asks for it."""
    if not asked:
        return principal.priority
    try:
        wanted = Priority[asked.decode("ascii", "replace").upper()]
    except KeyError:
        raise RequestError(
            "invalid_request", 400, "x-priority: it is one of high, normal, low", param="x-priority"
        ) from None
    return max(wanted, principal.priority)


def timeout_of(value: bytes | None) -> float:
    if not value:
        return math.inf
    if not value.isdigit() or len(value) > MAX_TIMEOUT_DIGITS or not int(value):
        raise RequestError(
            "invalid_request",
            400,
            f"x-request-timeout-ms: a whole number of milliseconds greater than 0, {MAX_TIMEOUT_DIGITS} digits at most",
            param="x-request-timeout-ms",
        )
    return int(value) / 1000
