"""How a client asks and hears: the interface between the exchange and the client's dialect.

A :class:`Voice` is one client dialect, for one request. The exchange asks it what to send to a target
(:meth:`Voice.prepare`) and gets an :class:`Asking`: the provider's path and body, and an :class:`AnswerStream` that
turns the provider's bytes into the client's. Whether that stream passes bytes through (same dialect on both sides) or
translates them by way of events (``dialects/pairing.py``) is no concern of the exchange.

Everything here is sans-I/O. A request may be asked several times (retry, hedge, failover), so each ``Asking`` has a
stream of its own, and a stream gives nothing to the client before it is chosen (:meth:`AnswerStream.first`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import Factory, field

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError
from gateway.core.facts import Record, Usage
from gateway.core.values import value
from gateway.dialects.answer import Answer
from gateway.dialects.call import Call
from gateway.dialects.provider import ProviderDialect, Quirks, Writer


@value(kw_only=True, slots=True)
class Opening:
    """What a voice may need of the request's head: some dialects put the model, or a version, outside the body.

    Attributes:
        path: As the client asked, decoded.
        query: Raw query string.
        headers: Names in lower case.
    """

    path: str
    query: bytes = b""
    headers: Mapping[bytes, bytes] = Factory(dict)


class Request(Protocol):
    """A parsed request of any dialect."""

    @property
    def model(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    @property
    def user(self) -> str | None: ...
    @property
    def last_user_text(self) -> str: ...
    @property
    def max_tokens(self) -> int:
        """The most tokens that all its answers together may have; 0 if the client did not say."""
        ...

    def messages(self) -> list[dict[str, Any]]:
        """The messages, each with its ``role``; every other field is the request's own business."""
        ...

    def with_messages(self, messages: list[dict[str, Any]]) -> Request:
        """The same request with other messages: its own from :meth:`messages`, or new ones with a ``content`` text."""
        ...

    def call(self) -> Call:
        """The request in no dialect. Raises ``RequestError`` 400 that names the field."""
        ...

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        """The client's own document, for a provider of the same dialect, which may know the model by another name."""
        ...


@value(kw_only=True, slots=True)
class Whole:
    """An answer that was not streamed.

    Attributes:
        body: As the client gets it.
        answer: What it says; None for dialects without one (embeddings).
        retell: Writes the body again with an estimated usage, where it is ours to write and the provider told none.
    """

    body: bytes
    usage: Usage | None = None
    finish_reason: str = ""
    answer: Answer | None = None
    retell: Callable[[Usage], bytes] | None = field(default=None, eq=False)


class AnswerStream(Protocol):
    """One provider stream, read by read, on its way to one client.

    Attributes:
        committed: Content was seen. Nothing is given out before, so that a failure can still change the status.
        events: Content events seen; about one per token.
        finish_reason: "" until one was seen.
        usage: As the provider reported it.
        asked: The prompt's usage, from a provider that tells it before the answer's.
        done: The provider's own end was seen.
        finished: The answer is whole: said so, or every choice has its finish reason.
        complete: It is, and nothing that belongs to it is still to come: :meth:`end` can write what is missing.
        billed: Usage as this provider reported it; differs from ``usage`` where an answer has parts from several.
        error: The provider's error event, if it sent one.
        malformed: Events that were left out because they could not be read.
        catching_up: What it read last, the client already has; see ``dialects.resumed``.
        repeated: Content events that the client already had; its provider is paid for them all the same.
    """

    committed: bool
    catching_up: bool
    repeated: int
    events: int
    finish_reason: str
    usage: Usage | None
    error: Any

    @property
    def asked(self) -> Usage | None: ...
    @property
    def done(self) -> bool: ...
    @property
    def malformed(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
    @property
    def billed(self) -> Usage | None: ...

    def feed(self, data: bytes) -> bytes:
        """Take one network read; what the client gets for it once :meth:`first` was called.

        Raises:
            EventTooLong, BadAnswer: Garbage.
        """
        ...

    def first(self) -> bytes:
        """What the client gets first; called once, after the commit point, of the stream that was chosen."""
        ...

    def eof(self) -> None:
        """The provider's bytes have ended; what was held back is understood now."""
        ...

    def end(self, usage: Usage | None) -> bytes:
        """The end of a whole answer, as far as the provider's bytes did not bring it themselves.

        Args:
            usage: The final one, estimated if the provider gave none; told to a client that asked for it.
        """
        ...

    def so_far(self) -> Answer | None:
        """What the client has of the answer; None if it was not kept or is too long to be."""
        ...


@value(kw_only=True, slots=True)
class Asking:
    """What to send to one target, and how to read what comes back.

    Attributes:
        path: Path and query below the provider's base path.
        body: The document.
        dropped: Fields of the client's that the provider has no counterpart for; told in ``x-sluice-dropped``.
        headers: Of this request alone, beside the provider's own.
        stream: For a streamed request.
        generates: A model makes the answer token by token, so that all of it may take long; if it is not streamed,
            nothing is heard of it until then.
        ready: The answer, where no provider is needed for it.
        passes: The provider's documents are in the client's dialect: its errors, too, pass as they are.
    """

    path: bytes
    body: bytes
    dropped: tuple[str, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AnswerStream | None = field(default=None, eq=False)
    generates: bool = True
    ready: Whole | None = None
    passes: bool = False


class Voice(Protocol):
    """One client dialect, for one request. ``request`` is always what its own :meth:`parse` gave.

    Attributes:
        dialect: ``openai`` | ``openai-responses`` | ``anthropic`` | ``gemini`` | …
        speaks_early: It has something to say before the model does, so its status is fixed earlier.
        conversation: As the body names it, once it was parsed.
    """

    @property
    def dialect(self) -> str: ...
    @property
    def speaks_early(self) -> bool: ...
    @property
    def conversation(self) -> str | None: ...

    def parse(self, body: bytes) -> Request:
        """The client's request. Raises ``RequestError``."""
        ...

    def prepare(self, request: Any, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        """What to send to a target; see ``dialects.pairing.prepare``, which most voices use.

        Args:
            keep: :meth:`AnswerStream.so_far` will be asked for.

        Raises:
            RequestError: 400, naming the field that this provider has no counterpart for and that must not be lost.
        """
        ...

    def read_whole(self, request: Any, dialect: ProviderDialect, body: bytes) -> Whole:
        """A provider's whole answer. Raises ``BadAnswer``."""
        ...

    def writer(self, request: Any) -> Writer:
        """A new writer of streamed answers in this dialect."""
        ...

    def write_whole(self, answer: Answer, request: Any) -> bytes:
        """A whole answer in this dialect."""
        ...

    def context(self, news: LoaderNews) -> bytes:
        """What to tell of a loader."""
        ...

    def begins(self, record: Record) -> bytes:
        """What to tell when a target has begun to answer."""
        ...

    def ends(self, record: Record) -> bytes:
        """What to tell after the end of a stream that was whole; the record's usage is final."""
        ...

    def whole(self, body: bytes, record: Record) -> bytes:
        """The last touch to a whole answer: ours alone puts the request's facts into it."""
        ...

    def breaks(self, error: GatewayError) -> bytes:
        """The end of a stream that is not whole: one error event."""
        ...

    def error(self, error: GatewayError) -> dict[str, Any]:
        """The error document of a request that got no answer."""
        ...


def cost_comment(record: Record) -> bytes:
    """What a stream cost, as a comment behind its events: clients skip it, people and proxies find it."""
    return f": x-sluice-cost-usd {record.cost_usd}\n\n".encode() if record.cost_usd else b""
