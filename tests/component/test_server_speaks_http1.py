"""The server's HTTP/1.1 as a client sees it, and the ASGI it makes of it."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest
import trio
import trio.testing
import trustme

from tests.component.server_peer import PATIENCE_S, app_of, echo, read_all, request, running, say

Message = dict[str, Any]


async def test_the_scope_is_what_asgi_says() -> None:
    seen: list[Message] = []

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        seen.append(scope)
        await say(send, b"")

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request("/a%20b/%C3%A4?q=%20&r", "X-Two: 1", "x-two:  2 ", "Cookie: c"))
        assert (await peer.answer()).status == 200
        (scope,) = seen
        assert scope["client"] == peer.stream.socket.getsockname()
        assert scope["server"] == (server.host, server.port)
    assert {name: scope[name] for name in ("type", "http_version", "method", "scheme", "root_path")} == {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "root_path": "",
    }
    assert scope["path"] == "/a b/ä"
    assert scope["raw_path"] == b"/a%20b/%C3%A4"
    assert scope["query_string"] == b"q=%20&r"
    assert scope["headers"] == [(b"host", b"test"), (b"x-two", b"1"), (b"x-two", b"2"), (b"cookie", b"c")]
    assert scope["asgi"]["version"] == "3.0"
    assert scope["state"] == {}
    assert list(scope["extensions"]) == ["sluice.cancel"]


async def test_the_lifespans_state_reaches_each_request_as_its_own_copy() -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = "yes"
            await echo(scope, receive, send)
            return
        assert scope["state"] == {"shared": "yes"}
        scope["state"]["mine"] = 1
        await say(send, b"ok")

    async with running(app) as server, await server.connect() as peer:
        for _ in range(2):
            await peer.send(request())
            assert (await peer.answer()).body == b"ok"


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with running() as server, await server.connect() as peer:
        for body in (b"one", b"two" * 10_000, b""):
            await peer.send(request("/x", body=body, method="POST"))
            answer = await peer.answer()
            assert answer.body == body
            assert answer.headers["content-length"] == str(len(body))
            assert "date" in answer.headers
            assert "server" not in answer.headers
            assert "connection" not in answer.headers
        assert server.statistics().connections_open == 1
        assert server.statistics().requests == 3


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as server, await server.connect() as peer:
        many = b"".join(request(f"/{n}", body=b"%d" % n, method="POST") for n in range(1, 51))
        await peer.send(many)
        for n in range(1, 51):
            answer = await peer.answer()
            assert (answer.headers["x-path"], answer.body) == (f"/{n}", b"%d" % n)


async def test_a_request_may_arrive_byte_by_byte() -> None:
    data = request("/slow", body=b"sized", method="POST")
    data += (
        request("/slow", "Transfer-Encoding: chunked", method="POST")
        + b"3;x=y\r\nchu\r\n4\r\nnked\r\n0\r\nT: 1\r\n\r\n"
    )
    async with running() as server, await server.connect() as peer:
        for byte in data:
            await peer.send(bytes([byte]))
        assert (await peer.answer()).body == b"sized"
        assert (await peer.answer()).body == b"chunked"


async def test_empty_lines_before_a_request_are_ignored() -> None:
    async with running() as server, await server.connect() as peer:
        await peer.send(b"\r\n\r\n" + request("/a") + b"\r\n" + request("/b"))
        assert (await peer.answer()).headers["x-path"] == "/a"
        assert (await peer.answer()).headers["x-path"] == "/b"


async def test_a_stream_is_chunked_and_each_message_leaves_at_once() -> None:
    more = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": True})
        await send({"type": "http.response.body"})

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request())
        assert (await peer.until(b"5\r\nfirst\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        more.set()
        assert await peer.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"
        await peer.send(request())
        assert (await peer.answer()).body == b"firstsecond"


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async with running(app_of(handler)) as server:
        answer = await server.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.body == b"ab"
        assert answer.headers["connection"] == "close"


async def test_head_has_the_length_and_no_body() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"hello", headers=[(b"content-length", b"5")])

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request(method="HEAD") + request())
        assert (await peer.answer(bodiless=True)).headers["content-length"] == "5"
        assert (await peer.answer()).body == b"hello"


async def test_connection_close_is_honoured_from_both_sides() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        headers = [(b"connection", b"close")] if scope["path"] == "/close" else []
        await say(send, b"ok", headers=headers)

    async with running(app_of(handler)) as server:
        for data in (request("/", "Connection: close"), request("/close"), b"GET / HTTP/1.0\r\n\r\n"):
            async with await server.connect() as peer:
                await peer.send(data)
                answer = await peer.answer()
                assert answer.headers["connection"] == "close"
                assert await peer.to_the_end() == b""


async def test_an_end_that_was_never_written_leaves_no_connection_to_wait_on() -> None:
    """An app that is cancelled at its last message has said that it is over, but the client has not heard it."""

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        with trio.CancelScope() as scope_of_the_end:
            scope_of_the_end.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request())
        assert (await peer.until(b"begun")).startswith(b"HTTP/1.1 200")
        await peer.exactly(2)
        assert await peer.closed()
        assert server.statistics().app_failed == 1


async def test_100_continue_is_said_when_the_app_asks_for_the_body() -> None:
    asked = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await asked.wait()
        await say(send, await read_all(receive))

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        asked.set()
        assert (await peer.answer()).status == 100
        await peer.send(b"abc")
        assert (await peer.answer()).body == b"abc"
        await peer.send(request())
        assert (await peer.answer()).status == 200


async def test_an_app_that_refuses_before_the_body_gets_no_body_sent() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"no", status=403)

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        answer = await peer.answer()
        assert answer.status == 403
        assert answer.headers["connection"] == "close"
        assert await peer.to_the_end() == b""


async def test_a_small_unread_body_is_dropped_and_the_connection_kept() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"no", status=403)

    async with running(app_of(handler)) as server, await server.connect() as peer:
        data = request("/", body=b"x" * 50_000, method="POST")
        await peer.send(data[:-40_000])
        assert (await peer.answer()).status == 403
        await peer.send(data[-40_000:] + request())
        assert (await peer.answer()).status == 403
        assert server.statistics().connections_open == 1


async def test_a_large_unread_body_ends_the_connection_and_the_answer_is_read() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, b"no", status=403)

    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request("/", "Content-Length: 4000000", method="POST"))
        await peer.send(b"x" * 4_000_000)
        answer = await peer.answer()
        assert answer.status == 403
        assert answer.headers["connection"] == "close"


async def test_a_body_that_nobody_reads_is_not_taken_in() -> None:
    read, reading = trio.Event(), trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        reading.set()
        await read.wait()
        await say(send, b"%d" % len(await read_all(receive)))

    size = 12_000_000  # more than two kernel buffers take
    sent = trio.Event()
    async with running(app_of(handler)) as server, await server.connect() as peer, trio.open_nursery() as nursery:

        async def send_all() -> None:
            await peer.send(request("/", f"Content-Length: {size}", method="POST") + b"x" * size)
            sent.set()

        nursery.start_soon(send_all)
        await reading.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not sent.is_set()
        read.set()
        assert (await peer.answer()).body == b"%d" % size


async def test_receive_tells_of_the_end_of_the_response() -> None:
    told: list[Message] = []
    done = trio.Event()

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, receive)
            await trio.testing.wait_all_tasks_blocked()
            await say(send, b"ok")
        done.set()

    async def watch(receive: Any) -> None:
        told.append(await receive())

    async with running(app_of(handler)) as server:
        assert (await server.ask(request())).body == b"ok"
        with trio.fail_after(PATIENCE_S):
            await done.wait()
    assert told == [{"type": "http.disconnect"}]


async def test_an_app_that_fails_first_gives_500_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] == "/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("secret detail")
        if scope["path"] == "/header":
            await say(send, b"", headers=[(b"x", b"a\r\nset-cookie: stolen=1")])
        if scope["path"] == "/raise":
            raise ValueError("secret detail")

    async with running(app_of(handler)) as server:
        for path in ("/raise", "/group", "/header", "/silent"):
            answer = await server.ask(request(path))
            assert answer.status == 500
            assert answer.error["code"] == "internal_error"
            assert b"secret" not in answer.body
            assert "set-cookie" not in answer.headers
        assert server.statistics().app_failed == 4
    assert "secret detail" in caplog.text


async def test_what_fails_behind_a_whole_answer_is_told_in_the_log_and_the_next_request_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await say(send, scope["path"].encode())
        if scope["path"] == "/raise":
            raise ValueError("too late")
        if scope["path"] == "/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("too late")

    paths = ["/raise", "/fine", "/group", "/fine"]
    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(b"".join(map(request, paths)))
        assert [(await peer.answer()).body.decode() for _ in paths] == paths
        await peer.send(request("/fine"))
        assert (await peer.answer()).status == 200
        assert (server.statistics().app_failed, server.statistics().requests) == (2, 5)
    assert caplog.text.count("ValueError: too late") == 2


async def test_an_app_that_fails_in_the_middle_shows_a_truncated_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        if scope["path"] == "/raise":
            raise ValueError

    async with running(app_of(handler)) as server:
        for path in ("/raise", "/return"):
            async with httpx.AsyncClient() as client:
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await client.get(server.url + path)


async def test_a_client_that_sends_100_mb_still_reads_its_413() -> None:
    async def flood() -> Any:
        for _ in range(100):
            yield b"x" * 1_000_000

    async with running() as server, httpx.AsyncClient() as client:
        for content in (b"x" * 100_000_000, flood()):
            answer = await client.post(server.url, content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
            assert "server.max_body_bytes" in answer.json()["error"]["message"]


class Tls:
    def __init__(self, folder: Any) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.certificate = str(folder / "cert.pem")
        self.key = str(folder / "key.pem")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        certificate.private_key_pem.write_to_path(self.key)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("http2", [False, True])
async def test_tls_speaks_http1_and_leaves_http2_to_hypercorn(tls: Tls, http2: bool) -> None:
    extensions: list[Message] = []

    async def handler(scope: Message, receive: Any, send: Any) -> None:
        extensions.append(scope["extensions"])
        assert scope["scheme"] == "https"
        await say(send, await read_all(receive) + scope["http_version"].encode())

    async with running(app_of(handler), tls_cert=tls.certificate, tls_key=tls.key) as server:
        async with httpx.AsyncClient(verify=tls.client, http1=not http2, http2=http2) as client:
            for _ in range(2):
                answer = await client.post(server.url.replace("127.0.0.1", "localhost"), content=b"x" * 200_000)
                assert answer.content == b"x" * 200_000 + (b"2" if http2 else b"1.1")
                assert "server" not in answer.headers
        assert server.statistics().delegated == int(http2)
    assert ("sluice.cancel" in extensions[0]) is not http2


async def test_cleartext_http2_with_prior_knowledge_is_left_to_hypercorn() -> None:
    async with running() as server, httpx.AsyncClient(http1=False, http2=True) as client:
        answer = await client.post(server.url, content=b"hello")
        assert (answer.http_version, answer.content) == ("HTTP/2", b"hello")
        assert server.statistics().delegated == 1


async def test_a_websocket_is_left_to_hypercorn() -> None:
    async def handler(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await say(send, b"plain")
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})

    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    async with running(app_of(handler)) as server, await server.connect() as peer:
        await peer.send(request("/"))
        assert (await peer.answer()).body == b"plain"
        await peer.send(request("/", *upgrade))
        assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await peer.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert await peer.exactly(4) == b"\x81\x02hi"
        assert server.statistics().delegated == 1


async def test_nothing_is_left_behind() -> None:
    async with running() as server:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(server.ask, request("/", body=b"abc", method="POST"))
        with trio.fail_after(PATIENCE_S):
            await server.service.empty()
        statistics = server.statistics()
    assert (statistics.connections_open, statistics.requests_active, statistics.requests) == (0, 0, 20)


async def test_beyond_max_connections_new_ones_wait_in_the_backlog() -> None:
    async with running(max_connections=2) as server:
        first, second, third = [await server.connect() for _ in range(3)]
        for peer in (first, second):
            await peer.send(request())
            assert (await peer.answer()).status == 200
        await third.send(request())
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.statistics().connections_open == 2
        await trio.aclose_forcefully(first.stream)
        assert (await third.answer()).status == 200
        for peer in (second, third):
            await trio.aclose_forcefully(peer.stream)
