"""The gateway as a process of its own, as its users start it, with the simulated provider in the test's loop.

``async with served(tmp_path, ...) as gateway`` starts ``python -m gateway serve`` and waits until it says where it
listens. What it writes to standard error (its log) is in ``gateway.log_file``.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define

from gateway.sim import Behaviour, Simulator
from tests.component.stage import BASE, KEY, Heard, hear, request_bytes

ROOT = Path(__file__).parents[2]
START_S = 30.0  # a busy machine imports slowly; how fast it starts is another test's subject


@define
class Served:
    """A running gateway process and the provider behind it."""

    process: trio.Process
    sim: Simulator
    port: int
    log_file: Path

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, document: Any, **options: Any) -> Heard:
        async with await self.connect() as stream:
            await stream.send_all(request_bytes(document, **options))
            return await hear(stream)

    async def get(self, path: str) -> Heard:
        async with await self.connect() as stream:
            await stream.send_all(
                f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
            )
            return await hear(stream)

    async def ended(self, *, seconds: float) -> tuple[int, float]:
        """Wait for the process's end; its exit code, and after how many seconds. Fails when it takes longer."""
        began = trio.current_time()
        with trio.fail_after(seconds):
            code = await self.process.wait()
        return code, trio.current_time() - began

    @property
    def log(self) -> str:
        return self.log_file.read_text()


@asynccontextmanager
async def served(
    folder: Path,
    *,
    server: str = "",
    workers: int = 20,
    queue: int = 100,
    timeouts: str = "",
    behaviour: Behaviour | None = None,
    sim_options: Mapping[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
    store: str | None = None,
    more: str = "",
) -> AsyncIterator[Served]:
    """Start a gateway process; it is killed at the end if it still runs.

    Args:
        workers, queue: ``[admission]``.
        arguments: Further ones for ``sluice serve``.
        store: ``[store] url``; by default a file in ``folder``, where in any case all that is kept locally is.
        more: Further tables.
    """
    if store is not None:
        store += f'"\nlocal_url = "sqlite:///{folder}/local.db'
    sim = Simulator(behaviour or Behaviour(tokens=20), **(sim_options or {}))
    config, log_file = folder / "sluice.toml", folder / "log"
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(sim.serve)
        text = BASE.format(
            server=server,
            workers=workers,
            queue=queue,
            max_wait_s=5.0,
            timeouts=timeouts,
            store=store or f"sqlite:///{folder}/sluice.db",
            spill=folder / "spill",
            log="requests = true",
            sim=f"http://{host}:{port}/v1",
            key=KEY,
            more=more,
        )
        config.write_text(text)
        with log_file.open("wb") as log:
            command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), *arguments]
            process = await start(command, stderr=log)
        try:
            yield Served(process, sim, await port_said(process), log_file)
        finally:
            await kill(process)
        nursery.cancel_scope.cancel()


async def start(command: list[str], *, stderr: Any) -> trio.Process:
    """A process with its standard output to be read, warnings as errors."""
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    return await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environment, cwd=ROOT
    )


async def port_said(process: trio.Process) -> int:
    """The port in what the process says once it listens."""
    assert process.stdout is not None
    said = b""
    with trio.fail_after(START_S):
        while not (found := re.search(rb"http://[\w.]+:(\d+).*\n", said)):
            data = await process.stdout.receive_some()
            assert data, f"it ended without listening: {said!r}"
            said += data
    return int(found[1])


async def kill(process: trio.Process) -> None:
    """Make sure that the process and its output are gone."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


async def connect_narrowly(port: int, receive_buffer_bytes: int = 4_096) -> trio.SocketStream:
    """A client whose kernel takes little, so that one that stops reading is noticed soon."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)
