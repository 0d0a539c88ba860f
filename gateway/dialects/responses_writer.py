"""Answers in the dialect of OpenAI's Responses API, written from events: streams, and whole documents at their end.

::

    response.created  response.in_progress  (items: ``responses_output``) …  response.completed | incomplete | failed

Every event has the next ``sequence_number``; the numbers are those of the request (:class:`Numbers`), so that a
repaired stream, whose writer is new, goes on with higher ones. The last event has the whole response with its usage,
and nothing follows it: there is no ``[DONE]``. The answer is held in memory until then, because the dialect wants so.

The response's id is the gateway's, unless the client has another one already (a stream that was passed on as it came
and is repaired by another provider). So are the items' ids and places: those that the client has are gone on with, and
those that nothing was said in (thoughts that are not shown) stay where they are. What has no counterpart stands in
``responses_document``.

Source: OpenAI API reference, "Streaming events"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.chat_writer import now_s
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
from gateway.dialects.responses_document import FAILED, Echo, Status, ending
from gateway.dialects.responses_marks import RESPONSE_PREFIX, item_id, marked
from gateway.dialects.responses_output import CallItem, ItemStatus, MessageItem, ReasoningItem
from gateway.dialects.sse import encode_event

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any])


class Numbered(Protocol):
    """What has seen events with sequence numbers; -1 for none."""

    @property
    def sequence_number(self) -> int: ...


class Numbers:
    """The sequence numbers of one request's events, which never go back."""

    def __init__(self) -> None:
        self._next = 0
        self._seen: list[Numbered] = []

    def follow(self, seen: Numbered) -> None:
        """Go on behind the numbers of a stream that is passed on."""
        self._seen.append(seen)

    def __call__(self) -> int:
        number = max([self._next, *(seen.sequence_number + 1 for seen in self._seen)])
        self._next = number + 1
        return number


class ResponsesWriter:
    """Events → the stream; see :class:`gateway.dialects.provider.Writer`.

    Args:
        echo: What the documents repeat of the request.
        id: The response's.
        numbers: Of the request.
        created: Unix seconds, for a provider that does not say; now if 0.
        known: Items that the client has of a stream that passed, by their places.
        on_begin: Is called with the writer when its response begins.
        on_end: Is called with the last document, as JSON.
    """

    def __init__(
        self,
        echo: Echo,
        id: str,
        numbers: Numbers | None = None,
        *,
        created: int = 0,
        known: Mapping[int, dict[str, Any]] | None = None,
        on_begin: Callable[[ResponsesWriter], None] | None = None,
        on_end: Callable[[bytes], None] | None = None,
    ) -> None:
        self._echo = echo
        self._id = id
        self._numbers = numbers or Numbers()
        self._known = known or {}
        self._on_begin = on_begin
        self._on_end = on_end
        self._started = False
        self._created = created
        self._model = ""
        self._output: list[dict[str, Any] | None] = []  # None for an item that is still open
        self._open: MessageItem | ReasoningItem | None = None
        self._calls: dict[int, CallItem] = {}  # those that are open
        self._finished: Finished | None = None
        self._refused = False
        self._usage: Usage | None = None

    def write(self, events: list[Event]) -> bytes:
        return b"".join([piece for event in events for piece in self._write(event)])

    def end(self) -> bytes:
        out = [*self._begin(Started()), *self._close()]
        status, reason = ending(self._finished, refused=self._refused)
        document = _encode(
            self._document(status, usage=self._usage or Usage(), incomplete=reason, completed=status == "completed")
        )
        if self._on_end is not None:
            self._on_end(document)
        return b"".join([*out, self._emit(f"response.{status}", response=msgspec.Raw(document))])

    def fail(self) -> bytes:
        """The last event of a response that broke off: what it has so far, and that it failed."""
        return self._emit("response.failed", response=self._document("failed"))

    def _write(self, event: Event) -> list[bytes]:
        match event:
            case TextDelta(choice=0):
                if not event.text and not event.logprobs:
                    return []
                out, message = self._message()
                return out + message.text(event.text, event.logprobs)
            case ArgumentsDelta(choice=0):
                return self._add_arguments(event)
            case ReasoningDelta(choice=0):
                return self._reason(event)
            case ToolCallStarted(choice=0):
                return self._call(event)
            case RefusalDelta(choice=0):
                if not event.text:
                    return []
                self._refused = True
                out, message = self._message()
                return out + message.refuse(event.text)
            case Started():
                return self._begin(event)
            case Finished(choice=0):
                self._finished = self._finished or event
                return self._close()
            case Used():
                self._usage = event.usage
        return []

    def _begin(self, event: Started) -> list[bytes]:
        """Take the identity of the first start, and the model of every one."""
        self._model = event.model or self._model
        if self._started:
            return []
        self._started = True
        if self._on_begin is not None:
            self._on_begin(self)
        if event.id.startswith(RESPONSE_PREFIX):
            self._id = event.id
        self._created = event.created or self._created or now_s()
        document = self._document("in_progress")
        return [self._emit(kind, response=document) for kind in ("response.created", "response.in_progress")]

    def _document(self, status: Status, *, completed: bool = False, **more: Any) -> dict[str, Any]:
        return self._echo.document(
            self._id,
            status=status,
            created=self._created or now_s(),
            completed=now_s() if completed else None,
            model=self._model,
            output=[item for item in self._output if item is not None],
            error=FAILED if status == "failed" else None,
            **more,
        )

    def _emit(self, kind: str, **fields: Any) -> bytes:
        data = _encode({"type": kind, **fields, "sequence_number": self._numbers()})
        return encode_event(data, event=kind.encode())

    def _message(self) -> tuple[list[bytes], MessageItem]:
        """The message that is open, or a new one and its beginning."""
        if isinstance(self._open, MessageItem):
            return [], self._open
        out = self._make_room()
        index, id = self._place("message", "msg")
        message = self._open = MessageItem(id, index, self._emit, self._numbers)
        self._output.append(None)
        return [*out, *self._start(message)], message

    def _reason(self, event: ReasoningDelta) -> list[bytes]:
        theirs = event.id if event.id.startswith("rs_") else ""  # OpenAI's own, which it takes back as it is
        out: list[bytes] = []
        if event.text:
            out, thought = self._thought(theirs)
            out += thought.text(event.text)
        if event.signature or event.redacted:
            if event.redacted and not event.text and not self._belongs(event.id):
                out += self._make_room()
            more, thought = self._thought(theirs)
            proof = marked("redacted", event.redacted) if event.redacted else marked("signature", event.signature)
            encrypted = (event.redacted or event.signature) if theirs else proof
            out += [*more, *self._close_open("completed", encrypted=encrypted)]
        return out

    def _belongs(self, id: str) -> bool:
        return isinstance(self._open, ReasoningItem) and bool(id) and self._open.source == id

    def _thought(self, theirs: str) -> tuple[list[bytes], ReasoningItem]:
        """The thought that is open, or a new one and its beginning."""
        if isinstance(self._open, ReasoningItem) and self._open.source == theirs:
            return [], self._open
        out = self._make_room()
        index, id = self._place("reasoning", "rs", theirs)
        thought = self._open = ReasoningItem(id, index, self._emit, source=theirs)
        self._output.append(None)
        return [*out, *self._start(thought)], thought

    def _place(self, kind: str, prefix: Literal["msg", "rs"], id: str = "") -> tuple[int, str]:
        """Place and id of the next item: of one that the client has, as long as there are any."""
        while (item := self._known.get(len(self._output))) is not None:
            if item.get("type") == kind and id in ("", item.get("id")):
                return len(self._output), str(item.get("id") or id)
            self._output.append(item)
        return len(self._output), id or item_id(prefix, self._id, len(self._output))

    def _start(self, item: MessageItem | ReasoningItem) -> list[bytes]:
        return [] if item.index in self._known else [item.start()]

    def _call(self, event: ToolCallStarted) -> list[bytes]:
        out = self._make_room()
        if event.signature:
            index = len(self._output)
            encrypted = marked("call", event.signature)
            signed = ReasoningItem(item_id("rs", self._id, index), index, self._emit, encrypted=encrypted)
            out += [signed.start(), *signed.close("completed")]
            self._output.append(signed.document("completed"))
        index = len(self._output)
        call = CallItem(item_id("fc", self._id, index), index, self._emit, event)
        self._output.append(None)
        self._calls[event.index] = call
        return [*out, call.start()]

    def _add_arguments(self, event: ArgumentsDelta) -> list[bytes]:
        found = self._calls.get(event.index)
        return [found.add(event.text)] if found is not None and event.text else []

    def _make_room(self) -> list[bytes]:
        """Begin the response, and end what is whole, before a new item."""
        out = [*self._begin(Started()), *self._close_open("completed")]
        for number, call in list(self._calls.items()):
            if _is_object(call.arguments):
                out += self._close_call(number, "completed")
        return out

    def _close_open(self, status: ItemStatus, *, encrypted: str = "") -> list[bytes]:
        item, self._open = self._open, None
        if item is None:
            return []
        out = item.close(status, encrypted=encrypted) if isinstance(item, ReasoningItem) else item.close(status)
        self._output[item.index] = item.document(status)
        return out

    def _close_call(self, number: int, status: ItemStatus) -> list[bytes]:
        call = self._calls.pop(number)
        out = call.close(status)
        self._output[call.index] = call.document(status)
        return out

    def _close(self) -> list[bytes]:
        """End all that is open; an answer that was cut leaves its last items incomplete."""
        status, _ = ending(self._finished, refused=self._refused)
        left: ItemStatus = "completed" if status == "completed" else "incomplete"
        out = self._close_open(left)
        for number, call in list(self._calls.items()):
            out += self._close_call(number, "completed" if _is_object(call.arguments) else left)
        return out


def _is_object(text: str) -> bool:
    try:
        _object.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def write_response(answer: Answer, echo: Echo, id: str) -> bytes:
    """A whole answer as a response document: the one that its stream would end with."""
    documents: list[bytes] = []
    writer = ResponsesWriter(echo, id, on_end=documents.append)
    writer.write(answer.events())
    writer.end()
    return documents[0]
