"""A body that comes in parts is sent as it comes: framed right, one part in memory, stopped by an early answer."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
import trio.testing
import trustme

from gateway.upstream.transport import Origin, RawResponse, Transport, TransportError, Upload, make_tls_context
from tests.component.transport_peer import OK, Peer, answering, body_of, provider, transport

PART = b"x" * 300_000  # more than goes at once
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig"


def parts(pieces: Iterable[bytes]) -> Callable[[], Awaitable[bytes]]:
    left = iter(pieces)

    async def read() -> bytes:
        return next(left, b"")

    return read


async def send(made: Transport, origin: Origin, pieces: list[bytes], *, announced: bool = True) -> RawResponse:
    length = sum(map(len, pieces)) if announced else None
    body = Upload(read=parts(pieces), length=length)
    return await made.upload(b"POST", origin, b"/v1/files", [(b"content-type", b"a/b")], body)


@pytest.mark.parametrize("pieces", [[b"a", b"bc", PART, b"d"], [PART] * 20, []], ids=["mixed", "large", "none"])
async def test_a_body_of_known_length_arrives_byte_for_byte_and_the_connection_is_kept(pieces: list[bytes]) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        for _ in range(2):
            heard.append(await peer.request())
            await peer.say(OK)
        await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        for _ in range(2):
            with await send(made, origin, pieces) as response:
                assert (response.status, await body_of(response)) == (200, b"hello")
        assert made.statistics()[origin].opened == 1
    for request in heard:
        head, _, body = request.partition(b"\r\n\r\n")
        assert body == b"".join(pieces)
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
        assert b"transfer-encoding" not in head


async def test_a_body_of_unknown_length_goes_in_chunks() -> None:
    seen = bytearray()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def handle(stream: trio.SocketStream) -> None:
            while not seen.endswith(b"\r\n0\r\n\r\n"):
                seen.extend(await stream.receive_some())
            await stream.send_all(OK)

        nursery.start_soon(trio.serve_listeners, handle, listeners)
        origin = Origin("http", "127.0.0.1", listeners[0].socket.getsockname()[1])
        async with transport() as made:
            with await send(made, origin, [b"abc", b"0123456789abcdef0"], announced=False) as response:
                assert response.status == 200
        nursery.cancel_scope.cancel()
    head, _, body = bytes(seen).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"3\r\nabc\r\n11\r\n0123456789abcdef0\r\n0\r\n\r\n"


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcdef"]], ids=["shorter", "longer"])
async def test_a_body_of_another_length_than_announced_is_cut_and_told(pieces: list[bytes]) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.until_gone()
        assert peer.was_reset
        gone.set()

    async with transport() as made, provider(script) as origin:
        body = Upload(read=parts(pieces), length=4)
        with pytest.raises(TransportError) as caught:
            await made.upload(b"POST", origin, b"/", [], body)
        assert caught.value.kind == "request"
        await gone.wait()


@pytest.mark.parametrize("ending", ["stay", "close", "reset"])
async def test_an_answer_that_comes_while_the_source_is_waited_for_ends_the_upload(ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(TOO_LARGE)
        if ending == "stay":
            await trio.sleep_forever()
        await trio.testing.wait_all_tasks_blocked()
        if ending == "reset":
            peer.reset()

    stopped = trio.Event()

    async def read() -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    async with transport() as made, provider(script) as origin:
        with await made.upload(b"POST", origin, b"/", [], Upload(read=read, length=10)) as response:
            assert (response.status, await body_of(response)) == (413, b"big")
        assert stopped.is_set()
        assert made.statistics()[origin].open == 0


async def test_an_answer_that_comes_while_the_provider_takes_nothing_ends_the_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(TOO_LARGE)
        await trio.sleep_forever()

    async with transport() as made, provider(script) as origin:
        with await send(made, origin, [PART] * 1_000) as response:
            assert (response.status, await body_of(response)) == (413, b"big")


async def test_the_next_part_is_asked_for_when_the_one_before_was_taken() -> None:
    """A provider that takes nothing holds up the source: that is the backpressure."""
    asked = 0

    async def read() -> bytes:
        nonlocal asked
        asked += 1
        return PART

    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with transport() as made, provider(script) as origin:
        with trio.move_on_after(0.2) as scope:
            await made.upload(b"POST", origin, b"/", [], Upload(read=read))
        assert scope.cancelled_caught
        assert 1 <= asked < 100  # what the sockets' buffers take of 30 MB


async def test_what_the_source_raises_is_raised_bare_and_the_provider_cut_off() -> None:
    gone = trio.Event()

    async def read() -> bytes:
        raise ValueError("the client sent nonsense")

    async def script(peer: Peer) -> None:
        await peer.until_gone()
        gone.set()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(ValueError, match="nonsense"):
            await made.upload(b"POST", origin, b"/", [], Upload(read=read))
        await gone.wait()


async def test_a_provider_that_ends_in_the_middle_is_a_transport_error() -> None:
    async def script(peer: Peer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await send(made, origin, [PART] * 100)
        assert caught.value.kind in ("write", "read")
        assert not caught.value.fully_sent


async def test_cancelling_resets_the_connection() -> None:
    was_reset = trio.Event()

    async def read() -> bytes:
        await trio.sleep_forever()
        return b""

    async def script(peer: Peer) -> None:
        await peer.until_gone()
        was_reset.set()

    async with transport() as made, provider(script) as origin:
        with trio.move_on_after(0.05):
            await made.upload(b"POST", origin, b"/", [], Upload(read=read))
        await was_reset.wait()


async def test_an_uploads_connection_carries_the_next_request() -> None:
    async with transport() as made, provider(answering(OK)) as origin:
        with await send(made, origin, [b"abc"]) as response:
            await body_of(response)
        with await made.send(b"GET", origin, b"/", []) as response:
            assert (response.reused, await body_of(response)) == (True, b"hello")


async def test_through_tls_parts_arrive_as_they_are() -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    trusting = make_tls_context()
    authority.configure_trust(trusting)
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        heard.append(await peer.request())
        await peer.say(OK)

    async with (
        transport(tls=lambda: trusting) as made,
        provider(script, tls=serving, host="localhost") as origin,
    ):
        with await send(made, origin, [b"a", PART, b"b"]) as response:
            assert await body_of(response) == b"hello"
    assert heard[0].endswith(b"\r\n\r\na" + PART + b"b")
