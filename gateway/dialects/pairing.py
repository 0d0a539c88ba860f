"""A client's dialect and a provider's brought together: bytes passed where they are the same, else translated.

:func:`prepare` and :func:`read_whole` are what voices use for their methods of the same names.
:class:`TranslatedStream` is reader, facts and writer in one; :class:`PassedStream` is the same without a writer: the
provider's own bytes go to the client, and the reader only looks on. (OpenAI's chat completions, where most tokens flow,
pass without a reader: ``dialects/chat_stream.py``.)
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.call import Call, Encoded
from gateway.dialects.events import CONTENT, Event, Failed, Finished, Used, is_content
from gateway.dialects.kept import MAX_KEPT_CHARS, take_in
from gateway.dialects.provider import BadAnswer, ProviderDialect, Reader, Writer
from gateway.dialects.sse import EventSplitter, EventTooLong, event_data
from gateway.dialects.voice import Asking, Request, Voice, Whole

MAX_HELD_BYTES = 1_048_576  # what a stream may send before its first content


def prepare(
    voice: Voice, request: Request, dialect: ProviderDialect, model: str, *, keep: bool, closing: bytes = b""
) -> Asking:
    """What to send: the client's own document if the provider speaks its dialect, else the translated call.

    Args:
        closing: The event that ends a stream of this dialect, for a provider that leaves it out.

    Raises:
        RequestError: 400, naming a field that has no counterpart.
    """
    path = dialect.path(model, stream=request.stream)
    if dialect.wire == voice.dialect:
        passed = PassedStream(dialect.reader(), keep=keep, closing=closing) if request.stream else None
        return Asking(path=path, body=request.encode_as_is(model, dialect.quirks), stream=passed, passes=True)
    call = call_of(request)
    encoded = encode(call, dialect, model)
    stream = None
    if request.stream:
        stream = TranslatedStream(dialect.reader(), voice.writer(request), keep=keep, choices=call.n)
    return Asking(path=path, body=encoded.body, dropped=encoded.dropped, stream=stream)


def call_of(request: Request) -> Call:
    """The request in no dialect; what passes as bytes may yet be more than can be understood.

    Raises:
        RequestError: 400, naming the field where it is one field's fault.
    """
    try:
        return request.call()
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _too_much(error) from None


def encode(call: Call, dialect: ProviderDialect, model: str) -> Encoded:
    """The call as the provider gets it. Raises ``RequestError`` as :func:`call_of` does."""
    try:
        return dialect.encode(call, model)
    except RecursionError as error:
        raise _too_much(error) from None


def _too_much(error: Exception) -> RequestError:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return RequestError("invalid_request", 400, f"the request cannot be translated for this provider: {why}")


def read_whole(voice: Voice, request: Request, dialect: ProviderDialect, body: bytes) -> Whole:
    """A whole answer, passed or translated.

    Raises:
        BadAnswer: It is none, or says no reason for its end: as of a stream, nobody knows whether that is all of it.
    """
    answer = Answer.of(dialect.read_whole(body))
    finished = answer.first.finished
    if finished is None or not all(choice.finished for choice in answer.choices.values()):
        raise BadAnswer("an answer without a finish reason")
    if dialect.wire == voice.dialect:
        if not (body.isascii() or _is_utf8(body)):
            raise BadAnswer("an answer that is no UTF-8")
        return Whole(body=body, usage=answer.usage, finish_reason=finished.reason, answer=answer)

    def retell(usage: Usage) -> bytes:
        answer.usage = usage
        return voice.write_whole(answer, request)

    return Whole(
        body=voice.write_whole(answer, request),
        usage=answer.usage,
        finish_reason=finished.reason,
        answer=answer,
        retell=retell if answer.usage is None else None,
    )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Watched:
    """What any stream learns from its events; see :class:`gateway.dialects.voice.AnswerStream`."""

    def __init__(self, reader: Reader, *, keep: bool = False, choices: int = 1) -> None:
        self._reader = reader
        self._keep = keep
        self._choices = choices
        self._finished: set[int] = set()
        self._answer = Answer()
        self._given = False
        self.committed = False
        self.catching_up = False
        self.repeated = 0
        self.events = 0
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.error: Any = None

    @property
    def asked(self) -> Usage | None:
        return self._reader.asked

    @property
    def done(self) -> bool:
        return self._reader.done

    @property
    def malformed(self) -> int:
        return self._reader.malformed

    @property
    def finished(self) -> bool:
        return self.done or len(self._finished) >= self._choices

    @property
    def complete(self) -> bool:
        return self.done

    @property
    def billed(self) -> Usage | None:
        return self.usage

    def so_far(self) -> Answer | None:
        return self._answer if self._keep else None

    def notice(self, events: list[Event]) -> None:
        """Learn from the provider's events."""
        for event in events:
            if isinstance(event, CONTENT):
                self.events += 1
            elif isinstance(event, Finished):
                self.finish_reason = event.reason
                self._finished.add(event.choice)
            elif isinstance(event, Used):
                self.usage = event.usage
            elif isinstance(event, Failed):
                self.error = event
            if not self.committed and is_content(event):
                self.committed = True
        if self._keep:
            self._keep = take_in(self._answer, events, MAX_KEPT_CHARS)

    def notice_last(self, events: list[Event]) -> None:
        """Learn from what the bytes ended with. The client gets it only at the end of a whole answer, so of one that is
        not, it is no part that somebody else could go on behind."""
        keep, self._keep = self._keep, False
        self.notice(events)
        self._keep = keep and (not self.finished or take_in(self._answer, events, MAX_KEPT_CHARS))


class PassedStream(_Watched):
    """The provider's own bytes, event by event, for a client of the same dialect (server-sent events)."""

    def __init__(self, reader: Reader, *, keep: bool = False, choices: int = 1, closing: bytes = b"") -> None:
        super().__init__(reader, keep=keep, choices=choices)
        self._closing = closing
        self._splitter = EventSplitter()
        self._held = self._tail = b""

    def feed(self, data: bytes) -> bytes:
        block = self._look_at(self._splitter.feed(data))
        if self._given:
            return block
        self._held += block
        if len(self._held) > MAX_HELD_BYTES and not self.committed:
            raise EventTooLong(f"no content within {MAX_HELD_BYTES} bytes of the stream")
        return b""

    def _look_at(self, block: bytes) -> bytes:
        """Learn from whole events; give back what stands before an error, which the client hears of in our words.

        What is no JSON is left out: a client would break off there, and the rest may well be whole.
        """
        kept, begin, end = b"", 0, 0
        while end < len(block):
            start, end = end, block.index(b"\n\n", end) + 2
            malformed = self.malformed
            self.notice(self._reader.feed(block[start:end]))
            if self.error is not None:
                return kept + block[begin:start]
            if self.malformed > malformed and not _is_json(block[start:end]):
                kept, begin = kept + block[begin:start], end
        return kept + block[begin:]

    def first(self) -> bytes:
        held, self._held, self._given = self._held, b"", True
        return held

    def eof(self) -> None:
        """The last event may lack nothing but its blank line; then it counts, and the client gets it."""
        rest, malformed = self._splitter.rest.strip(b"\n"), self.malformed
        if rest:
            self.notice_last(self._reader.feed(rest + b"\n\n"))
            understood = self.malformed == malformed and self.error is None
            self._tail = rest + b"\n\n" if understood else b""

    def end(self, usage: Usage | None) -> bytes:
        tail, self._tail = self._tail, b""
        return tail if self.done else tail + self._closing


def _is_json(event: bytes) -> bool:
    try:
        msgspec.json.decode(event_data(event.strip(b"\n")) or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


class TranslatedStream(_Watched):
    """Provider's bytes → events → client's bytes."""

    def __init__(self, reader: Reader, writer: Writer, *, keep: bool = False, choices: int = 1) -> None:
        super().__init__(reader, keep=keep, choices=choices)
        self._writer = writer
        self._held: list[Event] = []
        self._tail: list[Event] = []
        self._held_bytes = 0

    def fresh(self, events: list[Event]) -> list[Event]:
        """Those that are for the client."""
        return events

    def feed(self, data: bytes) -> bytes:
        events = self.fresh(self._reader.feed(data))
        self.notice(events)
        if self.error is not None:  # the client hears of it in our words, and has what was said before it
            events = [event for event in events if not isinstance(event, Failed)]
        if self._given:
            return self._writer.write(events)
        self._held += events
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES and not self.committed:
            raise EventTooLong(f"no content within {MAX_HELD_BYTES} bytes of the stream")
        return b""

    def first(self) -> bytes:
        held, self._held, self._given = self._held, [], True
        return self._writer.write(held)

    @property
    def complete(self) -> bool:
        return self.done or (self.finished and self.usage is not None)

    def eof(self) -> None:
        self._tail = self.fresh(self._reader.end())
        self.notice_last(self._tail)

    def end(self, usage: Usage | None) -> bytes:
        tail, self._tail = self._tail, []
        if self.usage is None and usage is not None:
            tail.append(Used(usage))
        return self._writer.write(tail) + self._writer.end()
