"""Anthropic's answers, streamed or whole, as events.

Blocks come one after another, each with its index; an ``input_json_delta`` is a piece of a tool call's arguments, and a
call without any has the arguments ``{}``. The usage of ``message_start`` and every ``message_delta`` is cumulative and
field by field: it is told from the first ``message_delta`` on, because what ``message_start`` says of the output is a
placeholder, which an answer that breaks off must not be billed by; what it says of the prompt is ``asked``.
``input_tokens`` leaves out what was read from or written to the cache; ``Usage.prompt_tokens`` has all three.

What has no event: ``ping``, citations, server tools' calls and results (they are run by the provider; their text
follows), ``container``, ``stop_details``. Events of unknown types are left out, as the API's versioning asks; a block
that is no JSON is counted as malformed.

Source: Anthropic API reference, "Messages"; guide "Streaming Messages"; the types of Anthropic's Python client.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.anthropic_encode import FORMAT_TOOL
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import EventSplitter, event_data, split_events

MAX_TOKENS = 1_000_000_000  # a usage beyond that is no count
MAX_ERROR_CHARS = 2_000
_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}


# Fields of unusual types are no reason to lose content: what is not text is taken for none where it is used.
class _Delta(msgspec.Struct):
    type: Any = ""
    text: Any = ""
    thinking: Any = ""
    signature: Any = ""
    partial_json: Any = ""
    stop_reason: Any = None
    stop_sequence: Any = None


class _Block(msgspec.Struct):
    type: Any = ""
    id: Any = ""
    name: Any = ""
    text: Any = ""
    thinking: Any = ""
    signature: Any = ""
    data: Any = ""
    input: Any = None


class _Message(msgspec.Struct):
    type: Any = ""
    id: Any = ""
    model: Any = ""
    content: list[_Block] | None = None
    stop_reason: Any = None
    stop_sequence: Any = None
    usage: Any = None


class _StreamEvent(msgspec.Struct):
    type: Any = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


_event = msgspec.json.Decoder(_StreamEvent)
_message = msgspec.json.Decoder(_Message)
_encode = msgspec.json.Encoder().encode


class AnthropicReader:
    """Reads one stream; see :class:`gateway.dialects.provider.Reader`."""

    def __init__(self) -> None:
        self.done = False
        self.malformed = 0
        self.asked: Usage | None = None
        self._splitter = EventSplitter()
        self._blocks = _Blocks()
        self._usage: dict[str, Any] = {}
        self._failed = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for event in split_events(self._splitter.feed(data)):
            if self.done or self._failed:
                break
            document = event_data(event)
            if document is not None:
                self._read(document, events)
        return events

    def end(self) -> list[Event]:
        return []

    def _read(self, document: bytes, events: list[Event]) -> None:
        try:
            event = _event.decode(document)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed += 1
            return
        if event.type == "content_block_delta" and event.delta is not None:
            self._blocks.delta(event.index, event.delta, events)
        elif event.type == "content_block_start" and event.content_block is not None:
            self._blocks.start(event.index, event.content_block, events)
        elif event.type == "content_block_stop":
            self._blocks.stop(event.index, events)
        elif event.type == "message_start" and event.message is not None:
            events.append(Started(_text(event.message.id), _text(event.message.model)))
            self._add_usage(event.message.usage)
            if self._usage:
                self.asked = usage_of({**self._usage, "output_tokens": 0})
        elif event.type == "message_delta":
            self._message_delta(event, events)
        elif event.type == "message_stop":
            self.done = True
        elif event.type == "error":
            self._failed = True
            events.append(_failed(event.error))

    def _message_delta(self, event: _StreamEvent, events: list[Event]) -> None:
        delta = event.delta
        if delta is not None and delta.stop_reason:
            events.append(self._blocks.finished(_text(delta.stop_reason), _text(delta.stop_sequence)))
        self._add_usage(event.usage)
        usage = usage_of(self._usage) if event.usage is not None else None
        if usage is not None:
            events.append(Used(usage))

    def _add_usage(self, said: Any) -> None:
        if isinstance(said, dict):
            self._usage.update((name, value) for name, value in said.items() if value is not None)


class _Blocks:
    """The blocks of one answer on their way to events."""

    def __init__(self) -> None:
        self._tools: dict[int, int] = {}  # a block's index → the call's; -1 for the answer in the form of a call
        self._calls = 0
        self._without_arguments: set[int] = set()

    def start(self, index: int, block: _Block, events: list[Event]) -> None:
        match block.type:
            case "text":
                if _text(block.text):
                    events.append(TextDelta(block.text))
            case "thinking":
                if _text(block.thinking) or _text(block.signature):
                    events.append(ReasoningDelta(_text(block.thinking), _text(block.signature)))
            case "redacted_thinking":
                if _text(block.data):
                    events.append(ReasoningDelta(redacted=block.data))
            case "tool_use":
                self._start_tool(index, block, events)

    def _start_tool(self, index: int, block: _Block, events: list[Event]) -> None:
        if block.name == FORMAT_TOOL:
            self._tools[index] = -1
        else:
            self._tools[index] = self._calls
            events.append(ToolCallStarted(self._calls, _text(block.id), _text(block.name)))
            self._calls += 1
            self._without_arguments.add(index)
        if isinstance(block.input, dict) and block.input:
            self._arguments(index, _encode(block.input).decode(), events)

    def delta(self, index: int, delta: _Delta, events: list[Event]) -> None:
        match delta.type:
            case "text_delta":
                if _text(delta.text):
                    events.append(TextDelta(delta.text))
            case "input_json_delta":
                self._arguments(index, _text(delta.partial_json), events)
            case "thinking_delta":
                if _text(delta.thinking):
                    events.append(ReasoningDelta(delta.thinking))
            case "signature_delta":
                if _text(delta.signature):
                    events.append(ReasoningDelta(signature=delta.signature))

    def _arguments(self, index: int, text: str, events: list[Event]) -> None:
        call = self._tools.get(index)
        if call is None or not text:
            return
        self._without_arguments.discard(index)
        events.append(TextDelta(text) if call < 0 else ArgumentsDelta(call, text))

    def stop(self, index: int, events: list[Event]) -> None:
        if index in self._without_arguments:
            self._arguments(index, "{}", events)

    def finished(self, reason: str, stop_sequence: str) -> Finished:
        meaning = _REASONS.get(reason, "stop")
        if meaning == "tool_calls" and not self._calls and self._tools:
            meaning = "stop"
        return Finished(meaning, reason, stop_sequence)


def read_message(body: bytes) -> list[Event]:
    """The events of a whole answer.

    Raises:
        BadAnswer: It is no message.
    """
    try:
        message = _message.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(str(error)) from None
    if message.content is None:
        raise BadAnswer(f"no message but {_text(message.type) or 'a document without a type'}")
    events: list[Event] = [Started(_text(message.id), _text(message.model))]
    blocks = _Blocks()
    for index, block in enumerate(message.content):
        blocks.start(index, block, events)
        blocks.stop(index, events)
    if message.stop_reason:
        events.append(blocks.finished(_text(message.stop_reason), _text(message.stop_sequence)))
    usage = usage_of(message.usage)
    if usage is not None:
        events.append(Used(usage))
    return events


def usage_of(said: Any) -> Usage | None:
    """What a ``usage`` says; None if its numbers cannot be counts of tokens."""
    if not isinstance(said, dict):
        return None
    details = said.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    by_time = said.get("cache_creation")
    an_hour = by_time.get("ephemeral_1h_input_tokens") if isinstance(by_time, dict) else None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    counts = [said.get(name) or 0 for name in names] + [thought or 0, an_hour or 0]
    if not all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts):
        return None
    fresh, read, written, completion, reasoning, long = counts
    return Usage(
        prompt_tokens=fresh + read + written,
        completion_tokens=completion,
        cached_tokens=read,
        cache_write_tokens=written,
        long_cache_write_tokens=long,
        reasoning_tokens=reasoning,
    )


def _failed(error: Any) -> Failed:
    said = error if isinstance(error, dict) else {}
    return Failed(_text(said.get("type")) or "error", _text(said.get("message"))[:MAX_ERROR_CHARS])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
