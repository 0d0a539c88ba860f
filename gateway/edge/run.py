"""From a configuration to processes that serve it: one process, or a supervisor with several.

Each process builds its own gateway with its share of the admission limits; what they share is the listening sockets
and a folder with their metrics. Signals, drain and exit codes are described in ``edge/serve.py`` and
``edge/workers.py``.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from gateway import __version__
from gateway.config import Config, Source, advice
from gateway.core.telling import trace_of
from gateway.current import share_of
from gateway.edge.http import GatewayApp
from gateway.edge.serve import BindError, run_workers, serve, until_signal
from gateway.edge.service import Service
from gateway.flow.groups import unwrapped
from gateway.instance import Gateway
from gateway.observe.log import LogSink
from gateway.observe.peers import Peers

CANNOT_BIND = 1
COLLECT_AFTER = (5_000, 20, 50)  # net new containers; then young collections before an older generation's


def run(config: Config, source: Source | None = None) -> int:
    """Serve until a signal ends it; the exit code.

    Args:
        source: Where ``config`` was read, to be read again when it changes.
    """
    for sentence in advice(config):
        sys.stderr.write(f"warning: {sentence}\n")
    try:
        if config.server.workers == 1:
            trio.run(partial(run_gateway, Gateway(config, source=source)))
            return 0
        with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
            return run_workers(config.server, partial(_run_worker, config, source, folder))
    except BindError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_BIND


def _run_worker(
    config: Config, source: Source | None, folder: str, sockets: list[socket.socket], index: int, count: int
) -> None:
    peers = Peers(Path(folder), index)
    gateway = Gateway(share_of(config, index, count), source=source, share=(index, count), peers=peers)
    gateway.catch_up()  # one that is started again works with what the others have come to work with
    trio.run(partial(run_gateway, gateway, sockets, announce=index == 0))


async def run_gateway(
    gateway: Gateway,
    sockets: list[socket.socket] | None = None,
    *,
    announce: bool = True,
    on_listening: Callable[[list[str]], Awaitable[None]] | None = None,
) -> None:
    """Serve one gateway in this process until a signal has drained it.

    SIGHUP reloads the configuration; the demo, which has none and no use without its terminal, it drains.

    Args:
        sockets: Already listening; None binds ``server.bind``.
        announce: Say on standard output where it listens.
        on_listening: Awaited with the addresses once connections are accepted.

    Raises:
        BindError: ``server.bind`` cannot be had.
    """
    app = GatewayApp(gateway)
    shutdown = trio.Event()
    force = trio.CancelScope()
    handler = _ToSink(gateway.log)
    logging.getLogger().addHandler(handler)
    try:
        with force, unwrapped():
            async with trio.open_nursery() as nursery:
                hang_up = gateway.ask_reload if gateway.demo is None else shutdown.set
                nursery.start_soon(until_signal, shutdown, force, hang_up)
                server = partial(
                    serve,
                    app,
                    gateway.config.server,
                    gate=app.door,
                    sockets=sockets,
                    shutdown=shutdown,
                    on_drain=gateway.begin_drain,
                    observe=partial(_watch, gateway),
                )
                done = trio.Event()
                addresses: list[str] = await nursery.start(_run_then_set, server, done)
                gateway.log.say("info", "listening", addresses=addresses, version=__version__, pid=os.getpid())
                if announce:
                    _announce(addresses, gateway)
                if on_listening is not None:
                    await on_listening(addresses)
                with _rare_collections():
                    await done.wait()
                nursery.cancel_scope.cancel()
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Leave what start-up made out of every garbage collection, and collect less often.

    Measured, CPU for each request with 32 clients: 160 µs with CPython's settings, 153 with the freeze, 142 with both;
    refusals 48, 45.5, 44; 64 chunks 426 to 384. Beyond 2,000 containers the threshold made no difference; an open
    stream takes 35.5 KB with and without.
    """
    before = gc.get_threshold()
    gc.collect()  # 25 ms
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _run_then_set(
    server: Callable[..., Awaitable[None]], done: trio.Event, task_status: trio.TaskStatus[list[str]]
) -> None:
    await server(task_status=task_status)
    done.set()


def _watch(gateway: Gateway, service: Service) -> None:
    gateway.server_statistics = service.statistics


def _announce(addresses: list[str], gateway: Gateway) -> None:
    where = ", ".join(addresses)
    sys.stdout.write(f"sluice {__version__} on {where} (page: /, metrics: /metrics, API: /v1)\n")
    sys.stdout.flush()


class _ToSink(logging.Handler):
    """The standard library's log records, which servers and libraries write, as lines of our log."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__(logging.WARNING)
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        about = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            about["exception"] = trace_of(record.exc_info[1])
        self._sink.say(level, "log", **about)
