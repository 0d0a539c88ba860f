"""Clients that speak OpenAI's Responses API: ``POST /v1/responses``.

To providers of the same dialect the bytes pass, hosted tools and all; to others the request is translated
(``responses_call``) and their answer written in this dialect (``responses_writer``).

What the store is for: before a target is asked, the exchange gives the request what is kept of the responses it refers
to (:attr:`ResponsesRequest.wanted`, :meth:`ResponsesRequest.with_kept`); after the end of an answer
:meth:`ResponsesVoice.to_keep` says what to keep. Ids belong to the key that asked. A provider of this dialect is shared
by all keys, and asked for an id that the gateway does not know: whoever learns another key's response id (they are not
guessable) could go on from that response there.

A stream that breaks off ends in ``error`` and then ``response.failed``, as OpenAI's do: some clients wait for the one,
some for the other.

Source: OpenAI API reference, "Create a model response", "Streaming events".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError
from gateway.core.facts import Record
from gateway.dialects import pairing
from gateway.dialects.answer import Answer
from gateway.dialects.chat_writer import now_s
from gateway.dialects.openai_chat import error_document
from gateway.dialects.pairing import PassedStream
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.responses_document import Echo
from gateway.dialects.responses_kept import ToKeep, keep
from gateway.dialects.responses_marks import new_response_id
from gateway.dialects.responses_reader import ResponsesReader, read_response
from gateway.dialects.responses_request import ResponsesRequest, parse_request
from gateway.dialects.responses_writer import Numbers, ResponsesWriter, write_response
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Whole, cost_comment

_encode = msgspec.json.Encoder().encode


class _Passed(PassedStream):
    """A stream that passes as it is, and says when it was chosen: an attempt that lost the race has a reader, too."""

    def __init__(self, reader: ResponsesReader, chosen: Callable[[ResponsesReader], None], *, keep: bool) -> None:
        super().__init__(reader, keep=keep)
        self._responses = reader
        self._chosen = chosen

    def first(self) -> bytes:
        self._chosen(self._responses)
        return super().first()


class ResponsesVoice:
    """One request; satisfies :class:`gateway.dialects.voice.Voice`."""

    dialect = "openai-responses"
    speaks_early = False
    conversation: str | None = None  # a header names it; the body's is the provider's

    def __init__(self) -> None:
        self._id = new_response_id()
        self._created = 0
        self._numbers = Numbers()
        self._echo = Echo({}, "")
        self._passed: ResponsesReader | None = None  # of the stream that passes
        self._writer: ResponsesWriter | None = None  # of the stream that does not
        self._written: list[bytes] = []  # documents that are ours; a provider's own is none of them
        self._last: bytes | None = None  # the document that the client got

    def parse(self, body: bytes) -> ResponsesRequest:
        request = parse_request(body)
        self._echo = Echo(request.fields, request.model)
        return request

    def prepare(self, request: ResponsesRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        if dialect.wire != self.dialect:
            return pairing.prepare(self, request, dialect, model, keep=keep)
        stream = _Passed(ResponsesReader(passed=True), self._chosen, keep=keep) if request.stream else None
        return Asking(
            path=dialect.path(model, stream=request.stream),
            body=request.encode_as_is(model, dialect.quirks),
            dropped=tuple(name for name in dialect.quirks.drops if name in request.fields),
            stream=stream,
            passes=True,
        )

    def _chosen(self, reader: ResponsesReader) -> None:
        self._passed = reader
        self._numbers.follow(reader)

    def read_whole(self, request: ResponsesRequest, dialect: ProviderDialect, body: bytes) -> Whole:
        if dialect.wire != self.dialect:
            return pairing.read_whole(self, request, dialect, body)
        answer = Answer.of(read_response(body, passed=True))
        finished = answer.first.finished
        return Whole(body=body, usage=answer.usage, finish_reason=finished.reason if finished else "", answer=answer)

    def writer(self, request: ResponsesRequest) -> ResponsesWriter:
        self._created = self._created or now_s()
        return ResponsesWriter(
            self._echo,
            self._id,
            self._numbers,
            created=self._created,
            known=self._passed.items if self._passed is not None else None,
            on_begin=self._begun,
            on_end=self._ended,
        )

    def _begun(self, writer: ResponsesWriter) -> None:
        self._writer = writer

    def _ended(self, document: bytes) -> None:
        self._written.append(document)
        self._last = document

    def write_whole(self, answer: Answer, request: ResponsesRequest) -> bytes:
        document = write_response(answer, self._echo, self._id)
        self._written.append(document)
        return document

    def to_keep(self, request: ResponsesRequest) -> ToKeep | None:
        """What is to be kept of an answer. To be asked when all of it was made: after the stream's ``end``, or after
        :meth:`whole`.

        Args:
            request: As it was asked, with what was kept before.

        Returns:
            None if the client said ``store: false``, or if there is no whole answer.
        """
        document = self._last
        if document is None and self._passed is not None:
            document = self._passed.last
        if document is None or not request.store:
            return None
        held = not any(document is own for own in self._written)
        return keep(document, request.items_to_keep(), previous=request.previous_id, held=held)

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return cost_comment(record)

    def whole(self, body: bytes, record: Record) -> bytes:
        self._last = body
        return body

    def breaks(self, error: GatewayError) -> bytes:
        failing = self._writer
        if failing is None:
            id = self._passed.id if self._passed is not None else ""
            failing = ResponsesWriter(self._echo, id or self._id, self._numbers)
        said = {"type": "error", "code": error.code, "message": error.public_message, "param": error.param}
        first = encode_event(_encode({**said, "sequence_number": self._numbers()}), event=b"error")
        return first + failing.fail()

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)
