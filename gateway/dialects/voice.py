"""How a client hears an answer: the interface between the exchange and the client's dialect.

The exchange asks a provider and relays what comes; a voice knows the client's wire format. Voices are sans-I/O: they
turn requests into :class:`ChatRequest` and blocks of provider events into bytes, and keep no more state than their
format needs (an event counter, a list of sources).
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError
from gateway.core.facts import Record
from gateway.dialects.openai_chat import ChatRequest


class Voice(Protocol):
    """One client dialect, for one request."""

    speaks_early: bool  # it has something to say before the model does, so its status is fixed earlier
    conversation: str | None  # as the body names it, once it was parsed

    def parse(self, body: bytes) -> ChatRequest:
        """The client's request. Raises ``RequestError``."""

    def context(self, news: LoaderNews) -> bytes:
        """What to tell of a loader."""

    def begins(self, record: Record) -> bytes:
        """What to tell when a target has begun to answer."""

    def events(self, block: bytes) -> bytes:
        """A block of the provider's events, as the client gets it."""

    def ends(self, record: Record) -> bytes:
        """The end of a stream that was whole."""

    def breaks(self, error: GatewayError) -> bytes:
        """The end of a stream that is not: one error event."""

    def whole(self, body: bytes, record: Record) -> bytes:
        """A provider's non-streamed answer, as the client gets it."""

    def error(self, error: GatewayError) -> dict[str, Any]:
        """The error document of a request that got no answer."""
