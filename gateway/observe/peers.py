"""Metrics of several worker processes as one: each leaves a snapshot in a common folder, a scrape adds them up.

A scrape reaches any one of the processes that share a listening socket. Each writes its snapshot once a second
(atomically, by rename), so the sums are at most a second old. The folder is the supervisor's, made with mode 0700 and
removed by it; a process that died leaves its last snapshot, which is what counters need.

A folder that cannot be written or read costs the sums, not the gateway: ``expose`` then has this process only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import trio

EVERY_S = 1.0


class Peers:
    """The snapshots of this process's siblings.

    Args:
        folder: Common to all of them.
        index: Which of them this is.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._own = folder / f"{index}.json"
        self._limiter = trio.CapacityLimiter(1)

    async def publish(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Write a snapshot every second, until cancelled."""
        while True:
            data = orjson.dumps(snapshot())
            with contextlib.suppress(OSError):
                await trio.to_thread.run_sync(self._write, data, limiter=self._limiter, abandon_on_cancel=True)
            await trio.sleep(EVERY_S)

    async def snapshots(self) -> list[dict[str, Any]]:
        """The others' latest."""
        return await trio.to_thread.run_sync(self._read, limiter=self._limiter, abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        partial = self._own.with_suffix(".part")
        partial.write_bytes(data)
        os.replace(partial, self._own)

    def _read(self) -> list[dict[str, Any]]:
        found = []
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            for path in sorted(self._folder.glob("*.json")):
                if path != self._own:
                    found.append(orjson.loads(path.read_bytes()))
        return found
