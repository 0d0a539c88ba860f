"""Connections are kept, counted, checked before reuse, and shared out fairly when there are too few."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from gateway.upstream.transport import HeaderBlock, Origin, RawResponse, Transport, TransportError
from tests.component.transport_peer import OK, Peer, Script, answering, ask, body_of, provider, transport

CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until ``condition`` holds; the surrounding scope bounds it."""
    while not condition():
        await trio.testing.wait_all_tasks_blocked()


async def test_the_phases_of_a_call_are_told_as_they_begin() -> None:
    phases: list[str] = []
    async with transport() as made, provider(answering(OK)) as origin:
        for _ in range(2):
            with await made.send(b"GET", origin, b"/", [], on_phase=phases.append) as response:
                await body_of(response)
    assert phases == ["connect", "write", "read", "write", "read"]


async def test_one_connection_serves_one_request_after_the_other() -> None:
    block = HeaderBlock.of([(b"accept", b"*/*")])
    async with transport() as made, provider(answering(OK)) as origin:
        for turn in range(5):
            with await made.send(b"POST", origin, b"/", block, b"{}") as response:
                assert await body_of(response) == b"hello"
                assert (response.reused, response.resent) == (turn > 0, False)
        counts = made.statistics()[origin]
        assert (counts.opened, counts.reused, counts.open, counts.idle) == (1, 4, 1, 1)


async def test_the_connection_is_back_as_soon_as_the_last_byte_arrived() -> None:
    async with transport() as made, provider(answering(OK)) as origin:
        with await made.send(b"GET", origin, b"/", []) as response:
            if not response.complete:
                assert await response.receive() == b"hello"
            assert response.complete
            assert made.statistics()[origin].idle == 1


async def test_the_request_arrives_as_it_was_meant() -> None:
    seen = []

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            seen.append(request)
            await peer.say(OK)

    async with transport() as made, provider(script) as origin:
        await ask(made, origin, b"POST", b'{"a":1}')
        await ask(made, origin, b"GET", b"")
        with await made.send(
            b"PUT", origin, b"/v1?a=b%20c", [(b"Host", b"other"), (b"content-length", b"99")]
        ) as answer:
            await body_of(answer)
    host = b"127.0.0.1:%d" % origin.port
    assert seen == [
        b'POST /v1/x HTTP/1.1\r\nhost: %b\r\naccept: */*\r\ncontent-length: 7\r\n\r\n{"a":1}' % host,
        b"GET /v1/x HTTP/1.1\r\nhost: %b\r\naccept: */*\r\n\r\n" % host,
        b"PUT /v1?a=b%20c HTTP/1.1\r\nHost: other\r\ncontent-length: 0\r\n\r\n",
    ]


async def test_a_connection_that_its_provider_closes_is_not_kept() -> None:
    async with transport() as made, provider(answering(CLOSING)) as origin:
        assert await ask(made, origin) == (200, b"hello")
        counts = made.statistics()[origin]
        assert (counts.open, counts.closed) == (0, 1)


class Halves:
    """A provider that gives the first half of each answer at once and the second when told to."""

    def __init__(self) -> None:
        self.rest: dict[bytes, trio.Event] = {}
        self.served_by: dict[bytes, int] = {}

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            path = request.split(b" ")[1]
            self.served_by[path] = peer.number
            self.rest[path] = trio.Event()
            await peer.say(OK[:-2])
            await self.rest[path].wait()
            await peer.say(OK[-2:])

    async def finish(self, path: bytes, response: RawResponse) -> None:
        self.rest[path].set()
        assert await body_of(response) == b"hello"


async def test_the_last_returned_connection_is_taken_first() -> None:
    halves = Halves()
    async with transport() as made, provider(halves.script) as origin:
        first = await made.send(b"GET", origin, b"/1", [])
        second = await made.send(b"GET", origin, b"/2", [])
        await halves.finish(b"/2", second)
        await halves.finish(b"/1", first)
        third = await made.send(b"GET", origin, b"/3", [])
        await halves.finish(b"/3", third)
    assert halves.served_by == {b"/1": 0, b"/2": 1, b"/3": 0}


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_ended_while_idle_is_replaced_before_anything_is_sent(ending: str) -> None:
    ended = trio.Event()
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.say(OK)
        if peer.number == 0:
            await trio.testing.wait_all_tasks_blocked()
            if ending == "reset":
                peer.reset()
            else:
                peer.hang_up()
            ended.set()
        else:
            await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        await ask(made, origin)
        await ended.wait()
        with await made.send(b"POST", origin, b"/", [], b"{}") as response:
            assert await body_of(response) == b"hello"
            assert not response.resent
        counts = made.statistics()[origin]
        assert (counts.opened, counts.dead, counts.resent, len(requests)) == (2, 1, 0, 2)


def dying_after_the_first_answer(requests: list[bytes], said: bytes = b"") -> Script:
    """Connection 0 answers once, reads the second request and ends, perhaps having begun to answer; others answer."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            requests.append(request)
            if peer.number == 0 and len(requests) == 2:
                if said:
                    await peer.say(said)
                return
            await peer.say(OK)

    return script


async def test_a_post_that_may_have_arrived_is_not_sent_again() -> None:
    requests: list[bytes] = []
    async with transport() as made, provider(dying_after_the_first_answer(requests)) as origin:
        await ask(made, origin)
        with pytest.raises(TransportError) as caught:
            await ask(made, origin, b"POST")
        error = caught.value
        assert (error.kind, error.reused, error.fully_sent, error.bytes_received) == ("read", True, True, False)
        assert not error.safe_to_resend
        assert len(requests) == 2


async def test_a_get_is_sent_again_once_when_its_kept_connection_ends_without_an_answer() -> None:
    requests: list[bytes] = []
    async with transport() as made, provider(dying_after_the_first_answer(requests)) as origin:
        await ask(made, origin)
        with await made.send(b"GET", origin, b"/", []) as response:
            assert await body_of(response) == b"hello"
            assert (response.resent, response.reused) == (True, False)
        counts = made.statistics()[origin]
        assert (counts.resent, counts.dead, len(requests)) == (1, 1, 3)


async def test_a_get_is_not_sent_again_after_the_first_byte_of_an_answer() -> None:
    requests: list[bytes] = []
    async with transport() as made, provider(dying_after_the_first_answer(requests, b"H")) as origin:
        await ask(made, origin)
        with pytest.raises(TransportError):
            await ask(made, origin, b"GET")
        assert len(requests) == 2


async def test_a_post_of_which_no_byte_was_written_is_sent_again() -> None:
    """The provider resets between the check of the kept connection and the write."""
    peers: list[Peer] = []
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        while request := await peer.request():
            requests.append(request)
            await peer.say(OK)

    def reset_first(phase: str) -> None:
        if phase == "write" and len(peers) == 1:
            peers[0].reset()

    async with transport() as made, provider(script) as origin:
        await ask(made, origin)
        with await made.send(b"POST", origin, b"/", [], b"{}", on_phase=reset_first) as response:
            assert await body_of(response) == b"hello"
            assert (response.resent, response.reused) == (True, False)
        counts = made.statistics()[origin]
        assert (counts.resent, counts.dead, len(requests)) == (1, 1, 2)


async def test_a_get_on_a_new_connection_is_never_sent_again() -> None:
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.request())

    async with transport() as made, provider(script) as origin:
        with pytest.raises(TransportError):
            await ask(made, origin, b"GET")
        assert len(requests) == 1


async def test_a_connection_idle_for_too_long_is_replaced() -> None:
    now = [0.0]
    async with provider(answering(OK)) as origin:
        made = Transport(idle_timeout_s=10.0, clock=lambda: now[0])
        await ask(made, origin)
        now[0] = 9.0
        await ask(made, origin)
        now[0] = 19.5
        await ask(made, origin)
        counts = made.statistics()[origin]
        assert (counts.opened, counts.reused, counts.expired) == (2, 1, 1)
        made.close()


async def test_pruning_closes_the_expired_and_the_dead_without_traffic() -> None:
    now = [0.0]
    ended = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            peer.hang_up()
            ended.set()
        else:
            await peer.until_gone()

    async with provider(script) as origin:
        made = Transport(idle_timeout_s=10.0, clock=lambda: now[0])
        await ask(made, origin)
        await ask(made, origin)
        await ended.wait()
        made.prune()
        await ask(made, origin)
        now[0] = 11.0
        made.prune()
        counts = made.statistics()[origin]
        assert (counts.open, counts.dead, counts.expired) == (0, 1, 1)
        made.close()


class Gate:
    """A provider that answers when told to."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.asked: list[bytes] = []

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            self.asked.append(request.split(b" ")[1])
            await self.open.wait()
            await peer.say(OK)


async def get(made: Transport, origin: Origin, path: bytes) -> None:
    with await made.send(b"GET", origin, path, []) as response:
        assert await body_of(response) == b"hello"


async def test_no_more_connections_than_the_limit_and_who_waits_is_served_in_order() -> None:
    gate = Gate()
    async with transport(max_connections=2) as made, provider(gate.script) as origin:
        async with trio.open_nursery() as nursery:
            for turn in range(8):
                nursery.start_soon(get, made, origin, b"/%d" % turn)
                await trio.testing.wait_all_tasks_blocked()
                await until(lambda turn=turn: len(gate.asked) == min(turn + 1, 2))  # type: ignore[misc]
            counts = made.statistics()[origin]
            assert (counts.in_use, counts.waiting, counts.limit) == (2, 6, 2)
            gate.open.set()
        counts = made.statistics()[origin]
        assert (counts.opened, counts.reused, counts.idle) == (2, 6, 2)
    assert [gate.asked.index(b"/%d" % turn) // 2 for turn in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    gate = Gate()
    async with (
        transport(max_connections=1) as made,
        provider(gate.script) as origin,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(get, made, origin, b"/first")
        await until(lambda: bool(gate.asked))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(get, made, origin, b"/gone")
                await until(lambda: made.statistics()[origin].waiting == 1)
                scope.cancel()
        assert made.statistics()[origin].waiting == 0
        nursery.start_soon(get, made, origin, b"/second")
        await until(lambda: made.statistics()[origin].waiting == 1)
        gate.open.set()
    assert gate.asked == [b"/first", b"/second"]


@pytest.mark.parametrize("ending", ["complete", "aborted"])
async def test_a_waiter_cancelled_in_the_moment_it_is_served_sends_nothing_and_gives_all_back(ending: str) -> None:
    halves = Halves()
    async with transport(max_connections=1) as made, provider(halves.script) as origin:
        holder = await made.send(b"GET", origin, b"/1", [])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, made, origin, b"/never")
                await until(lambda: made.statistics()[origin].waiting == 1)
                if ending == "complete":
                    await halves.finish(b"/1", holder)
                else:
                    holder.close()
                assert made.statistics()[origin].waiting == 0
                scope.cancel()
        counts = made.statistics()[origin]
        assert (counts.in_use, counts.connecting, counts.idle) == (0, 0, 1 if ending == "complete" else 0)
        last = await made.send(b"GET", origin, b"/2", [])
        await halves.finish(b"/2", last)
    assert list(halves.served_by) == [b"/1", b"/2"]


async def test_waiting_for_a_connection_is_bounded() -> None:
    gate = Gate()
    async with (
        transport(max_connections=1) as made,
        provider(gate.script) as origin,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(get, made, origin, b"/first")
        await until(lambda: bool(gate.asked))
        with pytest.raises(TransportError) as caught:
            await made.send(b"GET", origin, b"/", [], pool_timeout_s=0.01)
        assert (caught.value.kind, caught.value.timed_out, caught.value.safe_to_resend) == ("pool", True, True)
        assert "max_connections" in str(caught.value)
        gate.open.set()


async def test_a_slot_freed_by_a_failure_goes_to_the_next_in_line() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        if b"/bad" in request:
            await trio.testing.wait_all_tasks_blocked()
            await peer.say(b"nonsense\r\n\r\n")
        else:
            await peer.say(OK)
        await peer.until_gone()

    async def fail(made: Transport, origin: Origin) -> None:
        with pytest.raises(TransportError):
            await made.send(b"GET", origin, b"/bad", [])

    async with transport(max_connections=1) as made, provider(script) as origin:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, made, origin)
            await until(lambda: bool(made.statistics()))
            nursery.start_soon(get, made, origin, b"/good")
        counts = made.statistics()[origin]
        assert (counts.opened, counts.dead, counts.idle) == (2, 1, 1)


async def test_a_lowered_limit_takes_effect_as_connections_come_back() -> None:
    gate = Gate()
    async with transport(max_connections=3) as made, provider(gate.script) as origin:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(get, made, origin, b"/")
            await until(lambda: len(gate.asked) == 3)
            made.set_limit(origin, 1)
            gate.open.set()
        counts = made.statistics()[origin]
        assert (counts.limit, counts.open) == (1, 1)


async def test_an_idle_connection_is_closed_in_an_orderly_way() -> None:
    endings = []

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(OK)
        endings.append(peer.was_reset)

    async with transport() as made, provider(script) as origin:
        await ask(made, origin)
        made.close()
        await until(lambda: bool(endings))
    assert endings == [False]


async def test_a_name_that_does_not_resolve_and_a_port_that_refuses_are_told_apart() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with transport() as made:
        with pytest.raises(TransportError) as refused:
            await made.send(b"GET", Origin("http", "127.0.0.1", port), b"/", [])
        with pytest.raises(TransportError) as unknown:
            await made.send(b"GET", Origin("http", "no-such-host.invalid", 80), b"/", [])
    assert (refused.value.kind, unknown.value.kind) == ("connect", "dns")
    assert refused.value.safe_to_resend
    assert not refused.value.bytes_sent


async def test_connecting_is_bounded() -> None:
    """A full backlog leaves the handshake of one more connection unanswered."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    with listener:
        async with transport() as made:
            origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
            for _ in range(2):
                fillers.append(trio.socket.socket())
                with trio.move_on_after(0.05):
                    await fillers[-1].connect(listener.getsockname())
            with pytest.raises(TransportError) as caught:
                await made.send(b"GET", origin, b"/", [], connect_timeout_s=0.05)
            assert (caught.value.kind, caught.value.timed_out) == ("connect", True)
    for filler in fillers:
        filler.close()


async def test_a_closed_transport_resets_what_is_in_use_turns_away_who_waits_and_takes_no_more() -> None:
    gate = Gate()
    failures = []

    async def fail(made: Transport, origin: Origin) -> None:
        with pytest.raises(TransportError) as caught:
            await made.send(b"GET", origin, b"/", [])
        failures.append(caught.value.kind)

    async with transport(max_connections=1) as made, provider(gate.script) as origin:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, made, origin)
            await until(lambda: bool(gate.asked))
            nursery.start_soon(fail, made, origin)
            await until(lambda: made.statistics()[origin].waiting == 1)
            made.close()
        made.close()
        assert sorted(failures) == ["pool", "read"]
        with pytest.raises(TransportError, match="closed"):
            await made.send(b"GET", origin, b"/", [])
