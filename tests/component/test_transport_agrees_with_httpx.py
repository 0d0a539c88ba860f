"""Where both apply, httpx's own transport and ours give the same answers and raise the same errors."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import trio
import trio.testing

from gateway.upstream.transport import Origin, Transport, make_client
from tests.component.transport_peer import OK, Peer, Script, answering, provider, transport

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Make = Callable[[], httpx.AsyncBaseTransport]


@pytest.fixture(params=[httpx.AsyncHTTPTransport, Transport], ids=["httpx", "ours"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    make: Make = request.param
    async with httpx.AsyncClient(transport=make(), trust_env=False, timeout=5.0) as made:
        yield made


def url(origin: Origin, path: str = "/") -> str:
    return f"http://127.0.0.1:{origin.port}{path}"


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (OK, 200, "hello"),
        (CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\nx-t: 1\r\n\r\n", 200, "hello!"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, "old"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, "hello"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, "hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", 304, ""),
        (b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n", 302, ""),
        (b"HTTP/1.1 503 Busy\r\nretry-after: 2\r\ncontent-length: 4\r\n\r\nbusy", 503, "busy"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=latin-1\r\ncontent-length: 1\r\n\r\n\xe9", 200, "é"),
    ],
)
async def test_the_same_answer(client: httpx.AsyncClient, answer: bytes, status: int, text: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with provider(script) as origin:
        response = await client.post(url(origin), json={"a": 1})
        assert (response.status_code, response.text) == (status, text)
        assert response.extensions["http_version"].startswith(b"HTTP/1.")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", httpx.RemoteProtocolError),
        (CHUNKED + b"5\r\nhello\r\n", httpx.RemoteProtocolError),
        (CHUNKED + b"zz\r\nhello\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!", httpx.RemoteProtocolError),
    ],
)
async def test_the_same_error(client: httpx.AsyncClient, answer: bytes, error: type[httpx.TransportError]) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with provider(script) as origin:
        with pytest.raises(error) as caught:
            await client.get(url(origin))
        assert caught.value.request.url == url(origin)


async def test_the_same_error_for_a_reset(client: httpx.AsyncClient) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()

    async with provider(script) as origin:
        with pytest.raises(httpx.ReadError):
            await client.get(url(origin))


async def test_the_same_error_for_a_refused_connection(client: httpx.AsyncClient) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(httpx.ConnectError):
        await client.get(f"http://127.0.0.1:{port}/")


async def test_the_same_error_for_a_name_that_does_not_resolve(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError):
        await client.get("http://no-such-host.invalid/")


async def test_the_same_error_for_a_read_timeout_before_and_within_the_answer(client: httpx.AsyncClient) -> None:
    async def script(peer: Peer) -> None:
        while b"/within" in await peer.request():
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel")
        await peer.until_gone()

    timeout = httpx.Timeout(5.0, read=0.05)
    async with provider(script) as origin:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url(origin, "/before"), timeout=timeout)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url(origin, "/within"), timeout=timeout)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream")  # httpx's own generator
async def test_the_same_error_for_a_write_timeout(client: httpx.AsyncClient) -> None:
    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with provider(script) as origin:
        with pytest.raises(httpx.WriteTimeout):
            await client.post(url(origin), content=b"x" * 16_000_000, timeout=httpx.Timeout(5.0, write=0.05))


@pytest.mark.parametrize("make", [httpx.AsyncHTTPTransport, Transport], ids=["httpx", "ours"])
async def test_the_same_error_for_a_pool_timeout(make: type[httpx.AsyncBaseTransport]) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.until_gone()

    made: httpx.AsyncBaseTransport
    if make is Transport:
        made = Transport(max_connections=1)
    else:
        made = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
    async with (
        provider(script) as origin,
        httpx.AsyncClient(transport=made, trust_env=False) as client,
        client.stream("GET", url(origin)),
    ):
        with pytest.raises(httpx.PoolTimeout):
            await client.get(url(origin), timeout=httpx.Timeout(5.0, pool=0.05))


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/", "http://127.0.0.1:1/\x7f"])
async def test_what_cannot_be_sent_is_refused_before_connecting(client: httpx.AsyncClient, target: str) -> None:
    with pytest.raises((httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
        await client.get(target)


async def test_a_streamed_request_body_arrives_whole(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"hel"
        yield b"lo"

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if b"transfer-encoding" in request.lower():
            await peer.request_chunks()
        await peer.say(OK)

    async with provider(script) as origin:
        assert (await client.post(url(origin), content=parts())).text == "hello"


async def test_the_body_comes_in_pieces_as_it_arrives(client: httpx.AsyncClient) -> None:
    asked = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED + b"2\r\nhe\r\n")
        await asked.wait()
        await peer.say(b"3\r\nllo\r\n0\r\n\r\n")

    async with provider(script) as origin, client.stream("GET", url(origin)) as response:
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"he"
        asked.set()
        assert [piece async for piece in pieces] == [b"llo"]


async def test_compressed_bodies_are_unpacked(client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with provider(answering(head + packed)) as origin:
        assert (await client.get(url(origin))).text == "hello"


async def test_head_has_no_body(client: httpx.AsyncClient) -> None:
    async with provider(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")) as origin:
        for _ in range(2):
            response = await client.head(url(origin))
            assert (response.headers["content-length"], response.content) == ("5", b"")


async def test_leaving_a_stream_early_closes_the_connection(client: httpx.AsyncClient) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED + b"2\r\nhe\r\n")
        await peer.until_gone()
        gone.set()

    async with provider(script) as origin:
        async with client.stream("GET", url(origin)) as response:
            assert response.status_code == 200
        await gone.wait()


def numbered(numbers: list[int]) -> Script:
    async def script(peer: Peer) -> None:
        while await peer.request():
            numbers.append(peer.number)
            await peer.say(OK)

    return script


async def test_connections_are_kept(client: httpx.AsyncClient) -> None:
    numbers: list[int] = []
    async with provider(numbered(numbers)) as origin:
        for _ in range(3):
            await client.get(url(origin))
    assert numbers == [0, 0, 0]


async def test_a_client_made_for_the_loaders_takes_nothing_from_the_environment_and_leaves_the_transport_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    redirect = b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"
    async with transport() as made, provider(answering(redirect)) as origin:
        for _ in range(2):
            async with make_client(made) as client:
                assert (await client.get(url(origin))).status_code == 302
        assert made.statistics()[origin].reused == 1
