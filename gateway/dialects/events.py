"""One answer in no dialect: the events that readers make of a provider's bytes and writers turn into a client's.

The order is that of the answer: :class:`Started` · blocks · :class:`Finished` (one per choice) · :class:`Used`; a
reader may give ``Used`` earlier or several times (the last counts), and :class:`Failed` at any point, after which
nothing follows. Text, thoughts and tool calls of one choice come in the order in which the model made them; a delta of
another kind ends the block before it. A whole (not streamed) answer is the same events, made in one go.

These are msgspec structs, not attrs: several are made per network read on the token path, at a fifth of the cost.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.core.facts import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "error"]


class Started(msgspec.Struct, frozen=True, gc=False):
    """The answer's id and the model that makes it, as far as the provider says ("" where it does not)."""

    id: str = ""
    model: str = ""
    created: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    """``logprobs``: OpenAI's ``choices[].logprobs.content`` entries for this text, if they were asked for."""

    text: str
    choice: int = 0
    logprobs: Any = None


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """The model says in its own words that it will not."""

    text: str
    choice: int = 0


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """Thinking. A ``signature`` (with or without text) closes its block; ``redacted`` is a whole opaque block."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    choice: int = 0
    id: str = ""


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False):
    """``index`` counts the calls of one choice from 0 and names the call in its argument deltas."""

    index: int
    id: str
    name: str
    choice: int = 0
    signature: str = ""


class ArgumentsDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call's JSON text."""

    index: int
    text: str
    choice: int = 0


class Finished(msgspec.Struct, frozen=True, gc=False):
    """One choice is complete. ``raw`` is the provider's own word for it, for those who know the dialect."""

    reason: FinishReason
    raw: str = ""
    stop_sequence: str = ""
    choice: int = 0


class Used(msgspec.Struct, frozen=True):
    """Tokens so far, or in all."""

    usage: Usage


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The provider's error event. ``message`` is its text: for the log, never for the client."""

    code: str
    message: str = ""


Event = (
    Started | TextDelta | RefusalDelta | ReasoningDelta | ToolCallStarted | ArgumentsDelta | Finished | Used | Failed
)
CONTENT = (TextDelta, RefusalDelta, ReasoningDelta, ToolCallStarted, ArgumentsDelta)


def is_content(event: Event) -> bool:
    """Whether the event commits us: something that the client reads, or the end of an answer that has nothing."""
    match event:
        case TextDelta() | RefusalDelta() | ArgumentsDelta():
            return bool(event.text)
        case ReasoningDelta():
            return bool(event.text or event.redacted)
        case ToolCallStarted():
            return True
        case Finished():
            return event.reason != "error"
        case _:
            return False
