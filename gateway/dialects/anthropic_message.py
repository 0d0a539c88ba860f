"""Whole answers in Anthropic's dialect, and what they have in common with streamed ones: ends, usage, ids.

What an answer has and this dialect has not:

================================  ==============================================================================
choices but the first             left out (a request in this dialect asks for one)
logprobs, ``created``             left out
a refusal in words                text, with the stop reason ``refusal`` if nothing else is said of the end
finish ``content_filter``         ``refusal``
finish ``error``                  ``max_tokens``: the answer is not whole, which no other reason says
calls, and finish ``stop``        ``tool_use``: without it a client does not run them
a tool call's signature           a thought without words before the call (Google's; see ``signatures``)
arguments that are no JSON        passed on in a stream; ``{"arguments": "…"}`` in a whole message
estimated usage                   ``usage.estimated: true``
================================  ==============================================================================

Source: Anthropic API reference, "Messages"; guide "Handling stop reasons"; the types of Anthropic's Python client.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer, Block, ReasoningBlock, ToolBlock
from gateway.dialects.events import Finished
from gateway.dialects.signatures import mark_calls

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "error": "max_tokens",
}
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any])


def write_message(answer: Answer, *, model: str = "") -> bytes:
    """A whole answer as a message document."""
    first = answer.first
    content = [block for each in first.blocks for block in _block(each)]
    reason, sequence = stop_reason(first.finished, called=bool(first.tools), refused=bool(first.refusal))
    message = {
        "id": answer.id or new_id(),
        "type": "message",
        "role": "assistant",
        "model": answer.model or model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_document(answer.usage or Usage()),
    }
    return _encode(message)


def stop_reason(finished: Finished | None, *, called: bool, refused: bool) -> tuple[str, str | None]:
    """``stop_reason`` and ``stop_sequence`` of an answer that ended so."""
    reason = finished.reason if finished is not None else "stop"
    sequence = finished.stop_sequence if finished is not None else ""
    if reason == "stop" and sequence:
        return "stop_sequence", sequence
    if reason == "stop" and called:
        return "tool_use", None
    if reason == "stop" and refused:
        return "refusal", None
    return _STOP_REASONS[reason], None


def usage_document(usage: Usage) -> dict[str, Any]:
    """``usage``: here the cached tokens are no part of ``input_tokens``."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    document: dict[str, Any] = {
        "input_tokens": max(usage.prompt_tokens - cached - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        document["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.estimated:
        document["estimated"] = True
    return document


def new_id(prefix: str = "msg_") -> str:
    """An id, for providers that give none."""
    return prefix + uuid.uuid4().hex


def _block(block: Block) -> list[dict[str, Any]]:
    match block:
        case ReasoningBlock():
            if block.redacted:
                return [{"type": "redacted_thinking", "data": block.redacted}]
            return [{"type": "thinking", "thinking": block.text, "signature": block.signature}]
        case ToolBlock():
            call = {"type": "tool_use", "id": block.id or new_id("toolu_"), "name": block.name, "input": _input(block)}
            if not block.signature:
                return [call]
            return [{"type": "thinking", "thinking": "", "signature": mark_calls(block.signature)}, call]
        case _:
            return [{"type": "text", "text": block.text}] if block.text else []


def _input(block: ToolBlock) -> dict[str, Any]:
    try:
        return _object.decode(block.arguments.strip() or "{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"arguments": block.arguments}
