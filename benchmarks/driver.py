"""The instrument's two processes, as the runner talks to them."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import procs
from benchmarks.contestants.base import Running

ROOT = Path(__file__).parent.parent


class InstrumentFailed(Exception):
    """Load or provider did not do what it was asked; nothing was measured."""


class Instrument:
    """Load and provider on their core; use as a context manager."""

    def __init__(self, cores: procs.Cores) -> None:
        self.cores = cores

    def __enter__(self) -> Instrument:
        self.provider = self._spawn("benchmarks.provider")
        assert self.provider.stdout is not None
        self.provider_port = int(self.provider.stdout.readline())
        self.load = self._spawn("benchmarks.load")
        return self

    def _spawn(self, module: str) -> Any:
        argv = (sys.executable, "-m", module)
        return procs.spawn(argv, core=self.cores.instrument, cwd=ROOT, log=None, pipes=True)

    def __exit__(self, *_: object) -> None:
        procs.end(self.load)
        procs.end(self.provider)

    def target(self, running: Running, *, fanout: bool = False, stored_key: bool = False) -> None:
        """Send what follows to this contestant, and measure its process group."""
        contestant, setup = running.contestant, running.setup
        self.ask(
            "target",
            port=setup.port,
            path=contestant.fanout_path if fanout else contestant.path,
            headers=dict((contestant.stored_headers if stored_key else contestant.headers)(setup)),
            groups={"contestant": running.group, "provider": self.provider.pid, "load": self.load.pid},
            core=self.cores.contestant,
        )
        self.provider_get("/reset")

    def ask(self, do: str, *, patience_s: float = 180.0, **arguments: Any) -> dict[str, Any]:
        """Give the load generator a command and wait for its result.

        Raises:
            InstrumentFailed: It ended, reported an error, or said nothing for ``patience_s``.
        """
        load = self.load
        load.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        load.stdin.flush()
        if not select.select([load.stdout], [], [], patience_s)[0]:
            raise InstrumentFailed(f"the load generator did not finish {do!r} within {patience_s:g} s")
        line = load.stdout.readline()
        if not line:
            raise InstrumentFailed(f"the load generator ended during {do!r}; its traceback is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InstrumentFailed(f"{do}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def provider_get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.provider_port, timeout=30)
        try:
            connection.request("GET", path)
            document: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return document

    def provider_active_falls_to(self, active: int, timeout_s: float) -> bool:
        """Wait until the provider has at most so many answers under way; False if it keeps more."""
        end = time.monotonic() + timeout_s
        while self.provider_get("/stats")["active"] > active:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True
