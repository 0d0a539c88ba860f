"""The bytes of Anthropic's messages: the document, and the events from ``message_start`` to ``message_stop``.

An answer is a list of content blocks, one after the other: thoughts with their signature, then text, or tool calls. A
filtered answer ends with the stop reason ``refusal``.

Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import orjson
from attrs import frozen

from gateway.sim.answers import Answer
from gateway.sim.anthropic_request import sign
from gateway.sim.errors import ANTHROPIC, ApiError
from gateway.sim.request import ChatRequest
from gateway.sim.wire import EVENT_STREAM

_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "blocked": "refusal",
    None: None,
}

Block = tuple[dict[str, Any], Sequence[str], str, str]
"""The block as it starts, its pieces, the type of their deltas and the field they are in."""


@frozen(kw_only=True, slots=True)
class Message:
    """One answer; a :class:`~gateway.sim.telling.Telling`."""

    request: ChatRequest
    answer: Answer
    id: str
    tells_usage: bool = True
    choices: ClassVar[int] = 1
    content_type: ClassVar[str] = EVENT_STREAM
    ping: ClassVar[bytes] = ANTHROPIC.ping

    @property
    def stream(self) -> bool:
        return self.request.stream

    @property
    def tokens(self) -> int:
        return self.answer.tokens

    @property
    def each(self) -> int:
        return self.answer.tokens

    def document(self) -> bytes:
        content = []
        for start, pieces, _, name in self._blocks():
            text = "".join(pieces)
            content.append({**start, name: orjson.loads(text) if name == "input" else text})
            if start["type"] == "thinking":
                content[-1]["signature"] = sign(text)
        usage = {"usage": self._usage(self.tokens)} if self.tells_usage else {}
        return orjson.dumps({**self._named(), "content": content, **self._stopped(), **usage})

    def opening(self) -> bytes:
        usage = {"usage": self._usage(1)} if self.tells_usage else {}
        message = {**self._named(), "content": [], "stop_reason": None, "stop_sequence": None, **usage}
        return _event("message_start", {"message": message})

    def events(self) -> Iterator[tuple[bytes, int]]:
        for index, (start, pieces, kind, name) in enumerate(self._blocks()):
            yield _event("content_block_start", {"index": index, "content_block": start}), 0
            before = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % index
            field = "partial_json" if name == "input" else name
            for piece in pieces:
                yield before + orjson.dumps({"type": kind, field: piece}) + b"}\n\n", 1
            if start["type"] == "thinking":
                signature = {"type": "signature_delta", "signature": sign("".join(pieces))}
                yield _event("content_block_delta", {"index": index, "delta": signature}), 0
            yield _event("content_block_stop", {"index": index}), 0

    def finish(self) -> bytes:
        usage = {"usage": {"output_tokens": self.tokens}} if self.tells_usage else {}
        return _event("message_delta", {"delta": self._stopped(), **usage})

    def end_mark(self) -> bytes:
        return _event("message_stop", {})

    def failure(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + orjson.dumps(ANTHROPIC.document(error, self.id)) + b"\n\n"

    def _named(self) -> dict[str, Any]:
        return {"id": f"msg_{self.id}", "type": "message", "role": "assistant", "model": self.request.model}

    def _stopped(self) -> dict[str, Any]:
        if self.answer.stop_sequence is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": self.answer.stop_sequence}
        return {"stop_reason": _STOP[self.answer.finish], "stop_sequence": None}

    def _usage(self, made: int) -> dict[str, Any]:
        given = self.answer.prompt_tokens
        cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {"input_tokens": given, **cached, "output_tokens": made, "service_tier": "standard"}

    def _blocks(self) -> Iterator[Block]:
        said = self.answer
        if said.thoughts:
            yield {"type": "thinking", "thinking": "", "signature": ""}, said.thoughts, "thinking_delta", "thinking"
        if said.pieces:
            yield {"type": "text", "text": ""}, said.pieces, "text_delta", "text"
        for position, call in enumerate(said.calls):
            start = {"type": "tool_use", "id": f"toolu_{self.id[:20]}{position:02x}", "name": call.name, "input": {}}
            yield start, call.pieces, "input_json_delta", "input"


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))
