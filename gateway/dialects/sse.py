"""Server-sent events: bytes in, complete events out; and the one way we write them.

A stream arrives in network reads that end anywhere. :class:`EventSplitter` gives back, per read, the bytes up to the
last complete event, found by a scan at C speed, and keeps the rest. Streams with CR or CRLF line ends, which no large
provider sends, are normalised on a slower path, so everything behind it only ever sees ``\\n\\n``.

Limit: one event may take ``max_event_bytes``; a longer one is the provider's garbage.
Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventTooLong(ValueError):
    """An event did not end within the limit."""


class EventSplitter:
    """Cuts a byte stream at event boundaries. Any split of the same bytes gives the same events."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._pending_cr = False
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """Give back all complete events that ``data`` completes, each ending in one blank line; b"" if none.

        Raises:
            EventTooLong: An event grew beyond the limit.
        """
        if not data:
            return b""  # nothing follows a CR yet
        if not self._started:
            data = self._skip_bom(data)
        if self._pending_cr or b"\r" in data:
            data = self._normalise(data)
        if not self._rest and data.endswith(b"\n\n"):
            return data if not data.endswith(b"\n\n\n") else _ended_once(data)
        whole = self._rest + data if self._rest else data
        # Only a boundary that the new bytes take part in can be new.
        end = whole.rfind(b"\n\n", max(len(self._rest) - 1, 0))
        if end < 0:
            self._rest = whole
            if len(whole) > self._max_event_bytes:
                raise EventTooLong(f"a server-sent event is longer than {self._max_event_bytes} bytes")
            return b""
        self._rest = whole[end + 2 :]
        block = whole[: end + 2]
        return block if not block.endswith(b"\n\n\n") else _ended_once(block)

    @property
    def rest(self) -> bytes:
        """Bytes of an event that has not ended; at the end of a stream this is a cut event."""
        return self._rest.lstrip(b"\n")

    def _skip_bom(self, data: bytes) -> bytes:
        whole = self._rest + data
        if len(whole) < 3 and b"\xef\xbb\xbf".startswith(whole):
            self._rest = whole
            return b""
        self._rest = b""
        self._started = True
        return whole.removeprefix(b"\xef\xbb\xbf")

    def _normalise(self, data: bytes) -> bytes:
        # A CR at the end of a read may be half of a CRLF: the line ends with it, and a LF that follows is skipped.
        if self._pending_cr:
            data = data.removeprefix(b"\n")
            self._pending_cr = False
        if data.endswith(b"\r"):
            self._pending_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _ended_once(block: bytes) -> bytes:
    """The events of a server that writes more blank lines than one behind them."""
    return block.rstrip(b"\n") + b"\n\n"


def split_events(block: bytes) -> list[bytes]:
    """Cut what :meth:`EventSplitter.feed` gave into its events, each without its blank line."""
    return [event for piece in block.split(b"\n\n") if (event := piece.strip(b"\n"))]


def event_data(event: bytes) -> bytes | None:
    """The ``data`` of one event, lines joined by a line feed; None when it has none (a comment, a bare ``id``)."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[6:] if event[5:6] == b" " else event[5:]
    lines = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None


def encode_event(data: bytes, *, event: bytes | None = None, id: bytes | None = None) -> bytes:
    """One event as bytes. ``data`` is JSON and so has no line feed in it."""
    head = b"id: " + id + b"\n" if id is not None else b""
    if event is not None:
        head += b"event: " + event + b"\n"
    return head + b"data: " + data + b"\n\n"
