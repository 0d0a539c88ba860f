"""Answers in Gemini's dialect, written from events: streamed ``GenerateContentResponse`` pieces and whole ones.

All pieces have one ``responseId``; after a repair the first one stays, and ``modelVersion`` names who goes on. The
finish reasons and the usage come together in the last piece. A function call is one part, so its arguments are gathered
until the model has begun something else.

What an answer has and this dialect has not, or says in another way:

================================  ==============================================================================
a refusal in words                text; finish reason STOP
thoughts                          text parts with ``thought: true``
their signature                   ``thoughtSignature`` of the thought's last part; of Google's without a thought, of an
                                  empty text
others' signatures, redacted      wrapped in base64 (``signatures``): clients decode them, hand them back, and they
thoughts                          find their way to who made them
arguments that are no object      no call: finish reason MALFORMED_FUNCTION_CALL, or MAX_TOKENS if that cut them
finish ``content_filter``         SAFETY
finish ``refusal``                STOP if it was said in words, else SAFETY
finish ``pause``, ``error``       OTHER
the matched stop sequence         left out
logprobs                          ``logprobsResult`` of the piece
estimated usage                   ``usageMetadata.estimated: true``
================================  ==============================================================================

Limit: arguments of :data:`MAX_HELD_CHARS` for each candidate; more is the provider's garbage.
Source: Gemini API reference, "GenerateContentResponse"; guide "Thought signatures"; types of Google's Python client.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec
from attrs import define, field

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer, Choice, ReasoningBlock, TextBlock, ToolBlock
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
from gateway.dialects.gemini_frame import Frame
from gateway.dialects.gemini_tokens import logprobs_document, usage_document
from gateway.dialects.signatures import googles, is_wrapped, wrap
from gateway.dialects.sse import MAX_EVENT_BYTES, EventTooLong

MAX_HELD_CHARS = MAX_EVENT_BYTES
_FINISH = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "pause": "OTHER",
    "error": "OTHER",
}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@define(slots=True)
class _Call:
    """A function call whose arguments still come."""

    id: str
    name: str
    signature: str
    pieces: list[str] = field(factory=list)


@define(slots=True)
class _Said:
    """What was written of one candidate."""

    calls: dict[int, _Call] = field(factory=dict)
    held_chars: int = 0
    thinking: bool = False
    refused: bool = False
    malformed: bool = False
    finished: Finished | None = None


class GeminiWriter:
    """Events → pieces of a stream.

    Args:
        frame: Of the client's answer.
        model: For an answer whose provider does not name its model.
    """

    def __init__(self, frame: Frame, *, model: str = "") -> None:
        self._frame = frame
        self._id = ""
        self._model = model
        self._candidates: dict[int, _Said] = {}
        self._usage: Usage | None = None

    def write(self, events: list[Event]) -> bytes:
        """As the protocol says. Raises ``EventTooLong`` for arguments beyond all bounds."""
        return b"".join([self._frame.piece(document) for event in events for document in self._write(event)])

    def end(self) -> bytes:
        held = [document for index in self._candidates for document in self._calls(index)]
        last = {"candidates": [self._last(index) for index in sorted(self._candidates)]}
        pieces = [*held, self._response(last, self._usage)]
        return b"".join(self._frame.piece(piece) for piece in pieces) + self._frame.end()

    def _write(self, event: Event) -> list[bytes]:
        match event:
            case TextDelta():
                if not event.text and not event.logprobs:
                    return []
                return [*self._calls(event.choice), self._text(event)]
            case RefusalDelta():
                self._said(event.choice).refused = True
                return [*self._calls(event.choice), self._text(TextDelta(event.text, event.choice))]
            case ReasoningDelta():
                return self._thought(event)
            case ToolCallStarted():
                said = self._said(event.choice)
                said.calls[event.index] = _Call(event.id, event.name, event.signature)
                said.thinking = False
            case ArgumentsDelta():
                self._gather(event)
            case Finished():
                self._said(event.choice).finished = event
                return self._calls(event.choice)
            case Started():
                self._id = self._id or event.id
                self._model = event.model or self._model
            case Used():
                self._usage = event.usage
        return []

    def _said(self, index: int) -> _Said:
        return self._candidates.setdefault(index, _Said())

    def _text(self, event: TextDelta) -> bytes:
        self._said(event.choice).thinking = False
        return self._piece(event.choice, {"text": event.text}, event.logprobs)

    def _thought(self, event: ReasoningDelta) -> list[bytes]:
        signature = _signature(event.signature, event.redacted)
        if not event.text and not signature:
            return []
        before = self._calls(event.choice)
        said = self._said(event.choice)
        part: dict[str, Any] = {"text": event.text}
        if event.text or said.thinking or is_wrapped(signature):
            part["thought"] = True
        if signature:
            part["thoughtSignature"] = signature
        said.thinking = not (event.signature or event.redacted)
        return [*before, self._piece(event.choice, part)]

    def _gather(self, event: ArgumentsDelta) -> None:
        said = self._said(event.choice)
        call = said.calls.get(event.index)
        if call is None:
            return
        said.held_chars += len(event.text)
        if said.held_chars > MAX_HELD_CHARS:
            raise EventTooLong(f"the arguments of a call are longer than {MAX_HELD_CHARS} characters")
        call.pieces.append(event.text)

    def _calls(self, index: int) -> list[bytes]:
        """The calls that were gathered; they are over."""
        said = self._said(index)
        calls, said.calls, said.held_chars = said.calls, {}, 0
        parts = [call_part(call.id, call.name, "".join(call.pieces), call.signature) for call in calls.values()]
        said.malformed = said.malformed or None in parts
        return [self._piece(index, part) for part in parts if part is not None]

    def _piece(self, index: int, part: dict[str, Any], logprobs: Any = None) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": index}
        if logprobs:
            candidate["logprobsResult"] = logprobs_document(logprobs)
        return self._response({"candidates": [candidate]})

    def _last(self, index: int) -> dict[str, Any]:
        said = self._said(index)
        return {
            "content": {"parts": [{"text": ""}], "role": "model"},
            "finishReason": finish_reason(said.finished, refused=said.refused, malformed=said.malformed),
            "index": index,
        }

    def _response(self, document: dict[str, Any], usage: Usage | None = None) -> bytes:
        if usage is not None:
            document["usageMetadata"] = usage_document(usage)
        self._id = self._id or new_id()
        return _encode({**document, "modelVersion": self._model, "responseId": self._id})


def write_gemini(answer: Answer, *, model: str = "") -> bytes:
    """A whole answer as a ``GenerateContentResponse``.

    Args:
        answer: What was said.
        model: For an answer whose provider does not name its model.
    """
    document: dict[str, Any] = {
        "candidates": [_candidate(index, choice) for index, choice in sorted(answer.choices.items())]
    }
    if answer.usage is not None:
        document["usageMetadata"] = usage_document(answer.usage)
    return _encode({**document, "modelVersion": answer.model or model, "responseId": answer.id or new_id()})


def _candidate(index: int, choice: Choice) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    logprobs: list[Any] = []
    malformed = False
    for block in choice.blocks:
        match block:
            case ToolBlock():
                part = call_part(block.id, block.name, block.arguments, block.signature)
                malformed = malformed or part is None
                parts += [part] if part is not None else []
            case ReasoningBlock():
                _add_thought(block, parts)
            case _:
                parts += [{"text": block.text}] if block.text else []
                logprobs += block.logprobs if isinstance(block, TextBlock) else []
    finish = finish_reason(choice.finished, refused=bool(choice.refusal), malformed=malformed)
    content = {"parts": parts or [{"text": ""}], "role": "model"}
    made: dict[str, Any] = {"content": content, "finishReason": finish, "index": index}
    if logprobs:
        made["logprobsResult"] = logprobs_document(logprobs)
    return made


def _add_thought(block: ReasoningBlock, parts: list[dict[str, Any]]) -> None:
    """A thought, or a signature that belongs to the text before it."""
    sealed = _signature(block.signature, block.redacted)
    signature = {"thoughtSignature": sealed} if sealed else {}
    last = parts[-1] if parts else {}
    if block.text or is_wrapped(sealed):
        parts.append({"text": block.text, "thought": True, **signature})
    elif signature and "text" in last and not {"thought", "thoughtSignature"} & last.keys():
        last.update(signature)
    elif signature:
        parts.append({"text": "", **signature})


def _signature(signature: str, redacted: str) -> str:
    """``thoughtSignature`` of a thought: Google's own as it is, what others made in a form that says so."""
    if redacted:
        return wrap("redacted", redacted)
    own = googles(signature)
    if own:
        return own if _BASE64.fullmatch(own) else ""
    return wrap("signature", signature) if signature else ""


def call_part(id: str, name: str, arguments: str, signature: str) -> dict[str, Any] | None:
    """A function call; None if its arguments are no JSON object. They stay as they are: numbers keep their digits."""
    text = arguments.strip() or "{}"
    try:
        if not isinstance(_decode(text), dict):
            return None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    called: dict[str, Any] = {"name": name, "args": msgspec.Raw(text.encode())}
    if id:
        called["id"] = id
    part: dict[str, Any] = {"functionCall": called}
    if _BASE64.fullmatch(signature):
        part["thoughtSignature"] = signature
    return part


def finish_reason(finished: Finished | None, *, refused: bool, malformed: bool) -> str:
    """Gemini's word for it."""
    reason = finished.reason if finished is not None else "stop"
    if reason == "refusal":
        return "STOP" if refused else "SAFETY"
    if malformed and reason in ("stop", "tool_calls"):
        return "MALFORMED_FUNCTION_CALL"
    return _FINISH[reason]


def new_id() -> str:
    """A response's id, for providers that give none."""
    return uuid.uuid4().hex
