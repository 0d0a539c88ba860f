"""Promise: a stream that is read on after its client left has one owner, one place and one record, whatever happens.

The server may tell of the client's leaving twice (a write fails, then the end of the input is read); a reload may put
another provider in the place of the one that is read on from; and the task that is about to be cancelled may get the
last bytes after all.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from gateway.app import make_app
from gateway.config import Config
from gateway.core.facts import Outcome
from tests.component.stage import KEY, Stage, ask, chat, request_bytes, staged
from tests.component.transport_peer import Peer, body_of, provider, transport

DRAINS = """
[[provider]]
name = "bills"
base_url = "${SIM}"
on_disconnect = "drain"
[[model]]
name = "m"
targets = [{ provider = "bills", model = "sim-tps=100-tokens=40" }]
"""


def drains_of(stage: Stage) -> float:
    return stage.gateway.health.gauges()["sluice_streams_draining"]["bills",]


def in_use(stage: Stage) -> int:
    return sum(pool.in_use for pool in stage.gateway.transport.statistics().values())


async def all_heard(stage: Stage) -> None:
    with trio.fail_after(5):
        while stage.gateway.drains.active or in_use(stage):
            await trio.sleep(0.001)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_hearing_more_than_once_that_the_client_left_changes_nothing(times: int) -> None:
    async with staged(more=DRAINS) as stage:
        app, why, begun = make_app(stage.gateway), dict[str, Any](), trio.Event()
        body = json.dumps(chat("m", stream=True)).encode()
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {KEY}".encode())],
            "state": {},
            "extensions": {"sluice.cancel": why},
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if b'"content":"' in message.get("body", b""):
                begun.set()

        with trio.fail_after(5):
            assert app.door.knock(scope) is None
            with trio.CancelScope() as leaving:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(app, scope, receive, send)
                    await begun.wait()
                    for _ in range(times):
                        why["on_cancel"]()
                    leaving.cancel()
        assert (stage.gateway.drains.active, drains_of(stage), in_use(stage)) == (1, 1.0, 1)
        await all_heard(stage)
        assert drains_of(stage) == 0.0
        [record] = stage.records
        assert (record.outcome, [fact.outcome for fact in record.attempts]) == (Outcome.CANCELLED, ["drained"])
        assert record.usage is not None
        assert record.usage.completion_tokens == 40


def with_limit(config: Config, max_connections: int) -> Config:
    """The same, but that the provider is another one now."""
    changed = [evolve(one, max_connections=max_connections) if one.name == "bills" else one for one in config.provider]
    return evolve(config, provider=tuple(changed))


async def test_a_reload_and_its_undoing_leave_no_place_taken() -> None:
    async with staged(more=DRAINS) as stage:
        gateway = stage.gateway
        first, other = gateway.config, with_limit(gateway.config, 7)
        async with await stage.connect() as client:
            await client.send_all(request_bytes(chat("m", stream=True)))
            data = b""
            while b'"content"' not in data:
                data += await client.receive_some()
        with trio.fail_after(5):
            while not gateway.drains.active:
                await trio.sleep(0.001)
        gateway.reload(other)
        gateway.reload(first)
        await all_heard(stage)
        assert drains_of(stage) == 0.0
        assert (await ask(stage, chat("m"))).status == 200


async def test_the_last_bytes_may_reach_who_hands_the_rest_over() -> None:
    more, heard = trio.Event(), list[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        await more.wait()
        await peer.say(b"cd")
        assert await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await peer.until_gone()

    async with transport() as made, provider(script) as origin:
        response = await made.send(b"POST", origin, b"/", [], b"{}")
        assert await response.receive() == b"ab"

        async def read_on() -> None:
            heard.append(await response.receive())

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on)
                await trio.testing.wait_all_tasks_blocked()
                rest = response.hand_over()
                more.set()
        assert heard == [b"cd"]
        assert not response.complete
        assert made.statistics()[origin].in_use == 1  # whose it is now, gives it back
        with trio.fail_after(5):
            assert await rest.receive() == b""
        assert rest.complete
        next_one = await made.send(b"POST", origin, b"/", [], b"{}")
        rest.close()
        response.close()
        assert await body_of(next_one) == b"ok"
        counts = made.statistics()[origin]
        assert (counts.in_use, counts.idle) == (0, 1)
