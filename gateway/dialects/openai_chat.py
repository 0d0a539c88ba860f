"""OpenAI chat completions: requests in, requests out, answers understood without being rebuilt.

A request is validated where the gateway itself depends on it (``model``, ``messages``, ``stream``, counts) and keeps
every field as the client's own bytes, so whatever the API grows next reaches the provider untouched. An answer of the
same dialect passes through as bytes, too: :class:`ChatStream` finds the events of a read by scanning and decodes only
those in which a hint (usage, finish reason, error, ``[DONE]``) stands. An unescaped ``"usage":`` cannot occur inside a
JSON string, so a hint never hides in an answer's text.

Source: OpenAI API reference, "Create chat completion" and "The chat completion chunk object".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import orjson
from attrs import define, field, frozen

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record, Usage
from gateway.dialects.json_limits import check_structure
from gateway.dialects.sse import EventSplitter, EventTooLong, encode_event, event_data, split_events

DONE = b"data: [DONE]\n\n"
MAX_MESSAGES = 10_000
MAX_N = 128
MAX_TOKENS = 1_000_000_000  # a usage beyond that is no count
MAX_PREAMBLE_BYTES = 1_048_576  # what a stream may hold before its first content
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
_raw_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")


@frozen(kw_only=True, slots=True)
class ChatRequest:
    """One client request.

    Attributes:
        model: What the client asked for.
        stream: Whether it wants server-sent events.
        include_usage: Whether it asked for the usage chunk of a stream.
        fields: Every top-level field as the client wrote it.
        last_user_text: Text of the last user message, "" if there is none.
    """

    model: str
    stream: bool
    include_usage: bool
    n: int
    user: str | None
    fields: dict[str, msgspec.Raw]
    last_user_text: str

    def messages(self) -> list[dict[str, Any]]:
        """The messages as dictionaries: ``role`` decoded, every other field as the client's own bytes.

        So whoever rearranges them changes no number and meets no limit of a parser.
        """
        return [{**raw, "role": _text.decode(raw["role"])} for raw in _raw_messages.decode(self.fields["messages"])]

    def encode(self, *, model: str, usage_in_stream: bool, messages: list[dict[str, Any]] | None = None) -> bytes:
        """The body for a provider.

        Args:
            model: The provider's own name of the model.
            usage_in_stream: Ask for the usage chunk even if the client did not; :class:`ChatStream` takes it out again.
            messages: Replaces the client's messages.
        """
        fields = dict(self.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        if messages is not None:
            fields["messages"] = msgspec.Raw(_encode(messages))
        if self.stream and usage_in_stream and not self.include_usage:
            options = _fields.decode(fields["stream_options"]) if self._has_options else {}
            fields["stream_options"] = msgspec.Raw(_encode({**options, "include_usage": _TRUE}))
        return _encode(fields)

    @property
    def _has_options(self) -> bool:
        return bytes(self.fields.get("stream_options", b"null")) != b"null"


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


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def freeze(self) -> Usage | None:
        """The usage; None if its numbers cannot be counts of tokens."""
        prompt, completion = self.prompt_tokens_details or _Details(), self.completion_tokens_details or _Details()
        counts = (
            self.prompt_tokens or 0,
            self.completion_tokens or 0,
            prompt.cached_tokens or 0,
            completion.reasoning_tokens or 0,
        )
        if min(counts) < 0 or max(counts) > MAX_TOKENS:
            return None
        return Usage(
            prompt_tokens=counts[0], completion_tokens=counts[1], cached_tokens=counts[2], reasoning_tokens=counts[3]
        )


def _usage_of(reported: Any) -> Usage | None:
    """What a provider's ``usage`` says; None if that is no usage."""
    try:
        return msgspec.convert(reported, _Usage).freeze()
    except msgspec.ValidationError:
        return None


# What passes through is only looked at. A field of an unusual type is no reason to lose content, so none is checked.
class _Choice(msgspec.Struct):
    index: Any = 0
    delta: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


class _AnswerChoice(msgspec.Struct):
    finish_reason: Any = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice]
    usage: Any = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _DeltaChoice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None


class _DeltaChunk(msgspec.Struct):
    choices: list[_DeltaChoice] | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_answer = msgspec.json.Decoder(_Answer)
_deltas = msgspec.json.Decoder(_DeltaChunk)


class BadAnswer(ValueError):
    """What the provider sent is not what its dialect allows."""


def read_answer(body: bytes) -> tuple[Usage | None, str]:
    """Usage and finish reason of a whole (non-streamed) answer, which itself passes through as bytes.

    Raises:
        BadAnswer: It is no chat completion.
    """
    try:
        answer = _answer.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(str(error)) from None
    finish = next((str(c.finish_reason) for c in answer.choices if c.finish_reason), "")
    return (_usage_of(answer.usage) if answer.usage is not None else None), finish


@frozen(slots=True)
class _Plain:
    """What all plain content events of one stream have in common, learnt from its first.

    They differ in the text only: ``start`` is everything up to the delta (id, time, model, choice), ``end`` the empty
    finish reason that closes the only choice. Neither can occur inside a JSON string, where their quotes would be
    escaped. Usage, finish, error, ``[DONE]``, comments and further choices do not look like that.
    """

    start: bytes
    end: bytes
    joint: bytes  # the end of one event and the start of a plain one behind it

    @classmethod
    def learn(cls, data: bytes) -> _Plain | None:
        """The pattern of a content event's data; None when it is written in a way that cannot be told apart."""
        for delta, unfinished in _WAYS_TO_WRITE:
            text = data.find(delta) + len(delta)
            reason = data.find(unfinished, text)
            if text >= len(delta) and reason > 0:
                start = b"data: " + data[:text]
                return cls(start, data[reason : data.index(b"]", reason) + 1], b"}\n\n" + start)
        return None

    def run(self, block: bytes) -> tuple[int, int]:
        """How far ``block`` begins with plain events: ``(bytes, events)``. Three scans at C speed, however many.

        Each start but the first follows the end of an event, each event has one end of its only choice, and there are
        no line feeds but theirs: so there is nothing else in between.
        """
        if not block.startswith(self.start):
            return 0, 0
        size = block.index(b"\n\n", block.rfind(self.start)) + 2
        events = block.count(self.joint, 0, size) + 1
        plain = (
            block.count(self.end, 0, size) == events
            and block.count(b"\n", 0, size) == 2 * events
            and block.endswith(b"}\n\n", 0, size)
        )
        return (size, events) if plain else (0, 0)


_WAYS_TO_WRITE = (
    (b'"delta":{"', b'"finish_reason":null'),
    (b'"delta": {"', b'"finish_reason": null'),
)


@define(slots=True)
class ChatStream:
    """One provider stream, read by read: what to pass on, and what was noticed.

    Attributes:
        want_usage: The client asked for the usage chunk; otherwise it is taken out of the stream.
        choices: How many answers were asked for (``n``); each has a finish reason of its own.
        committed: Content was seen. Until then nothing is given out, so that a failure can still change the status.
        events: Events with a delta that were given out, from the first content on; about one per token.
        finish_reason: "" until one was seen.
        usage: As the provider reported it.
        done: ``[DONE]`` was seen.
        error: The provider's error event, if it sent one.
        malformed: Events that were left out because they are not JSON.
    """

    want_usage: bool
    choices: int = 1
    committed: bool = False
    events: int = 0
    finish_reason: str = ""
    usage: Usage | None = None
    done: bool = False
    error: Any = None
    malformed: int = 0
    _splitter: EventSplitter = field(factory=EventSplitter)
    _held: bytes = b""
    _finished: set[int] = field(factory=set)
    _pattern: _Plain | None = None

    def feed(self, data: bytes) -> bytes:
        """Take one network read, give back what the client shall get: whole events, b"" if none.

        Raises:
            EventTooLong: Garbage without end.
        """
        block = self._splitter.feed(data)
        if not block or self.done or self.error is not None:
            return b""
        if self.committed:
            return self._pass(block)
        end = self._hold(block)
        if end < 0:
            return b""
        held, self._held = self._held, b""
        return held + self._pass(block[end:])

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: said so, or every choice has its finish reason (some send no ``[DONE]``)."""
        return self.done or len(self._finished) >= self.choices

    def _hold(self, block: bytes) -> int:
        """Hold the preamble back, up to and with the first event with content.

        Returns:
            How many bytes that took; -1 when there is no content yet.

        Raises:
            EventTooLong: None within :data:`MAX_PREAMBLE_BYTES`.
        """
        end, pieces = 0, [self._held]
        while end < len(block) and not (self.committed or self.done or self.error is not None):
            start, end = end, block.index(b"\n\n", end) + 2
            pieces.append(self._sift(block[start:end]))
        self._held = b"".join(pieces)
        if len(self._held) > MAX_PREAMBLE_BYTES and not self.committed:
            raise EventTooLong(f"no content within {MAX_PREAMBLE_BYTES} bytes of the stream")
        return end if self.committed else -1

    def _pass(self, block: bytes) -> bytes:
        """Let plain events through unseen; look at the others, which as a rule are the last."""
        if self.done or not block:
            return b""
        pattern = self._pattern
        if pattern is None:
            return self._sift(block)
        end, events = pattern.run(block)
        self.events += events
        return block if end == len(block) else block[:end] + self._sift(block[end:])

    def _sift(self, block: bytes) -> bytes:
        """Decode the events of a block one by one; leave out what is not for the client."""
        kept = []
        for event in split_events(block):
            data = event_data(event)
            if data is None:
                kept.append(event)  # a comment keeps the connection alive; it is the client's, too
                continue
            if data == b"[DONE]":
                self.done = True
                kept.append(event)
                break
            if self._notice(data):
                kept.append(event)
            if self.error is not None:
                break
        kept.append(b"")
        return b"\n\n".join(kept)

    def _notice(self, data: bytes) -> bool:
        """Decode one event; say whether the client gets it."""
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed += 1
            return False
        if chunk.error is not None:
            self.error = chunk.error
            return False
        content = spoken = False
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self.finish_reason = str(choice.finish_reason)
                self._finished.add(choice.index if isinstance(choice.index, int) else 0)
                content = True
            if choice.delta and isinstance(choice.delta, dict):
                spoken = True
                content = content or any(value for name, value in choice.delta.items() if name != "role")
        self.committed = self.committed or content
        self.events += spoken and self.committed
        if content and self._pattern is None and chunk.usage is None and not self.finish_reason:
            self._pattern = _Plain.learn(data)
        if chunk.usage is not None:
            self.usage = _usage_of(chunk.usage)
            return bool(self.want_usage or chunk.choices)
        return True


@define(slots=True)
class ToolCall:
    """A tool call put together from its pieces; ``arguments`` is the model's JSON text, unchecked."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@define(slots=True)
class Transcript:
    """Understands what passes through: the text and tool calls of an answer's first choice.

    Only who needs them pays for it: the orchestration endpoint, and conversations that are kept.
    """

    text: str = ""
    tool_calls: dict[int, ToolCall] = field(factory=dict)

    def read_block(self, block: bytes) -> str:
        """Take in a block of events; give back the text it adds."""
        added = "".join(self._read(data) for event in split_events(block) if (data := event_data(event)))
        self.text += added
        return added

    def read_whole(self, body: bytes) -> str:
        """Take in a non-streamed answer; give back its text."""
        added = self._read(body)
        self.text += added
        return added

    def _read(self, data: bytes) -> str:
        if data == b"[DONE]":
            return ""
        try:
            chunk = _deltas.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ""
        added = ""
        for choice in chunk.choices or ():
            delta = choice.delta or choice.message
            if choice.index or delta is None:
                continue
            added += delta.content or delta.refusal or ""
            for place, piece in enumerate(delta.tool_calls or ()):
                call = self.tool_calls.setdefault(piece.index or place, ToolCall())
                call.id += piece.id or ""
                if piece.function is not None:
                    call.name += piece.function.name or ""
                    call.arguments += piece.function.arguments or ""
        return added


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
    """``POST /v1/chat/completions``: what the provider says passes through as it is."""

    speaks_early = False

    def parse(self, body: bytes) -> ChatRequest:
        return parse_request(body)

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def events(self, block: bytes) -> bytes:
        return block

    def ends(self, record: Record) -> bytes:
        return b""

    def breaks(self, error: GatewayError) -> bytes:
        return encode_event(orjson.dumps(error_document(error)))

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)
