"""Clients that speak Gemini's API: ``POST /v1beta/models/{model}:generateContent`` and ``:streamGenerateContent``.

Model and method are the path's, and so is the form of a stream: server-sent events with ``?alt=sse``, else one JSON
array (``gemini_frame``). Model names may have slashes and colons in them; the method stands behind the last colon.

To providers of the same dialect the bytes pass; events are made into the array's elements where the client wants that.
To others the request is translated.

Errors have Google's shape, ``{"error": {"code", "message", "status", "details"}}``: the HTTP status, its gRPC name, and
in the details our own code (``ErrorInfo.reason``), the field at fault (``BadRequest``) and when to come back
(``RetryInfo``). One that ends a stream is its last event, or the array's last element.

Source: Gemini API reference, "Generating content"; Google's AIP-193 "Errors" and ``google/rpc/error_details.proto``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record
from gateway.dialects import pairing
from gateway.dialects.answer import Answer
from gateway.dialects.gemini_frame import Frame, PassedArray
from gateway.dialects.gemini_request import GeminiRequest, parse_request
from gateway.dialects.gemini_writer import GeminiWriter, write_gemini
from gateway.dialects.pairing import PassedStream
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.voice import Asking, Opening, Whole

MAX_MODEL_CHARS = 256
METHODS = ("generateContent", "streamGenerateContent")
EVENT_STREAM = b"text/event-stream; charset=utf-8"
JSON = b"application/json; charset=utf-8"
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPES = "type.googleapis.com/google.rpc."
_encode = msgspec.json.Encoder().encode


class GeminiVoice:
    """One request; satisfies :class:`gateway.dialects.voice.Voice`."""

    dialect = "gemini"
    speaks_early = False
    conversation: str | None = None  # a header names it

    def __init__(self, opening: Opening) -> None:
        self._path = opening.path
        self._frame = Frame(events=wants_events(opening))

    def parse(self, body: bytes) -> GeminiRequest:
        model, method = split_path(self._path)
        return parse_request(body, model=model, stream=method == "streamGenerateContent")

    def prepare(self, request: GeminiRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        if dialect.wire != self.dialect:
            return pairing.prepare(self, request, dialect, model, keep=keep)
        stream = None
        if request.stream and self._frame.events:
            stream = PassedStream(dialect.reader(), keep=keep, choices=request.n)
        elif request.stream:
            stream = PassedArray(dialect.reader(), self._frame, keep=keep, choices=request.n)
        return Asking(
            path=dialect.path(model, stream=request.stream),
            body=request.encode_as_is(model, dialect.quirks),
            dropped=_dropped(request, dialect),
            stream=stream,
            passes=True,
        )

    def read_whole(self, request: GeminiRequest, dialect: ProviderDialect, body: bytes) -> Whole:
        return pairing.read_whole(self, request, dialect, body)

    def writer(self, request: GeminiRequest) -> GeminiWriter:
        return GeminiWriter(self._frame, model=request.model)

    def write_whole(self, answer: Answer, request: GeminiRequest) -> bytes:
        return write_gemini(answer, model=request.model)

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return b""

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def breaks(self, error: GatewayError) -> bytes:
        return self._frame.piece(_encode(error_document(error))) + self._frame.end()

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)


def _dropped(request: GeminiRequest, dialect: ProviderDialect) -> tuple[str, ...]:
    """What a request is passed on without."""
    names = [name for name in dialect.quirks.drops if name in request.fields]
    return (*names, "contents.parts.thought") if request.has_others_thoughts else tuple(names)


def stream_type(opening: Opening) -> bytes:
    """The content type of a request's stream."""
    return EVENT_STREAM if wants_events(opening) else JSON


def wants_events(opening: Opening) -> bool:
    """Whether the query says ``alt=sse``; Google knows the parameter as ``$alt``, too."""
    query = parse_qsl(opening.query.decode("latin-1"))
    return any(name in ("alt", "$alt") and value == "sse" for name, value in query)


def split_path(path: str) -> tuple[str, str]:
    """Model and method of ``/v1beta/models/{model}:{method}``.

    Raises:
        RequestError: 404 for another method; 400 for a name that cannot be one.
    """
    named, _, method = path.rpartition(":")
    model = named.partition("/models/")[2]
    if method not in METHODS:
        raise RequestError("not_found", 404, f"the method {method[:40]!r} is not spoken here: {' or '.join(METHODS)}")
    if not 0 < len(model) <= MAX_MODEL_CHARS:
        raise RequestError("invalid_request", 400, f"model: 1 to {MAX_MODEL_CHARS} characters", param="model")
    return model, method


def error_document(error: GatewayError) -> dict[str, Any]:
    """Google's shape of an error."""
    status = STATUSES.get(error.http_status) or ("INVALID_ARGUMENT" if error.http_status < 500 else "INTERNAL")
    details: list[dict[str, Any]] = [{"@type": f"{_TYPES}ErrorInfo", "reason": error.code.upper(), "domain": "sluice"}]
    if error.param:
        violation = {"field": error.param, "description": error.public_message}
        details.append({"@type": f"{_TYPES}BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": f"{error.retry_after_s:.3f}s"})
    said = {"code": error.http_status, "message": error.public_message, "status": status, "details": details}
    return {"error": said}
