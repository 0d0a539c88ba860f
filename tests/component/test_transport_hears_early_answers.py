"""A provider may answer before it took the whole request: the answer counts, and the writing stops."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from gateway.upstream.transport import Origin, TransportError
from tests.component.transport_peer import OK, Peer, ask, body_of, provider, transport

LARGE = b"x" * 16_000_000  # more than the sockets' buffers take
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig"


@pytest.mark.parametrize("ending", ["stay", "close", "reset"])
async def test_an_early_answer_is_the_answer(ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(TOO_LARGE)
        if ending == "stay":
            await trio.sleep_forever()
        await trio.testing.wait_all_tasks_blocked()
        if ending == "reset":
            peer.reset()

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin, b"POST", LARGE) == (413, b"big")
        counts = made.statistics()[origin]
        assert (counts.opened, counts.open) == (1, 0)


async def test_an_early_answer_to_a_small_body_is_the_answer_even_after_a_reset() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(TOO_LARGE)
        await trio.testing.wait_all_tasks_blocked()

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin) == (413, b"big")


async def test_an_answer_given_before_anything_could_be_written_is_the_answer() -> None:
    """As a provider does that is full: it accepts, says so and resets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse(phase: str) -> None:
            if phase == "write":
                accepted, _ = listener.accept()
                accepted.send(TOO_LARGE)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                accepted.close()

        origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
        async with transport() as made:
            with await made.send(b"POST", origin, b"/", [], b"{}", on_phase=refuse) as response:
                assert (response.status, await body_of(response)) == (413, b"big")


async def test_hints_while_writing_are_no_answer() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            request = await peer.request()
            if not request:
                return
            assert request.endswith(LARGE)
            await peer.say(OK)
            return

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin, b"POST", LARGE) == (200, b"hello")


async def test_an_answer_that_streams_while_the_request_is_taken_is_whole_and_the_connection_kept() -> None:
    size = 300_000  # more than is read ahead

    async def script(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.say, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"y" * size)
            await trio.testing.wait_all_tasks_blocked()
            assert (await peer.request()).endswith(LARGE)
        await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        assert await ask(made, origin, b"POST", LARGE) == (200, b"y" * size)
        assert made.statistics()[origin].idle == 1


async def test_an_early_answer_cut_off_is_an_error_once_its_bytes_are_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 30\r\n\r\nbig")
        await trio.testing.wait_all_tasks_blocked()

    async with transport() as made, provider(script) as origin:
        with await made.send(b"POST", origin, b"/", [], LARGE) as response:
            assert (response.status, await response.receive()) == (413, b"big")
            with pytest.raises(TransportError) as caught:
                await body_of(response)
        assert (caught.value.kind, caught.value.fully_sent) == ("read", False)


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_provider_that_ends_while_the_request_is_written_never_had_it_whole(ending: str) -> None:
    async def script(peer: Peer) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if ending == "reset":
            peer.reset()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin, b"POST", LARGE)
        error = caught.value
        assert error.kind in ("write", "read")  # whichever side of the socket notices first
        assert (error.bytes_sent, error.fully_sent, error.bytes_received) == (True, False, False)
        assert error.safe_to_resend


async def test_garbage_while_writing_is_a_protocol_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"nonsense\r\n\r\n")
        await trio.sleep_forever()

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError) as caught:
            await ask(made, origin, b"POST", LARGE)
        assert caught.value.kind == "protocol"


async def test_a_transport_closed_while_a_request_is_written_says_so() -> None:
    begun = trio.Event()

    async def script(_: Peer) -> None:
        begun.set()
        await trio.sleep_forever()

    async with transport() as made, provider(script) as origin, trio.open_nursery() as nursery:

        async def fail() -> None:
            with pytest.raises(TransportError):
                await ask(made, origin, b"POST", LARGE)

        nursery.start_soon(fail)
        await begun.wait()
        await trio.testing.wait_all_tasks_blocked()
        made.close()
