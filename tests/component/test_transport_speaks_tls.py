"""TLS: certificates are checked, sessions resumed, a cut body is no end, and aborts are as fast as without."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from gateway.upstream.transport import Origin, TransportError, make_client, make_tls_context
from gateway.upstream.wire import TlsWire
from tests.component.transport_peer import OK, Peer, answering, ask, body_of, provider, transport

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority, "localhost")


def server_context(authority: trustme.CA, name: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = make_tls_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_kept_connection_serves_many_requests(
    authority: trustme.CA, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(authority, "localhost", version)
    async with (
        transport(tls=lambda: trusting) as made,
        provider(answering(OK), tls=context, host="localhost") as origin,
    ):
        for _ in range(4):
            assert await ask(made, origin) == (200, b"hello")
        counts = made.statistics()[origin]
        assert (counts.opened, counts.reused, counts.dead) == (1, 3, 0)


async def test_an_answer_split_at_every_byte_is_the_same_answer(
    serving: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for at in range(len(OK)):
            await peer.say(OK[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        assert await ask(made, origin) == (200, b"hello")


async def test_a_megabyte_goes_both_ways_unharmed(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 12_000

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            echo = request.partition(b"\r\n\r\n")[2]
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(echo) + echo)

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        for _ in range(2):
            assert await ask(made, origin, b"POST", body) == (200, body)
        assert made.statistics()[origin].reused == 1


async def test_a_certificate_that_nobody_trusts_is_refused(serving: ssl.SSLContext) -> None:
    async with transport() as made, provider(answering(OK), tls=serving, host="localhost") as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin)
        assert (caught.value.kind, caught.value.bytes_sent) == ("tls", False)
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
        assert made.statistics()[origin].open == 0


async def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    context = server_context(authority, "other.example")
    async with (
        transport(tls=lambda: trusting) as made,
        provider(answering(OK), tls=context, host="localhost") as origin,
    ):
        with pytest.raises(TransportError, match="Hostname mismatch") as caught:
            await ask(made, origin)
        assert caught.value.kind == "tls"


async def test_a_provider_that_speaks_no_tls_is_a_tls_error(trusting: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.until_gone()

    async with transport(tls=lambda: trusting) as made, provider(script) as plain:
        with pytest.raises(TransportError) as caught:
            await ask(made, Origin("https", "localhost", plain.port))
        assert caught.value.kind == "tls"


async def test_a_provider_that_hangs_up_in_the_handshake_is_a_tls_error(trusting: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        peer.hang_up()

    async with transport(tls=lambda: trusting) as made, provider(script) as plain:
        with pytest.raises(TransportError) as caught:
            await ask(made, Origin("https", "localhost", plain.port))
        assert caught.value.kind in ("tls", "connect")  # end of file or reset, as the kernel saw it
        assert caught.value.safe_to_resend


async def test_a_handshake_without_end_is_bounded(trusting: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with transport(tls=lambda: trusting) as made, provider(script) as plain:
        origin = Origin("https", "localhost", plain.port)
        with pytest.raises(TransportError) as caught:
            await made.send(b"GET", origin, b"/", [], connect_timeout_s=0.05)
        assert (caught.value.kind, caught.value.timed_out) == ("connect", True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_second_connection_resumes_the_session_of_the_first(
    authority: trustme.CA, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(authority, "localhost", version)
    resumed = []

    async def script(peer: Peer) -> None:
        await peer.request()
        resumed.append(peer.resumed())
        await peer.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    async with transport(tls=lambda: trusting) as made, provider(script, tls=context, host="localhost") as origin:
        for _ in range(3):
            await ask(made, origin)
    assert resumed == [False, True, True]


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_body_that_ends_with_the_connection_needs_the_closing_alert(
    serving: ssl.SSLContext, trusting: ssl.SSLContext, orderly: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if not orderly:
            peer.hang_up()

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        if orderly:
            assert await ask(made, origin) == (200, b"hello")
        else:
            with pytest.raises(TransportError) as caught:
                await ask(made, origin)
            assert caught.value.kind == "read"


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_connection_that_ended_while_idle_is_replaced(
    serving: ssl.SSLContext, trusting: ssl.SSLContext, orderly: bool
) -> None:
    ended = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            if orderly:
                await peer.close()
            else:
                peer.hang_up()
            ended.set()
        else:
            await peer.until_gone()

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        await ask(made, origin)
        await ended.wait()
        assert await ask(made, origin) == (200, b"hello")
        counts = made.statistics()[origin]
        assert (counts.opened, counts.dead) == (2, 1)


class ServerEnd:
    """The server's side of a TLS connection, with records handed over one flight at a time."""

    def __init__(self, context: ssl.SSLContext, sock: trio.socket.SocketType) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self._sock = sock

    async def handshake(self) -> None:
        """Without sending what comes after it: the session tickets."""
        while True:
            try:
                return self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self._sock.recv(65_536))

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await self._sock.send(data)


@asynccontextmanager
async def connected(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> AsyncIterator[tuple[ServerEnd, TlsWire]]:
    ours, theirs = socket.socketpair()
    with trio.socket.from_stdlib_socket(theirs) as far:
        wire = TlsWire(ours, trusting, "localhost", None)
        server = ServerEnd(serving, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handshake)
            await wire.handshake()
        with trio.fail_after(5):
            yield server, wire
        wire.close(reset=False)


async def test_a_session_ticket_on_an_idle_connection_does_not_kill_it_but_data_does(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    serving = server_context(authority, "localhost", ssl.TLSVersion.TLSv1_3)
    async with connected(serving, trusting) as (server, wire):
        assert wire.session() is None
        await server.flush()  # the tickets
        assert not wire.stale()
        assert wire.session() is not None
        server.tls.write(OK)
        await server.flush()
        assert wire.stale()


async def test_after_the_closing_alert_nothing_is_waited_for(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with connected(serving, trusting) as (server, wire):
        server.tls.write(b"all")
        with pytest.raises(ssl.SSLWantReadError):
            server.tls.unwrap()
        await server.flush()  # the connection below stays open
        assert [await wire.recv(), await wire.recv()] == [b"all", b""]


async def test_leaving_in_the_middle_is_seen_by_the_provider(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + b"2\r\nhi\r\n")
        await peer.until_gone()
        gone.set()

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        with await made.send(b"POST", origin, b"/", [], b"{}") as response:
            assert await response.receive() == b"hi"
        assert made.statistics()[origin].open == 0
        await gone.wait()


async def test_an_early_answer_is_read_although_the_body_was_not_taken(
    serving: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await trio.sleep_forever()

    async with transport(tls=lambda: trusting) as made, provider(script, tls=serving, host="localhost") as origin:
        with await made.send(b"POST", origin, b"/", [], b"x" * 16_000_000) as response:
            assert (response.status, await body_of(response)) == (413, b"big")
        assert made.statistics()[origin].open == 0


async def test_httpx_on_top_speaks_tls_too(serving: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with (
        transport(tls=lambda: trusting) as made,
        provider(answering(OK), tls=serving, host="localhost") as origin,
        make_client(made) as client,
    ):
        assert (await client.get(f"https://localhost:{origin.port}/")).text == "hello"
