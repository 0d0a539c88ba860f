"""The door: at the end of a request's headers, who is it, may they, is there room.

One synchronous step that the server calls before it starts a task or reads a body (:class:`gateway.edge.gate.Gate`).
Order: draining (503), identity (401), size and type as declared (413, 415), admission (429). Identity comes before
admission because the key decides the priority, and because somebody without a key must not cost a place in the line.

Two kinds of requests go through it: those to the endpoints, and those for paths that a provider passes through. What
is neither passes by: health, metrics and pages answer when the line is full, too.

Refusals are worded in the dialect of the endpoint, so that its clients' libraries raise what they would raise for the
real provider; those that the server makes by itself (413, 408) too, by :meth:`Door.wording`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import trio

from gateway.core.errors import GatewayError, Rejected, RequestError
from gateway.core.facts import Record
from gateway.core.principal import Principal, Priority
from gateway.dialects.openai_chat import error_document
from gateway.dialects.voice import Opening
from gateway.edge.admin import BODY_RULES, AdminDoor, is_admin
from gateway.edge.endpoints import ANTHROPIC_MESSAGES, Endpoint, Endpoints, ErrorDocument
from gateway.edge.errors import error_reply
from gateway.edge.gate import BodyRules, Reply
from gateway.edge.head_fields import conversation_of, is_local, key_of, priority_of, sane_id, timeout_of
from gateway.edge.http1_body import MAX_FIELD
from gateway.edge.http1_head import Refusal
from gateway.edge.sites import check_site
from gateway.exchange import Exchange, outcome_of
from gateway.instance import Gateway
from gateway.passthrough import ENDPOINT, Passage, Passed
from gateway.upstream.passed import METHODS, below_base, passes_any, provider_for, without_key

DRAIN_RETRY_S = 2.0
STATE_KEY = "sluice.exchange"
OPENING_KEY = "sluice.opening"
ENDPOINT_KEY = "sluice.endpoint"
PRIORITIES = tuple(priority.name.lower() for priority in Priority)
ANTHROPIC_VERSION = b"anthropic-version"  # by which its clients are known on paths that others use, too
KEPT_RESPONSE = "/v1/responses/"
MAX_UPLOAD = "server.max_upload_bytes"


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
        self._max_upload_bytes = gateway.config.server.max_upload_bytes
        self._new_id = _id_maker()
        self.admin = AdminDoor(gateway)

    def knock(self, scope: dict[str, Any]) -> Reply | None:
        """Let a request in, with its exchange or passage in ``scope["state"]``, or say what to answer instead."""
        endpoint = self._endpoints.find(scope["path"]) if scope["method"] == "POST" else None
        passes = endpoint is None and self._passes(scope)
        if endpoint is None and not passes:
            return self.admin.knock(scope) if is_admin(scope["path"]) else None
        headers = dict(scope["headers"])
        record = Record(
            request_id=sane_id(headers.get(b"x-request-id")) or self._new_id(),
            endpoint=ENDPOINT if endpoint is None else endpoint.name,
            received_at=trio.current_time(),
        )
        entered: Exchange | Passage | Rejected
        try:
            if endpoint is None:
                entered = self._let_pass(record, headers, scope)
            else:
                entered = self._let_in(record, headers, scope, endpoint)
        except GatewayError as error:
            return self._refuse(record, error, self.words(scope))
        if isinstance(entered, Rejected):
            return self._refuse(record, entered, self.words(scope))
        state = scope.setdefault("state", {})
        state[STATE_KEY] = entered
        state[ENDPOINT_KEY] = endpoint
        state[OPENING_KEY] = Opening(path=scope["path"], query=scope["query_string"], headers=headers)
        return None

    def body_rules(self, scope: dict[str, Any]) -> BodyRules | None:
        """What is passed through may be large and slow, as long as it moves; all else is held, by ``[server]``."""
        path = scope["path"]
        if scope["method"] == "POST" and self._endpoints.find(path) is not None:
            return None
        if is_admin(path):
            return BODY_RULES
        if not self._passes(scope):
            return None
        return BodyRules(max_bytes=self._max_upload_bytes, max_field=MAX_UPLOAD, whole_in_time=False)

    def wording(self, scope: dict[str, Any], refusal: Refusal) -> Reply | None:
        """The server's own refusal in the dialect of the endpoint that was asked."""
        error = RequestError(refusal.code, refusal.status, refusal.message)
        return error_reply(error, document=self.words(scope))

    def words(self, scope: dict[str, Any]) -> ErrorDocument:
        """The error document of a dialect: the endpoint's; for other paths, of the client that asks for them."""
        endpoint = self._endpoints.find(scope["path"])
        if endpoint is None and any(name == ANTHROPIC_VERSION for name, _ in scope["headers"]):
            endpoint = self._endpoints.find(ANTHROPIC_MESSAGES)
        return error_document if endpoint is None else endpoint.error

    def _passes(self, scope: dict[str, Any]) -> bool:
        """Whether this is a path that a provider might be asked for: none of ours, and any is passed through."""
        path: str = scope["path"]
        return (
            path.startswith("/v1/")
            and scope["method"] in METHODS
            and not _is_own(scope["method"], path)
            and passes_any(self._gateway.routes.providers)
            and self._endpoints.find(path) is None
        )

    def _let_in(
        self, record: Record, headers: dict[bytes, bytes], scope: dict[str, Any], endpoint: Endpoint
    ) -> Exchange | Rejected:
        """The exchange, or why there is no room; raises what is the caller's mistake.

        What happens ten thousand times a second under overload is returned: to raise it costs 1 µs.
        """
        gateway = self._gateway
        if gateway.draining:
            return _draining()
        google = endpoint.takes_google_key
        api_key = key_of(headers, scope["query_string"]) if google else headers.get(b"x-api-key")
        principal, priority = self._who(record, headers, api_key, scope)
        self._check_body(headers)
        timeout_s = timeout_of(headers.get(b"x-request-timeout-ms"))
        conversation = conversation_of(headers.get(b"x-sluice-conversation"))
        account = gateway.accounts.enter(principal, record.received_at)
        if isinstance(account, Rejected):
            return account
        place = gateway.admission.try_enter(priority, record.received_at + timeout_s, record.received_at)
        if isinstance(place, Rejected):
            account.give_up()
            return place
        return Exchange(gateway, record, place, account, principal, timeout_s=timeout_s, conversation=conversation)

    def _let_pass(self, record: Record, headers: dict[bytes, bytes], scope: dict[str, Any]) -> Passage | Rejected:
        """The same for what is passed through: there is a provider that lists the path, too."""
        gateway = self._gateway
        if gateway.draining:
            return _draining()
        query = scope["query_string"]
        principal, priority = self._who(record, headers, key_of(headers, query), scope)
        rest = below_base(scope["raw_path"])
        provider = provider_for(rest, gateway.routes.providers, principal, headers.get(b"x-sluice-provider"))
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self._max_upload_bytes):
            raise too_large(self._max_upload_bytes, MAX_UPLOAD)
        timeout_s = timeout_of(headers.get(b"x-request-timeout-ms"))
        account = gateway.accounts.enter(principal, record.received_at)
        if isinstance(account, Rejected):
            return account
        place = gateway.admission.try_enter(priority, record.received_at + timeout_s, record.received_at)
        if isinstance(place, Rejected):
            account.give_up()
            return place
        passed = Passed(
            provider=provider,
            method=scope["method"].encode("ascii"),
            rest=rest,
            query=without_key(query),
            headers=scope["headers"],
            length=None if length is None else int(length),
        )
        return Passage(gateway, record, place, account, passed, timeout_s=timeout_s)

    def _who(
        self, record: Record, headers: dict[bytes, bytes], api_key: bytes | None, scope: dict[str, Any]
    ) -> tuple[Principal, Priority]:
        """Whose request it is; with the client's site checked where no key is asked for."""
        directory, client = self._gateway.directory, scope.get("client")
        is_open = directory.is_open
        principal = directory.identify(
            headers.get(b"authorization"),
            api_key,
            local=not is_open or is_local(client),
            client=client[0] if client else None,
            endpoint=record.endpoint,
        )
        if is_open:
            check_site(headers.get(b"host"), headers.get(b"origin"))
        priority = priority_of(principal, headers.get(b"x-priority"))
        record.principal, record.priority = principal.name, PRIORITIES[priority]
        record.key_id, record.team, record.org = principal.key_id, principal.team, principal.org
        return principal, priority

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

    def _refuse(self, record: Record, error: GatewayError, document: ErrorDocument) -> Reply:
        record.code, record.outcome, record.status = error.code, outcome_of(error), error.http_status
        record.ended_at = record.received_at
        self._gateway.observe(record)
        return error_reply(error, request_id=record.request_id, document=document)


def _is_own(method: str, path: str) -> bool:
    """Whether a path that costs nothing is the gateway's: the lists of models, and each kept response."""
    kept = path.startswith(KEPT_RESPONSE) and "/" not in path[len(KEPT_RESPONSE) :]
    return path == "/v1/models" or path.startswith("/v1/models/") or (kept and method in ("GET", "HEAD", "DELETE"))


def too_large(limit_bytes: int, field: str = MAX_FIELD) -> RequestError:
    """The refusal of a body beyond its limit; ``field`` is what the configuration calls that."""
    return RequestError("body_too_large", 413, f"the body is larger than {limit_bytes} bytes ({field})")


def _draining() -> Rejected:
    return Rejected("draining", 503, "the gateway is shutting down; ask another", retry_after_s=DRAIN_RETRY_S)


def _id_maker() -> Callable[[], str]:
    """Ids that are unique over processes and restarts and cost no system call each."""
    prefix, count = os.urandom(8).hex(), itertools.count(1)
    return lambda: f"req_{prefix}{next(count):08x}"
