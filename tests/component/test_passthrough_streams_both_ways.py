"""Bodies of any size pass in bounded memory, as fast as the slower side takes them; what is cut never passes for whole.

Sender, gateway and provider share the process whose memory is watched.
"""

from __future__ import annotations

import gc

import psutil
import pytest
import trio
import trio.testing

from gateway.core.facts import Outcome, Phase
from tests.component.passed_provider import Asked, PassStage, passing, request
from tests.component.stage import KEY, hear, use_small_buffers

PIECE = b"x" * 65_536
LARGE = 200_000_000
MULTIPART = "POST /v1/files\ncontent-type: multipart/form-data; boundary=b"
BOUNDED_BYTES = 24_000_000


async def count(asked: Asked) -> None:
    await asked.answer(b'{"bytes": %d}' % await asked.drop_all())


async def send_pieces(stream: trio.SocketStream, pieces: int, *, chunked: bool = False) -> None:
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    for _ in range(pieces):
        await stream.send_all(piece)
    if chunked:
        await stream.send_all(b"0\r\n\r\n")


class Memory:
    """The most that this process held beyond what it held at first."""

    def __init__(self) -> None:
        gc.collect()
        self._process = psutil.Process()
        self._before = self.peak = self._process.memory_info().rss

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            await trio.sleep(0.01)

    @property
    def more(self) -> int:
        return self.peak - self._before


async def test_a_large_upload_is_never_in_memory() -> None:
    pieces = LARGE // len(PIECE)
    async with passing(count) as run, await run.stage.connect() as client, trio.open_nursery() as nursery:
        memory = Memory()
        nursery.start_soon(memory.watch)
        await client.send_all(request(MULTIPART, length=pieces * len(PIECE)))
        await send_pieces(client, pieces)
        heard = await hear(client)
        nursery.cancel_scope.cancel()
        assert heard.json() == {"bytes": pieces * len(PIECE)}
        assert memory.more < BOUNDED_BYTES
        [record] = run.stage.records
        assert (record.outcome, record.bytes_in, record.target) == (Outcome.OK, pieces * len(PIECE), "media")
        assert run.asked[0].header("content-type") == "multipart/form-data; boundary=b"


async def test_a_slow_provider_holds_up_the_client_and_not_memory() -> None:
    go_on = trio.Event()

    async def script(asked: Asked) -> None:
        await go_on.wait()
        await count(asked)

    pieces = LARGE // len(PIECE)
    async with passing(script) as run, await run.stage.connect() as client, trio.open_nursery() as nursery:
        memory = Memory()
        nursery.start_soon(memory.watch)
        await client.send_all(request(MULTIPART, length=pieces * len(PIECE)))
        sent = 0
        with trio.move_on_after(1.0) as scope:
            for _ in range(pieces):
                await client.send_all(PIECE)
                sent += len(PIECE)
        assert scope.cancelled_caught
        assert sent < LARGE / 4  # sockets' buffers, and a part in the gateway
        assert memory.more < BOUNDED_BYTES
        nursery.cancel_scope.cancel()
    assert run.stage.records[0].outcome is Outcome.CANCELLED


async def test_a_body_in_chunks_goes_on_in_chunks_and_is_the_same() -> None:
    taken = b""

    async def script(asked: Asked) -> None:
        nonlocal taken
        assert asked.header("transfer-encoding") == "chunked"
        assert asked.header("content-length") is None
        while not taken.endswith(b"\r\n0\r\n\r\n"):
            taken += await asked.take()
        await asked.answer(b"{}")

    async with passing(script) as run, await run.stage.connect() as client:
        await client.send_all(request(f"{MULTIPART}\ntransfer-encoding: chunked"))
        await send_pieces(client, 40, chunked=True)
        assert (await hear(client)).status == 200
        assert taken.count(b"x") == 40 * len(PIECE)
        assert run.stage.records[0].bytes_in == 40 * len(PIECE)


async def test_a_large_answer_passes_as_fast_as_the_client_reads() -> None:
    sent = 0

    async def script(asked: Asked) -> None:
        nonlocal sent
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: %d\r\n\r\n" % LARGE)
        while sent < LARGE:
            piece = PIECE[: LARGE - sent]
            await asked.say(piece)
            sent += len(piece)

    async with passing(script) as run, await run.stage.connect() as client, trio.open_nursery() as nursery:
        memory = Memory()
        nursery.start_soon(memory.watch)
        await client.send_all(request("GET /v1/audio/1"))
        await trio.sleep(0.5)
        assert sent < LARGE / 4
        received, head = 0, b""
        while b"\r\n\r\n" not in head:
            head += await client.receive_some()
        assert b"content-length: %d\r\n" % LARGE in head
        assert b"content-type: audio/mpeg\r\n" in head
        received = len(head.partition(b"\r\n\r\n")[2])
        while received < LARGE:
            received += len(await client.receive_some())
        assert memory.more < BOUNDED_BYTES
        await run.stage.settle()
        nursery.cancel_scope.cancel()
        [record] = run.stage.records
        assert (record.outcome, record.bytes_out) == (Outcome.OK, LARGE)


async def test_what_comes_bit_by_bit_is_passed_bit_by_bit() -> None:
    heard = trio.Event()

    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await asked.say(b"5\r\nfirst\r\n")
        await heard.wait()
        await asked.say(b"4\r\nlast\r\n0\r\n\r\n")

    async with passing(script) as run, await run.stage.connect() as client:
        await client.send_all(request("GET /v1/audio/1"))
        data = b""
        with trio.fail_after(5):
            while b"first" not in data:
                data += await client.receive_some()
            heard.set()
            while not data.endswith(b"0\r\n\r\n"):
                data += await client.receive_some()
        assert b"last" in data


async def received_until_cut(client: trio.SocketStream) -> bytes:
    data = b""
    try:
        while some := await client.receive_some():
            data += some
    except trio.BrokenResourceError:
        return data
    raise AssertionError(f"the connection ended in order after {data!r}")


@pytest.mark.parametrize("first", [b"", b"abc"], ids=["before the first byte", "after it"])
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_an_answer_that_breaks_off_is_no_whole_answer(first: bytes, ending: str) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n" + first)
        await trio.testing.wait_all_tasks_blocked()
        if ending == "reset":
            asked.reset()
        else:
            await asked.stream.aclose()

    async with passing(script) as run, await run.stage.connect() as client:
        await client.send_all(request("GET /v1/audio/1"))
        if not first:
            heard = await hear(client)
            assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_read")
        else:
            assert (await received_until_cut(client)).partition(b"\r\n\r\n")[2] in (b"", first)
        await run.stage.settle()
        [record] = run.stage.records
        assert record.outcome is (Outcome.BROKEN if first else Outcome.FAILED)
        assert record.code == "upstream_read"
        run.stage.assert_nothing_left(requests=1)


async def test_an_answer_before_the_upload_ends_is_the_answer() -> None:
    async def script(asked: Asked) -> None:
        await asked.take()
        await asked.answer(b'{"error": "too large"}', status="413 Payload Too Large")
        await trio.sleep_forever()

    async with passing(script) as run, await run.stage.connect() as client, trio.open_nursery() as nursery:
        await client.send_all(request(MULTIPART, length=LARGE))

        async def go_on() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await send_pieces(client, LARGE // len(PIECE))

        nursery.start_soon(go_on)
        heard = await hear(client)
        assert (heard.status, heard.json()) == (413, {"error": "too large"})
        assert heard.headers["connection"] == "close"
        await run.stage.settle()
        [record] = run.stage.records
        assert (record.outcome, record.status, record.upstream_status) == (Outcome.INVALID, 413, 413)
        nursery.cancel_scope.cancel()


async def leave(run: PassStage, client: trio.SocketStream) -> float:
    """Close the client's connection; how long the provider's outlived it."""
    left_at = trio.current_time()
    await trio.aclose_forcefully(client)
    with trio.fail_after(5):
        await run.asked[0].gone.wait()
    return trio.current_time() - left_at


async def test_a_client_that_leaves_in_its_upload_takes_the_provider_with_it() -> None:
    some = trio.Event()

    async def script(asked: Asked) -> None:
        while await asked.take():
            some.set()

    async with passing(script) as run:
        client = await run.stage.connect()
        await client.send_all(request(MULTIPART, PIECE, length=LARGE))
        await some.wait()
        assert await leave(run, client) < 0.1
        await run.stage.settle()
        [record] = run.stage.records
        assert (record.outcome, record.phase, record.code) == (Outcome.CANCELLED, Phase.BODY, "client_left")
        run.stage.assert_nothing_left(requests=1)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"])
async def test_a_client_that_leaves_in_the_answer_takes_the_provider_with_it(answer: bytes) -> None:
    asked_for = trio.Event()

    async def script(asked: Asked) -> None:
        await asked.say(answer)
        asked_for.set()
        await asked.until_gone()

    async with passing(script) as run:
        client = await run.stage.connect()
        await client.send_all(request("GET /v1/audio/1"))
        await asked_for.wait()
        if answer:
            await client.receive_some()
        assert await leave(run, client) < 0.1
        await run.stage.settle()
        [record] = run.stage.records
        assert (record.outcome, record.phase) == (Outcome.CANCELLED, Phase.STREAM if answer else Phase.UPSTREAM)
        run.stage.assert_nothing_left(requests=1)


async def test_a_client_that_stops_reading_is_dropped_with_its_provider() -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        while True:
            await asked.say(PIECE)

    async with passing(script, server="client_stall_s = 0.3") as run:
        client = await run.stage.connect()
        use_small_buffers(client)
        await client.send_all(request("GET /v1/audio/1"))
        with trio.fail_after(10):
            while not run.stage.records:
                await trio.sleep(0.01)
            await run.asked[0].gone.wait()
        [record] = run.stage.records
        assert (record.outcome, record.code) == (Outcome.CANCELLED, "client_stalled")
        await trio.aclose_forcefully(client)


async def test_permits_are_held_to_the_last_byte_and_the_next_is_refused_before_its_body() -> None:
    go_on = trio.Event()

    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
        await go_on.wait()
        await asked.say(b"def")

    async with passing(script, workers=1, queue=0) as run, await run.stage.connect() as client:
        await client.send_all(request("GET /v1/audio/1"))
        await client.receive_some()
        async with await run.stage.connect() as other:
            await other.send_all(request(MULTIPART, length=LARGE))  # not a byte of the body
            heard = await hear(other, seconds=2)
        assert (heard.status, heard.json()["error"]["code"]) == (429, "queue_full")
        assert int(heard.headers["retry-after"]) >= 1
        go_on.set()
        assert (await client.receive_some()).endswith(b"def")
        await run.stage.settle()
        assert [record.endpoint for record in run.stage.records] == ["passthrough"] * 2
        metrics = (await run.ask("GET /metrics")).body.decode()
        assert 'sluice_passed_bytes_total{direction="out",target="media"} 6.0' in metrics
        assert 'code="queue_full",endpoint="passthrough",model="",outcome="refused"} 1.0' in metrics


async def test_who_waits_for_100_continue_gets_it_when_there_is_a_permit() -> None:
    async with passing(count) as run, await run.stage.connect() as client:
        await client.send_all(request(f"{MULTIPART}\nexpect: 100-continue", length=len(PIECE)))
        assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(PIECE)
        assert (await hear(client)).json() == {"bytes": len(PIECE)}
        assert run.asked[0].header("expect") is None


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_beyond_its_own_limit_is_a_413(declared: bool) -> None:
    server = "max_upload_bytes = 300000\nmax_body_bytes = 1000"

    async def script(asked: Asked) -> None:
        await asked.until_gone()

    async with passing(script, server=server) as run, await run.stage.connect() as client:
        if declared:
            await client.send_all(request(MULTIPART, length=300_001))
        else:
            await client.send_all(request(f"{MULTIPART}\ntransfer-encoding: chunked"))
            with pytest.raises(trio.BrokenResourceError):
                await send_pieces(client, 10_000, chunked=True)
        heard = await hear(client)
        assert (heard.status, heard.json()["error"]["code"]) == (413, "body_too_large")
        assert "server.max_upload_bytes" in heard.json()["error"]["message"]
        await run.stage.settle()
    async with passing(count, server=server) as run:
        heard = await run.ask(MULTIPART, b"y" * 200_000)  # beyond what an endpoint of the gateway's own takes
        assert heard.json() == {"bytes": 200_000}
        assert (await run.ask("POST /v1/chat/completions", b"y" * 2_000, key=KEY)).status == 413
