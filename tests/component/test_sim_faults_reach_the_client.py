"""Every fault of the simulated provider arrives as it is meant, in streams and in single documents."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest
import trio

from gateway.sim import Behaviour, Simulator

DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(Behaviour(tokens=8))


@pytest.fixture
async def address(nursery: trio.Nursery, simulator: Simulator) -> tuple[str, int]:
    bound: tuple[str, int] = await nursery.start(simulator.serve)
    return bound


def request(model: str, *, stream: bool = True, headers: str = "") -> bytes:
    body = orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello there"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Answer:
    """What came back on one connection: the head, the body without its framing, and whether it was whole."""

    def __init__(self, raw: bytes) -> None:
        head, _, rest = raw.partition(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.whole = False
        self.body = b""
        if b"transfer-encoding: chunked" not in head:
            self.body = rest
            self.whole = f"content-length: {len(rest)}".encode() in head
            return
        while rest and not self.whole:
            size, _, rest = rest.partition(b"\r\n")
            self.whole = size == b"0"
            self.body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]

    @property
    def tokens(self) -> int:
        """Content events; broken ones do not count."""
        return sum(1 for event in self.events if event and event["choices"][0]["delta"].get("content"))

    @property
    def events(self) -> list[Any]:
        """Decoded events without ``[DONE]``; None for one that is no JSON."""
        return [decoded(part) for part in self.body.split(b"\n\n")[:-1] if b"[DONE]" not in part]


def decoded(event: bytes) -> Any:
    try:
        return orjson.loads(event.removeprefix(b"data: "))
    except orjson.JSONDecodeError:
        return None


async def ask(address: tuple[str, int], model: str, *, stream: bool = True) -> Answer:
    """One request on a connection of its own, read until the server closes it."""
    raw = b""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(*address) as connection:
            await connection.send_all(request(model, stream=stream, headers="Connection: close\r\n"))
            async for data in connection:
                raw += data
    return Answer(raw)


async def until(simulator: Simulator, **wanted: int) -> None:
    """Wait until the statistics say so."""
    with trio.fail_after(5):
        await simulator.until(lambda now: all(getattr(now, name) == value for name, value in wanted.items()))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_status_comes_with_its_retry_after(address: tuple[str, int], stream: bool) -> None:
    body = {"model": "sim-status=429-retry_after=1.5", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as client:
        answer = await client.post("/v1/chat/completions", json=body)
        plain = await client.post("/v1/chat/completions", json={**body, "model": "sim-status=503"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1.5")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert (plain.status_code, "retry-after" in plain.headers) == (503, False)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reset_comes_before_the_first_byte(address: tuple[str, int], stream: bool) -> None:
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("sim-reset", stream=stream))
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
            await connection.receive_some(1)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("stream", [True, False])
async def test_silence_is_no_byte_until_the_client_leaves(
    address: tuple[str, int], simulator: Simulator, stream: bool
) -> None:
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("sim-silence", stream=stream))
        await until(simulator, active=1)
        with trio.move_on_after(0.05) as scope:
            await connection.receive_some(1)
        assert scope.cancelled_caught
    await until(simulator, active=0, cancelled=1)


async def test_a_slow_answer_sends_its_head_at_once(address: tuple[str, int], simulator: Simulator) -> None:
    for stream, first in ((True, b'"role":"assistant"'), (False, b"content-length: ")):
        async with await trio.open_tcp_stream(*address) as connection:
            await connection.send_all(request("sim-slow=60", stream=stream))
            with trio.fail_after(5):
                received = await connection.receive_some()
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")
            assert first in received
            assert b"You" not in received
        await until(simulator, active=0)
    started = trio.current_time()
    for stream in (True, False):
        assert (await ask(address, "sim-slow=0.05", stream=stream)).whole
    assert trio.current_time() - started >= 0.1


@pytest.mark.parametrize("tokens", [0, 1, 5, 8])
@pytest.mark.parametrize("pace", ["", "-tps=400", "-tps=1000"])
async def test_a_cut_comes_after_exactly_so_many_tokens(
    address: tuple[str, int], simulator: Simulator, tokens: int, pace: str
) -> None:
    answer = await ask(address, f"sim-cut={tokens}{pace}")
    assert (answer.status, answer.tokens, answer.whole) == (200, tokens, False)
    assert DONE not in answer.body
    assert simulator.statistics().tokens_sent == tokens


async def test_a_cut_document_is_shorter_than_announced(address: tuple[str, int]) -> None:
    answer = await ask(address, "sim-cut=3", stream=False)
    assert (answer.status, answer.whole) == (200, False)
    assert answer.body


async def test_a_cut_beyond_the_end_never_happens(address: tuple[str, int]) -> None:
    for stream in (True, False):
        assert (await ask(address, "sim-cut=9", stream=stream)).whole


async def test_a_stall_stays_connected_after_so_many_tokens(address: tuple[str, int], simulator: Simulator) -> None:
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("sim-stall=3"))
        await until(simulator, tokens_sent=3)
        raw = await connection.receive_some()
        with trio.move_on_after(0.05) as scope:
            raw += await connection.receive_some()
        assert scope.cancelled_caught
        assert (Answer(raw).tokens, Answer(raw).whole) == (3, False)
        assert simulator.statistics().active == 1
    await until(simulator, active=0, cancelled=1)


async def test_a_stalled_document_stops_half_way(address: tuple[str, int], simulator: Simulator) -> None:
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("sim-stall=3", stream=False))
        with trio.fail_after(5):
            assert not Answer(await connection.receive_some()).whole
        assert simulator.statistics().active == 1
    await until(simulator, active=0, cancelled=1)


async def test_an_error_event_ends_a_stream_without_done(address: tuple[str, int]) -> None:
    answer = await ask(address, "sim-error=2")
    *content, last = answer.events
    assert len(content) == 1 + 2
    assert last["error"]["type"] == "server_error"
    assert answer.whole
    assert DONE not in answer.body
    assert (await ask(address, "sim-error=2", stream=False)).status == 500


async def test_a_malformed_event_is_the_one_asked_for(address: tuple[str, int]) -> None:
    answer = await ask(address, "sim-malformed=3")
    assert [event is None for event in answer.events] == [False, False, False, True, *[False] * 6]
    assert answer.body.endswith(DONE)
    single = await ask(address, "sim-malformed=3", stream=False)
    assert (single.status, single.whole, decoded(single.body)) == (200, True, None)


async def test_done_can_be_missing(address: tuple[str, int]) -> None:
    answer = await ask(address, "sim-nodone")
    assert (answer.tokens, answer.whole, answer.events[-1]["choices"][0]["finish_reason"]) == (8, True, "stop")
    assert DONE not in answer.body


async def test_flapping_fails_so_many_times_and_then_works_so_many(
    address: tuple[str, int], simulator: Simulator
) -> None:
    assert [(await ask(address, "sim-flap=2")).status for _ in range(6)] == [503, 503, 200, 200, 503, 503]
    assert [(await ask(address, "sim-flap=1-cut=1")).whole for _ in range(4)] == [False, True, False, True]
    simulator.reset()
    assert (await ask(address, "sim-flap=2")).status == 503


async def test_faults_combine_and_are_counted_by_the_first(address: tuple[str, int], simulator: Simulator) -> None:
    answer = await ask(address, "sim-malformed=1-nodone-ttft=0.01")
    assert answer.events[1] is None
    assert DONE not in answer.body
    await ask(address, "sim-cut=1")
    assert simulator.statistics().by_fault == {"malformed": 1, "cut": 1}
    assert (simulator.statistics().started, simulator.statistics().finished) == (2, 2)


async def test_the_header_overrides_the_name_and_the_name_the_default(address: tuple[str, int]) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as client:

        async def used(model: str, header: str) -> int:
            body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
            answer = await client.post("/v1/chat/completions", json=body, headers={"x-sim": header})
            return int(answer.json()["usage"]["completion_tokens"])

        assert await used("gpt-4o", "") == 8
        assert await used("sim-tokens=5", "") == 5
        assert await used("sim-tokens=5-status=500", "tokens=3, status=off") == 3
        refused = await client.post("/v1/chat/completions", json={"model": "sim"}, headers={"x-sim": "speed=1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-sim")


async def test_embeddings_fail_like_completions(address: tuple[str, int]) -> None:
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as client:
        for model, status in (("sim", 200), ("sim-status=500", 500), ("sim-error=0", 500)):
            answer = await client.post("/v1/embeddings", json={"model": model, "input": "one", "dimensions": 4})
            assert answer.status_code == status
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/embeddings", json={"model": "sim-cut=0", "input": "one"})
