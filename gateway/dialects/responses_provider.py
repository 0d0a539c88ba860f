"""OpenAI's Responses API as a provider's dialect: where and how to ask, what its errors mean.

What is encoded stands in ``responses_encode``, what comes back in ``responses_reader``. The base URL ends in ``/v1``.
Errors have the same shape and words as those of chat completions.

Source: OpenAI API reference, "Create a model response"; guide "Error codes".
"""

from __future__ import annotations

from typing import ClassVar

from attrs import Factory, frozen

from gateway.dialects.call import Call, Encoded
from gateway.dialects.chat_provider import chat_error_code
from gateway.dialects.events import Event
from gateway.dialects.provider import Quirks
from gateway.dialects.responses_encode import encode_responses
from gateway.dialects.responses_reader import ResponsesReader, read_response


@frozen(kw_only=True)
class ResponsesProvider:
    """``POST /responses``; satisfies :class:`gateway.dialects.provider.ProviderDialect`."""

    name: ClassVar[str] = "openai-responses"
    wire: ClassVar[str] = "openai-responses"
    quirks: Quirks = Factory(Quirks)

    def path(self, model: str, *, stream: bool) -> bytes:
        return b"/responses"

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"authorization": b"Bearer " + key.encode()} if key else {}

    def encode(self, call: Call, model: str) -> Encoded:
        return encode_responses(call, model, self.quirks)

    def reader(self) -> ResponsesReader:
        return ResponsesReader()

    def read_whole(self, body: bytes) -> list[Event]:
        return read_response(body)

    def error_code(self, body: bytes) -> str:
        return chat_error_code(body)
