"""A provider that does what a test tells it, byte by byte: a raw Trio server that runs one script per connection."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from gateway.upstream.transport import Origin, RawResponse, Transport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
PATIENCE_S = 5.0  # a test that waits for longer has failed


class Peer:
    """One accepted connection.

    Attributes:
        number: 0 for the first connection that the server accepted.
        was_reset: The client ended the connection with RST.
    """

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType, number: int) -> None:
        self.number = number
        self.was_reset = False
        self._stream = stream
        self._sock = sock
        self._buffer = bytearray()

    async def request(self) -> bytes:
        """The next request, head and body; b"" when the client closed instead."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return b""
        end = self._buffer.index(b"\r\n\r\n") + 4
        for line in bytes(self._buffer[:end]).split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                end += int(line.split(b":")[1])
        while len(self._buffer) < end:
            if not await self._more():
                return b""
        request = bytes(self._buffer[:end])
        del self._buffer[:end]
        return request

    async def request_chunks(self) -> None:
        """The rest of a request with a chunked body, which is not kept."""
        while not self._buffer.endswith(b"0\r\n\r\n"):
            if not await self._more():
                return
        self._buffer.clear()

    async def _more(self) -> bool:
        try:
            data = await self._stream.receive_some(65_536)
        except trio.BrokenResourceError as exc:
            self.was_reset = isinstance(exc.__cause__, ConnectionResetError)
            return False
        self._buffer += data
        return bool(data)

    async def say(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def until_gone(self) -> None:
        """Wait until the client has closed or reset the connection."""
        while await self._more():
            pass

    def reset(self) -> None:
        """End the connection with RST."""
        self._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._sock.close()

    async def close(self) -> None:
        """End the connection in an orderly way; with TLS by ``close_notify``."""
        await self._stream.aclose()

    def resumed(self) -> bool:
        """Whether the TLS session is one of an earlier connection."""
        assert isinstance(self._stream, trio.SSLStream)
        return bool(self._stream.session_reused)

    def hang_up(self) -> None:
        """End the connection with FIN, without ``close_notify``."""
        self._sock.close()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def provider(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Origin]:
    """Serve ``script`` on a port of its own; the connection is closed when the script returns."""
    count = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal count
        number, count = count, count + 1
        outer: trio.abc.Stream = stream
        if tls is not None:
            outer = trio.SSLStream(stream, tls, server_side=True, https_compatible=False)
        try:
            await script(Peer(outer, stream.socket, number))
            await outer.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(outer)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        port: int = listeners[0].socket.getsockname()[1]
        with trio.fail_after(PATIENCE_S):
            yield Origin("http" if tls is None else "https", host, port)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def transport(**options: object) -> AsyncIterator[Transport]:
    """A transport that must have nothing in use when the test is done with it."""
    made = Transport(**options)  # type: ignore[arg-type]
    try:
        yield made
        for counts in made.statistics().values():
            assert (counts.in_use, counts.connecting, counts.waiting) == (0, 0, 0)
    finally:
        made.close()


def answering(*answers: bytes) -> Script:
    """Give the n-th answer to the n-th request of each connection, the last one ever after."""

    async def script(peer: Peer) -> None:
        turn = 0
        while await peer.request():
            await peer.say(answers[min(turn, len(answers) - 1)])
            turn += 1

    return script


async def body_of(response: RawResponse) -> bytes:
    """The whole body."""
    pieces = []
    while data := await response.receive():
        pieces.append(data)
    return b"".join(pieces)


async def ask(made: Transport, origin: Origin, method: bytes = b"POST", body: bytes = b"{}") -> tuple[int, bytes]:
    """Status and body of one call."""
    with await made.send(method, origin, b"/v1/x", [(b"accept", b"*/*")], body) as response:
        return response.status, await body_of(response)
