"""Promise: ``hypercorn -k trio gateway.app:app`` serves the same gateway, its request nursery and refusals included.

Hypercorn and the simulated provider are processes of their own, one of each for all tests here.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from tests.component.stage import BASE, KEY, Heard, chat, hear, request_bytes

ROOT = Path(__file__).parents[2]
START_S = 30.0
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
SMALL = "max_body_bytes = 100000\nbody_timeout_s = 0.3"


@contextlib.contextmanager
def process(*arguments: str, folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in ``folder``; killed at the end."""
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()


def port_of(running: subprocess.Popen[str]) -> int:
    """The port it says it listens on; fails when it ends or is silent instead."""
    watchdog = threading.Timer(START_S, running.kill)
    watchdog.start()
    said = ""
    assert running.stdout is not None
    for line in running.stdout:
        said += line
        if found := ADDRESS.search(line):
            watchdog.cancel()
            return int(found[1])
    raise AssertionError(f"it never listened; it said:\n{said}")


@define
class Ports:
    """Where the gateway under Hypercorn and the provider listen."""

    gateway: int
    sim: int

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.gateway)

    async def ask(self, document: Any, **options: Any) -> Heard:
        async with await self.connect() as stream:
            await stream.send_all(request_bytes(document, **options))
            return await hear(stream)

    async def get(self, path: str) -> Heard:
        async with await self.connect() as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
            return await hear(stream)

    async def provider(self, **wanted: int) -> dict[str, Any]:
        """The provider's statistics, once they have these values; fails when they do not in time."""
        with trio.fail_after(5):
            async with await trio.open_tcp_stream("127.0.0.1", self.sim) as stream:
                while True:
                    await stream.send_all(b"GET /stats HTTP/1.1\r\nhost: h\r\n\r\n")
                    statistics: dict[str, Any] = (await hear(stream)).json()
                    if all(statistics[name] == value for name, value in wanted.items()):
                        return statistics
                    await trio.sleep(0.005)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("hypercorn")
    quick = ("--ttft", "0", "--tps", "0", "--tokens", "20")
    with process("gateway", "sim", "--bind", "127.0.0.1:0", *quick, folder=folder) as sim:
        sim_port = port_of(sim)
        config = folder / "mine.toml"
        config.write_text(
            BASE.format(
                server=SMALL,
                workers=1,
                queue=0,
                max_wait_s=5.0,
                timeouts="",
                log="requests = false",
                store="sqlite:///:memory:",
                spill=folder / "spill",
                sim=f"http://127.0.0.1:{sim_port}/v1",
                key=KEY,
                more="",
            )
        )
        arguments = ("hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "gateway.app:app")
        with process(*arguments, folder=folder, SLUICE_CONFIG=str(config)) as hypercorn:
            yield Ports(port_of(hypercorn), sim_port)


async def test_it_answers_whole_and_streamed(ports: Ports) -> None:
    whole = await ports.ask(chat("chat", content="ping"))
    assert whole.status == 200
    assert "ping" in whole.json()["choices"][0]["message"]["content"]
    assert whole.headers["x-sluice-target"] == "sim/sim"
    streamed = await ports.ask(chat("chat", stream=True, content="ping"))
    assert (streamed.status, streamed.finished, streamed.whole) == (200, True, True)
    assert "ping" in streamed.text
    story = await ports.ask({"assistant": "chat", "input": "ping", "stream": True}, path="/v1/orchestrate")
    assert b"event: done" in story.body
    for path in ("/healthz", "/readyz", "/v1/models", "/metrics", "/"):
        assert (await ports.get(path)).status == 200


async def test_it_refuses_what_our_own_server_refuses(ports: Ports) -> None:
    cases = {
        "invalid_api_key": await ports.ask(chat(), key="sk-wrong"),
        "missing_api_key": await ports.ask(chat(), key=None),
        "invalid_json": await ports.ask(b"{"),
        "invalid_request": await ports.ask({"model": "chat", "messages": []}),
        "model_not_found": await ports.ask(chat("nope")),
        "unsupported_media_type": await ports.ask(chat(), headers={"content-type": "text/plain"}),
        "not_found": await ports.get("/nope"),
        "method_not_allowed": await ports.get("/v1/chat/completions"),
        "upstream_unavailable": await ports.ask(chat("sim/sim-status=503")),
    }
    assert {code: (heard.status, heard.json()["error"]["code"]) for code, heard in cases.items()} == {
        code: (status, code) for code, status in zip(cases, (401, 401, 400, 400, 404, 415, 404, 405, 503), strict=True)
    }


async def test_a_body_too_large_is_a_413_declared_or_not(ports: Ports) -> None:
    heard = await ports.ask(b"x" * 100_001)
    assert (heard.status, heard.json()["error"]["code"]) == (413, "body_too_large")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n"
    async with await ports.connect() as stream:
        await stream.send_all(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        await stream.send_all((b"%x\r\n" % 50_001 + b"x" * 50_001 + b"\r\n") * 2)
        heard = await hear(stream)
    assert (heard.status, heard.json()["error"]["code"]) == (413, "body_too_large")


async def test_a_slow_body_is_a_408_and_gives_its_permit_back(ports: Ports) -> None:
    async with await ports.connect() as stream:
        await stream.send_all(request_bytes(chat())[:-1])
        heard = await hear(stream, seconds=5)
    assert (heard.status, heard.json()["error"]["code"]) == (408, "body_timeout")
    assert (await ports.ask(chat())).status == 200


@pytest.mark.parametrize(
    ("model", "first"),
    [("sim/sim-ttft=60", b""), ("sim/sim-tps=50-tokens=100000", b"data: ")],
    ids=["before the first token", "after it"],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_provider(ports: Ports, model: str, first: bytes, stream: bool) -> None:
    before = await ports.provider(active=0)
    client = await ports.connect()
    await client.send_all(request_bytes(chat(model, stream=stream)))
    await ports.provider(active=1)
    if first and stream:
        received = b""
        with trio.fail_after(5):
            while first not in received:
                received += await client.receive_some()
    await trio.aclose_forcefully(client)
    after = await ports.provider(active=0)
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["finished"] == before["finished"]
    assert (await ports.ask(chat())).status == 200  # its permit, the only one, is free again


async def test_who_finds_no_place_is_refused_at_once(ports: Ports) -> None:
    client = await ports.connect()
    await client.send_all(request_bytes(chat("sim/sim-ttft=60")))
    await ports.provider(active=1)
    assert (await ports.get("/readyz")).status == 503
    heard = await ports.ask(chat())
    assert (heard.status, heard.json()["error"]["code"]) == (429, "queue_full")
    assert int(heard.headers["retry-after"]) >= 1
    await trio.aclose_forcefully(client)
    await ports.provider(active=0)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('[server]\nbimd = "x"\n', "server.bimd: unknown field; did you mean 'bind'?"),
        ('[store]\nurl = "mysql://x"\n', "store.url"),
    ],
)
def test_a_broken_configuration_ends_the_start_and_says_why(tmp_path: Path, config: str, says: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(config)
    arguments = ("hypercorn", "-k", "trio", "-w", "0", "--bind", "127.0.0.1:0", "gateway.app:app")
    with process(*arguments, folder=tmp_path, SLUICE_CONFIG=str(file)) as hypercorn:
        said, _ = hypercorn.communicate(timeout=START_S)
    assert hypercorn.returncode != 0
    assert "Lifespan failure in startup" in said
    assert says in said
