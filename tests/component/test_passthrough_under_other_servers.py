"""A server that only tells of the client's leaving by a message gets the same: bodies in parts, limits, one unwind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field

from gateway.app import make_app
from gateway.core.facts import Outcome
from tests.component.passed_provider import Asked, PassStage, passing
from tests.component.stage import KEY

Message = dict[str, Any]
PART = b"x" * 100_000


@define
class Client:
    """What a server passes between the app and a client."""

    tx: trio.MemorySendChannel[Message]
    sent: list[Message] = field(factory=list)
    ended: trio.Event = field(factory=trio.Event)

    async def say(self, body: bytes = b"", *, more: bool = False) -> None:
        await self.tx.send({"type": "http.request", "body": body, "more_body": more})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


@asynccontextmanager
async def client_of(run: PassStage, method: str = "POST") -> AsyncIterator[Client]:
    app = make_app(run.stage.gateway)
    tx, rx = trio.open_memory_channel[Message](0)
    client = Client(tx)

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        client.sent.append(message)

    async def serve() -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": "/v1/files", "raw_path": b"/v1/files", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"h"), (b"authorization", b"Bearer " + KEY.encode()), (b"content-type", b"a/b")],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "extensions": {},
        }  # fmt: skip
        await app(scope, rx.receive, send)  # type: ignore[arg-type]
        client.ended.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield client
            await client.ended.wait()


async def test_parts_are_handed_on_as_they_come() -> None:
    taken = trio.Event()

    async def script(asked: Asked) -> None:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await asked.take()
            taken.set()
        await asked.answer(b"%d" % body.count(b"x"))

    async with passing(script) as run, client_of(run) as client:
        await client.say(PART, more=True)
        await taken.wait()  # before the rest is there
        for _ in range(9):
            await client.say(PART, more=True)
        await client.say(b"")
        await client.ended.wait()
        assert (client.status, client.body) == (200, b"1000000")


async def test_a_small_body_goes_as_one() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer(await asked.read_all())

    async with passing(script) as run, client_of(run) as client:
        await client.say(b"abc")
        await client.ended.wait()
        assert (client.status, client.body) == (200, b"abc")
        assert run.asked[0].header("content-length") == "3"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"], ids=["upload", "answer"])
async def test_a_client_that_leaves_takes_the_provider_with_it(answer: bytes) -> None:
    begun = trio.Event()

    async def script(asked: Asked) -> None:
        if asked.method == "POST":
            await asked.take()
        await asked.say(answer)
        begun.set()
        await asked.until_gone()

    async with passing(script) as run:
        async with client_of(run, "GET" if answer else "POST") as client:
            await client.say(b"" if answer else PART, more=not answer)
            await begun.wait()
            while answer and len(client.sent) < 2:
                await trio.sleep(0.001)
            await client.tx.send({"type": "http.disconnect"})
        await run.asked[0].gone.wait()
        [record] = run.stage.records
        assert record.outcome is Outcome.CANCELLED
        run.stage.assert_nothing_left(requests=1)


async def test_the_limit_and_the_deadline_of_the_body_hold() -> None:
    async def script(asked: Asked) -> None:
        await asked.until_gone()

    async with passing(script, server="max_upload_bytes = 250000\nbody_timeout_s = 0.2") as run:
        async with client_of(run) as client:
            for _ in range(3):
                await client.say(PART, more=True)
        assert client.status == 413
        async with client_of(run) as client:
            await client.say(PART, more=True)
        assert client.status == 408
        assert [record.code for record in run.stage.records] == ["body_too_large", "body_timeout"]
        run.stage.assert_nothing_left(requests=2)
