"""Which path is which endpoint's: exact paths by one look-up, patterns by a short list after it.

A pattern has one ``{…}``, which stands for one or more characters: ``/v1beta/models/{model}:generateContent``. Slashes
are among them, because the names of models have slashes. Patterns are tried in the order they were added, only for what
no exact path is; so the endpoints that most requests go to cost what they would without any.

An endpoint's ``name`` is a pattern's part before the ``{…}``: metrics and records know a bounded set of them, whatever
clients put into paths.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import frozen

from gateway.core.errors import GatewayError
from gateway.dialects.voice import Opening, Voice
from gateway.exchange import Answer, Exchange

Listen = Callable[[], Awaitable[bytes]]
ExchangeView = Callable[[Exchange, Listen, Voice], Awaitable[Answer]]
ErrorDocument = Callable[[GatewayError], dict[str, Any]]

ANTHROPIC_MESSAGES: Final = "/v1/messages"
GEMINI_GENERATE: Final = "/v1beta/models/{model}:generateContent"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


def event_stream(opening: Opening) -> bytes:
    """The content type of streams in nearly all dialects."""
    return EVENT_STREAM


@frozen(kw_only=True, slots=True)
class Endpoint:
    """What costs money and therefore goes through the door.

    Attributes:
        name: For records and metrics.
        view: Answers a request.
        voice: Makes the dialect of one request.
        error: The error document in this dialect, for refusals before there is a voice.
        stream_type: The content type of a request's stream.
        takes_google_key: Clients may send their key as ``x-goog-api-key`` or, in the query, as ``key``.
    """

    name: str
    view: ExchangeView
    voice: Callable[[Opening], Voice]
    error: ErrorDocument
    stream_type: Callable[[Opening], bytes] = event_stream
    takes_google_key: bool = False


class Endpoints:
    """The ``POST`` endpoints of one app."""

    def __init__(self) -> None:
        self._exact: dict[str, Endpoint] = {}
        self._patterns: list[tuple[str, str, Endpoint]] = []

    def add(self, path: str, endpoint: Endpoint) -> None:
        """Add a path or a pattern."""
        if "{" in path:
            before, after = split_pattern(path)
            self._patterns.append((before, after, endpoint))
        else:
            self._exact[path] = endpoint

    def find(self, path: str) -> Endpoint | None:
        """Whose path it is. *Cost*: one look-up, and for what is no exact path two comparisons for each pattern."""
        return self._exact.get(path) or self._match(path)

    def _match(self, path: str) -> Endpoint | None:
        for before, after, endpoint in self._patterns:
            if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                return endpoint
        return None


def split_pattern(path: str) -> tuple[str, str]:
    """What stands before and after the ``{…}``."""
    before, _, rest = path.partition("{")
    return before, rest.partition("}")[2]


def name_of(path: str) -> str:
    """The name of the endpoint at a path or pattern."""
    return split_pattern(path)[0].rstrip("/") if "{" in path else path
