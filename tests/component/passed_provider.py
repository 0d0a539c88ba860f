"""A provider of files and sounds for the tests of what is passed through: a raw server that a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from tests.component.stage import KEY, Heard, Stage, hear, staged

SECRET = "sk-provider-0123456789abcdef"
PATIENCE_S = 10.0
GLOBS = '["/files/*", "/audio/*", "/moderations"]'


@define
class Asked:
    """One request as the provider gets it, and the way to answer it.

    Attributes:
        body: What was read of it, kept only if the script reads it with :meth:`read_all`.
        taken: Bytes of the body that arrived so far.
        gone: Set once the gateway has closed or reset the connection.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    stream: trio.SocketStream
    taken: int = 0
    _rest: bytes = b""
    gone: trio.Event = field(factory=trio.Event)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def take(self) -> bytes:
        """Some bytes of the body, with their framing if it comes in chunks; b"" when the gateway has gone."""
        data, self._rest = self._rest, b""
        if not data:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
        if not data:
            self.gone.set()
        self.taken += len(data)
        return data

    async def read_all(self) -> bytes:
        """The whole body, of known length."""
        length, pieces = int(self.header("content-length") or 0), []
        while self.taken < length and (data := await self.take()):
            pieces.append(data)
        return b"".join(pieces)

    async def drop_all(self) -> int:
        """The same, without keeping it."""
        length = int(self.header("content-length") or 0)
        while self.taken < length and await self.take():
            pass
        return self.taken

    async def until_gone(self) -> None:
        while await self.take():
            pass

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, body: bytes, *, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> None:
        lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.say(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def reset(self) -> None:
        sock = self.stream.socket
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()


Script = Callable[[Asked], Awaitable[None]]


@define
class PassStage:
    """A gateway that passes paths of the scripted provider through."""

    stage: Stage
    asked: list[Asked]

    async def ask(self, head: str, body: bytes = b"", *, key: str | None = KEY, seconds: float = 30.0) -> Heard:
        """One request on a connection of its own; ``head`` is the request line and further header lines."""
        async with await self.stage.connect() as stream:
            await stream.send_all(request(head, body, key=key))
            return await hear(stream, seconds=seconds)


def request(head: str, body: bytes = b"", *, key: str | None = KEY, length: int | None = None) -> bytes:
    first, _, rest = head.strip().partition("\n")
    lines = [f"{first} HTTP/1.1", "host: gateway", *(line for line in rest.split("\n") if line)]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if (body or length is not None) and "transfer-encoding" not in rest:
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def passing(script: Script, *, globs: str = GLOBS, more: str = "", **options: object) -> AsyncIterator[PassStage]:
    """Run ``script`` for each request to the provider ``media``, and a gateway that passes ``globs`` through to it."""
    asked: list[Asked] = []

    async def handle(stream: trio.SocketStream) -> None:
        with trio.CancelScope():
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    try:
                        some = await stream.receive_some(65_536)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return
                    if not some:
                        return
                    data += some
                head, _, rest = data.partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ")
                headers = [(n.lower(), v) for n, _, v in (line.partition(": ") for line in lines)]
                one = Asked(method, target, headers, stream)
                one._rest = rest
                asked.append(one)
                try:
                    await script(one)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    one.gone.set()
                    return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        port = listeners[0].socket.getsockname()[1]
        provider = (
            f'[[provider]]\nname = "media"\nbase_url = "http://127.0.0.1:{port}/api/v9"\napi_key = "{SECRET}"\n'
            f"passthrough = {globs}\n{more}"
        )
        async with staged(more=provider, **options) as stage:  # type: ignore[arg-type]
            yield PassStage(stage, asked)
        nursery.cancel_scope.cancel()
