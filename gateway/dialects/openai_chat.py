"""Requests of OpenAI's chat completions, and the voice of the clients that send them; answers: ``chat_stream``.

A request is validated where the gateway itself depends on it (``model``, ``messages``, ``stream``, counts) and keeps
every field as the client's own bytes, so whatever the API grows next reaches the provider untouched.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import orjson
from attrs import evolve

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record
from gateway.core.values import value
from gateway.dialects import pairing
from gateway.dialects.answer import Answer
from gateway.dialects.call import Call, Encoded
from gateway.dialects.chat_call import chat_call
from gateway.dialects.chat_fit import fit_fields
from gateway.dialects.chat_stream import ChatStream, read_answer
from gateway.dialects.chat_writer import ChatWriter, new_id, now_s, write_chat
from gateway.dialects.json_limits import check_structure
from gateway.dialects.kept import Kept
from gateway.dialects.provider import ProviderDialect, Quirks
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Whole, cost_comment

MAX_MESSAGES = 10_000
MAX_N = 128
MAX_EXPLAINED_BYTES = 1_048_576  # the place of a fault is found by decoding once more, with all objects made


class _Part(msgspec.Struct, gc=False):
    """One part of a message's content; only a text is read, the rest is skipped and not made into objects."""

    text: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Head(msgspec.Struct):
    """The fields the gateway reads; a wrong type here is the client's 400. The rest is the provider's business."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_raw_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")
_DEVELOPER = re.compile(rb'"role"\s*:\s*"developer"')
_SYSTEM = msgspec.Raw(b'"system"')


@value(kw_only=True, slots=True)
class ChatRequest:
    """One client request.

    Attributes:
        model: What the client asked for.
        stream: Whether it wants server-sent events.
        include_usage: Whether it asked for the usage chunk of a stream.
        fields: Every top-level field as the client wrote it.
        last_user_text: Text of the last user message, "" if there is none.
        max_tokens: The most that all answers together may have; 0 if the client did not say.
    """

    model: str
    stream: bool
    include_usage: bool
    n: int
    user: str | None
    fields: dict[str, msgspec.Raw]
    last_user_text: str
    max_tokens: int

    def messages(self) -> list[dict[str, Any]]:
        """The messages as dictionaries: ``role`` decoded, every other field as the client's own bytes.

        So whoever rearranges them changes no number and meets no limit of a parser.
        """
        return [{**raw, "role": _text.decode(raw["role"])} for raw in _raw_messages.decode(self.fields["messages"])]

    def with_messages(self, messages: list[dict[str, Any]]) -> ChatRequest:
        """The same request with other messages."""
        return evolve(self, fields={**self.fields, "messages": msgspec.Raw(_encode(messages))})

    def call(self) -> Call:
        """The request in no dialect, for a provider of another one."""
        return chat_call(self.fields)

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        """The client's document for a provider of the same dialect."""
        return self.encoded_as_is(model, quirks).body

    def encoded_as_is(self, model: str, quirks: Quirks) -> Encoded:
        """The same, and what was left out of it.

        The usage chunk is asked for even if the client did not, where the provider has it; :class:`ChatStream` takes it
        out again. What the provider is known to refuse is left out or, as the role ``developer``, said in its words.
        """
        fields, dropped = fit_fields(self.fields, quirks)
        fields["model"] = msgspec.Raw(_encode(model))
        if not quirks.developer_role and _DEVELOPER.search(fields["messages"]):
            fields["messages"] = msgspec.Raw(
                _encode([_as_system(raw) for raw in _raw_messages.decode(fields["messages"])])
            )
        if self.stream and quirks.usage_in_stream and not self.include_usage:
            fields["stream_options"] = msgspec.Raw(_encode({**self._options, "include_usage": _TRUE}))
        elif not quirks.usage_in_stream and "stream_options" in fields:
            options = {name: raw for name, raw in self._options.items() if name != "include_usage"}
            fields["stream_options"] = msgspec.Raw(_encode(options))
            if not options:
                del fields["stream_options"]
        return Encoded(body=_encode(fields), dropped=dropped)

    @property
    def _options(self) -> dict[str, msgspec.Raw]:
        return _options.decode(self.fields.get("stream_options", b"null")) or {}


def _as_system(message: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {**message, "role": _SYSTEM} if _text.decode(message["role"]) == "developer" else message


def parse_request(body: bytes) -> ChatRequest:
    """Decode and check a client's request.

    Raises:
        RequestError: 400 that names the field (``invalid_json``, ``invalid_request``), or ``too_many_fields``.
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
    return ChatRequest(
        model=head.model,
        stream=bool(head.stream),
        include_usage=bool(head.stream_options and head.stream_options.include_usage),
        n=head.n or 1,
        user=head.user,
        fields=fields,
        last_user_text=_last_user_text(head.messages),
        max_tokens=(head.n or 1) * (head.max_completion_tokens or head.max_tokens or 0),
    )


def wrong_field(error: msgspec.ValidationError) -> RequestError:
    """What msgspec says of a document of the wrong shape, as a 400 that names the field."""
    what, _, path = str(error).partition(" - at `$")
    param = path.rstrip("`").removeprefix(".") or None
    if "missing required field `" in what:
        missing = what.rpartition("field `")[2].rstrip("`")
        param, what = (f"{param}.{missing}" if param else missing), "required, but missing"
    return RequestError("invalid_request", 400, f"{param}: {what}" if param else f"the request: {what}", param=param)


def not_json(body: bytes, error: Exception) -> RequestError:
    """The 400 for a body that is no JSON; ``error`` is what decoding it raised."""
    return RequestError("invalid_json", 400, f"the body is not valid JSON: {_why_not_json(body, error)}")


def _why_not_json(body: bytes, error: Exception) -> str:
    """A reason with line and column; msgspec knows only the byte, and is vague about surrogates."""
    if not body.strip():
        return "it is empty"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if len(body) > MAX_EXPLAINED_BYTES:
        return str(error)
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as precise:
        return str(precise)
    return str(error)


def _last_user_text(messages: list[_Message]) -> str:
    for message in reversed(messages):
        if message.role != "user":
            continue
        if isinstance(message.content, str):
            return message.content
        texts = (bytes(part.text) for part in message.content or ())
        return "\n".join(_text.decode(text) for text in texts if text[:1] == b'"')
    return ""


def error_document(error: GatewayError) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    return {
        "error": {
            "message": error.public_message,
            "type": error.error_type,
            "param": error.param,
            "code": error.code,
        }
    }


class ChatVoice:
    """``POST /v1/chat/completions``: to providers of the same dialect the bytes pass, to others by way of events."""

    dialect = "openai"
    speaks_early = False
    conversation: str | None = None  # a header names it
    _id = ""
    _created = 0

    def parse(self, body: bytes) -> ChatRequest:
        return parse_request(body)

    def prepare(self, request: ChatRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        if dialect.wire != self.dialect:
            return pairing.prepare(self, request, dialect, model, keep=keep)
        stream = None
        if request.stream:
            kept = Kept(dialect.reader()) if keep else None
            stream = ChatStream(want_usage=request.include_usage, choices=request.n, kept=kept)
        encoded = request.encoded_as_is(model, dialect.quirks)
        return Asking(
            path=dialect.path(model, stream=request.stream),
            body=encoded.body,
            dropped=encoded.dropped,
            stream=stream,
            passes=True,
        )

    def read_whole(self, request: ChatRequest, dialect: ProviderDialect, body: bytes) -> Whole:
        if dialect.wire != self.dialect:
            return pairing.read_whole(self, request, dialect, body)
        usage, finish_reason = read_answer(body)
        return Whole(body=body, usage=usage, finish_reason=finish_reason)

    def writer(self, request: ChatRequest) -> ChatWriter:
        self._identify()
        return ChatWriter(include_usage=request.include_usage, id=self._id, created=self._created)

    def write_whole(self, answer: Answer, request: ChatRequest) -> bytes:
        self._identify()
        return write_chat(answer, id=self._id, created=self._created, model=request.model)

    def _identify(self) -> None:
        """Give the answer an identity of ours, the same over repairs, for providers that give it none."""
        if not self._id:
            self._id, self._created = new_id(), now_s()

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return cost_comment(record)

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def breaks(self, error: GatewayError) -> bytes:
        return encode_event(orjson.dumps(error_document(error)))

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)
