"""The text and the tool calls of an answer that passes through, for those who need them.

These are the orchestration endpoint and conversations that are kept; nobody else pays for the decoding.
"""

from __future__ import annotations

import msgspec
from attrs import define, field

from gateway.dialects.sse import event_data, split_events

KEPT_CHARS = 131_072  # of the text; the store keeps less of a turn


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


_deltas = msgspec.json.Decoder(_DeltaChunk)


@define(slots=True)
class ToolCall:
    """A tool call put together from its pieces; ``arguments`` is the model's JSON text, unchecked."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@define(slots=True)
class Transcript:
    """Understands an answer's first choice, event by event.

    Attributes:
        tool_calls: By their index in the answer.
    """

    tool_calls: dict[int, ToolCall] = field(factory=dict)
    _pieces: list[str] = field(factory=list)
    _chars: int = 0

    @property
    def text(self) -> str:
        """The text so far, at most its first ``KEPT_CHARS``."""
        return "".join(self._pieces)

    def read_block(self, block: bytes) -> str:
        """Take in a block of events; give back the text it adds."""
        added = "".join(self._read(data) for event in split_events(block) if (data := event_data(event)))
        self._keep(added)
        return added

    def read_whole(self, body: bytes) -> str:
        """Take in a non-streamed answer; give back its text."""
        added = self._read(body)
        self._keep(added)
        return added

    def _keep(self, added: str) -> None:
        kept = added[: KEPT_CHARS - self._chars]
        if kept:
            self._pieces.append(kept)
            self._chars += len(kept)

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
