"""SIGTERM to the real process: not ready at once, no new work, streams finish or end with an error, exit code 0."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio

from gateway.sim import Behaviour
from tests.component.served import Served, connect_narrowly, served
from tests.component.stage import Heard, chat, hear, request_bytes

pytestmark = pytest.mark.alone

STREAMS = 50
AT_ONCE_S = 1.0  # on a machine that is busy with fifty streams; some 10 ms as a rule
TEARDOWN_S = 2.0  # of an interpreter, on a busy machine


async def listen_on(gateway: Served, heard: list[Heard]) -> None:
    heard.append(await gateway.ask(chat(stream=True)))


async def unready(gateway: Served) -> float:
    """Ask until the gateway says that it is not ready; the seconds that took."""
    began = trio.current_time()
    with trio.fail_after(AT_ONCE_S):
        while (heard := await gateway.get("/readyz")).status == 200:
            await trio.sleep(0.001)
    assert (heard.status, heard.json()["status"]) == (503, "draining")
    assert heard.headers["retry-after"] == "1"
    return trio.current_time() - began


async def test_fifty_streams_complete_and_nothing_new_is_taken(tmp_path: Path) -> None:
    heard: list[Heard] = []
    behaviour = Behaviour(tokens=80, tokens_per_s=40)
    async with served(tmp_path, workers=STREAMS, behaviour=behaviour) as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(STREAMS):
                nursery.start_soon(listen_on, gateway, heard)
            with trio.fail_after(10):
                await gateway.sim.until(lambda now: now.active == STREAMS and now.tokens_sent > STREAMS)
            gateway.process.send_signal(signal.SIGTERM)
            await unready(gateway)
            refused = await gateway.ask(chat())
            assert (refused.status, refused.json()["error"]["code"]) == (503, "draining")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["connection"] == "close"
            assert gateway.sim.statistics().active == STREAMS, "all of it while the streams go on"
            assert gateway.process.returncode is None
        code, _ = await gateway.ended(seconds=5)
        statistics = gateway.sim.statistics()
    assert code == 0
    assert [(one.status, one.finished, one.whole) for one in heard] == [(200, True, True)] * STREAMS
    assert (statistics.finished, statistics.cancelled) == (STREAMS, 0)


async def test_what_is_not_over_by_the_drain_timeout_ends_with_an_error_event(tmp_path: Path) -> None:
    heard: list[Heard] = []
    behaviour = Behaviour(tokens=10_000, tokens_per_s=20)
    async with served(tmp_path, server="drain_timeout_s = 3", behaviour=behaviour) as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(listen_on, gateway, heard)
            with trio.fail_after(10):
                await gateway.sim.until(lambda now: now.tokens_sent > 10)
            gateway.process.send_signal(signal.SIGTERM)
            code, took_s = await gateway.ended(seconds=3 + TEARDOWN_S)
        assert 2 < took_s < 3, "time to finish in, and time to be told"
    assert code == 0
    for one in heard:
        assert (one.status, one.whole, one.finished) == (200, True, False)
        error = json.loads(one.events[-1])["error"]
        assert "shutting down (server.drain_timeout_s is over)" in error["message"]
        assert sum("error" in json.loads(event) for event in one.events) == 1


async def test_without_work_it_ends_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as gateway, await gateway.connect():
        gateway.process.send_signal(signal.SIGTERM)
        code, _ = await gateway.ended(seconds=TEARDOWN_S)
    assert code == 0
    assert '"event":"draining"' in gateway.log


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=10_000, tokens_per_s=20)
    async with served(tmp_path, behaviour=behaviour) as gateway, await gateway.connect() as stream:
        await stream.send_all(request_bytes(chat(stream=True)))
        with trio.fail_after(10):
            await gateway.sim.until(lambda now: now.tokens_sent > 2)
        gateway.process.send_signal(signal.SIGTERM)
        await unready(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.ended(seconds=TEARDOWN_S)
        with trio.fail_after(5):
            await gateway.sim.until(lambda now: now.active == 0)
        try:
            heard = await hear(stream)
        except trio.BrokenResourceError:
            pass  # reset, as it should be
        else:
            assert not (heard.whole and heard.finished)


async def test_a_client_that_stopped_reading_does_not_hold_up_the_end(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=100_000)
    server = "drain_timeout_s = 6\nclient_stall_s = 60"
    async with (
        served(tmp_path, server=server, behaviour=behaviour, sim_options={"send_buffer_bytes": 16_384}) as gateway,
        await connect_narrowly(gateway.port) as stream,
    ):
        await stream.send_all(request_bytes(chat(stream=True)))
        with trio.fail_after(10):
            await gateway.sim.until(lambda now: now.blocked == 1)
        gateway.process.send_signal(signal.SIGTERM)
        code, took_s = await gateway.ended(seconds=6 + TEARDOWN_S)
    assert (code, took_s < 6) == (0, True)
