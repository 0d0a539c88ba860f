"""Several processes on the same listening sockets, under a small supervisor.

Processes are spawned, not forked: a fork would copy whatever threads and locks the parent has. They inherit the
listening sockets (see ``sockets``), so a crashed worker loses its own requests and nothing else.

The supervisor does nothing but wait: for a worker to end, or for a signal. The first SIGTERM or SIGINT becomes SIGTERM
to the workers, which drains; a further one becomes :data:`AT_ONCE`, which cancels. That is a signal of its own because
two equal ones that are pending are one: a busy worker took a second SIGTERM for the first. Workers ignore SIGINT,
because a terminal sends it to all. SIGHUP is passed on: each worker reloads its configuration. It is blocked in a
worker until that can take it, since one that came earlier would end it.

A worker that ends unasked is started again, after a pause that doubles from :data:`_PAUSE_S` up to :data:`_MAX_PAUSE_S`
while workers keep dying young; when that happens :data:`_MAX_EARLY_DEATHS` times in a row, the fault is not a worker's
and the supervisor gives up with its exit code.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final

from attrs import define, field

from gateway.config import Server
from gateway.edge.sockets import bind, url_of

Target = Callable[[list[socket.socket], int, int], None]

AT_ONCE: Final = signal.SIGUSR1  # to a worker: do not wait for what runs

_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0
_YOUNG_S: Final = 10.0
_MAX_EARLY_DEATHS: Final = 5
_KILL_AFTER_S: Final = 15.0  # beyond the drain, for a worker that does not end

_log = logging.getLogger(__name__)


def _ignore(urls: list[str]) -> None:
    pass


def run_workers(config: Server, target: Target, *, listening: Callable[[list[str]], None] = _ignore) -> int:
    """Run ``server.workers`` processes until a signal ends them.

    Args:
        config: ``[server]``; ``bind``, ``workers`` and ``drain_timeout_s`` are read.
        target: ``target(sockets, index, count)`` runs one worker, 0 ≤ index < count, and returns or raises SystemExit
            when it has drained. Importable from the top level of a module, since it is pickled.
        listening: Called once with the URLs, when the sockets are bound and before the first worker is started.

    Returns:
        The exit code: 0 if every worker ended well after a signal.

    Raises:
        BindError: ``server.bind`` cannot be had.
    """
    sockets = bind(config)
    try:
        listening([url_of(sock, tls=config.tls_cert is not None) for sock in sockets])
        with _wakeups() as (wakeup, signals):
            return _Supervisor(config, target, sockets).run(wakeup, signals)
    finally:
        for sock in sockets:
            sock.close()


@define(eq=False)
class _Supervisor:
    config: Server
    target: Target
    sockets: list[socket.socket]
    alive: dict[int, tuple[SpawnProcess, float]] = field(factory=dict)  # by index, with the time of its start
    due: dict[int, float] = field(factory=dict)  # when a dead one is started again
    early_deaths: int = 0
    exit_code: int = 0
    stopping: int = 0  # how often the workers were told
    kill_at: float = 0.0

    def run(self, wakeup: socket.socket, signals: list[int]) -> int:
        self.due = dict.fromkeys(range(self.config.workers), 0.0)
        try:
            while self.alive or (self.due and not self.stopping):
                self._start_due()
                wait([wakeup, *(process.sentinel for process, _ in self.alive.values())], self._wait_s())
                with suppress(BlockingIOError):
                    wakeup.recv(4096)
                while signals:
                    if signals.pop() == signal.SIGHUP:
                        self._tell_all(signal.SIGHUP)
                    else:
                        self._stop()
                self._bury()
                if self.stopping and time.monotonic() > self.kill_at:
                    self._kill()
        finally:
            self._kill()
        return self.exit_code

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, at in self.due.items() if at <= now and not self.stopping]:
            del self.due[index]
            arguments = (self.target, self.sockets, index, self.config.workers)
            process = get_context("spawn").Process(
                target=_work, args=arguments, name=f"sluice-worker-{index}", daemon=True
            )
            with _hangups_blocked():
                process.start()
            self.alive[index] = (process, now)

    def _wait_s(self) -> float | None:
        now = time.monotonic()
        if self.stopping:
            return max(0.0, self.kill_at - now)
        return max(0.0, min(self.due.values()) - now) if self.due else None

    def _tell_all(self, number: signal.Signals) -> None:
        for process, _ in self.alive.values():
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, number)

    def _stop(self) -> None:
        self.stopping += 1
        self.kill_at = time.monotonic() + self.config.drain_timeout_s + _KILL_AFTER_S
        self._tell_all(signal.SIGTERM if self.stopping == 1 else AT_ONCE)

    def _bury(self) -> None:
        for index, (process, started) in list(self.alive.items()):
            if process.exitcode is None:
                continue
            del self.alive[index]
            code = process.exitcode
            process.close()
            if code in (-signal.SIGTERM, -AT_ONCE) and self.stopping:
                continue  # told to end before it had begun
            if self.stopping:
                self.exit_code = self.exit_code or (128 - code if code < 0 else code)
            else:
                self._restart(index, code, time.monotonic() - started)

    def _restart(self, index: int, code: int, lived_s: float) -> None:
        self.early_deaths = self.early_deaths + 1 if lived_s < _YOUNG_S else 0
        if self.early_deaths >= _MAX_EARLY_DEATHS:
            _log.error("workers end as soon as they start (exit code %d); giving up", code)
            self.exit_code = (128 - code if code < 0 else code) or 1
            self._stop()
            return
        pause_s = min(_MAX_PAUSE_S, _PAUSE_S * 2 ** max(0, self.early_deaths - 1))
        _log.error("worker %d ended with exit code %d; starting it again in %g s", index, code, pause_s)
        self.due[index] = time.monotonic() + pause_s

    def _kill(self) -> None:
        for process, _ in self.alive.values():
            process.kill()
            process.join()
            self.exit_code = self.exit_code or 128 + signal.SIGKILL
            process.close()
        self.alive.clear()


def _work(target: Target, sockets: list[socket.socket], index: int, count: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target(sockets, index, count)


@contextmanager
def _hangups_blocked() -> Iterator[None]:
    """Processes that are started here begin with SIGHUP blocked; one that comes to us meanwhile is late, not lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _wakeups() -> Iterator[tuple[socket.socket, list[int]]]:
    """Signals as items of a list, and a socket that becomes readable with them."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signals: list[int] = []
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    before_fd = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda n, _: signals.append(n)) for number in numbers}
    try:
        yield reading, signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        reading.close()
        writing.close()
