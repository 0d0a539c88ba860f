"""Whatever bytes a provider sends: the right answer or a ``protocol`` or ``read`` error, never a wrong body."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.upstream.transport import Limits, TransportError
from tests.component.transport_peer import OK, Peer, answering, ask, body_of, provider, transport

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = {
    "length": (OK, b"hello"),
    "chunks": (CHUNKED + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", b"hello world"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", b"hello"),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hello"),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", b""),
    "empty": (HEAD + b"content-length: 0\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    "1.0 kept alive": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
}


@pytest.mark.parametrize("name", GOOD)
async def test_an_answer_split_at_every_byte_is_the_same_answer(name: str) -> None:
    answer, body = GOOD[name]

    async def script(peer: Peer) -> None:
        cut = 0
        while await peer.request():
            cut += 1
            await peer.say(answer[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await peer.say(answer[cut:])

    async with transport() as made, provider(script) as origin:
        for _ in range(len(answer)):
            assert (await ask(made, origin))[1] == body
        counts = made.statistics()[origin]
        assert (counts.opened, counts.idle) == (1, 1)


async def test_an_answer_sent_byte_by_byte_is_the_same_answer() -> None:
    answer, body = GOOD["trailers"]

    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(len(answer)):
            await peer.say(answer[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()

    async with transport() as made, provider(script) as origin:
        with await made.send(b"GET", origin, b"/", []) as response:
            assert await body_of(response) == body
            assert response.trailers == [(b"x-sum", b"1"), (b"x-more", b"2")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HEAD + b"\r\nhello", id="1.1"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", id="1.0"),
        pytest.param(HEAD + b"connection: keep-alive\r\n\r\nhello", id="said to be kept alive"),
    ],
)
async def test_a_body_may_end_with_the_connection(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin) == (200, b"hello")
        assert made.statistics()[origin].open == 0


async def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    async with transport() as made, provider(answering(HEAD + b"content-length: 5\r\n\r\n")) as origin:
        with await made.send(b"HEAD", origin, b"/", []) as response:
            assert response.header(b"content-length") == b"5"
            assert await response.receive() == b""
            assert response.complete


BAD = {
    "garbage": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "tls alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "http/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "http/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "bare 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "equal lengths": HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "different lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "list of lengths": HEAD + b"content-length: 5, 5\r\n\r\nhello",
    "negative length": HEAD + b"content-length: -5\r\n\r\nhello",
    "signed length": HEAD + b"content-length: +5\r\n\r\nhello",
    "huge length": HEAD + b"content-length: 99999999999999999999\r\n\r\nhello",
    "length and coding": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "gzip coding": HEAD + b"transfer-encoding: gzip\r\n\r\nhello",
    "gzip then chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": HEAD + b"transfer-encoding: xchunked\r\n\r\nhello",
    "folded header": HEAD + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "space before colon": HEAD + b"x : a\r\ncontent-length: 0\r\n\r\n",
    "bare carriage return": HEAD + b"x: a\rb\r\ncontent-length: 0\r\n\r\n",
    "null": HEAD + b"x: a\0b\r\ncontent-length: 0\r\n\r\n",
    "no name": HEAD + b": a\r\ncontent-length: 0\r\n\r\n",
    "no colon": HEAD + b"abc\r\ncontent-length: 0\r\n\r\n",
    "negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "no hex": CHUNKED + b"5g\r\nhello\r\n0\r\n\r\n",
    "prefixed chunk": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "empty chunk size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk with line feed": CHUNKED + b"5\nhello\n0\n\n",
    "length in trailers": CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 4\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_proper_http_is_refused(name: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(BAD[name])
        await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin)
        assert caught.value.kind == "protocol"
        assert caught.value.fully_sent
        assert caught.value.bytes_received
        assert not caught.value.safe_to_resend
        assert str(origin.port) in str(caught.value)
        counts = made.statistics()[origin]
        assert (counts.open, counts.dead) == (0, 1)


FLOODS = {
    "many headers": (HEAD, b"x-a: b\r\n"),
    "one large header": (HEAD + b"x-a: ", b"b" * 100),
    "one large name": (HEAD, b"n" * 100),
    "long reason": (b"HTTP/1.1 200 ", b"O" * 100),
    "many hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"),
    "many empty lines": (b"", b"\r\n" * 50),
    "chunk extension": (CHUNKED + b"5;a=", b"b" * 100),
    "many chunk extensions": (CHUNKED, b"1;a=" + b"b" * 90 + b"\r\nx\r\n"),
    "many trailers": (CHUNKED + b"0\r\n", b"x-a: b\r\n"),
    "one large trailer": (CHUNKED + b"0\r\nx-a: ", b"b" * 100),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_an_endless_head_or_framing_is_cut_off(name: str) -> None:
    start, piece = FLOODS[name]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        while True:
            await peer.say(piece)

    async with transport(limits=Limits(head_bytes=4_096, excess_bytes=4_096)) as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin)
        assert caught.value.kind == "protocol"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HEAD + b"x: " + b"b" * 5_000 + b"\r\ncontent-length: 0\r\n\r\n", id="headers"),
        pytest.param(CHUNKED + b"0\r\nx: " + b"b" * 5_000 + b"\r\n\r\n", id="trailers"),
    ],
)
async def test_headers_that_come_whole_but_too_large_are_refused(answer: bytes) -> None:
    async with transport(limits=Limits(head_bytes=4_096)) as made, provider(answering(answer)) as origin:
        with pytest.raises(TransportError, match="larger than 4096 bytes"):
            await ask(made, origin)


async def test_chunks_of_one_byte_are_no_flood() -> None:
    answer = CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    async with transport(limits=Limits(excess_bytes=64)) as made, provider(answering(answer)) as origin:
        assert await ask(made, origin) == (200, b"x" * 20_000)


@pytest.mark.parametrize("name", ["many headers", "many trailers"])
async def test_more_headers_than_allowed_are_refused_however_small(name: str) -> None:
    start, piece = FLOODS[name]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(start + piece * 9 + b"\r\n")
        await peer.until_gone()

    async with transport(limits=Limits(header_count=8)) as made, provider(script) as origin:
        with pytest.raises(TransportError, match="more than 8 headers"):
            await ask(made, origin)


@pytest.mark.parametrize(
    ("said", "received"),
    [
        pytest.param(b"", False, id="before the answer"),
        pytest.param(b"HTTP/1.1 200", True, id="in the status line"),
        pytest.param(HEAD + b"content-le", True, id="in a header"),
        pytest.param(HEAD + b"content-length: 5\r\n\r\n", True, id="before the body"),
        pytest.param(HEAD + b"content-length: 5\r\n\r\nhell", True, id="in the body"),
        pytest.param(CHUNKED + b"5", True, id="in a chunk size"),
        pytest.param(CHUNKED + b"5\r\nhel", True, id="in a chunk"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", True, id="before the last chunk"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\nx-a: b\r\n", True, id="in the trailers"),
    ],
)
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_an_answer_cut_off_is_an_error_in_every_phase(said: bytes, received: bool, ending: str) -> None:
    taken = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(said)
        if ending == "reset":
            await trio.testing.wait_all_tasks_blocked()
            peer.reset()
        taken.set()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin)
        error = caught.value
        assert (error.kind, error.eof) == ("read", ending == "close")
        assert (error.bytes_sent, error.fully_sent, error.bytes_received) == (True, True, received)
        assert made.statistics()[origin].open == 0


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"x", id="garbage"),
        pytest.param(OK, id="a second answer"),
        pytest.param(OK[:20], id="the start of a second answer"),
    ],
)
async def test_a_connection_with_bytes_after_the_answer_is_not_used_again(more: bytes) -> None:
    async with transport() as made, provider(answering(OK + more)) as origin:
        for _ in range(2):
            assert await ask(made, origin) == (200, b"hello")
        assert (made.statistics()[origin].reused, made.statistics()[origin].opened) == (0, 2)


async def test_a_connection_whose_provider_speaks_while_idle_is_not_used_again() -> None:
    spoken = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            await trio.testing.wait_all_tasks_blocked()
            await peer.say(OK)
            spoken.set()
        await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin) == (200, b"hello")
        await spoken.wait()
        assert await ask(made, origin) == (200, b"hello")
        counts = made.statistics()[origin]
        assert (counts.reused, counts.dead, counts.opened) == (0, 1, 2)
