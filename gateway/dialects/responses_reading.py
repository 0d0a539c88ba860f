"""The items of a provider's response on their way to events: the half of ``responses_reader`` that knows of items."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallStarted,
)

_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
Place = int | str  # of an item in the output; its id where a server leaves that out


# Fields of unusual types are no reason to lose content: what is not text is taken for none where it is used.
class StreamEvent(msgspec.Struct):
    type: Any = ""
    sequence_number: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    item_id: Any = ""
    delta: Any = ""
    text: Any = ""
    refusal: Any = ""
    arguments: Any = ""
    logprobs: Any = None
    item: Any = None
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None
    code: Any = None
    message: Any = None

    @property
    def place(self) -> Place:
        if type(self.output_index) is int:
            return self.output_index
        return text_of(self.item_id) or text_of(self.item.get("id") if isinstance(self.item, dict) else "")

    @property
    def part(self) -> int:
        return self.content_index if type(self.content_index) is int else 0


class Items:
    """The output items of one answer on their way to events."""

    def __init__(self, *, passed: bool = False) -> None:
        self._passed = passed
        self._calls: dict[Place, int] = {}  # an item's place → the call's index
        self._count = 0
        self._said: set[Place | tuple[Place, int]] = set()  # what had deltas: (place, part), or a call's place
        self._thoughts: dict[Place, str] = {}  # an item's place → the kind of its thoughts that is read
        self._refused = self._called = self._any = False

    def read(self, kind: str, event: StreamEvent, events: list[Event]) -> None:
        before = len(events)
        place, part = event.place, event.part
        match kind:
            case "response.output_text.delta":
                self._said.add((place, part))
                if text_of(event.delta):
                    events.append(TextDelta(event.delta, logprobs=_logprobs(event.logprobs)))
            case "response.output_text.done":
                if (place, part) not in self._said and text_of(event.text):
                    events.append(TextDelta(event.text, logprobs=_logprobs(event.logprobs)))
                self._said.add((place, part))
            case "response.refusal.delta" | "response.refusal.done":
                self._refuse(kind, event, events)
            case "response.function_call_arguments.delta":
                self._arguments(place, text_of(event.delta), events)
            case "response.function_call_arguments.done":
                if place not in self._said:
                    self._arguments(place, text_of(event.arguments), events)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._think(kind, event, events)
            case "response.output_item.added" if isinstance(event.item, dict):
                self._add(place, event.item, events)
            case "response.output_item.done" if isinstance(event.item, dict):
                self._end(place, event.item, events)
        self._any = self._any or len(events) > before

    def catch_up(self, output: Any, events: list[Event]) -> None:
        """Read the items of the last document, if nothing was streamed before it."""
        if self._any or not isinstance(output, list):
            return
        for place, item in enumerate(output):
            if isinstance(item, dict):
                self._whole(place, item, events)

    def finished(self, status: str, response: dict[str, Any]) -> Finished:
        if status == "incomplete":
            details = response.get("incomplete_details")
            reason = text_of(details.get("reason")) if isinstance(details, dict) else ""
            return Finished(_REASONS.get(reason, "length"), reason or status)
        if self._called:
            return Finished("tool_calls", status)
        return Finished("refusal" if self._refused else "stop", status)

    def _refuse(self, kind: str, event: StreamEvent, events: list[Event]) -> None:
        key, delta = (event.place, event.part), kind.endswith(".delta")
        text = text_of(event.delta if delta else event.refusal)
        if text and (delta or key not in self._said):
            self._refused = True
            events.append(RefusalDelta(text))
        self._said.add(key)

    def _arguments(self, place: Place, text: str, events: list[Event]) -> None:
        index = self._calls.get(place)
        if index is not None and text:
            self._said.add(place)
            events.append(ArgumentsDelta(index, text))

    def _think(self, kind: str, event: StreamEvent, events: list[Event]) -> None:
        place, text = event.place, text_of(event.delta)
        first = f"{kind} {event.summary_index if 'summary' in kind else event.content_index}"
        before = self._thoughts.setdefault(place, first)
        if not text or before.split()[0] != kind:
            return
        if before != first:
            self._thoughts[place] = first
            text = "\n\n" + text
        events.append(ReasoningDelta(text, id=text_of(event.item_id)))

    def _add(self, place: Place, item: dict[str, Any], events: list[Event]) -> None:
        kind = text_of(item.get("type"))
        if kind == "function_call":
            self._call(place, text_of(item.get("call_id")), text_of(item.get("name")), events)
            self._called = True
            self._arguments(place, text_of(item.get("arguments")), events)
        elif self._passed and kind not in ("message", "reasoning", ""):
            self._called = self._called or kind == "custom_tool_call"
            self._call(place, text_of(item.get("call_id")) or text_of(item.get("id")), kind, events)

    def _call(self, place: Place, id: str, name: str, events: list[Event]) -> None:
        if place not in self._calls:
            self._calls[place] = self._count
            events.append(ToolCallStarted(self._count, id, name))
            self._count += 1

    def _end(self, place: Place, item: dict[str, Any], events: list[Event]) -> None:
        kind = text_of(item.get("type"))
        if kind == "reasoning":
            if place not in self._thoughts and (text := _thoughts(item)):
                events.append(ReasoningDelta(text, id=text_of(item.get("id"))))
            if text_of(item.get("encrypted_content")):
                events.append(ReasoningDelta(redacted=item["encrypted_content"], id=text_of(item.get("id"))))
        elif kind == "function_call":
            if place not in self._calls:
                self._add(place, item, events)
            elif place not in self._said:
                self._arguments(place, text_of(item.get("arguments")), events)

    def _whole(self, place: Place, item: dict[str, Any], events: list[Event]) -> None:
        kind = text_of(item.get("type"))
        if kind != "message":
            self._add(place, item, events)
            self._end(place, item, events)
            return
        content = item.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            if text_of(part.get("text")):
                events.append(TextDelta(part["text"], logprobs=_logprobs(part.get("logprobs"))))
            elif text_of(part.get("refusal")):
                self._refused = True
                events.append(RefusalDelta(part["refusal"]))


def _thoughts(item: dict[str, Any]) -> str:
    for name, join in (("summary", "\n\n"), ("content", "")):
        pieces = item.get(name)
        if isinstance(pieces, list):
            found = join.join(text_of(piece.get("text")) for piece in pieces if isinstance(piece, dict))
            if found:
                return found
    return ""


def _logprobs(said: Any) -> Any:
    return said if isinstance(said, list) and said else None


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""
