"""A client's dialect and a provider's brought together: bytes passed where they are the same, else translated.

:func:`prepare` and :func:`read_whole` are what voices use for their methods of the same names.
:class:`TranslatedStream` is reader, facts and writer in one; :class:`PassedStream` is the same without a writer: the
provider's own bytes go to the client, and the reader only looks on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, field

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.events import CONTENT, Event, Failed, Finished, TextDelta, Used, is_content
from gateway.dialects.provider import ProviderDialect, Reader, Writer
from gateway.dialects.sse import EventSplitter, EventTooLong
from gateway.dialects.voice import Asking, Request, Voice, Whole

MAX_HELD_BYTES = 1_048_576  # what a stream may send before its first content
MAX_KEPT_CHARS = 1_048_576  # of an answer that is kept for a repair or a conversation


def prepare(voice: Voice, request: Request, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
    """What to send: the client's own document if the provider speaks its dialect, else the translated call.

    Raises:
        RequestError: 400, naming a field that has no counterpart.
    """
    path = dialect.path(model, stream=request.stream)
    if dialect.wire == voice.dialect:
        passed = PassedStream(dialect.reader(), keep) if request.stream else None
        return Asking(path=path, body=request.encode_as_is(model, dialect.quirks), stream=passed)
    call = request.call()
    encoded = dialect.encode(call, model)
    stream = TranslatedStream(dialect.reader(), voice.writer(request), keep, call.n) if request.stream else None
    return Asking(path=path, body=encoded.body, dropped=encoded.dropped, stream=stream)


def read_whole(voice: Voice, request: Request, dialect: ProviderDialect, body: bytes) -> Whole:
    """A whole answer, passed or translated.

    Raises:
        BadAnswer: It is none.
    """
    answer = Answer.of(dialect.read_whole(body))
    finished = answer.first.finished
    written = body if dialect.wire == voice.dialect else voice.write_whole(answer, request)
    return Whole(body=written, usage=answer.usage, finish_reason=finished.reason if finished else "", answer=answer)


@define(slots=True)
class _Watched:
    """What any stream learns from its events; see :class:`gateway.dialects.voice.AnswerStream`."""

    reader: Reader
    keep: bool = False
    choices: int = 1
    committed: bool = False
    events: int = 0
    finish_reason: str = ""
    usage: Usage | None = None
    error: Any = None
    _finished: set[int] = field(factory=set)
    _answer: Answer = field(factory=Answer)
    _kept_chars: int = 0

    @property
    def done(self) -> bool:
        return self.reader.done

    @property
    def malformed(self) -> int:
        return self.reader.malformed

    @property
    def finished(self) -> bool:
        return self.done or len(self._finished) >= self.choices

    def so_far(self) -> Answer | None:
        return self._answer if self.keep and self._kept_chars <= MAX_KEPT_CHARS else None

    def _notice(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Finished():
                    self.finish_reason = event.reason
                    self._finished.add(event.choice)
                case Used():
                    self.usage = event.usage
                case Failed():
                    self.error = event
                case _ if isinstance(event, CONTENT):
                    self.events += 1
            if not self.committed and is_content(event):
                self.committed = True
            if self.keep and self._kept_chars <= MAX_KEPT_CHARS:
                self._kept_chars += len(event.text) if isinstance(event, TextDelta) else 32
                self._answer.add(event)


@define(slots=True)
class PassedStream(_Watched):
    """The provider's own bytes, event-wise, for a client of the same dialect (server-sent events)."""

    _splitter: EventSplitter = field(factory=EventSplitter)
    _held: bytes = b""
    _given: bool = False

    def feed(self, data: bytes) -> bytes:
        block = self._splitter.feed(data)
        self._notice(self.reader.feed(data))
        if self.error is not None:
            return b""  # the client gets our own words, in its dialect
        if self._given:
            return block
        self._held += block
        if len(self._held) > MAX_HELD_BYTES and not self.committed:
            raise EventTooLong(f"no content within {MAX_HELD_BYTES} bytes of the stream")
        return b""

    def first(self) -> bytes:
        held, self._held, self._given = self._held, b"", True
        return held

    def end(self) -> bytes:
        self._notice(self.reader.end())
        return b""


@define(slots=True)
class TranslatedStream(_Watched):
    """Provider's bytes → events → client's bytes."""

    writer: Writer = field(kw_only=False)
    _held: list[Event] = field(factory=list)
    _given: bool = False

    def __init__(self, reader: Reader, writer: Writer, keep: bool = False, choices: int = 1) -> None:
        self.__attrs_init__(reader, keep, choices, writer=writer)  # type: ignore[attr-defined]

    def feed(self, data: bytes) -> bytes:
        events = self.reader.feed(data)
        self._notice(events)
        if self._given:
            return self.writer.write(events)
        self._held += events
        return b""

    def first(self) -> bytes:
        held, self._held, self._given = self._held, [], True
        return self.writer.write(held)

    def end(self) -> bytes:
        events = self.reader.end()
        self._notice(events)
        return self.writer.write(events) + self.writer.end()
