"""Streamed answers in Anthropic's dialect, written from events; whole ones: ``anthropic_message``.

::

    message_start  ping  (content_block_start  content_block_delta …  content_block_stop) …  message_delta  message_stop

Blocks have indices in order and one is open at a time. Where a provider mixes the arguments of parallel calls, the
later call waits until the one that is open is a whole JSON object. The stop reason and the usage come last, together:
the number of prompt tokens is often known only then, so ``message_start`` says 0 and ``message_delta`` tells all.

Source: Anthropic API reference, "Messages"; guide "Streaming Messages"; the types of Anthropic's Python client.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import Factory, define

from gateway.core.facts import Usage
from gateway.dialects.anthropic_message import new_id, stop_reason, usage_document
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.signatures import mark_calls
from gateway.dialects.sse import encode_event

_encode = msgspec.json.Encoder().encode


@define(slots=True)
class _Waiting:
    """A call that began while another one was open."""

    call: ToolCallStarted
    pieces: list[str] = Factory(list)


@define(slots=True)
class _Braces:
    """Whether a JSON object that comes in pieces is whole: found by counting, so that each character is seen once."""

    depth: int = 0
    begun: bool = False
    quoted: bool = False
    escaped: bool = False

    def whole_after(self, piece: str) -> bool:
        """Take in a piece; whether nothing of the object is missing now."""
        for character in piece:
            if self.escaped:
                self.escaped = False
            elif self.quoted:
                self.escaped = character == "\\"
                self.quoted = character != '"'
            elif character == '"':
                self.quoted = True
            elif character in "{[":
                self.depth += 1
                self.begun = True
            elif character in "}]":
                self.depth -= 1
        return self.begun and self.depth <= 0


class AnthropicWriter:
    """Events → Anthropic's stream; see :class:`gateway.dialects.provider.Writer`.

    Args:
        model: Named where the provider does not say which model answers.
    """

    def __init__(self, *, model: str = "") -> None:
        self._model = model
        self._started = False
        self._index = -1  # of the block that is open, or was last
        self._open = ""  # text | thinking | tool_use, "" between blocks
        self._delta = b""  # of the open text, up to its text
        self._tool: int | None = None
        self._arguments: list[str] = []
        self._braces = _Braces()  # of the open call, as far as one waits behind it
        self._waiting: dict[int, _Waiting] = {}  # by the call's index, in order
        self._finished: Finished | None = None
        self._refused = self._called = False
        self._usage: Usage | None = None

    def write(self, events: list[Event]) -> bytes:
        return b"".join([piece for event in events for piece in self._write(event)])

    def end(self) -> bytes:
        out = [*self._begin(Started()), *self._close()]
        reason, sequence = stop_reason(self._finished, called=self._called, refused=self._refused)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        out.append(_event("message_delta", delta=delta, usage=usage_document(self._usage or Usage())))
        return b"".join([*out, _event("message_stop")])

    def _write(self, event: Event) -> list[bytes]:
        match event:
            case TextDelta(choice=0):
                return self._text(event.text)
            case ArgumentsDelta(choice=0):
                return self._add_arguments(event)
            case ReasoningDelta(choice=0):
                return self._reason(event)
            case ToolCallStarted(choice=0):
                return self._call(event)
            case RefusalDelta(choice=0):
                self._refused = True
                return self._text(event.text)
            case Started():
                return self._begin(event)
            case Finished(choice=0):
                self._finished = event
                return self._close()
            case Used():
                self._usage = event.usage
        return []

    def _begin(self, event: Started) -> list[bytes]:
        if self._started:
            return []
        self._started = True
        message: dict[str, Any] = {
            "id": event.id or new_id(),
            "type": "message",
            "role": "assistant",
            "model": event.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return [_event("message_start", message=message), _event("ping")]

    def _text(self, text: str) -> list[bytes]:
        if not text:
            return []
        out = [] if self._open == "text" else self._start("text", {"type": "text", "text": ""})
        out.append(self._delta + _encode(text) + b"}}\n\n")
        return out

    def _reason(self, event: ReasoningDelta) -> list[bytes]:
        if event.redacted:
            out = self._start("redacted_thinking", {"type": "redacted_thinking", "data": event.redacted})
            return out + self._stop()
        out = []
        if self._open != "thinking" and (event.text or event.signature):
            out = self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            out.append(self._change({"type": "thinking_delta", "thinking": event.text}))
        if event.signature:
            out += [self._change({"type": "signature_delta", "signature": event.signature}), *self._stop()]
        return out

    def _call(self, event: ToolCallStarted) -> list[bytes]:
        self._called = True
        if not self._waiting:
            self._braces = _Braces()
            if self._open != "tool_use" or self._braces.whole_after("".join(self._arguments)):
                return self._start_call(event)
        self._waiting[event.index] = _Waiting(event)
        return []

    def _start_call(self, event: ToolCallStarted) -> list[bytes]:
        block = {"type": "tool_use", "id": event.id or new_id("toolu_"), "name": event.name, "input": {}}
        signed = self._reason(ReasoningDelta(signature=mark_calls(event.signature))) if event.signature else []
        out = signed + self._start("tool_use", block)
        self._tool = event.index
        return out

    def _add_arguments(self, event: ArgumentsDelta) -> list[bytes]:
        waiting = self._waiting.get(event.index)
        if waiting is not None:
            waiting.pieces.append(event.text)
            return []
        if not event.text or self._open != "tool_use" or self._tool != event.index:
            return []
        out = [self._argument(event.text)]
        if self._waiting and self._braces.whole_after(event.text):
            out += self._next()
        return out

    def _argument(self, text: str) -> bytes:
        self._arguments.append(text)
        return self._change({"type": "input_json_delta", "partial_json": text})

    def _next(self) -> list[bytes]:
        """The call that waits, and those behind it as far as each before them is whole."""
        out: list[bytes] = []
        while self._waiting:
            waiting = self._waiting.pop(next(iter(self._waiting)))
            out += self._start_call(waiting.call)
            text = "".join(waiting.pieces)
            if text:
                out.append(self._argument(text))
            if not self._braces.whole_after(text):
                break
        return out

    def _start(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        out = [*self._begin(Started()), *self._stop()]
        self._index += 1
        self._open = kind
        self._arguments = []
        self._braces = _Braces()
        self._delta = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":' % self._index
        )
        out.append(_event("content_block_start", index=self._index, content_block=block))
        return out

    def _change(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _stop(self) -> list[bytes]:
        if not self._open:
            return []
        self._open, self._tool = "", None
        return [_event("content_block_stop", index=self._index)]

    def _close(self) -> list[bytes]:
        """End what is open; calls that still wait come one by one, whole or not."""
        out: list[bytes] = []
        while self._waiting:
            out += self._next()
        return out + self._stop()


def _event(kind: str, **fields: Any) -> bytes:
    return encode_event(_encode({"type": kind, **fields}), event=kind.encode())
