"""The door: at the end of a request's headers, who is it, may they, is there room.

One synchronous step that the server calls before it starts a task or reads a body (:class:`gateway.edge.gate.Gate`).
Order: draining (503), identity (401), size and type as declared (413, 415), admission (429). Identity comes before
admission because the key decides the priority, and because somebody without a key must not cost a place in the line.

What is no such endpoint's path passes: health, metrics and pages answer when the line is full, too.

Refusals are worded in the dialect of the endpoint, so that its clients' libraries raise what they would raise for the
real provider; those that the server makes by itself (413, 408) too, by :meth:`Door.wording`.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import trio

from gateway.core.errors import GatewayError, Rejected, RequestError
from gateway.core.facts import Record
from gateway.core.principal import Principal, Priority
from gateway.dialects.voice import Opening
from gateway.edge.endpoints import Endpoint, Endpoints
from gateway.edge.errors import error_reply
from gateway.edge.gate import BodyRules, Reply
from gateway.edge.http1_head import Refusal
from gateway.edge.sites import check_site
from gateway.exchange import Exchange, outcome_of
from gateway.instance import Gateway

SANE_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
MAX_ID = 128
MAX_CONVERSATION = 200
MAX_TIMEOUT_DIGITS = 10
DRAIN_RETRY_S = 2.0
STATE_KEY = "sluice.exchange"
OPENING_KEY = "sluice.opening"


class Door:
    """Decides for every request to a gated path.

    Args:
        gateway: Whose requests these are.
        endpoints: The gated ``POST`` endpoints.
    """

    def __init__(self, gateway: Gateway, endpoints: Endpoints) -> None:
        self._gateway = gateway
        self._endpoints = endpoints
        self._max_body_bytes = gateway.config.server.max_body_bytes
        self._new_id = _id_maker()

    def knock(self, scope: dict[str, Any]) -> Reply | None:
        """Let a request in, with its exchange in ``scope["state"]``, or say what to answer instead."""
        if scope["method"] != "POST":
            return None
        path = scope["path"]
        endpoint = self._endpoints.find(path)
        if endpoint is None:
            return None
        headers = dict(scope["headers"])
        record = Record(
            request_id=_sane(headers.get(b"x-request-id")) or self._new_id(),
            endpoint=endpoint.name,
            received_at=trio.current_time(),
        )
        query = scope["query_string"]
        api_key = key_of(headers, query) if endpoint.takes_google_key else headers.get(b"x-api-key")
        try:
            entered = self._let_in(record, headers, api_key, scope.get("client"))
        except GatewayError as error:
            return self._refuse(record, error, endpoint)
        if isinstance(entered, Rejected):
            return self._refuse(record, entered, endpoint)
        state = scope.setdefault("state", {})
        state[STATE_KEY] = entered
        state[OPENING_KEY] = Opening(path=path, query=query, headers=headers)
        return None

    def body_rules(self, scope: dict[str, Any]) -> BodyRules | None:
        """All endpoints take what ``[server]`` allows."""
        return None

    def wording(self, scope: dict[str, Any], refusal: Refusal) -> Reply | None:
        """The server's own refusal in the dialect of the endpoint that was asked."""
        endpoint = self._endpoints.find(scope["path"])
        if endpoint is None:
            return None
        error = RequestError(refusal.code, refusal.status, refusal.message)
        return error_reply(error, document=endpoint.error)

    def _let_in(
        self, record: Record, headers: dict[bytes, bytes], api_key: bytes | None, client: Any
    ) -> Exchange | Rejected:
        """The exchange, or why there is no room; raises what is the caller's mistake.

        What happens ten thousand times a second under overload is returned: to raise it costs 1 µs.
        """
        gateway = self._gateway
        if gateway.draining:
            return Rejected("draining", 503, "the gateway is shutting down; ask another", retry_after_s=DRAIN_RETRY_S)
        principal = gateway.keyring.identify(
            headers.get(b"authorization"),
            api_key,
            local=not gateway.keyring.is_open or is_local(client),
        )
        if gateway.keyring.is_open:
            check_site(headers.get(b"host"), headers.get(b"origin"))
        priority = _priority(principal, headers.get(b"x-priority"))
        record.principal, record.priority = principal.name, priority.name.lower()
        self._check_body(headers)
        timeout_s = _timeout_s(headers.get(b"x-request-timeout-ms"))
        conversation = _conversation(headers.get(b"x-sluice-conversation"))
        place = gateway.admission.try_enter(priority, record.received_at + timeout_s)
        if isinstance(place, Rejected):
            return place
        return Exchange(gateway, record, place, principal, timeout_s=timeout_s, conversation=conversation)

    def _check_body(self, headers: dict[bytes, bytes]) -> None:
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        kind = headers.get(b"content-type", b"application/json")
        if kind.partition(b";")[0].strip().lower() != b"application/json":
            raise RequestError(
                "unsupported_media_type", 415, "the body must be JSON: send 'Content-Type: application/json'"
            )
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError("unsupported_media_type", 415, "the body must not be compressed (Content-Encoding)")

    def _refuse(self, record: Record, error: GatewayError, endpoint: Endpoint) -> Reply:
        record.code, record.outcome, record.status = error.code, outcome_of(error), error.http_status
        record.ended_at = record.received_at
        self._gateway.observe(record)
        return error_reply(error, request_id=record.request_id, document=endpoint.error)


def key_of(headers: Mapping[bytes, bytes], query: bytes) -> bytes | None:
    """The key as Google's clients send it, in a header or in the query; or as others do, beside ``Authorization``."""
    key = headers.get(b"x-goog-api-key") or headers.get(b"x-api-key")
    if key is None and b"key=" in query:
        found = parse_qs(query).get(b"key")
        key = found[0] if found else None
    return key


def is_local(client: Any) -> bool:
    """Whether an ASGI scope's ``client`` is on this machine; a Unix socket's (None) is."""
    try:
        return client is None or ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def too_large(limit_bytes: int) -> RequestError:
    return RequestError("body_too_large", 413, f"the body is larger than {limit_bytes} bytes (server.max_body_bytes)")


def _id_maker() -> Callable[[], str]:
    """Ids that are unique over processes and restarts and cost no system call each."""
    prefix, count = os.urandom(8).hex(), itertools.count(1)
    return lambda: f"req_{prefix}{next(count):08x}"


def _sane(value: bytes | None) -> str | None:
    """The client's own request id, if it is one that may go into logs and headers."""
    if value and len(value) <= MAX_ID and SANE_ID.issuperset(value):
        return value.decode("ascii")
    return None


def _conversation(value: bytes | None) -> str | None:
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


def _priority(principal: Principal, asked: bytes | None) -> Priority:
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


def _timeout_s(value: bytes | None) -> float:
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
