"""The body of a request: network reads in, body bytes out, and the exact byte at which it ends.

Nothing is parsed beyond a body's last byte: :meth:`feed` hands back the surplus, which is the next request's. Two
framings: :class:`Sized` knows its length, :class:`Chunked` decodes chunks as strictly as RFC 9112 §7.1 writes them,
because a chunk size that two parsers read differently is how requests are smuggled.

Limits: ``max_bytes`` of decoded body (413); a chunk-size line or trailer line :data:`MAX_CHUNK_LINE_BYTES`;
extensions and trailers together :data:`MAX_OVERHEAD_BYTES` (400). Extensions and trailers are checked and dropped.
Buffering is the caller's to bound: ``size`` says how much is held.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from gateway.edge.http1_head import CHUNKED, Head, Refusal

MAX_CHUNK_LINE_BYTES: Final = 256
MAX_OVERHEAD_BYTES: Final = 16_384
MAX_FIELD: Final = "server.max_body_bytes"
_FREE_LINE_BYTES: Final = 18  # a size line without extensions is no overhead

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Body(Protocol):
    """A request body on its way in.

    Attributes:
        complete: The last byte has been fed.
        size: Bytes fed and not taken yet.
    """

    complete: bool
    size: int

    def feed(self, data: bytes) -> bytes:
        """Take in what belongs to the body; returns what comes after it. Raises :class:`Refusal`."""
        ...

    def take(self) -> bytes:
        """All decoded bytes that are there, possibly none."""
        ...

    def remaining_bytes(self) -> float:
        """How much is still to come; infinite if nobody knows."""
        ...


def body_of(head: Head, max_bytes: int, max_field: str = MAX_FIELD) -> Body:
    """The body a head announces.

    Args:
        max_field: What ``max_bytes`` is called in the configuration.

    Raises:
        Refusal: 413, it is announced larger than ``max_bytes``.
    """
    if head.body_bytes == CHUNKED:
        return Chunked(max_bytes, max_field)
    if head.body_bytes > max_bytes:
        raise too_large(max_bytes, max_field)
    return Sized(head.body_bytes)


def too_large(max_bytes: int, max_field: str = MAX_FIELD) -> Refusal:
    """The refusal of a body beyond its limit."""
    return Refusal(413, "body_too_large", f"The request body is larger than {max_bytes} bytes ({max_field}).")


class Sized:
    """A body of known length; length 0 is complete from the start."""

    __slots__ = ("_pieces", "_remaining_bytes", "complete", "size")

    def __init__(self, length: int) -> None:
        self._remaining_bytes = length
        self._pieces: list[bytes] = []
        self.size = 0
        self.complete = length == 0

    def feed(self, data: bytes) -> bytes:
        surplus = b""
        if len(data) > self._remaining_bytes:
            data, surplus = data[: self._remaining_bytes], data[self._remaining_bytes :]
        if data:
            self._pieces.append(data)
            self.size += len(data)
            self._remaining_bytes -= len(data)
            self.complete = not self._remaining_bytes
        return surplus

    def take(self) -> bytes:
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        return data

    def remaining_bytes(self) -> float:
        return self._remaining_bytes


class Chunked:
    """A body in chunks. States: size line, data, the CR LF after data, trailer lines."""

    __slots__ = (
        "_expect", "_left", "_max_bytes", "_max_field", "_overhead", "_pending", "_pieces", "_total", "complete",
        "size",
    )  # fmt: skip

    def __init__(self, max_bytes: int, max_field: str = MAX_FIELD) -> None:
        self._max_bytes = max_bytes
        self._max_field = max_field
        self._expect = "size"
        self._left = 0  # bytes of the chunk still to come
        self._pending = b""  # a line that is not complete yet
        self._overhead = 0
        self._total = 0
        self._pieces: list[bytes] = []
        self.size = 0
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        if self._pending:
            data, self._pending = self._pending + data, b""
        at = 0
        while not self.complete and at < len(data):
            if self._expect == "data":
                at = self._feed_data(data, at)
                continue
            end = data.find(b"\n", at, at + MAX_CHUNK_LINE_BYTES)
            if end < 0:
                self._keep_line(data[at:])
                return b""
            self._line(data[at : end + 1])
            at = end + 1
        return data[at:]

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return data

    def remaining_bytes(self) -> float:
        return 0 if self.complete else float("inf")

    def _feed_data(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._left]
        self._pieces.append(piece)
        self.size += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._expect = "end"
        return at + len(piece)

    def _keep_line(self, start: bytes) -> None:
        if len(start) >= MAX_CHUNK_LINE_BYTES:
            raise _bad_chunk(f"a line is longer than {MAX_CHUNK_LINE_BYTES} bytes")
        if self._expect == "end" and not b"\r\n".startswith(start):
            raise _bad_chunk("a chunk's data is longer than its size")
        self._pending = start

    def _line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n":
            raise _bad_chunk("lines end with CR LF")
        line = line[:-2]
        self._overhead += max(0, len(line) - _FREE_LINE_BYTES)
        if self._overhead > MAX_OVERHEAD_BYTES:
            raise _bad_chunk(f"extensions and trailers are longer than {MAX_OVERHEAD_BYTES} bytes")
        if self._expect == "size":
            self._size_line(line)
        elif self._expect == "end":
            if line:
                raise _bad_chunk("a chunk's data is longer than its size")
            self._expect = "size"
        elif not line:
            self.complete = True
        elif not _TRAILER.fullmatch(line):
            raise _bad_chunk("a trailer is no header line")

    def _size_line(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise _bad_chunk("a chunk size is one to fifteen hexadecimal digits")
        self._left = int(match[1], 16)
        self._total += self._left
        if self._total > self._max_bytes:
            raise too_large(self._max_bytes, self._max_field)
        self._expect = "data" if self._left else "trailer"


def _bad_chunk(what: str) -> Refusal:
    return Refusal(400, "malformed_body", f"The chunked request body is malformed: {what}.")
