"""Answers of OpenAI's Responses API, streamed or whole, as events.

Deltas are read as they come; a ``done`` event or the last document only counts for what had none (some compatible
servers stream less than OpenAI). Parts of a reasoning summary are joined by an empty line; where an item has a summary
and the thoughts in full, what came first is read. ``encrypted_content`` comes with the end of its item.

What has no event: annotations, ``phase``, ``response.queued``, audio, and what the provider's own tools did. A stream
that is only passed on is told of those tools as of calls (``passed``), so that it commits when they begin to work and
is never joined to another provider's answer.

Source: OpenAI API reference, "Streaming events" and "The response object"; the types of OpenAI's Python client; the
``error`` event is documented flat and sent nested (openai-dotnet issue 881), so both are read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.events import Event, Failed, Started, Used
from gateway.dialects.provider import BadAnswer
from gateway.dialects.responses_reading import Items, StreamEvent, text_of
from gateway.dialects.sse import EventSplitter, event_data, split_events

MAX_TOKENS = 1_000_000_000  # a usage beyond that is no count
MAX_ERROR_CHARS = 2_000
MAX_NOTED_BYTES = 1_048_576  # of the events that tell of items
_LAST = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


_event = msgspec.json.Decoder(StreamEvent)
_document = msgspec.json.Decoder(dict[str, Any])


class ResponsesReader:
    """Reads one stream; see :class:`gateway.dialects.provider.Reader`.

    Args:
        passed: The client gets the bytes as they are.

    Attributes:
        sequence_number: Of the last event that had one; -1 before it.
        last: The response document of the last event, as it came.
        items: Where the bytes pass, the client's items by their place in the output, as they were told last, the
            messages without their content; as many as :data:`MAX_NOTED_BYTES` hold.
    """

    def __init__(self, *, passed: bool = False) -> None:
        self.done = False
        self.malformed = 0
        self.asked: Usage | None = None
        self.sequence_number = -1
        self.id = ""
        self.last: bytes | None = None
        self.items: dict[int, dict[str, Any]] = {}
        self._passed = passed
        self._room = MAX_NOTED_BYTES
        self._splitter = EventSplitter()
        self._items = Items(passed=passed)
        self._started = self._failed = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for event in split_events(self._splitter.feed(data)):
            if self.done or self._failed:
                break
            document = event_data(event)
            if document is not None and document.strip() != b"[DONE]":
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
        kind = text_of(event.type)
        if kind in _LAST:
            self._finish(kind, event, events)
        elif kind == "error":
            self._failed = True
            said = event.error if isinstance(event.error, dict) else {"code": event.code, "message": event.message}
            events.append(_failed(said))
        elif kind in ("response.created", "response.in_progress", "response.queued"):
            self._start(_decoded(event.response), events)
        else:
            self._items.read(kind, event, events)
            if self._passed and isinstance(event.item, dict) and type(event.output_index) is int:
                self._note(event.output_index, event.item, len(document))
        if type(event.sequence_number) is int and not self._failed:  # an error's is for the event that tells of it
            self.sequence_number = event.sequence_number

    def _note(self, place: int, item: dict[str, Any], size: int) -> None:
        self._room -= size
        if self._room >= 0:
            self.items[place] = {**item, "content": []} if item.get("type") == "message" else item

    def _start(self, response: dict[str, Any], events: list[Event]) -> None:
        if self._started or not response:
            return
        self._started = True
        self.id = text_of(response.get("id"))
        events.append(_started(response))

    def _finish(self, kind: str, event: StreamEvent, events: list[Event]) -> None:
        response = _decoded(event.response)
        self._start(response, events)
        if kind in ("response.failed", "response.cancelled"):
            self._failed = True
            events.append(_failed(response.get("error")))
            return
        self._items.catch_up(response.get("output"), events)
        events.append(self._items.finished(kind.removeprefix("response."), response))
        usage = usage_of(response.get("usage"))
        if usage is not None:
            events.append(Used(usage))
        self.last = bytes(event.response)
        self.done = True


def read_response(body: bytes, *, passed: bool = False) -> list[Event]:
    """The events of a whole answer.

    Raises:
        BadAnswer: It is none, or it failed.
    """
    try:
        response = _document.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"not a response document: {error}") from error
    status = response.get("status") or "completed"
    if status not in ("completed", "incomplete") or not isinstance(response.get("output"), list):
        failed = _failed(response.get("error"))
        raise BadAnswer(f"a response with status {str(status)[:40]!r}: {failed.code}")
    events: list[Event] = [_started(response)]
    items = Items(passed=passed)
    items.catch_up(response["output"], events)
    events.append(items.finished(status, response))
    usage = usage_of(response.get("usage"))
    return [*events, Used(usage)] if usage is not None else events


def usage_of(said: Any) -> Usage | None:
    """``usage``; None if that is no count of tokens."""
    if not isinstance(said, dict):
        return None
    asked, answered = said.get("input_tokens_details"), said.get("output_tokens_details")
    asked, answered = (details if isinstance(details, dict) else {} for details in (asked, answered))
    counts = [
        said.get("input_tokens") or 0,
        said.get("output_tokens") or 0,
        asked.get("cached_tokens") or 0,
        answered.get("reasoning_tokens") or 0,
        asked.get("cache_write_tokens") or 0,
    ]
    if any(type(count) is not int or not 0 <= count <= MAX_TOKENS for count in counts):
        return None
    return Usage(
        prompt_tokens=counts[0],
        completion_tokens=counts[1],
        cached_tokens=counts[2],
        reasoning_tokens=counts[3],
        cache_write_tokens=counts[4],
    )


def _decoded(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        return _document.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def _started(response: dict[str, Any]) -> Started:
    created = response.get("created_at")
    at = int(created) if isinstance(created, int | float) and 0 <= created < 1e12 else 0
    return Started(text_of(response.get("id")), text_of(response.get("model")), at)


def _failed(said: Any) -> Failed:
    said = said if isinstance(said, dict) else {}
    code = said.get("code") or said.get("type") or "error"
    return Failed(str(code)[:MAX_ERROR_CHARS], str(said.get("message") or "")[:MAX_ERROR_CHARS])
