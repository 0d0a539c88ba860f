"""A provider that breaks HTTP itself: a raw TCP server for the faults that no HTTP library can be made to show.

``async with RawServer(script, script, …) as server`` listens on a free port of loopback. The n-th connection gets the
n-th script, the last one ever after, so ``RawServer(reset, answer())`` fails once and then works. A script talks to one
:class:`Peer`; when it returns, the connection is closed in an orderly way. All tasks and sockets end with the block.

The answers are OpenAI's chat completions, streamed or whole as the request asks. Times are on Trio's clock.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import trio
import trustme

LINGER_NOT = b"\1\0\0\0\0\0\0\0"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = ("Six", " words", " make", " a", " raw", " answer")
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType, server: RawServer) -> None:
        self._stream = stream
        self._sock = sock
        self._server = server
        self._buffer = bytearray()

    async def request(self) -> bytes:
        """The next request, head and body; b"" when the client closed instead."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return b""
        end = self._buffer.index(b"\r\n\r\n") + 4
        for line in bytes(self._buffer[:end]).lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                end += int(line.split(b":")[1])
        while len(self._buffer) < end:
            if not await self._more():
                return b""
        request = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._server.count_request(request)
        return request

    async def say(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def until_gone(self) -> None:
        """Send nothing until the client has closed or reset the connection."""
        while await self._more():
            pass

    def reset(self) -> None:
        """End the connection with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._sock.close()

    async def _more(self) -> bool:
        try:
            data = await self._stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return False
        self._buffer += data
        return bool(data)


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """The server; see the module's docstring.

    Args:
        tls: Speak TLS with this context; a handshake that fails ends the connection and is counted.

    Attributes:
        connections: Accepted so far.
        open: Of them, open now.
        requests: Read whole so far.
        failed_handshakes: Of TLS.
        heard: Every request, head and body, in the order of arrival.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self._changed = trio.Event()
        self._block: Any = None
        self._nursery: trio.Nursery
        self.port = 0
        self.connections = 0
        self.open = 0
        self.failed_handshakes = 0
        self.heard: list[bytes] = []

    @property
    def requests(self) -> int:
        return len(self.heard)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> RawServer:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        self._block = trio.open_nursery()
        self._nursery = await self._block.__aenter__()
        self._nursery.start_soon(trio.serve_listeners, self._handle, [listener])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._nursery.cancel_scope.cancel()
        return bool(await self._block.__aexit__(kind, error, trace))

    async def until(self, holds: Callable[[RawServer], bool]) -> None:
        """Wait until ``holds``, which is asked after every change of the counters. Bound it with a deadline."""
        while not holds(self):
            await self._changed.wait()

    def count_request(self, request: bytes) -> None:
        self.heard.append(request)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _handle(self, stream: trio.SocketStream) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self.open += 1
        self._tell()
        outer: trio.abc.Stream = stream
        try:
            if self._tls is not None:
                outer = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
                await outer.do_handshake()
            await script(Peer(outer, stream.socket, self))
            await outer.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
            if isinstance(broken.__cause__, ssl.SSLError):
                self.failed_handshakes += 1
        finally:
            stream.socket.close()
            self.open -= 1
            self._tell()


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    named = {"id": "chatcmpl-raw", "object": "chat.completion.chunk", "created": 1, "model": "raw"}
    return b"data: " + json.dumps({**named, "choices": [choice]}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def events() -> list[bytes]:
    """The events of the answer up to its finish."""
    content = [event({"content": word}) for word in WORDS]
    return [event({"role": "assistant", "content": ""}), *content, event({}, "stop")]


def whole_document() -> bytes:
    """The answer in one piece, head included."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    named = {"id": "chatcmpl-raw", "object": "chat.completion", "created": 1, "model": "raw"}
    usage = {"prompt_tokens": 1, "completion_tokens": len(WORDS), "total_tokens": 1 + len(WORDS)}
    body = json.dumps({**named, "choices": [choice], "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def whole_stream(*, end: bytes = DONE) -> bytes:
    """The answer as a stream, head included."""
    return SSE_HEAD + chunk(b"".join(events()) + end) + LAST_CHUNK


def answer_to(request: bytes) -> bytes:
    """The answer that the request asks for: a stream, or a document."""
    return whole_stream() if _wants_stream(request) else whole_document()


def _wants_stream(request: bytes) -> bool:
    body = request.partition(b"\r\n\r\n")[2]
    return bool(body) and json.loads(body).get("stream") is True


# ── scripts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def answer(peer: Peer) -> None:
    """A healthy provider, for as many requests as come."""
    while request := await peer.request():
        await peer.say(answer_to(request))


async def reset_at_once(peer: Peer) -> None:
    """RST before the request was read."""
    peer.reset()


async def reset_before_head(peer: Peer) -> None:
    """RST after the request, before any byte."""
    await peer.request()
    peer.reset()


async def close_before_head(peer: Peer) -> None:
    """FIN after the request, before any byte."""
    await peer.request()


async def half_a_head_and_close(peer: Peer) -> None:
    await peer.request()
    await peer.say(SSE_HEAD[:40])


async def half_a_head_and_silence(peer: Peer) -> None:
    await peer.request()
    await peer.say(SSE_HEAD[:40])
    await peer.until_gone()


async def garbage(peer: Peer) -> None:
    """Bytes that are no HTTP."""
    await peer.request()
    await peer.say(b"\x00\xff\xfeSSH-2.0-not-a-provider\r\n" * 20)


async def silence(peer: Peer) -> None:
    """Read everything, say nothing, stay."""
    await peer.until_gone()


async def reset_in_the_middle(peer: Peer) -> None:
    """RST in the middle of the chunked body of a stream, or of a document."""
    await _begin(peer)
    peer.reset()


async def close_in_the_middle(peer: Peer) -> None:
    """FIN where the framing says that more is to come."""
    await _begin(peer)


async def stall_in_the_middle(peer: Peer) -> None:
    await _begin(peer)
    await peer.until_gone()


async def reset_in_a_chunk(peer: Peer) -> None:
    """RST where a chunk has said its length and sent half of itself."""
    await peer.request()
    framed = chunk(b"".join(events()[:4]))
    await peer.say(SSE_HEAD + framed[: len(framed) // 2])
    peer.reset()


async def bad_chunk_length(peer: Peer) -> None:
    """A chunk whose length is no number."""
    await peer.request()
    await peer.say(SSE_HEAD + chunk(b"".join(events()[:4])) + b"zz\r\n" + events()[4] + b"\r\n")
    await peer.until_gone()


async def length_too_long(peer: Peer) -> None:
    """A Content-Length that promises more than comes before the FIN."""
    await peer.request()
    head, _, body = whole_document().partition(b"\r\n\r\n")
    promised = head.replace(b"content-length: %d" % len(body), b"content-length: %d" % (len(body) + 100))
    await peer.say(promised + b"\r\n\r\n" + body)


async def refusal_without_its_document(peer: Peer) -> None:
    """A status that says all, and then never the document that its length promises."""
    await peer.request()
    await peer.say(b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
    await peer.until_gone()


async def redirect(peer: Peer) -> None:
    """To where nobody was told to go."""
    await peer.request()
    await peer.say(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n")


async def no_content(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")


async def web_page(peer: Peer) -> None:
    """Status 200, and a page for people."""
    await peer.request()
    await peer.say(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 23\r\n\r\n<html>We moved!</html>\r\n"
    )


async def squeezed(peer: Peer) -> None:
    """A coding that was not asked for."""
    _, _, body = answer_to(await peer.request()).partition(b"\r\n\r\n")
    coded = gzip.compress(body)
    await peer.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(coded) + coded)


async def huge_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nx-more: %b\r\n" % (b"a" * 100_000))
    await peer.until_gone()


async def dies_when_asked_again(peer: Peer) -> None:
    """One answer; the next request finds the connection closed, having been on its way already."""
    await peer.say(answer_to(await peer.request()))
    await peer.request()


async def trailers(peer: Peer) -> None:
    """Fields behind the last chunk."""
    while request := await peer.request():
        answer = answer_to(request)
        await peer.say(answer.removesuffix(b"\r\n") + b"x-took: 3\r\n\r\n" if _wants_stream(request) else answer)


async def double_finish(peer: Peer) -> None:
    """The event with the finish reason, and the end mark, each twice."""
    while request := await peer.request():
        if _wants_stream(request):
            await peer.say(whole_stream(end=events()[-1] + DONE + DONE))
        else:
            await peer.say(whole_document())


async def hints_first(peer: Peer) -> None:
    """Three interim answers (1xx) before the one that counts."""
    while request := await peer.request():
        hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + answer_to(request))


async def plain_bytes(peer: Peer) -> None:
    """What a port without TLS says to a client that begins with a handshake; serve it without ``tls``."""
    await peer.say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await peer.until_gone()


def slow_drip(every_s: float, *, limit_bytes: int | None = None) -> Script:
    """The answer byte by byte, ``every_s`` seconds between them; after ``limit_bytes``, silence."""

    async def script(peer: Peer) -> None:
        data = answer_to(await peer.request())
        for index in range(len(data) if limit_bytes is None else limit_bytes):
            await peer.say(data[index : index + 1])
            await trio.sleep(every_s)
        await peer.until_gone()

    return script


def drip_in_the_middle(every_s: float) -> Script:
    """Half of the answer, and then its next bytes one by one, ``every_s`` seconds between them."""

    async def script(peer: Peer) -> None:
        request = await _begin(peer)
        rest = chunk(b"".join(events()[4:])) if _wants_stream(request) else whole_document()[-40:-1]
        for index in range(len(rest)):
            await peer.say(rest[index : index + 1])
            await trio.sleep(every_s)
        await peer.until_gone()

    return script


async def _begin(peer: Peer) -> bytes:
    """The first half of the answer that was asked for; gives the request."""
    request = await peer.request()
    if _wants_stream(request):
        await peer.say(SSE_HEAD + chunk(b"".join(events()[:4])))
    else:
        document = whole_document()
        await peer.say(document[: len(document) - 40])
    return request


# ── sockets and certificates ─────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def full_backlog() -> AsyncIterator[int]:
    """A port whose line of connections is full, so that connecting to it takes for ever; gives the port.

    Linux keeps one connection for a backlog of 0 and drops the SYN of the next.
    """
    listener = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        first = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with first:
            await first.connect(address)
            yield address[1]


def trusted(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate for these names, and of a client that trusts who signed it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(*names).configure_cert(server)
    authority.configure_trust(client)
    return server, client


def wrong_certificate() -> ssl.SSLContext:
    """A server's context whose certificate is for another host, signed by nobody whom clients trust."""
    return trusted("elsewhere.example")[0]
