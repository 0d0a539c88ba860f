"""A client that stops reading in the middle of a stream holds nothing for longer than ``client_stall_s``.

And while it does not read, what the provider may send is bounded: the relay's channel is full, so the reader stops
reading, and the provider's own socket fills.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gateway.core.facts import Outcome, Phase
from gateway.flow.relay import BUFFERED_BATCHES
from gateway.sim import Behaviour
from tests.component.served import connect_narrowly, served
from tests.component.stage import Stage, chat, hear, request_bytes, staged

STALL_S = 0.5
MARGIN_S = 0.5
TOKENS = 20_000
FLOOD = Behaviour(tokens=TOKENS)
SMALL = {"send_buffer_bytes": 16_384}
LEAST_EVENT_BYTES = 180  # of the provider's content events
MOST_BUFFERED_BYTES = (BUFFERED_BATCHES + 2) * 65_536 + 1_048_576  # channel, two reads in hand, kernels' buffers


@asynccontextmanager
async def stalled(client_stall_s: float) -> AsyncIterator[tuple[Stage, trio.SocketStream]]:
    """A stream whose client has stopped reading, at the moment when the provider feels it."""
    server = f"client_stall_s = {client_stall_s}"
    async with staged(server=server, behaviour=FLOOD, sim_options=SMALL) as stage:
        stage.remember_baseline()
        async with await connect_narrowly(stage.port) as stream:
            await stream.send_all(request_bytes(chat(stream=True)))
            with trio.fail_after(10):
                await stage.sim.until(lambda now: now.blocked == 1)
            yield stage, stream


async def test_its_upstream_is_closed_and_its_permit_free_within_client_stall_s() -> None:
    async with stalled(STALL_S) as (stage, stream):
        began = trio.current_time()
        with trio.fail_after(STALL_S + MARGIN_S):
            await stage.sim.until(lambda now: now.active == 0)
        assert trio.current_time() - began > STALL_S / 2, "it was dropped for having stalled, not before"
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        [record] = stage.records
        assert (record.outcome, record.phase, record.code) == (Outcome.CANCELLED, Phase.STREAM, "client_stalled")
        assert record.usage is not None
        assert record.usage.estimated
        with pytest.raises(trio.BrokenResourceError):
            await hear(stream)
        assert stage.gateway.server_statistics is not None
        server = stage.gateway.server_statistics()
        assert (server.client_stalled, server.connections_open, server.app_failed) == (1, 0, 0)


async def test_while_it_does_not_read_the_provider_cannot_send() -> None:
    async with stalled(60.0) as (stage, stream):
        await stage.sim.until(lambda now: now.blocked == 1)
        with trio.move_on_after(0.3):
            await stage.sim.until(lambda now: now.blocked == 0)
        sent = stage.sim.statistics().tokens_sent
        assert 0 < sent * LEAST_EVENT_BYTES < MOST_BUFFERED_BYTES
        assert stage.gateway.admission.statistics().in_flight == 1
        heard = await hear(stream)
        assert (heard.whole, heard.finished) == (True, True), "and once it reads again, it gets everything"
        assert heard.body.count(b'"content":"') >= TOKENS


async def test_the_process_still_ends_within_the_drain_timeout(tmp_path: Path) -> None:
    server = "drain_timeout_s = 5\nclient_stall_s = 0.5"
    async with (
        served(tmp_path, server=server, behaviour=FLOOD, sim_options=SMALL) as gateway,
        await connect_narrowly(gateway.port) as stream,
    ):
        await stream.send_all(request_bytes(chat(stream=True)))
        with trio.fail_after(10):
            await gateway.sim.until(lambda now: now.blocked == 1)
        gateway.process.send_signal(signal.SIGTERM)
        code, took_s = await gateway.ended(seconds=5)
        assert (code, took_s < 5) == (0, True)
        assert gateway.sim.statistics().active == 0
