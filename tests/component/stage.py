"""A stage for the tests of promises: a real gateway on a real socket, and a simulated provider on another.

``async with staged(...) as stage`` runs both in the test's own event loop, so a test can look at either from the
inside while it talks to them over TCP. ``stage.settle()`` and ``stage.assert_nothing_left()`` are the five invariants
that hold after every fault (no permit held, upstream connections bounded, no task left, exactly one record per request;
the client's view is the test's own business).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

from gateway.app import Gateway, make_app
from gateway.config import load
from gateway.core.facts import Record
from gateway.edge.serve import serve
from gateway.sim import Behaviour, Simulator

KEY = "sk-test-0123456789abcdef"

BASE = """
[server]
bind = "127.0.0.1:0"
{server}
[admission]
workers = {workers}
queue = {queue}
max_wait_s = {max_wait_s}
[timeouts]
{timeouts}
[store]
url = "{store}"
[ledger]
spill_dir = "{spill}"
[log]
{log}
[[provider]]
name = "sim"
base_url = "{sim}"
[[model]]
name = "chat"
targets = [{{ provider = "sim", model = "sim" }}]
retry = {{ max = 0 }}
[[model]]
name = "sim/*"
targets = [{{ provider = "sim", model = "*" }}]
retry = {{ max = 0 }}
[[key]]
name = "dev"
secret = "{key}"
{more}
"""


@define
class Stage:
    """What a test has at hand."""

    gateway: Gateway
    sim: Simulator
    port: int
    shutdown: trio.Event
    records: list[Record] = field(factory=list)
    stopped: trio.Event = field(factory=trio.Event)
    _baseline_tasks: int = 0
    _baseline_fds: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    def remember_baseline(self) -> None:
        """What is there when nothing happens; :meth:`assert_nothing_left` compares with it."""
        self._baseline_tasks = self._tasks()
        self._baseline_fds = open_files()

    async def settle(self, seconds: float = 5.0) -> None:
        """Wait until the gateway and the provider are idle; fails when they are not in time.

        A request is over once its task is: its client has heard the end of the answer a moment before that.
        """
        with trio.fail_after(seconds):
            while self.gateway.server_statistics is not None and self.gateway.server_statistics().requests_active:
                await trio.sleep(0.001)
            while self.gateway.admission.statistics().in_flight or self.gateway.admission.statistics().waiting:
                await trio.sleep(0.001)
            await self.sim.until(lambda now: now.active == 0)
            while self._baseline_tasks and self._tasks() > self._baseline_tasks:
                await trio.sleep(0.001)

    def assert_nothing_left(self, *, requests: int | None = None) -> None:
        """The invariants. ``requests``: how many were made; each has exactly one record."""
        admission = self.gateway.admission.statistics()
        assert (admission.in_flight, admission.waiting) == (0, 0)
        assert len(self.gateway.guards) == 0
        for pool in self.gateway.transport.statistics().values():
            assert pool.in_use == 0
        ids = [record.request_id for record in self.records]
        assert len(ids) == len(set(ids))
        if requests is not None:
            assert len(ids) == requests
        assert all(record.outcome is not None for record in self.records)
        if self._baseline_tasks:
            assert self._tasks() <= self._baseline_tasks

    def _tasks(self) -> int:
        """Living tasks, without the provider's two for each connection that the gateway's pool keeps alive."""
        return trio.lowlevel.current_statistics().tasks_living - 2 * self.sim.statistics().connections


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def staged(
    *,
    workers: int = 20,
    queue: int = 100,
    max_wait_s: float = 5.0,
    server: str = "",
    timeouts: str = "",
    more: str = "",
    store: str = "sqlite:///:memory:",
    log: str = 'requests = false\nlevel = "error"',
    log_fd: int = 2,
    behaviour: Behaviour | None = None,
    sim_options: Mapping[str, Any] | None = None,
) -> AsyncIterator[Stage]:
    """Run a simulated provider and a gateway in front of it.

    Args:
        server, timeouts, log: Lines for these TOML tables.
        more: Further tables, e.g. assistants; ``${SIM}`` is the provider's base URL, ``${SIM_ROOT}`` the same without
            ``/v1``.
        behaviour: Of the provider; by default it answers at once with 20 tokens.
    """
    spill = tempfile.mkdtemp(prefix="sluice-ledger-")
    sim = Simulator(behaviour or Behaviour(ttft_s=0.0, tokens_per_s=0.0, tokens=20), **(sim_options or {}))
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(sim.serve)
        text = BASE.format(
            server=server,
            workers=workers,
            queue=queue,
            max_wait_s=max_wait_s,
            timeouts=timeouts,
            store=store,
            spill=spill,
            log=log,
            sim=f"http://{host}:{port}/v1",
            key=KEY,
            more=more,
        )
        environ = {"SIM": f"http://{host}:{port}/v1", "SIM_ROOT": f"http://{host}:{port}"}
        gateway = Gateway(load(None, environ=environ, text=text), log_fd=log_fd)
        shutdown = trio.Event()
        stage = Stage(gateway, sim, 0, shutdown)
        observe = gateway.observe

        def note(record: Record) -> None:
            stage.records.append(record)
            observe(record)

        gateway.observe = note  # type: ignore[method-assign]
        app = make_app(gateway)
        run = partial(
            serve,
            app,
            gateway.config.server,
            gate=app.door,
            shutdown=shutdown,
            on_drain=gateway.begin_drain,
            observe=lambda service: setattr(gateway, "server_statistics", service.statistics),
        )
        [url] = await nursery.start(_run_then_set, run, stage.stopped)
        stage.port = int(url.rpartition(":")[2])
        yield stage
        nursery.cancel_scope.cancel()
    shutil.rmtree(spill)


async def _run_then_set(run: Any, done: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
    await run(task_status=task_status)
    done.set()


def chat(model: str = "sim/sim", *, stream: bool = False, content: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat completion request."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": content}], **fields}


def request_bytes(
    document: Any,
    *,
    path: str = "/v1/chat/completions",
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A whole HTTP/1.1 request."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = {"host": "gateway", "content-type": "application/json", "content-length": str(len(body))}
    if key is not None:
        lines["authorization"] = f"Bearer {key}"
    lines.update(headers or {})
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode() + b"\r\n" + body


@define
class Heard:
    """An answer as a raw client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool  # the framing says that it ended; False: the connection ended first

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The ``data`` of each server-sent event."""
        return [
            line[6:]
            for block in self.body.decode().split("\n\n")
            for line in block.split("\n")
            if line.startswith("data: ")
        ]

    @property
    def text(self) -> str:
        """The text of a streamed chat completion."""
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))

    @property
    def finished(self) -> bool:
        return self.events[-1:] == ["[DONE]"]


async def hear(stream: trio.abc.ReceiveStream, *, seconds: float = 30.0) -> Heard:
    """Read one answer to its end."""
    data = b""
    with trio.fail_after(seconds):
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                raise AssertionError(f"the connection ended before the headers did: {data!r}")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            body, whole = await _hear_chunks(stream, body)
        else:
            length = int(headers.get("content-length", "0"))
            while len(body) < length and (more := await stream.receive_some()):
                body += more
            whole = len(body) >= length
    return Heard(status, headers, body, whole)


async def _hear_chunks(stream: trio.abc.ReceiveStream, data: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        while b"\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                return body, False
            data += more
        size, _, data = data.partition(b"\r\n")
        need = int(size, 16) + 2
        while len(data) < need:
            more = await stream.receive_some()
            if not more:
                return body + data, False
            data += more
        if need == 2:
            return body, True
        body += data[: need - 2]
        data = data[need:]


async def ask(stage: Stage, document: Any, *, seconds: float = 30.0, **options: Any) -> Heard:
    """One request on a connection of its own, heard to its end."""
    async with await stage.connect() as stream:
        await stream.send_all(request_bytes(document, **options))
        return await hear(stream, seconds=seconds)


def use_small_buffers(stream: trio.SocketStream) -> None:
    """Make a client whose kernel takes little, so that one that stops reading is noticed soon."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
