"""Bytes that are no proper request get the right status in OpenAI's shape, then the end of the connection."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.component.server_peer import PATIENCE_S, request, running

START = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (START + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed_request"),
        (START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", 400, "malformed_request"),
        (START + b"A: b\r\n c\r\n\r\n", 400, "malformed_request"),
        (START + b"A : b\r\n\r\n", 400, "malformed_request"),
        (START + b"A: b\rc\r\n\r\n", 400, "malformed_request"),
        (START + b"A: b\n\r\n", 400, "malformed_request"),
        (b"POST / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (START + b"Host: other\r\n\r\n", 400, "malformed_request"),
        (START + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, "malformed_request"),
        (START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed_body"),
        (START + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400, "malformed_body"),
        (START + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n", 413, "body_too_large"),
        (START + b"Content-Length: 1001\r\n\r\n", 413, "body_too_large"),
        (START + b"A: b\r\n" * 100 + b"\r\n", 431, "too_many_headers"),
        (START + b"A: " + b"b" * 40_000, 431, "headers_too_large"),
        (START + b"A: " + b"b" * 33_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 9_000, 414, "uri_too_long"),
        (b"GET / HTTP/3.0\r\n\r\n", 505, "http_version_not_supported"),
        (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501, "unknown_method"),
        (START + b"Expect: more\r\n\r\n", 417, "expectation_failed"),
        (b"\x16\x03\x01\x00\xf4\x01\x00", 400, "malformed_request"),
        (b"hello\r\n\r\n", 400, "malformed_request"),
        (b"\x00" * 100, 400, "malformed_request"),
    ],
)
async def test_it_is_refused_and_the_connection_ends(data: bytes, status: int, code: str) -> None:
    async with running(max_body_bytes=1_000) as server, await server.connect() as peer:
        await peer.send(data)
        answer = await peer.answer()
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.error["message"]
        assert answer.headers["connection"] == "close"
        await peer.send(request("/smuggled"))
        assert await peer.to_the_end() == b""
        assert server.statistics().refused_by_server == 1


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    async with running() as server, await server.connect() as peer:
        await peer.send(request("/a") + request("/b") + b"nonsense\r\n\r\n")
        assert [(await peer.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await peer.to_the_end() == b""


async def test_what_follows_a_body_is_never_taken_for_a_part_of_it() -> None:
    inner = request("/inner")
    async with running() as server, await server.connect() as peer:
        await peer.send(request("/outer", body=inner, method="POST") + request("/next"))
        first, second = await peer.answer(), await peer.answer()
        assert (first.headers["x-path"], first.body) == ("/outer", inner)
        assert second.headers["x-path"] == "/next"
        assert server.statistics().requests == 2


async def test_half_a_request_and_gone_leaves_nothing() -> None:
    async with running() as server:
        for data in (b"", b"GET", START, START + b"Content-Length: 10\r\n\r\nabc"):
            peer = await server.connect()
            await peer.send(data or b"\r\n")
            await trio.aclose_forcefully(peer.stream)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(PATIENCE_S):
            await server.service.empty()
        assert server.statistics().requests_active == 0
