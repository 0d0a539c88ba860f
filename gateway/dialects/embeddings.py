"""``POST /v1/embeddings``: texts in, vectors out. There is nothing to stream and nothing to say in events.

Providers of OpenAI's dialect, Azure among them, get the client's own document with the model renamed. Gemini is asked
by ``batchEmbedContents``:

======================  ========================================================================================
OpenAI                  Gemini
======================  ========================================================================================
``input``: texts        one request each, in order
``input``: tokens       refused, 400: they are numbers of OpenAI's vocabulary
``dimensions``          ``outputDimensionality``
``encoding_format``     Gemini sends floats; ``base64`` (what OpenAI's own client asks for) is made of them
``user``, others        dropped, and named
``usage``               ``usageMetadata.promptTokenCount`` where it is told, else estimated and marked so
======================  ========================================================================================

Where a provider of OpenAI's dialect tells no usage, its document passes without one, and the ledger has the estimate.

Other dialects have no embeddings: 400. An assistant has none either: context belongs to answers.

Limits: an estimate counts four bytes as a token.
Source: OpenAI API reference, "Create embeddings"; Google, "models.batchEmbedContents".
"""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import quote

import msgspec
import orjson
from attrs import frozen

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.estimate import BYTES_PER_TOKEN
from gateway.core.facts import Record, Usage
from gateway.dialects.answer import Answer
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.chat_usage import usage_of
from gateway.dialects.json_limits import check_structure
from gateway.dialects.openai_chat import error_document, not_json, wrong_field
from gateway.dialects.provider import BadAnswer, ProviderDialect, Quirks
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Whole

MAX_INPUTS = 2048  # OpenAI's own limit
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Head(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    input: _Text | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    stream: bool | None = None


class _Vector(msgspec.Struct):
    values: list[float]


class _UsageMetadata(msgspec.Struct):
    promptTokenCount: int | None = None


class _Embedded(msgspec.Struct):
    embeddings: list[_Vector]
    usageMetadata: _UsageMetadata | None = None


class _Document(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: dict[str, Any] | None = None


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_embedded = msgspec.json.Decoder(_Embedded)
_document = msgspec.json.Decoder(_Document)
_encode = msgspec.json.Encoder().encode
_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format", "stream"})


@frozen(kw_only=True, slots=True)
class EmbeddingRequest:
    """One client request; see :class:`gateway.dialects.voice.Request`.

    Attributes:
        texts: What to embed; None if it came as tokens.
        fields: Every top-level field as the client wrote it.
    """

    model: str
    user: str | None
    texts: list[str] | None
    dimensions: int | None
    base64: bool
    fields: dict[str, msgspec.Raw]
    stream: bool = False

    @property
    def last_user_text(self) -> str:
        return ""

    @property
    def max_tokens(self) -> int:
        return 0

    def estimate(self) -> int:
        """About how many tokens it has."""
        if self.texts is None:
            return bytes(self.fields["input"]).count(b",") + 1
        return sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in self.texts)

    def messages(self) -> list[dict[str, Any]]:
        return []

    def with_messages(self, messages: list[dict[str, Any]]) -> NoReturn:
        raise _unsupported("model", f"{self.model} answers questions and makes no embeddings")

    def call(self) -> NoReturn:
        raise _unsupported("model", "embeddings are no conversation")

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        fields = {name: raw for name, raw in self.fields.items() if name not in quirks.drops}
        return _encode({**fields, "model": model})


def parse_embedding(body: bytes) -> EmbeddingRequest:
    """Decode and check a client's request.

    Raises:
        RequestError: 400 that names the field.
    """
    check_structure(body)
    try:
        if not body.isascii():
            body.decode()
        head = _head.decode(body)
        fields = _fields.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_field(error) from None
    except (ValueError, RecursionError) as error:
        raise not_json(body, error) from None
    if head.stream:
        raise RequestError("invalid_request", 400, "stream: embeddings are not streamed", param="stream")
    return EmbeddingRequest(
        model=head.model,
        user=head.user,
        texts=_texts(head.input),
        dimensions=head.dimensions,
        base64=head.encoding_format == "base64",
        fields=fields,
    )


def _texts(said: str | list[str | int | list[int]]) -> list[str] | None:
    if isinstance(said, str):
        return [said]
    texts = [item for item in said if isinstance(item, str)]
    if texts and len(texts) < len(said):
        raise RequestError("invalid_request", 400, "input: texts and tokens are mixed", param="input")
    if len(texts) > MAX_INPUTS:
        raise RequestError("invalid_request", 400, f"input: at most {MAX_INPUTS} texts", param="input")
    return texts or None


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)


class EmbeddingsVoice:
    """``POST /v1/embeddings``."""

    dialect = "openai-embeddings"
    speaks_early = False
    conversation: str | None = None

    def parse(self, body: bytes) -> EmbeddingRequest:
        return parse_embedding(body)

    def prepare(self, request: EmbeddingRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        if isinstance(dialect, OpenAIChat):
            return Asking(
                path=dialect.endpoint("embeddings", model),
                body=request.encode_as_is(model, dialect.quirks),
                dropped=tuple(name for name in dialect.quirks.drops if name in request.fields),
                generates=False,
                passes=True,
            )
        if dialect.name == "gemini":
            return Asking(
                path=f"/models/{quote(model, safe='')}:batchEmbedContents".encode(),
                body=_gemini_body(request, model),
                generates=False,
                dropped=tuple(name for name in request.fields if name not in _KNOWN),
            )
        raise _unsupported("model", f"a provider that speaks {dialect.name} has no embeddings")

    def read_whole(self, request: EmbeddingRequest, dialect: ProviderDialect, body: bytes) -> Whole:
        try:
            if dialect.name == "gemini":
                return _from_gemini(_embedded.decode(body), request)
            said = _document.decode(body).usage
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadAnswer(str(error)) from None
        usage = (usage_of(said) if said else None) or Usage(prompt_tokens=request.estimate(), estimated=True)
        return Whole(body=body, usage=usage, finish_reason="stop")

    def writer(self, request: EmbeddingRequest) -> NoReturn:
        raise _unsupported("stream", "embeddings are not streamed")

    def write_whole(self, answer: Answer, request: EmbeddingRequest) -> NoReturn:
        raise _unsupported("model", "an answer in words is no embedding")

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return b""

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def breaks(self, error: GatewayError) -> bytes:
        return encode_event(orjson.dumps(error_document(error)))

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)


def _gemini_body(request: EmbeddingRequest, model: str) -> bytes:
    if request.texts is None:
        raise _unsupported("input", "tokens of OpenAI's vocabulary mean nothing to this provider; send texts")
    size = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    return _encode(
        {
            "requests": [
                {"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **size} for text in request.texts
            ]
        }
    )


def _from_gemini(found: _Embedded, request: EmbeddingRequest) -> Whole:
    texts = request.texts or []
    if len(found.embeddings) != len(texts):
        raise BadAnswer(f"{len(found.embeddings)} embeddings for {len(texts)} texts")
    counted = found.usageMetadata.promptTokenCount if found.usageMetadata else None
    tokens = counted if counted is not None else request.estimate()
    usage = Usage(prompt_tokens=tokens, estimated=counted is None)
    told: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if usage.estimated:
        told["estimated"] = True
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(vector.values, packed=request.base64)}
            for index, vector in enumerate(found.embeddings)
        ],
        "model": request.model,
        "usage": told,
    }
    return Whole(body=_encode(body), usage=usage, finish_reason="stop")


def _vector(values: list[float], *, packed: bool) -> list[float] | str:
    if not packed:
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
