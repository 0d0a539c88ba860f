"""One client's HTTP/1.1 connection on a plain socket: two tasks, nothing per request.

The reader never stops reading, so that the client's leaving is noticed at once, whatever the worker is waiting for; it
ends the connection's cancel scope and with it the answer under way. The worker answers requests one after the other.
Sockets are used through Trio's ``wait_readable`` and ``wait_writable``: a read or write that need not wait costs one
system call and no trip through the scheduler.

A client that half-closes (``shutdown(SHUT_WR)``) counts as having left. A client that stops reading blocks its worker
and nothing else; how many do is in the statistics. There are no timeouts: a provider's are long, and a test that needs
one brings it. Limits: 64 KiB of head, ``max_body_bytes`` of body, :data:`MAX_PIPELINED` requests waiting. An upload
(:data:`UPLOADS`) is counted and hashed as it arrives and not kept, so it may be of any length.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import orjson
import trio
from attrs import evolve, frozen

from gateway.sim.errors import ApiError
from gateway.sim.stats import Counters
from gateway.sim.wire import CONTINUE, head

MAX_HEAD_BYTES = 65_536
MAX_PIPELINED = 64
UPLOADS = (b"/v1/files",)
_READ_BYTES = 65_536
_LINGER_S = 2.0
_ABORT = struct.pack("ii", 1, 0)


class ClientLeft(Exception):
    """The client closed or reset the connection while something was being sent to it."""


@frozen(kw_only=True, slots=True)
class Request:
    """A request that has arrived whole.

    Attributes:
        headers: Names in lower case.
        body: b"" for an upload.
        keep: Whether the connection goes on.
        received_bytes: Length of the body.
        digest: SHA-256 of an upload's body, in hexadecimal; "" for other requests.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep: bool
    received_bytes: int
    digest: str


Answer = Callable[["Connection", Request], Awaitable[bool]]
"""Writes the answer to a request; returns whether the connection may be kept."""


class Connection:
    """Reads requests, hands them to ``answer`` and offers it :meth:`send` and :meth:`reset`."""

    def __init__(self, sock: socket.socket, counters: Counters, *, max_body_bytes: int) -> None:
        self._sock = sock
        self._counters = counters
        self._inbox = _Inbox(max_body_bytes, counters)
        self._arrived = trio.lowlevel.ParkingLot()

    async def run(self, answer: Answer) -> None:
        """Serve the connection until either side ends it; closes the socket.

        Cancellation: the answer under way is cancelled and the socket closed without further waiting.
        """
        with self._sock, self._counters.connection():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._work, answer, nursery.cancel_scope)
                await self._read()
                nursery.cancel_scope.cancel()

    async def send(self, data: bytes) -> None:
        """Write all of ``data``; waits only while the client does not read.

        Raises:
            ClientLeft: Nobody is there to read it.
        """
        sent = self._try_send(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        with self._counters.blocking():
            while rest:
                await trio.lowlevel.wait_writable(self._sock)
                rest = rest[self._try_send(rest) :]

    def reset(self) -> None:
        """Make the close that follows a TCP reset instead of an orderly end."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)

    def _try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientLeft from error

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            self._inbox.feed(data)
            if self._inbox.take_expectation():
                self._tell_to_continue()
            if self._inbox.requests or self._inbox.refusal:
                self._arrived.unpark()

    def _tell_to_continue(self) -> None:
        with contextlib.suppress(ClientLeft):  # the next read will find out
            self._try_send(CONTINUE)

    async def _work(self, answer: Answer, scope: trio.CancelScope) -> None:
        with contextlib.suppress(ClientLeft):
            keep = True
            while keep:
                while not self._inbox.requests and self._inbox.refusal is None:
                    await self._arrived.park()
                if not self._inbox.requests:
                    await self._refuse()
                    break
                keep = await answer(self, self._inbox.requests.popleft())
        scope.cancel()

    async def _refuse(self) -> None:
        """Answer what cannot be understood, and let the client read the answer before its unread bytes reset it."""
        assert self._inbox.refusal is not None
        self._counters.refuse("invalid")
        document = orjson.dumps(self._inbox.refusal.document)
        await self.send(head(self._inbox.refusal.status, length=len(document), keep=False) + document)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        with trio.move_on_after(_LINGER_S):
            await trio.sleep_forever()  # the reader ends it when the client closes


class _Inbox:
    """Requests parsed from the bytes that came in; after a refusal everything further is dropped."""

    def __init__(self, max_body_bytes: int, counters: Counters) -> None:
        self.requests: deque[Request] = deque()
        self.refusal: ApiError | None = None
        self._max_body_bytes = max_body_bytes
        self._counters = counters
        self._parser = httptools.HttpRequestParser(self)
        self._in_body = False
        self._expects = False
        self.on_message_begin()

    def feed(self, data: bytes) -> None:
        if self.refusal is not None:
            return
        if not self._in_body:
            self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # nothing is upgraded here; what follows is no longer ours to parse
            if self.requests:
                self.requests[-1] = evolve(self.requests[-1], keep=False)
            self.refusal = self.refusal or ApiError(400, "No protocol but HTTP/1.1 is spoken here.")
            return
        except httptools.HttpParserError:
            self.refusal = self.refusal or ApiError(400, "This is not HTTP/1.1 as RFC 9112 defines it.")
            return
        if not self._in_body and self._fed_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif len(self.requests) > MAX_PIPELINED:
            self.refusal = ApiError(400, f"More than {MAX_PIPELINED} requests are pipelined; wait for answers.")

    def take_expectation(self) -> bool:
        """Whether the client waits to be told that it may send the body; true once."""
        expects, self._expects = self._expects, False
        return expects

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        self._in_body = False
        self._head_bytes = 0
        self._fed_bytes = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._digest: Any = None

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True
        declared = self._headers.get("content-length", "0")
        if self._url.partition(b"?")[0] in UPLOADS:
            self._digest = hashlib.sha256()
        elif declared.isdigit() and int(declared) > self._max_body_bytes:
            self._refuse_body()
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self.refusal is None and "expect" in self._headers:
            self._expects = True

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        self._counters.received(len(data))
        if self._digest is not None:
            self._digest.update(data)
        elif self._body_bytes > self._max_body_bytes:
            self._refuse_body()
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self._in_body = self._expects = False
        self._fed_bytes = 0
        if self.refusal is not None:
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        self.requests.append(
            Request(
                method=self._parser.get_method().decode("ascii"),
                path=path,
                query=query,
                headers=self._headers,
                body=b"".join(self._body),
                keep=self._parser.should_keep_alive(),
                received_bytes=self._body_bytes,
                digest="" if self._digest is None else self._digest.hexdigest(),
            )
        )

    def _refuse_head(self) -> None:
        self.refusal = ApiError(431, f"The head of the request exceeds {MAX_HEAD_BYTES} bytes.")

    def _refuse_body(self) -> None:
        self._body.clear()
        self.refusal = ApiError(413, f"The body exceeds {self._max_body_bytes} bytes.", code="request_too_large")
