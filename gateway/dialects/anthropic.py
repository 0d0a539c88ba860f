"""Anthropic's Messages API as a provider: where and how to ask, what its errors mean.

What is encoded stands in ``anthropic_encode``, what comes back in ``anthropic_reader``. The base URL ends in ``/v1``
(``https://api.anthropic.com/v1``), as that of the other providers does.

Source: Anthropic API reference, "Messages", "Errors", "Versions". The words of errors are not documented; they are
taken from reports of the API's answers (2024 to 2026), so a change of them costs a failover, not a request.
"""

from __future__ import annotations

import msgspec

from gateway.dialects.anthropic_encode import encode_call
from gateway.dialects.anthropic_reader import AnthropicReader, read_message
from gateway.dialects.anthropic_shapes import VERSION
from gateway.dialects.call import Call, Encoded
from gateway.dialects.events import Event
from gateway.dialects.provider import Quirks

_MEANINGS = (
    ("prompt is too long", "context_length_exceeded"),
    ("exceed context limit", "context_length_exceeded"),
    ("input is too long", "context_length_exceeded"),
    ("prefill", "prefill_unsupported"),
    ("content filtering policy", "content_policy"),
)


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorDocument(msgspec.Struct):
    error: _Error


_error = msgspec.json.Decoder(_ErrorDocument)


class Anthropic:
    """``POST /messages``; satisfies :class:`gateway.dialects.provider.ProviderDialect`."""

    name = "anthropic"
    wire = "anthropic"

    def __init__(self, *, quirks: Quirks | None = None) -> None:
        self.quirks = quirks or Quirks()

    def path(self, model: str, *, stream: bool) -> bytes:
        return b"/messages"

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"anthropic-version": VERSION.encode(), **({b"x-api-key": key.encode()} if key else {})}

    def encode(self, call: Call, model: str) -> Encoded:
        return encode_call(call, model)

    def reader(self) -> AnthropicReader:
        return AnthropicReader()

    def read_whole(self, body: bytes) -> list[Event]:
        return read_message(body)

    def error_code(self, body: bytes) -> str:
        try:
            message = _error.decode(body).error.message.lower()
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ""
        return next((code for words, code in _MEANINGS if words in message), "")
