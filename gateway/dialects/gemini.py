"""Google's Gemini API as a provider's dialect, with an API key; base URL: :data:`BASE_URL`.

Requests are written in ``gemini_encode`` and ``gemini_turns``, answers read in ``gemini_reader``; each says what has no
counterpart. Here is the rest: where to ask, with which headers, and what an error document means.

The model stands in the path, in one segment of it: a name that comes from a client (``targets`` with ``*``) reaches no
other resource. Streams are asked for as server-sent events (``alt=sse``), whatever form the client wants.

An unknown key is Google's 400, like a malformed request; ``upstream_auth`` tells the two apart.

Limits: Vertex AI has other paths and authorisation and is not spoken. Wordings change without notice; one that is not
recognised costs a failover or a repair, never an answer.
Source: Gemini API reference, "Generating content", "Troubleshooting"; the messages as their users reported them.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from attrs import Factory, frozen

from gateway.dialects.call import Call, Encoded
from gateway.dialects.events import Event
from gateway.dialects.gemini_encode import encode_gemini
from gateway.dialects.gemini_reader import GeminiReader
from gateway.dialects.provider import Quirks

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"
_COLLECTIONS = ("models/", "tunedModels/")
_TOO_LONG = re.compile(
    r"input token count.{0,40}exceeds the maximum|exceeds the maximum number of tokens|context (?:length|window)",
    re.IGNORECASE,
)
_PREFILL = re.compile(
    r"ending with a model turn are not supported|(?:multiturn|single turn) requests ends? with a user role",
    re.IGNORECASE,
)
_NO_KEY = re.compile(r"API key (?:not valid|not found|expired)|API_KEY_INVALID", re.IGNORECASE)


@frozen(kw_only=True)
class Gemini:
    """A :class:`gateway.dialects.provider.ProviderDialect`."""

    name: ClassVar[str] = "gemini"
    wire: ClassVar[str] = "gemini"
    quirks: Quirks = Factory(Quirks)

    def path(self, model: str, *, stream: bool) -> bytes:
        return self.endpoint("streamGenerateContent?alt=sse" if stream else "generateContent", model)

    def endpoint(self, name: str, model: str) -> bytes:
        """Path of a model's method: ``batchEmbedContents``."""
        collection = next((each for each in _COLLECTIONS if model.startswith(each)), "")
        named = quote(model.removeprefix(collection), safe="")
        return f"/{collection or _COLLECTIONS[0]}{named}:{name}".encode()

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {b"x-goog-api-key": key.encode()} if key else {}

    def encode(self, call: Call, model: str) -> Encoded:
        return encode_gemini(call, model, self.quirks)

    def reader(self) -> GeminiReader:
        return GeminiReader()

    def read_whole(self, body: bytes) -> list[Event]:
        return self.reader().whole(body)

    def error_code(self, body: bytes) -> str:
        """As the protocol says; also ``upstream_auth`` for a key that Google does not know."""
        message = _message(body)
        if _TOO_LONG.search(message):
            return "context_length_exceeded"
        if _PREFILL.search(message):
            return "prefill_unsupported"
        return "upstream_auth" if _NO_KEY.search(message) else ""


def _message(body: bytes) -> str:
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    if isinstance(document, list) and document:
        document = document[0]  # what streams without alt=sse are refused with
    error = document.get("error") if isinstance(document, dict) else None
    return str(error.get("message") or "") if isinstance(error, dict) else ""
