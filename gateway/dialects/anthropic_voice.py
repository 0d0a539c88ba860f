"""Clients that speak Anthropic's Messages API: ``POST /v1/messages``.

To providers of the same dialect the bytes pass, and with them the client's ``anthropic-version`` and ``anthropic-beta``
headers, in the place of the provider's own, and ``?beta=true``. To others the request is translated; then the betas are
named as dropped: nobody else knows them.

``anthropic-version``: ``2023-06-01`` and ``2026-10-21`` differ in what they refuse of a request (since the latter
``temperature``, ``top_p``, ``top_k``, documents of the assistant's, citations of the user's), which is up to Anthropic;
answers and events are the same. Without the header it is ``2023-06-01``. ``2023-01-01`` is refused: its events were
others. A later version passes, too; its answers are read as far as they are those of today.

Errors have the shape ``{"type": "error", "error": {"type", "message", "code"}}``; ``code`` is ours. The type follows
the status, see :data:`ERROR_TYPES`.

Source: Anthropic API reference, "Messages", "Errors", "Versions", "Beta headers".
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from attrs import evolve

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record
from gateway.dialects import pairing
from gateway.dialects.answer import Answer
from gateway.dialects.anthropic_message import write_message
from gateway.dialects.anthropic_request import AnthropicRequest, parse_request
from gateway.dialects.anthropic_shapes import VERSION
from gateway.dialects.anthropic_writer import AnthropicWriter
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Opening, Request, Whole, cost_comment

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_VERSION = re.compile(rb"[0-9A-Za-z.-]{1,32}")
_encode = msgspec.json.Encoder().encode

CLOSING = encode_event(b'{"type":"message_stop"}', event=b"message_stop")


class AnthropicVoice:
    """One request; satisfies :class:`gateway.dialects.voice.Voice`.

    Args:
        opening: The request's head; None for one without headers of interest.
    """

    dialect = "anthropic"
    speaks_early = False
    conversation: str | None = None  # a header names it

    def __init__(self, opening: Opening | None = None) -> None:
        self._opening = opening or Opening(path="/v1/messages")

    def parse(self, body: bytes) -> AnthropicRequest:
        check_version(self._opening)
        return parse_request(body)

    def prepare(self, request: AnthropicRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        asking = pairing.prepare(self, request, dialect, model, keep=keep, closing=CLOSING)
        if asking.passes and request.has_googles_thoughts:
            asking = evolve(asking, dropped=(*asking.dropped, "thinking"))
        return with_headers(asking, self._opening)

    def read_whole(self, request: Request, dialect: ProviderDialect, body: bytes) -> Whole:
        return pairing.read_whole(self, request, dialect, body)

    def writer(self, request: Request) -> AnthropicWriter:
        return AnthropicWriter(model=request.model)

    def write_whole(self, answer: Answer, request: Request) -> bytes:
        return write_message(answer, model=request.model)

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return cost_comment(record)

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def breaks(self, error: GatewayError) -> bytes:
        return encode_event(_encode(error_document(error)), event=b"error")

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)


def check_version(opening: Opening) -> None:
    """Refuse a client of a version that is not spoken here.

    Raises:
        RequestError: 400, naming the header.
    """
    version = opening.headers.get(b"anthropic-version")
    if version is not None and (version == b"2023-01-01" or not _VERSION.fullmatch(version)):
        what = (
            f"anthropic-version: {version[:40].decode('latin-1')!r} is not spoken here; send {VERSION} or a later one"
        )
        raise RequestError("invalid_request", 400, what, param="anthropic-version")


def with_headers(asking: Asking, opening: Opening) -> Asking:
    """What the client asked for beside its document: passed on with the bytes; else its betas are named as dropped."""
    betas = opening.headers.get(b"anthropic-beta", b"").strip()
    if not asking.passes:
        names = [name.strip() for name in betas.decode("latin-1").split(",")]
        return evolve(asking, dropped=(*asking.dropped, *(f"anthropic-beta: {name}" for name in names if name)))
    path = asking.path + (b"?beta=true" if b"beta=true" in opening.query.split(b"&") else b"")
    given = ((b"anthropic-version", opening.headers.get(b"anthropic-version", b"")), (b"anthropic-beta", betas))
    return evolve(asking, path=path, headers=tuple((name, value) for name, value in given if value))


def error_document(error: GatewayError) -> dict[str, Any]:
    """Anthropic's shape of an error."""
    status = error.http_status
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.public_message, "code": error.code}}
