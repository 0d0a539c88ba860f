"""Raw Trio and httptools (see floor_app.py): what the runtime itself costs."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.contestants.base import Command, Contestant, Setup


def command(setup: Setup) -> Command:
    app = str(Path(__file__).with_name("floor_app.py"))
    ports = ("--port", str(setup.port), "--upstream-port", str(setup.provider_port))
    return Command(argv=(sys.executable, app, *ports))


FLOOR = Contestant(
    name="floor",
    title="raw Trio + httptools",
    features=frozenset({"stream"}),
    command=command,
    version=lambda: ", ".join(f"{name} {version(name)}" for name in ("trio", "httptools")),
)
