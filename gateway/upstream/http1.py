"""One HTTP/1.1 connection to a provider: writes a request, parses the answer, knows whether it can be used again.

The parser is httptools (llhttp in C, strict by default); what it tolerates and we do not is refused here: any transfer
coding but one ``chunked``, ``101``, versions other than 1.0 and 1.1, heads and trailers beyond :class:`Limits`, framing
that outweighs the body (chunk extensions without end). Informational answers (1xx) are dropped.

While a large request body waits for the socket, or for its own source (:class:`Upload`), a second task reads: a
provider may answer before it took the whole body (413, 401). The writing goes on until that answer is complete or the
connection fails, then it stops, and the connection is not used again. Small bodies, the normal case, are written at
once and need no second task.

A connection is used again when the answer ended by its own framing, nothing came after it, the request was written
whole and both sides want it (RFC 9112 §9.3). Never after HEAD: the parser cannot be told that there is no body, so
whether something follows could not be known.

Limits: no ``Expect: 100-continue``, no trailers in requests, no upgrade, no CONNECT. A provider that answers at length
before it took the body, and takes no more of it until that answer is read, waits for ever: the caller's deadline.
Content codings are passed through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import httptools
import trio
from attrs import frozen

from gateway.upstream.errors import Kind, TransportError
from gateway.upstream.wire import Wire

Headers = list[tuple[bytes, bytes]]
Phase = Literal["pool", "connect", "write", "read"]
OnPhase = Callable[[Phase], None]

_BROKEN = (OSError, trio.ClosedResourceError)  # the latter: closed on this side, by another task
_EARLY_ANSWER_BYTES = 65_536  # what is read ahead of an answer that comes before the request was written
_CHUNK_ALLOWANCE_BYTES = 16  # framing that an honest chunk may cost, whatever its size


@frozen(kw_only=True, slots=True)
class Limits:
    """What an answer may cost before it is refused."""

    head_bytes: int = 65_536  # status line, headers and informational answers together; trailers again as much
    header_count: int = 128  # and as many trailers
    excess_bytes: int = 16_384  # chunk framing beyond what the body explains


@frozen(kw_only=True, slots=True)
class Upload:
    """A request body that comes in parts and is never held whole.

    Attributes:
        read: The next part, b"" at the end. Called when the part before was handed to the kernel; cancelled when the
            provider has answered before it took all. What it raises, no ``OSError``, ends the exchange.
        length: Of all parts together; None sends them in chunks.
    """

    read: Callable[[], Awaitable[bytes]]
    length: int | None = None


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value of ``name`` (lower case)."""
    for key, value in headers:
        if key == name:
            return value
    return None


class Connection:
    """A wire and a parser; carries one exchange after the other. The ``on_`` methods are the parser's callbacks.

    Attributes:
        status: Of the answer; 0 until its head is complete.
        headers, trailers: Of the answer, names in lower case.
        complete: The last byte of the answer has arrived.
        reused: It carried a request before this one.
        idle_since: For the pool, seconds on the pool's clock.
    """

    __slots__ = (
        "_bodyless",
        "_excess",
        "_fault",
        "_head_bytes",
        "_keep_alive",
        "_label",
        "_limits",
        "_parser",
        "_pieces",
        "_received",
        "_surplus",
        "_trailer_bytes",
        "_until_close",
        "_written",
        "complete",
        "headers",
        "idle_since",
        "on_body",
        "reused",
        "status",
        "trailers",
        "wire",
    )

    def __init__(self, wire: Wire, label: str, limits: Limits) -> None:
        self.wire = wire
        self._label = label
        self._limits = limits
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # straight into the list: no Python frame per chunk
        self._parser: Any = httptools.HttpResponseParser(self)
        self.idle_since = 0.0
        self.reused = False
        self.complete = False
        self._written = False

    def _begin(self, bodyless: bool) -> None:
        self.status = 0
        self.headers: Headers = []
        self.trailers: Headers = []
        self.complete = False
        self._bodyless = bodyless
        self._written = False
        self._received = False
        self._surplus = False
        self._keep_alive = False
        self._until_close = False
        self._fault: TransportError | None = None
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._excess = 0
        self.wire.sent = False

    async def exchange(self, head: bytes, body: bytes, *, bodyless: bool, on_phase: OnPhase | None) -> None:
        """Write a request and read the head of its answer (and whatever came with it).

        Args:
            bodyless: The answer has no body whatever its headers say (HEAD).

        Raises:
            TransportError: ``write``, ``read`` or ``protocol``; close the connection.

        *Cancellation*: the connection is in an unknown state; close it.
        """
        self._begin(bodyless)
        if on_phase is not None:
            on_phase("write")
        try:
            self._written = self.wire.start(head, body)
            if not self._written:
                await self._write_watched(self.wire.finish)
        except _BROKEN as exc:
            await self._answer_despite(exc)
        if on_phase is not None:
            on_phase("read")
        while not self.status:
            await self._read()

    async def upload(self, head: bytes, body: Upload, *, on_phase: OnPhase | None) -> None:
        """As :meth:`exchange`, for a body that comes in parts."""
        self._begin(False)
        if on_phase is not None:
            on_phase("write")
        try:
            await self._write_watched(partial(self._write_parts, head, body))
        except _BROKEN as exc:
            await self._answer_despite(exc)
        if on_phase is not None:
            on_phase("read")
        while not self.status:
            await self._read()

    async def _write_parts(self, head: bytes, body: Upload) -> None:
        """Write the head and then part after part, each when the socket has taken the one before."""
        left = body.length
        data = head
        while True:
            part = await body.read()
            if left is not None:
                left -= len(part)
                if left < 0 or (left and not part):
                    raise self._failed("request", f"the body has not the {body.length} bytes that were announced")
                data += part
            else:
                data += b"%x\r\n%b\r\n" % (len(part), part)  # the last one, empty, is the end
            if data and not self.wire.go_on(data):
                await self.wire.finish()
            if not part:
                return
            data = b""
            await trio.lowlevel.checkpoint()  # a fast source and a fast provider must not keep the loop to themselves

    async def _write_watched(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write what takes time, while watching for an answer that comes early."""
        broken: Exception | None = None
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await write()
            except _BROKEN as exc:
                broken = exc  # the watcher goes on: an answer may lie in the socket, and it ends at once
            except Exception as exc:
                failed = exc  # the body's source
                nursery.cancel_scope.cancel()
            else:
                self._written = True
                nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if broken is not None and not self.status:
            raise broken
        if self._fault is not None and not self.status:
            raise self._fault

    async def _watch(self, writing: trio.CancelScope) -> None:
        try:
            while not self.complete:
                await self._read()
                if sum(map(len, self._pieces)) > _EARLY_ANSWER_BYTES:
                    return
        except TransportError as exc:
            self._fault = exc
        writing.cancel()

    async def _answer_despite(self, broken: Exception) -> None:
        """After a failed write: the answer that the provider gave before it closed, if there is one."""
        failure = self._failed("write", f"the connection broke while the request was written: {broken}")
        if self.wire.closed or self._fault is not None or (self.reused and not self.wire.sent):
            raise failure from broken
        try:
            while not self.status:
                await self._read()
        except TransportError:
            raise failure from broken

    async def _read(self) -> None:
        """Take one network read into the parser."""
        try:
            data = await self.wire.recv()
        except _BROKEN as exc:
            raise self._failed("read", f"the connection broke before the answer was complete: {exc}") from exc
        if data:
            self._received = True
            self._feed(data)
        elif self.status and self._until_close:
            self.complete = True
        else:
            what = "in the middle of the answer" if self._received else "without an answer"
            raise self._failed("read", f"the provider closed the connection {what}", eof=True)

    async def read_body(self) -> bytes:
        """Body bytes of one network read; b"" once the answer is complete and all was taken.

        Raises:
            TransportError: ``read`` or ``protocol``; close the connection.
        """
        while not self._pieces and not self.complete:
            if self._fault is not None:
                raise self._fault
            await self._read()
        return self.take_body()

    def take_body(self) -> bytes:
        """Body bytes that are here already."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    @property
    def reusable(self) -> bool:
        """The answer is complete, and the connection can carry the next request."""
        return self._keep_alive and self._written and not self._surplus

    def _feed(self, data: bytes) -> None:
        in_head = not self.status
        known = len(self._pieces)
        if in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self.complete:
                cause = exc.__context__ if isinstance(exc, httptools.HttpParserCallbackError) else None
                raise self._failed("protocol", f"not an acceptable HTTP/1.1 answer: {cause or exc}") from exc
            self._surplus = True
        if in_head:
            if not self.status and self._head_bytes > self._limits.head_bytes:
                raise self._failed("protocol", f"the head is larger than {self._limits.head_bytes} bytes")
        elif not self.complete:
            self._weigh(len(data), known)

    def _weigh(self, read_bytes: int, known: int) -> None:
        """Refuse framing without end: chunk extensions, tiny chunks with large ones, trailers that never stop."""
        pieces = self._pieces[known:] if known else self._pieces
        body_bytes = sum(map(len, pieces))
        honest = 2 * body_bytes + _CHUNK_ALLOWANCE_BYTES * len(pieces)
        self._excess = max(0, self._excess + read_bytes - body_bytes - honest)
        if self._excess > self._limits.excess_bytes:
            raise self._failed("protocol", f"chunk framing exceeds the body by {self._limits.excess_bytes} bytes")

    def _failed(self, kind: Kind, why: str, *, eof: bool = False) -> TransportError:
        return TransportError(
            kind,
            f"{self._label}: {why}",
            eof=eof,
            bytes_sent=self.wire.sent,
            fully_sent=self._written,
            bytes_received=self._received,
            reused=self.reused,
        )

    def close(self) -> None:
        """Close at once: orderly between exchanges, by a reset in the middle of one. Idempotent."""
        self.wire.close(reset=not (self.complete and self._written))
        self._parser = None  # it refers to this object: no cycle is left for the collector

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Refused("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            self._on_trailer(name, value)
        else:  # how many there are is looked at once, and what is read of a head that does not end is bounded
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def _on_trailer(self, name: bytes, value: bytes) -> None:
        self.trailers.append((name.lower(), value.rstrip(b" \t")))
        self._trailer_bytes += len(name) + len(value) + 4
        self._check_size(self.trailers, self._trailer_bytes)

    def _check_size(self, headers: Headers, size_bytes: int) -> None:
        if len(headers) > self._limits.header_count:
            raise _Refused(f"more than {self._limits.header_count} headers")
        if size_bytes > self._limits.head_bytes:
            raise _Refused(f"headers larger than {self._limits.head_bytes} bytes")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise _Refused(f"HTTP version {version}")
        if status == 101 or status < 100:
            raise _Refused(f"status {status}, which nobody asked for")
        if status < 200:
            self.headers.clear()
            return
        most = self._head_bytes  # and some of the body, perhaps
        if most > self._limits.head_bytes:
            most = sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._check_size(self.headers, most)
        coding = [value for name, value in self.headers if name == b"transfer-encoding"]
        if coding and (len(coding) > 1 or coding[0].lower() != b"chunked"):
            raise _Refused("a transfer coding other than one chunked")
        self.status = status
        if self._bodyless:
            self.complete = True
            raise _Refused("bytes after a head without body")
        if not coding and status not in (204, 304):
            self._until_close = find(self.headers, b"content-length") is None

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it after this callback


class _Refused(Exception):
    """Raised inside a parser callback; :meth:`Connection._feed` makes a ``TransportError`` of it."""
