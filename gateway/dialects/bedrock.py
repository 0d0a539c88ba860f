"""Bedrock's Converse API as a provider's dialect: Claude, Nova, Llama, Mistral … behind one shape.

Requests are written in ``bedrock_encode`` and ``bedrock_turns``, answers read in ``bedrock_reader``; each says what has
no counterpart. Here is the rest: where to ask, with which headers, and what an error document means. The base URL is
the region's: ``https://bedrock-runtime.eu-central-1.amazonaws.com``.

The model stands in the path, in one segment of it: identifiers have colons and ARNs have slashes, both are
percent-encoded, and a name that comes from a client (``targets`` with ``*``) reaches no other resource. A Bedrock API
key goes as a bearer token; access keys sign each request instead (``upstream/sigv4.py``).

Limits: guardrails, prompt management and ``performanceConfig`` have no counterpart with clients and are not spoken.
Wordings of errors change without notice; one that is not recognised costs a failover or a repair, never an answer.
Source: Amazon Bedrock API reference, "Converse", "ConverseStream"; user guide, "Use an Amazon Bedrock API key"; the
messages as their users reported them.
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import quote

import msgspec
from attrs import Factory, frozen

from gateway.dialects.bedrock_encode import encode_bedrock
from gateway.dialects.bedrock_reader import BedrockReader, read_converse
from gateway.dialects.call import Call, Encoded
from gateway.dialects.events import Event
from gateway.dialects.provider import Quirks

_TOO_LONG = re.compile(
    r"input is too long|prompt is too long|exceed context limit|maximum context length|too many input tokens"
    r"|input tokens? .{0,40}exceeds?|context window",
    re.IGNORECASE,
)
_PREFILL = re.compile(r"prefill|must end with a user message|last (?:turn|message) must be .{0,10}user", re.IGNORECASE)


class _Error(msgspec.Struct):
    message: str = ""


_error = msgspec.json.Decoder(_Error)


@frozen(kw_only=True)
class BedrockConverse:
    """A :class:`gateway.dialects.provider.ProviderDialect`."""

    name: ClassVar[str] = "bedrock"
    wire: ClassVar[str] = ""
    quirks: Quirks = Factory(Quirks)

    def path(self, model: str, *, stream: bool) -> bytes:
        return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}".encode()

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"authorization": b"Bearer " + key.encode()} if key else {}

    def encode(self, call: Call, model: str) -> Encoded:
        return encode_bedrock(call, model, self.quirks)

    def reader(self) -> BedrockReader:
        return BedrockReader()

    def read_whole(self, body: bytes) -> list[Event]:
        return read_converse(body)

    def error_code(self, body: bytes) -> str:
        try:
            message = _error.decode(body).message
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ""
        if _TOO_LONG.search(message):
            return "context_length_exceeded"
        return "prefill_unsupported" if _PREFILL.search(message) else ""
