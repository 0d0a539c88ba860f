"""The configuration is read again while the gateway runs: on SIGHUP, and when its file changes.

One reading at a time, in a thread: parse, check, and make what follows from it once, so that dialects are imported and
mistakes are found there. Then one step in the event loop puts it in the old one's place (``Gateway.reload``). A file
with faults changes nothing: the log has all of them, and the one before stays. What asks during a reading is answered
by one more.

The file is looked at every ``LOOK_EVERY_S``, in a thread because a network's file system may hang: what a path leads to
is what counts, so it does not matter whether an editor writes it anew, a new file takes its place, or Kubernetes moves
a link. A change is taken up once two looks saw the same. To be told of changes by the system would cost more: it is the
folder that has to be watched, and as a rule the store's file stands there, too; its writes woke a watching thread for
four requests in five, 2 % of their cost.

Each process reads for itself and takes its share. One that was started again reads what is there then.

Metrics: ``sluice_config_reloads_total{outcome}``: ``applied``, ``unchanged``, ``refused``.
Limits: what only a restart can change is named in the log (see ``gateway/current.py``). The environment of a process
does not change from outside; ``${VAR}`` is read again, but has its old value as a rule.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import trio

from gateway.config import Config, ConfigFaults, Fault, Source
from gateway.current import make_current, share_of

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
        self._limiter = trio.CapacityLimiter(2)  # a look, and a reading

    def ask(self) -> None:
        """Have it read again, soon. Sync."""
        self._asked.set()

    def catch_up(self) -> None:
        """Read it again now if it changed since it was read; for before the gateway runs. Blocks."""
        if self._source.news() is not None:
            try:
                config = self._read()
            except Exception as error:
                self._refuse(error)
            else:
                self._take(config)

    async def run(self) -> None:
        """Read whenever asked, until cancelled.

        Cancellation: a reading that runs is finished and dropped (tens of milliseconds).
        """
        async with trio.open_nursery() as nursery:
            if self._watches and self._source.path is not None:
                nursery.start_soon(self._look)
            while True:
                await self._asked.wait()
                self._asked = trio.Event()
                try:
                    config = await trio.to_thread.run_sync(self._read, limiter=self._limiter)
                except Exception as error:
                    self._refuse(error)
                else:
                    self._take(config)

    async def _look(self) -> None:
        """Ask for a reading of each new state of the file, once it has stood still from one look to the next."""
        before = asked = None
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now = await trio.to_thread.run_sync(self._source.news, limiter=self._limiter, abandon_on_cancel=True)
            if now is None:
                asked = None
            elif now == before != asked:
                asked = now
                self.ask()
            before = now

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
