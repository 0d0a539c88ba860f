"""OpenAI's chat completions as a provider's dialect, and with its quirks that of every compatible provider.

Requests are written in ``chat_encode``, answers read in ``chat_reader``; both say what has no counterpart. Here is the
rest: where to ask, with which headers, and what an error document means.

An error's ``code`` is believed first. Most compatible providers give none, so the known wordings of the three errors
that change what the gateway does next are looked for; what is not known stays a plain refusal.

Limits: wordings change without notice. One that is not recognised costs a failover or a repair, never an answer.
Source: OpenAI "Error codes"; Azure "Content filtering"; the messages of Anthropic, DeepSeek, Groq, Mistral, Together,
vLLM, xAI and llama.cpp as their users reported them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec
from attrs import Factory, frozen

from gateway.dialects.call import Call, Encoded
from gateway.dialects.chat_encode import encode_chat
from gateway.dialects.chat_reader import ChatReader
from gateway.dialects.events import Event
from gateway.dialects.provider import Quirks

_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:context|prompt) length|prompt is too long|too many (?:input )?tokens"
    r"|reduce the length of the (?:messages|prompt|input)|input is too long|`?inputs`? tokens \+ `?max_new_tokens",
    re.IGNORECASE,
)
_POLICY = re.compile(r"content management policy|content policy|usage polic(?:y|ies)|data_inspection", re.IGNORECASE)
_PREFILL = re.compile(
    r"assistant message prefill|pre-?fill(?:ing)? the `?assistant|expected last role user or tool"
    r"|must end with a user|last message (?:role )?must (?:be|have)[^.]{0,20}user",
    re.IGNORECASE,
)
_POLICY_CODES = frozenset({"content_filter", "content_policy_violation", "data_inspection_failed"})


@frozen(kw_only=True)
class OpenAIChat:
    """A :class:`gateway.dialects.provider.ProviderDialect`; its base URL ends in ``/v1`` or what stands for it."""

    name: ClassVar[str] = "openai"
    wire: ClassVar[str] = "openai"
    quirks: Quirks = Factory(Quirks)

    def path(self, model: str, *, stream: bool) -> bytes:
        return self.endpoint("chat/completions", model)

    def endpoint(self, name: str, model: str) -> bytes:
        """Path of another endpoint with the same authorisation: ``embeddings``."""
        return b"/" + name.encode()

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"authorization": b"Bearer " + key.encode()} if key else {}

    def encode(self, call: Call, model: str) -> Encoded:
        return encode_chat(call, model, self.quirks)

    def reader(self) -> ChatReader:
        return ChatReader(self.quirks.reasoning_field)

    def read_whole(self, body: bytes) -> list[Event]:
        return self.reader().whole(body)

    def error_code(self, body: bytes) -> str:
        return chat_error_code(body)


def chat_error_code(body: bytes) -> str:
    """What an error document in OpenAI's shape, or near it, says went wrong; "" if nothing the gateway acts on."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    if isinstance(document, list) and document:
        document = document[0]  # Google's chat endpoint
    if not isinstance(document, dict):
        return ""
    error: Any = document.get("error") or document
    if not isinstance(error, dict):
        error = {"message": error}
    said = {str(error.get("code")), str(error.get("type"))}
    inner = error.get("innererror")
    if said & _POLICY_CODES or (isinstance(inner, dict) and inner.get("code") == "ResponsibleAIPolicyViolation"):
        return "content_policy"
    if said & {"context_length_exceeded", "exceed_context_size_error"}:
        return "context_length_exceeded"
    message = str(error.get("message") or error.get("detail") or "")
    if _PREFILL.search(message):
        return "prefill_unsupported"
    if _TOO_LONG.search(message):
        return "context_length_exceeded"
    return "content_policy" if _POLICY.search(message) else ""
