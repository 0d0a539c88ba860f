"""SIGTERM: not ready at once, no new work, what runs ends well, and the process ends with 0."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import trio
import trio.testing

from gateway.config import Server
from gateway.edge.gate import Reply
from gateway.edge.serve import BindError, run_workers, serve
from tests.component.server_peer import PATIENCE_S, Answer, Peer, app_of, request, running, say
from tests.component.server_worker_that_ends import ends

Message = dict[str, Any]


class Gateway:
    """An app with readiness and streams that end when told, and its gate."""

    def __init__(self) -> None:
        self.draining = False
        self.go_on = trio.Event()
        self.streams = 0
        self.enough = trio.Event()

    def drain(self) -> None:
        self.draining = True

    def knock(self, scope: Message) -> Reply | None:
        if self.draining and scope["path"] != "/readyz":
            return Reply(503, [(b"retry-after", b"2")], b"draining")
        return None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] == "/readyz":
            await say(send, b"", status=503 if self.draining else 200)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.streams += 1
        if self.streams == 50:
            self.enough.set()
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})


async def test_fifty_streams_end_well_and_nothing_new_is_taken() -> None:
    gateway = Gateway()
    answers: list[Answer] = []
    async with running(app_of(gateway), gate=gateway, on_drain=gateway.drain, drain_timeout_s=30.0) as server:

        async def client() -> None:
            async with await server.connect() as peer:
                await peer.send(request("/stream"))
                answers.append(await peer.answer())
                assert await peer.to_the_end() == b""

        idle = await server.connect()
        await idle.send(request("/readyz"))
        assert (await idle.answer()).status == 200
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client)
            with trio.fail_after(PATIENCE_S):
                await gateway.enough.wait()
            server.shutdown.set()
            await trio.testing.wait_all_tasks_blocked()
            assert (await server.ask(request("/stream"))).status == 503
            for peer in (idle, await server.connect()):
                await peer.send(request("/readyz"))
                answer = await peer.answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                await trio.aclose_forcefully(peer.stream)
            assert not server.ended.is_set()
            gateway.go_on.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        assert server.statistics().connections_open == 0
    assert [answer.body for answer in answers] == [b"firstlast"] * 50


async def test_idle_connections_end_in_order() -> None:
    async with running() as server, await server.connect() as fresh, await server.connect() as used:
        await used.send(request())
        assert (await used.answer()).status == 200
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        for peer in (fresh, used):
            assert await peer.to_the_end() == b""


async def test_a_connection_accepted_in_the_last_moment_gets_its_answer() -> None:
    gateway = Gateway()
    async with running(app_of(gateway), gate=gateway, on_drain=gateway.drain) as server:
        fresh, begun = await server.connect(), await server.connect()
        data = request("/stream")
        await begun.send(data[:10])
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        await fresh.send(data)
        await begun.send(data[10:])
        for peer in (fresh, begun):
            answer = await peer.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert await peer.to_the_end() == b""
            await trio.aclose_forcefully(peer.stream)
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()


async def test_after_the_deadline_the_rest_is_cancelled_and_seen_as_broken_off() -> None:
    gateway = Gateway()
    async with (
        running(app_of(gateway), on_drain=gateway.drain, drain_timeout_s=0.05) as server,
        await server.connect() as peer,
    ):
        await peer.send(request("/stream"))
        await peer.until(b"first\r\n")
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        assert await peer.closed()


async def test_the_app_is_told_by_its_lifespan_after_the_last_request() -> None:
    story: list[str] = []
    at_work, go_on = trio.Event(), trio.Event()

    async def app(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                story.append(message["type"])
                await send({"type": message["type"] + ".complete"})
            return
        at_work.set()
        await go_on.wait()
        await say(send, b"ok")
        story.append("answered")

    async with running(app, on_drain=lambda: story.append("drain")) as server, await server.connect() as peer:
        await peer.send(request())
        await at_work.wait()
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert (await peer.answer()).body == b"ok"
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
    assert story == ["lifespan.startup", "drain", "answered", "lifespan.shutdown"]


async def test_an_app_without_a_lifespan_is_served_all_the_same() -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await say(send, b"ok")

    async with running(app) as server:
        assert (await server.ask(request())).body == b"ok"


async def test_a_port_in_use_is_said_with_the_field_and_the_fix() -> None:
    async with running() as server:
        with pytest.raises(BindError, match=rf"server\.bind: 127\.0\.0\.1:{server.port} is in use .*--bind"):
            await serve(app_of(Gateway()), Server(bind=f"127.0.0.1:{server.port}"))


async def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"server\.tls_cert"):
        await serve(app_of(Gateway()), Server(bind="127.0.0.1:0", tls_cert=str(tmp_path / "no"), tls_key="no"))


async def test_a_start_up_that_fails_is_raised_as_it_is() -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(Exception, match="no database"):
        await serve(app, Server(bind="127.0.0.1:0"))


@asynccontextmanager
async def process(workers: str, file: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """A server process and its URL; its streams end when ``file`` exists."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    server = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.component.server_process", workers, str(file)],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=root,
    )
    try:
        assert server.stdout is not None
        line = b""
        with trio.fail_after(60):
            while not line.endswith(b"\n"):
                line += await server.stdout.receive_some(100)
            yield server, line.decode().strip()
            await server.wait()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
        await server.stdout.aclose()


def _workers(server: trio.Process) -> list[int]:
    children = psutil.Process(server.pid).children()
    return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def _signals(pid: int, field: str) -> set[int]:
    """Of a process: those that are pending (``ShdPnd``), that it takes (``SigCgt``)."""
    [mask] = re.findall(rf"{field}:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return {number for number in signal.Signals if int(mask, 16) >> (number - 1) & 1}


async def connect(url: str) -> Peer:
    host, _, port = url.partition("://")[2].rpartition(":")
    return Peer(await trio.open_tcp_stream(host, int(port)))


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_process_and_it_ends_with_0(
    number: signal.Signals, workers: str, tmp_path: Path
) -> None:
    file = tmp_path / "go-on"
    async with process(workers, file) as (server, url), await connect(url) as peer:
        await peer.send(request("/stream"))
        await peer.until(b"first\r\n")
        server.send_signal(number)
        while (await _status(url)) == 200:
            await trio.lowlevel.checkpoint()
        assert await _status(url) == 503
        file.touch()
        assert await peer.until(b"0\r\n\r\n") == b"4\r\nlast\r\n0\r\n\r\n"
    assert server.returncode == 0


async def _status(url: str) -> int:
    async with await connect(url) as peer:
        await peer.send(request("/readyz"))
        return (await peer.answer()).status


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_signal_ends_it_at_once(workers: str, tmp_path: Path) -> None:
    async with process(workers, tmp_path / "never") as (server, url), await connect(url) as peer:
        await peer.send(request("/stream"))
        await peer.until(b"first\r\n")
        server.send_signal(signal.SIGTERM)
        while (await _status(url)) == 200:
            await trio.lowlevel.checkpoint()
        server.send_signal(signal.SIGTERM)
        assert await peer.closed()


async def test_a_second_signal_is_not_lost_on_workers_that_have_not_yet_taken_the_first(tmp_path: Path) -> None:
    async with process("2", tmp_path / "never") as (server, url), await connect(url) as peer:
        await peer.send(request("/stream"))
        await peer.until(b"first\r\n")
        workers = _workers(server)
        while any(signal.SIGTERM not in _signals(pid, "SigCgt") for pid in workers):
            await trio.sleep(0.01)  # one is still starting
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        while any(psutil.Process(pid).status() != psutil.STATUS_STOPPED for pid in workers):
            await trio.sleep(0.01)
        for pending in (1, 2):
            server.send_signal(signal.SIGTERM)
            while any(len(_signals(pid, "ShdPnd")) < pending for pid in workers):
                await trio.sleep(0.01)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert await peer.closed()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_terminal_that_is_closed_ends_nothing_however_often_it_says_so(workers: str, tmp_path: Path) -> None:
    """It tells every process in it, and so does its shell. SIGHUP means: read the configuration again."""
    file = tmp_path / "go-on"
    async with process(workers, file) as (server, url), await connect(url) as peer:
        await peer.send(request("/stream"))
        await peer.until(b"first\r\n")
        processes = [server.pid, *_workers(server)]
        for pid in [*processes, *processes]:
            os.kill(pid, signal.SIGHUP)
        assert await _status(url) == 200
        file.touch()
        assert await peer.until(b"0\r\n\r\n") == b"4\r\nlast\r\n0\r\n\r\n"
        assert await _status(url) == 200
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0


def test_workers_that_end_as_soon_as_they_start_are_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.edge.workers._PAUSE_S", 0.01)
    urls: list[str] = []
    assert run_workers(Server(bind="127.0.0.1:0", workers=1), ends, listening=urls.extend) == 7
    assert len(urls) == 1
    assert caplog.text.count("starting it again") == 4
    assert "exit code 7); giving up" in caplog.text


async def test_a_crashed_worker_is_started_again(tmp_path: Path) -> None:
    async with process("2", tmp_path / "never") as (server, url):
        async with await connect(url) as peer:
            await peer.send(request("/pid"))
            pid = int((await peer.answer()).body)
            os.kill(pid, signal.SIGKILL)
            assert await peer.closed()
        pids: set[int] = set()
        while len(pids - {pid}) < 2:
            async with await connect(url) as peer:
                await peer.send(request("/pid"))
                pids.add(int((await peer.answer()).body))
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
