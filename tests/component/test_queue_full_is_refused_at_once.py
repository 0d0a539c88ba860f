"""Promise: at most ``workers`` requests are worked on and ``queue`` wait; the next is refused at once, body unread."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, frozen

from gateway.core.facts import Outcome, Phase
from gateway.flow.admission import Place
from gateway.sim import Behaviour, Simulator
from tests.component.stage import BASE, KEY, Heard, Stage, ask, chat, hear, request_bytes, staged

pytestmark = pytest.mark.alone

REQUESTS, WORKERS, QUEUE = 1_000, 20, 100
REFUSED_WITHIN_S = 1.5  # the 99th percentile, on two cores


# ── a thousand at once ───────────────────────────────────────────────────────────────────────────────────────────────


class HeldSimulator(Simulator):
    """A provider that answers nobody until it is told to."""

    def __init__(self) -> None:
        super().__init__(Behaviour(tokens=20))
        self.go = trio.Event()
        self.asked = self.most = 0

    async def _answer(self, connection: Any, request: Any) -> bool:
        self.asked += 1
        self.most = max(self.most, self.asked)
        try:
            await self.go.wait()
            return await super()._answer(connection, request)
        finally:
            self.asked -= 1


@frozen
class Answered:
    """What one client got, and how long after it had begun to connect."""

    heard: Heard
    seconds: float


async def test_of_a_thousand_at_once_120_are_taken_and_880_refused_within_a_moment(tmp_path: Path):
    sim = HeldSimulator()
    answers: list[Answered] = []
    with _many_files():
        async with trio.open_nursery() as nursery:
            host, provider = await nursery.start(sim.serve)
            gateway = _gateway(tmp_path, f"http://{host}:{provider}/v1")
            async with gateway as port, trio.open_nursery() as clients:
                request = request_bytes(chat("chat"))
                for _ in range(REQUESTS):
                    clients.start_soon(_client, port, request, answers)
                with trio.fail_after(30):
                    while len(answers) < REQUESTS - WORKERS - QUEUE or sim.asked < WORKERS:
                        await trio.sleep(0.01)
                refusals = list(answers)
                seen = {path: await _get(port, path) for path in ("/readyz", "/healthz", "/metrics", "/")}
                sim.go.set()
            nursery.cancel_scope.cancel()
    assert Counter(answer.heard.status for answer in answers) == {200: 120, 429: 880}
    assert sim.most == WORKERS
    assert {path: heard.status for path, heard in seen.items()} == {
        "/readyz": 503,
        "/healthz": 200,
        "/metrics": 200,
        "/": 200,
    }
    assert b"sluice_requests_in_flight 20.0" in seen["/metrics"].body
    assert b'sluice_shed_total{reason="queue_full"} 880.0' in seen["/metrics"].body
    _check_refusals(refusals)
    for answer in answers:
        if answer.heard.status == 200:
            assert answer.heard.whole
            assert answer.heard.json()["choices"][0]["finish_reason"]


def _check_refusals(refusals: list[Answered]) -> None:
    for refusal in refusals:
        assert refusal.heard.status == 429
        assert int(refusal.heard.headers["retry-after"]) >= 1
        assert refusal.heard.json()["error"]["code"] == "queue_full"
        assert "100 waiting (admission.queue), 20 in flight (admission.workers)" in refusal.heard.body.decode()
    times = sorted(refusal.seconds for refusal in refusals)
    p99 = times[len(times) * 99 // 100]
    assert p99 < REFUSED_WITHIN_S, f"p50 {times[len(times) // 2]:.3f} s, p99 {p99:.3f} s"


async def _client(port: int, request: bytes, answers: list[Answered]) -> None:
    began = trio.current_time()
    sock = trio.socket.socket()
    await sock.connect(("127.0.0.1", port))
    async with trio.SocketStream(sock) as stream:
        await stream.send_all(request)
        heard = await hear(stream, seconds=60)
    answers.append(Answered(heard, trio.current_time() - began))


async def _get(port: int, path: str) -> Heard:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n\r\n"
        await stream.send_all(head.encode())
        return await hear(stream)


@contextmanager
def _many_files() -> Iterator[None]:
    """A thousand clients are a thousand files; many systems allow 1,024 unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8_192 if hard == resource.RLIM_INFINITY else min(8_192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def _gateway(folder: Path, provider: str) -> AsyncIterator[int]:
    """``sluice serve`` as a process of its own; its port."""
    config = folder / "sluice.toml"
    log = 'requests = false\nlevel = "error"'
    config.write_text(
        BASE.format(
            server="",
            workers=WORKERS,
            queue=QUEUE,
            max_wait_s=60,
            timeouts="",
            store="sqlite:///:memory:",
            spill=folder / "spill",
            log=log,
            sim=provider,
            key=KEY,
            more="",
        )
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env={**os.environ})
    assert process.stdout is not None
    try:
        said = b""
        with trio.fail_after(30):
            while not said.endswith(b"\n"):
                more = await process.stdout.receive_some()
                assert more, "the gateway ended before it listened"
                said += more
        yield int(said.split(b"http://127.0.0.1:")[1].split()[0])
        process.terminate()
        with trio.fail_after(10):
            assert await process.wait() == 0
    finally:
        process.kill()
        await process.stdout.aclose()


# ── one that is too many ─────────────────────────────────────────────────────────────────────────────────────────────


@define
class Full:
    """A gateway whose permits and places are all taken."""

    stage: Stage
    places: list[Place]

    def make_room(self) -> None:
        for place in self.places:
            place.release()


@asynccontextmanager
async def full(queue: int) -> AsyncIterator[Full]:
    async with staged(workers=1, queue=queue) as stage:
        places = [stage.gateway.admission.try_enter() for _ in range(1 + queue)]
        filled = Full(stage, [place for place in places if isinstance(place, Place)])
        assert len(filled.places) == 1 + queue
        yield filled
        filled.make_room()


@pytest.mark.parametrize("queue", [0, 1])
@pytest.mark.parametrize("held_back", ["", "expect: 100-continue\r\n"])
async def test_the_refusal_comes_before_a_byte_of_the_body(queue: int, held_back: str):
    async with full(queue) as filled, await filled.stage.connect() as stream:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {KEY}\r\ncontent-length: 1000000\r\n{held_back}\r\n"
        )
        await stream.send_all(head.encode())
        heard = await hear(stream, seconds=5)
        assert heard.status == 429
        assert heard.headers["retry-after"] == "1"
        assert heard.json()["error"] == {
            "message": f"queue full: {queue} waiting (admission.queue), 1 in flight (admission.workers); "
            "retry after 1 s",
            "type": "rate_limit_error",
            "param": None,
            "code": "queue_full",
        }
        [record] = filled.stage.records
        assert (record.outcome, record.phase, record.code) == (Outcome.REFUSED, Phase.ENTRY, "queue_full")
        assert filled.stage.gateway.server_statistics().requests == 0  # type: ignore[misc]


async def test_who_was_refused_can_ask_again_on_the_same_connection():
    async with full(queue=0) as filled, await filled.stage.connect() as stream:
        await stream.send_all(request_bytes(chat("chat")))
        assert (await hear(stream)).status == 429
        filled.make_room()
        await stream.send_all(request_bytes(chat("chat")))
        assert (await hear(stream)).status == 200


async def test_health_metrics_and_pages_are_exempt_and_readiness_says_full():
    async with full(queue=1) as filled:
        port = filled.stage.port
        static = re.findall(r'/static/[^"]+', (await _get(port, "/")).body.decode())
        assert static
        for path in ("/healthz", "/metrics", "/", "/v1/models", *static):
            assert (await _get(port, path)).status == 200, path
        ready = await _get(port, "/readyz")
        assert ready.status == 503
        assert ready.json() == {"status": "full"}
        assert ready.headers["retry-after"] == "1"
        filled.make_room()
        assert (await _get(port, "/readyz")).json() == {"status": "ready"}


async def test_no_permit_and_no_place_is_spent_on_who_has_no_key():
    async with full(queue=0) as filled:
        heard = await ask(filled.stage, chat("chat"), key="sk-wrong")
        assert heard.status == 401
        assert filled.stage.gateway.admission.statistics().refused == {}


async def test_a_permit_is_held_until_the_last_byte_of_the_stream():
    async with staged(workers=1, queue=0) as stage, await stage.connect() as stream:
        await stream.send_all(request_bytes(chat("sim/sim-tokens=5-stall=4", stream=True)))
        heard = b""
        while heard.count(b"data: ") < 4:
            heard += await stream.receive_some()
        assert (await ask(stage, chat("chat"))).status == 429
        await stream.aclose()
        await stage.settle()
        assert (await ask(stage, chat("chat"))).status == 200


async def test_a_deadline_of_the_clients_own_that_cannot_be_met_is_refused_from_what_was_measured():
    async with staged(workers=2, queue=10) as stage:
        for _ in range(8):
            with stage.gateway.admission.try_enter() as place:  # type: ignore[union-attr]
                assert isinstance(place, Place)
                place.started_at -= 5.0  # type: ignore[operator]  # as if it had run for so long
        with stage.gateway.admission.try_enter():  # type: ignore[union-attr]
            heard = await ask(stage, chat("chat"), headers={"x-request-timeout-ms": "2000"})
            assert heard.status == 429
            error = json.loads(heard.body)["error"]
            assert error["code"] == "deadline_unmeetable"
            assert "x-request-timeout-ms" in error["message"]
            assert int(heard.headers["retry-after"]) >= 1
            assert (await ask(stage, chat("chat"), headers={"x-request-timeout-ms": "60000"})).status == 200
