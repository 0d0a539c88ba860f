"""What the server's tests stand on: the real server on a loopback port, a raw client, and a small app to script.

The client is a plain Trio stream that says exactly the bytes it is told.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from gateway.config import Server
from gateway.edge.gate import Gate
from gateway.edge.serve import serve
from gateway.edge.service import App, ServerStatistics, Service

PATIENCE_S = 15.0  # how long a test waits before it counts as failed; never a measure of anything


class Running:
    """A server that runs: where it is, what it counts, and how to drain it."""

    def __init__(self, url: str, service: Service, shutdown: trio.Event, ended: trio.Event) -> None:
        self.url = url
        self.host, _, port = url.partition("://")[2].rpartition(":")
        self.port = int(port)
        self.service = service
        self.shutdown = shutdown
        self.ended = ended

    def statistics(self) -> ServerStatistics:
        return self.service.statistics()

    async def connect(self, *, receive_buffer_bytes: int | None = None) -> Peer:
        sock = trio.socket.socket()
        if receive_buffer_bytes is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
        await sock.connect((self.host, self.port))
        return Peer(trio.SocketStream(sock))

    async def ask(self, data: bytes) -> Answer:
        """One request on a connection of its own."""
        async with await self.connect() as peer:
            await peer.send(data)
            return await peer.answer()


class Answer:
    """One response."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.split(b"\r\n")
        self.line = lines[0].decode()
        self.status = int(lines[0].split()[1])
        pairs = [line.partition(b": ") for line in lines[1:]]
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, _, value in pairs}
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Peer:
    """A raw client."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._rest = b""

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _more(self) -> bool:
        with trio.fail_after(PATIENCE_S):
            data = await self.stream.receive_some(65_536)
        self._rest += data
        return bool(data)

    async def until(self, marker: bytes) -> bytes:
        """Everything up to and with ``marker``."""
        while marker not in self._rest:
            assert await self._more(), f"closed before {marker!r}; got {self._rest!r}"
        found, _, self._rest = self._rest.partition(marker)
        return found + marker

    async def exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            assert await self._more(), f"closed before {size} bytes; got {self._rest!r}"
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def to_the_end(self) -> bytes:
        """Everything until the server closes."""
        while await self._more():
            pass
        data, self._rest = self._rest, b""
        return data

    async def closed(self) -> bool:
        """Whether nothing more comes: an orderly end or a reset."""
        try:
            return await self.to_the_end() == b""
        except trio.BrokenResourceError:
            return True

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next response, decoded."""
        head = (await self.until(b"\r\n\r\n"))[:-4]
        answer = Answer(head, b"")
        if bodiless or answer.status in (100, 204, 304):
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body = await self._chunks()
        elif "content-length" in answer.headers:
            answer.body = await self.exactly(int(answer.headers["content-length"]))
        else:
            answer.body = await self.to_the_end()
        return answer

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            body += await self.exactly(size)
            assert await self.exactly(2) == b"\r\n"
        assert await self.exactly(2) == b"\r\n"
        return body


def request(path: str = "/", *headers: str, body: bytes = b"", method: str = "GET") -> bytes:
    """A well-formed request; a body gets its length said."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def say(send: Any, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """An app's whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def read_all(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with what it was asked."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await say(send, await read_all(receive), headers=[(b"x-path", scope["raw_path"])])


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def app_of(handler: Callable[[dict[str, Any], Any, Any], Any]) -> App:
    """An app whose HTTP part is ``handler``."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await handler(scope, receive, send)

    return app


@asynccontextmanager
async def running(
    app: App = echo,
    *,
    gate: Gate | None = None,
    on_drain: Callable[[], None] = lambda: None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """The server, until the block ends."""
    services: list[Service] = []
    shutdown, ended = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        config = Server(bind="127.0.0.1:0", **settings)
        await serve(
            app,
            config,
            gate=gate,
            shutdown=shutdown,
            on_drain=on_drain,
            observe=services.append,
            task_status=task_status,
        )
        ended.set()

    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(run)
        yield Running(urls[0], services[0], shutdown, ended)
        nursery.cancel_scope.cancel()
