"""The two forms of a Gemini stream: server-sent events (``?alt=sse``), or the elements of one JSON array.

In both each piece is a whole ``GenerateContentResponse``. The array is what clients get that do not ask for events; it
begins with the first piece and is closed by the end or by the error that stands in its place, so that what broke off
is JSON, too.

One frame belongs to one client's answer, whoever writes into it: a repaired answer goes on in the same array.
Source: Gemini API reference, "models.streamGenerateContent"; Google's API design guide on streaming over HTTP.
"""

from __future__ import annotations

from gateway.core.facts import Usage
from gateway.dialects.pairing import PassedStream
from gateway.dialects.provider import Reader
from gateway.dialects.sse import encode_event, event_data, split_events


class Frame:
    """Puts pieces into their form.

    Args:
        events: Server-sent events; else an array.
    """

    def __init__(self, *, events: bool) -> None:
        self.events = events
        self._begun = False

    def piece(self, document: bytes) -> bytes:
        """One response, or an error."""
        if self.events:
            return encode_event(document)
        before, self._begun = b",\r\n" if self._begun else b"[", True
        return before + document

    def end(self) -> bytes:
        """The end of the stream; to be called once."""
        if self.events:
            return b""
        return b"\n]\n" if self._begun else b"[]\n"


class PassedArray(PassedStream):
    """A provider's events as they are, each an element of the client's array."""

    def __init__(self, reader: Reader, frame: Frame, *, keep: bool = False, choices: int = 1) -> None:
        super().__init__(reader, keep=keep, choices=choices)
        self._frame = frame

    def feed(self, data: bytes) -> bytes:
        return self._elements(super().feed(data))

    def first(self) -> bytes:
        return self._elements(super().first())

    def end(self, usage: Usage | None) -> bytes:
        return self._elements(super().end(usage)) + self._frame.end()

    def _elements(self, block: bytes) -> bytes:
        found = (event_data(event) for event in split_events(block))
        return b"".join(self._frame.piece(data) for data in found if data is not None)
