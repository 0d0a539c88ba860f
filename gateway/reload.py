"""The configuration is read again while the gateway runs: on SIGHUP, and when its file changes.

One reading at a time, in a thread: parse, check, and make what follows from it once, so that dialects are imported and
mistakes are found there. Then one step in the event loop puts it in the old one's place (``Gateway.reload``). A file
with faults changes nothing: the log has all of them, and the one before stays. What asks during a reading is answered
by one more.

The file's folder is watched, not the file, because editors and Kubernetes put a new one in its place; and every
``LOOK_EVERY_S`` the file is looked at anyway, for what a file system does not tell of. ``watchfiles`` waits in a thread
that is told to stop when the gateway ends, and takes up to ``STEP_MS`` to hear it; its own asynchronous form leaves the
thread running for seconds.

Each process reads for itself and takes its share. One that was started again reads what is there then.

Metrics: ``sluice_config_reloads_total{outcome}``: ``applied``, ``unchanged``, ``refused``.
Limits: what only a restart can change is named in the log (see ``gateway/current.py``). The environment of a process
does not change from outside; ``${VAR}`` is read again, but has its old value as a rule.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import trio

from gateway.config import Config, ConfigFaults, Fault, Source
from gateway.current import make_current, share_of

STEP_MS = 100  # a change is taken up once nothing else changed for so long
GATHER_MS = 1_000  # or after this, if it never stops
LOOK_EVERY_S = 0.5


class Reloads:
    """Readings of one source for one gateway.

    Args:
        source: Must have been read once.
        config: What came of that, with ``[admission]`` as this process's share.
        share: Which process this is, and of how many.
        apply: Puts a new configuration in place; gives the fields that need a restart.
        tell: ``(outcome, level, event, about)``, for the log and the metrics.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        *,
        share: tuple[int, int],
        apply: Callable[[Config], tuple[str, ...]],
        tell: Callable[[str, str, str, dict[str, Any]], None],
    ) -> None:
        self._source = source
        self._last = config
        self._watches = config.server.reload
        self._share = share
        self._apply = apply
        self._tell = tell
        self._asked = trio.Event()
        self._limiter = trio.CapacityLimiter(2)  # the watching, and a reading

    def ask(self) -> None:
        """Have it read again, soon. Sync."""
        self._asked.set()

    def catch_up(self) -> None:
        """Read it again now if it changed since it was read; for before the gateway runs. Blocks."""
        if self._source.changed():
            try:
                config = self._read()
            except Exception as error:
                self._refuse(error)
            else:
                self._take(config)

    async def run(self) -> None:
        """Read whenever asked, until cancelled.

        Cancellation: a reading that runs is finished and dropped (tens of milliseconds); the watching ends within
        ``STEP_MS``.
        """
        stop = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, stop)
            if self._watches and self._source.path is not None:
                await trio.to_thread.run_sync(self._watch, stop, limiter=self._limiter)

    async def _answer(self, stop: threading.Event) -> None:
        try:
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                try:
                    config = await trio.to_thread.run_sync(self._read, limiter=self._limiter)
                except Exception as error:
                    self._refuse(error)
                else:
                    self._take(config)
        finally:
            stop.set()

    def _watch(self, stop: threading.Event) -> None:
        """In a thread of its own, until ``stop``."""
        from watchfiles import watch  # 60 ms, in this thread

        assert self._source.path is not None
        try:
            for _ in watch(
                self._source.path.absolute().parent,
                watch_filter=None,
                debounce=GATHER_MS,
                step=STEP_MS,
                stop_event=stop,
                rust_timeout=int(LOOK_EVERY_S * 1000),
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
            ):
                if self._source.changed():
                    trio.from_thread.run_sync(self.ask)
        except (OSError, RuntimeError) as error:
            trio.from_thread.run_sync(self._cannot_watch, error)

    def _cannot_watch(self, error: Exception) -> None:
        about = {"file": str(self._source), "error": str(error), "fix": "SIGHUP still reloads it"}
        self._tell("", "warning", "config_not_watched", about)

    def _read(self) -> Config:
        config = self._source.read(os.environ)
        index, count = self._share
        assert config is not None  # a file makes one
        if config.admission.workers < count:
            message = f"cannot be shared out among the {count} processes that run; every process needs at least 1"
            raise ConfigFaults([Fault(path="admission.workers", message=message)])
        config = share_of(config, index, count)
        make_current(config)  # for its imports and its mistakes
        return config

    def _take(self, config: Config) -> None:
        about: dict[str, Any] = {"file": str(self._source)}
        if config == self._last:
            self._tell("unchanged", "info", "config_unchanged", about)
            return
        try:
            needs_restart = self._apply(config)
        except Exception as error:
            self._refuse(error)
            return
        self._last = config
        if needs_restart:
            about["needs_restart"] = list(needs_restart)
        self._tell("applied", "warning" if needs_restart else "info", "config_reloaded", about)

    def _refuse(self, error: Exception) -> None:
        if isinstance(error, ConfigFaults):
            faults = [str(fault) for fault in error.faults]
        else:
            faults = [f"{type(error).__name__}: {error}"]
        about = {"file": str(self._source), "faults": faults, "kept": "the configuration before"}
        self._tell("refused", "error", "config_refused", about)
