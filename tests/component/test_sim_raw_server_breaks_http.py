"""The raw server shows what it says, byte for byte, counts it, and leaves nothing behind."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults import raw_server as raw
from tests.faults.raw_server import RawServer

QUIET_S = 0.05  # longer than a script pauses between two bytes


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    with trio.fail_after(10):
        yield


def request(*, stream: bool = True) -> bytes:
    body = json.dumps({"model": "raw", "stream": stream}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def hear(server: RawServer, *, stream: bool = True) -> tuple[bytes, str]:
    """What comes for one request, and how the connection ended: closed, reset or open (nothing more came)."""
    received = bytearray()
    endings = ["open"]

    async def talk(client: trio.SocketStream) -> None:
        try:
            await client.send_all(request(stream=stream))
            async for data in client:
                received.extend(data)
            endings.append("closed")
        except trio.BrokenResourceError:
            endings.append("reset")

    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(talk, client)
        await wait_all_tasks_blocked(QUIET_S)  # both ends are in this loop: nothing is on its way any more
        nursery.cancel_scope.cancel()
    return bytes(received), endings[-1]


@pytest.mark.parametrize(
    ("script", "ending", "received"),
    [
        (raw.reset_at_once, "reset", b""),
        (raw.reset_before_head, "reset", b""),
        (raw.close_before_head, "closed", b""),
        (raw.half_a_head_and_close, "closed", raw.SSE_HEAD[:40]),
        (raw.half_a_head_and_silence, "open", raw.SSE_HEAD[:40]),
        (raw.silence, "open", b""),
        (raw.reset_in_the_middle, "reset", raw.SSE_HEAD + raw.chunk(b"".join(raw.events()[:4]))),
        (raw.close_in_the_middle, "closed", raw.SSE_HEAD + raw.chunk(b"".join(raw.events()[:4]))),
        (raw.stall_in_the_middle, "open", raw.SSE_HEAD + raw.chunk(b"".join(raw.events()[:4]))),
        (raw.answer, "open", raw.whole_stream()),
        (raw.slow_drip(0.0), "open", raw.whole_stream()),
        (raw.slow_drip(0.001, limit_bytes=20), "open", raw.SSE_HEAD[:20]),
    ],
)
async def test_a_script_ends_as_it_says(script: raw.Script, ending: str, received: bytes) -> None:
    async with RawServer(script) as server:
        assert await hear(server) == (received, ending)
        await server.until(lambda now: now.open == 0)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("script", "ending", "part"),
    [
        (raw.garbage, "closed", b"SSH-2.0"),
        (raw.reset_in_a_chunk, "reset", b"\r\n\r\n"),
        (raw.bad_chunk_length, "open", b"\r\nzz\r\n"),
        (raw.hints_first, "open", b"HTTP/1.1 103 Early Hints\r\n"),
    ],
)
async def test_broken_framing_is_on_the_wire(script: raw.Script, ending: str, part: bytes) -> None:
    async with RawServer(script) as server:
        received, how = await hear(server)
    assert how == ending
    assert part in received


async def test_a_finish_can_come_twice() -> None:
    async with RawServer(raw.double_finish) as server:
        received, _ = await hear(server)
    assert (received.count(b'"finish_reason": "stop"'), received.count(raw.DONE)) == (2, 2)


async def test_documents_can_be_shorter_than_announced() -> None:
    async with RawServer(raw.length_too_long, raw.close_in_the_middle) as server:
        for _ in range(2):
            received, ending = await hear(server, stream=False)
            head, _, body = received.partition(b"\r\n\r\n")
            assert ending == "closed"
            assert f"content-length: {len(body)}".encode() not in head
            assert b"content-length: " in head


async def test_the_last_script_is_for_all_further_connections() -> None:
    async with RawServer(raw.reset_before_head, raw.answer) as server:
        endings = [(await hear(server, stream=False))[1] for _ in range(3)]
    assert endings == ["reset", "open", "open"]
    assert (server.connections, server.requests) == (3, 3)
    assert b'"stream": false' in server.heard[0]


async def test_leaving_the_block_ends_every_connection() -> None:
    async with RawServer(raw.silence) as server:
        client = await trio.open_tcp_stream("127.0.0.1", server.port)
        await server.until(lambda now: now.open == 1)
    assert server.open == 0
    assert await client.receive_some() == b""
    await client.aclose()
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", server.port)


async def shake_hands(server: RawServer, client: ssl.SSLContext) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        secured = trio.SSLStream(stream, client, server_hostname="127.0.0.1")
        await secured.do_handshake()


async def test_tls_fails_for_a_wrong_certificate_and_for_plain_bytes() -> None:
    context, client = raw.trusted("127.0.0.1")
    async with RawServer(raw.answer, tls=context) as server:
        await shake_hands(server, client)
    async with RawServer(raw.answer, tls=raw.wrong_certificate()) as server:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await shake_hands(server, client)
        await server.until(lambda now: now.failed_handshakes == 1)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    async with RawServer(raw.plain_bytes) as server:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await shake_hands(server, client)
    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_a_full_backlog_accepts_nobody() -> None:
    async with raw.full_backlog() as port:
        with trio.move_on_after(0.2) as scope:
            await trio.open_tcp_stream("127.0.0.1", port)
        assert scope.cancelled_caught
