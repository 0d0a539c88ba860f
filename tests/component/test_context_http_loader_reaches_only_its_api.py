"""Promise: an http loader asks exactly the API it is configured for, takes no more than it may, and says what is wrong
without showing the address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
import trio

from gateway.config import ContextRules, HttpLoader, Secret
from gateway.context.http_loader import Http, is_allowed
from gateway.context.load import LoaderError, load_context
from gateway.context.template import TemplateError
from gateway.core.ask import Ask, Item
from gateway.upstream.transport import Transport, make_client

ASK = Ask(input="how long?", user="anna/b", conversation="c 1", tenant="k")
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


def ok(document: Any) -> bytes:
    body = orjson.dumps(document)
    return OK % (len(body), body)


class Api:
    """A server that keeps what it was asked and answers with fixed bytes; None: it reads and stays silent."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.asked = trio.Event()
        self.left = trio.Event()
        self.port = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._handle, listeners)
            task_status.started()

    async def _handle(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            piece = await stream.receive_some()
            if not piece:
                return
            buffer += piece
        head, _, body = buffer.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        wanted = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < wanted:
            body += await stream.receive_some()
        self.heads.append(head)
        self.bodies.append(body)
        self.asked.set()
        try:
            if self.answer is not None:
                await stream.send_all(self.answer)
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        self.left.set()


@asynccontextmanager
async def api(answer: bytes | None) -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    server = Api(answer)
    transport = Transport()
    async with trio.open_nursery() as nursery, make_client(transport) as client:
        await nursery.start(server.serve)
        yield server, client
        await transport.aclose()
        nursery.cancel_scope.cancel()


def loader(server: Api, client: httpx.AsyncClient, path: str = "/", **rules: Any) -> Http:
    made = HttpLoader(name="orders", url=f"http://127.0.0.1:{server.port}{path}", **rules)
    return Http(made, client, ContextRules(allowed_hosts=(f"127.0.0.1:{server.port}",)))


async def failure(answer: bytes, **rules: Any) -> str:
    async with api(answer) as (server, client):
        with pytest.raises(LoaderError) as caught:
            await loader(server, client, **rules).load(ASK)
        return str(caught.value)


async def test_a_get_carries_the_values_encoded_and_the_secret_header() -> None:
    async with api(ok({"orders": [{"id": 1}, "two", None]})) as (server, client):
        orders = loader(
            server, client, "/u/{user}?q={input}", pointer="/orders", headers={"x-api-key": Secret("s3cret")}
        )
        items = await orders.load(ASK)
    source = f"http://127.0.0.1:{server.port}/u/anna/b"
    assert items == [Item(text='{"id":1}', source=source), Item(text="two", source=source)]
    request_line, *headers = server.heads[0].split(b"\r\n")
    assert request_line == b"GET /u/anna%2Fb?q=how%20long%3F HTTP/1.1"
    lowered = [line.lower() for line in headers]
    assert b"x-api-key: s3cret" in lowered
    assert b"accept-encoding: identity" in lowered


async def test_a_post_carries_the_values_as_json() -> None:
    async with api(ok("fine")) as (server, client):
        body = '{"q": {input}, "who": "user {user}", "c": {conversation}}'
        items = await loader(server, client, method="POST", body=body).load(
            Ask(input='"}\n', user="a", conversation="c")
        )
    assert [item.text for item in items] == ["fine"]
    assert orjson.loads(server.bodies[0]) == {"q": '"}\n', "who": "user a", "c": "c"}
    assert b"content-type: application/json" in server.heads[0].lower()


@pytest.mark.parametrize("document", [None, [], "", {}, [None, ""]])
async def test_nothing_found_is_empty_and_no_failure(document: Any) -> None:
    async with api(ok({"data": document})) as (server, client):
        assert await loader(server, client, pointer="/data").load(ASK) == []


async def test_an_answer_with_another_status_or_shape_fails_and_says_how() -> None:
    assert await failure(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n") == "the API answered 503"
    assert await failure(OK % (5, b"<html")) == "the API's answer is not JSON"
    assert await failure(OK % (3, b"NaN")) == "the API's answer is not JSON"
    assert await failure(ok({"a": 1}), pointer="/b/0") == "the API's answer has nothing at pointer '/b/0'"
    assert await failure(b"garbage\r\n\r\n") == "the API could not be reached (RemoteProtocolError)"
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx"
    assert await failure(packed) == "the API sent a compressed answer that nobody asked for"


async def test_redirects_are_not_followed() -> None:
    async with api(ok("inside")) as (inner, _):
        answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n" % inner.port
        assert await failure(answer) == "the API answered 302, and redirects are not followed"
        assert inner.heads == []


@pytest.mark.parametrize("framing", ["declared", "chunked", "until closed"])
async def test_no_answer_is_read_beyond_its_limit(framing: str) -> None:
    body = b'"' + b"x" * 200_000 + b'"'
    head = {
        "declared": b"content-length: %d\r\n\r\n" % len(body),
        "chunked": b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body),
        "until closed": b"connection: close\r\n\r\n",
    }[framing]
    async with api(b"HTTP/1.1 200 OK\r\n" + head + body) as (server, client):
        with pytest.raises(LoaderError, match=r"larger than 1000 bytes \(max_bytes\)"):
            await loader(server, client, max_bytes=1_000).load(ASK)
        with trio.fail_after(5):
            await server.left.wait()  # closed, not drained and kept


async def test_a_silent_api_is_left_at_the_loaders_timeout() -> None:
    async with api(None) as (server, client):
        orders = loader(server, client, timeout_s=0.1)
        with trio.fail_after(5):
            context = await load_context([orders], ASK, budget_s=3)
            await server.left.wait()
    assert (context.reports[0].outcome, context.reports[0].detail) == ("timeout", "no result within 0.1 s (timeout_s)")


async def test_a_request_that_is_given_up_closes_its_connection() -> None:
    async with api(None) as (server, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loader(server, client).load, ASK)
            await server.asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await server.left.wait()


async def test_an_api_that_is_not_there_fails_without_showing_its_address() -> None:
    async with api(None) as (server, client):
        orders = loader(server, client, "/v1?key=hunter2")
        closed = trio.socket.socket()
        await closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1?key=hunter2"
        orders = Http(HttpLoader(name="o", url=url), client, ContextRules(allowed_hosts=("127.0.0.1",)))
        context = await load_context([orders], ASK, budget_s=3)
        closed.close()
    assert context.reports[0].detail == "the API could not be reached (ConnectError)"


async def test_cookies_of_one_answer_never_travel_with_the_next_request() -> None:
    answer = b"HTTP/1.1 200 OK\r\nset-cookie: session=annas\r\nconnection: close\r\ncontent-length: 2\r\n\r\n42"
    async with api(answer) as (server, client):
        orders = loader(server, client)
        await orders.load(ASK)
        await orders.load(ASK)
    assert len(server.heads) == 2
    assert b"annas" not in server.heads[1]


async def test_a_user_of_dots_cannot_climb_the_path() -> None:
    async with api(ok("secret")) as (server, client):
        with pytest.raises(LoaderError, match="cannot stand in the path"):
            await loader(server, client, "/users/{user}/orders").load(Ask(input="", user=".."))
        assert server.heads == []


async def test_no_input_is_too_long_for_an_address() -> None:
    async with api(ok("fine")) as (server, client):
        assert await loader(server, client, "/?q={input}").load(Ask(input="é" * 1_000_000)) != []
        with pytest.raises(LoaderError, match="the address is invalid"):
            await loader(server, client, "/{user}").load(Ask(input="", user="u" * 100_000))


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test/",
        "http://api.test.evil.test/",
        "http://api.test:81/",
        "https://api.test:80/",
        "http://user@api.test:8000/",
        "http://api.test:8000@evil.test/",
        "http://[::2]/",
        "ftp://api.test:8000/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "//api.test:8000/",
    ],
)
def test_an_address_that_leads_elsewhere_is_not_allowed(url: str) -> None:
    assert not is_allowed(httpx.URL(url), ["api.test:8000", "other.test", "[::1]"])


@pytest.mark.parametrize(
    "url", ["http://API.test:8000/x", "https://api.test:8000/", "http://other.test:9/", "http://[::1]:5/"]
)
def test_a_named_host_is_allowed(url: str) -> None:
    assert is_allowed(httpx.URL(url), ["api.test:8000", "other.test", "[::1]"])


async def test_a_host_that_is_not_named_is_never_asked() -> None:
    async with api(ok("secret")) as (server, client):
        url = f"http://127.0.0.1:{server.port}/"
        orders = Http(HttpLoader(name="o", url=url), client, ContextRules(allowed_hosts=("localhost", "127.0.0.1:1")))
        with pytest.raises(LoaderError, match="not in \\[context\\] allowed_hosts"):
            await orders.load(ASK)
        assert server.heads == []


@pytest.mark.parametrize(
    "rules",
    [
        {"url": "http://{user}.test/"},
        {"url": "http://u:p@api.test/"},
        {"url": "file:///etc/passwd"},
        {"url": "http://api.test/../x"},
        {"url": "http://api.test/", "pointer": "a"},
        {"url": "http://api.test/", "method": "POST", "body": "{"},
    ],
)
async def test_what_cannot_work_is_refused_when_it_is_built(rules: dict[str, Any]) -> None:
    async with make_client(Transport()) as client:
        with pytest.raises(TemplateError):
            Http(HttpLoader(name="o", **rules), client, ContextRules())
