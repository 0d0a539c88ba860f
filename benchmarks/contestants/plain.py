"""The plain stack: the same frameworks as Sluice's, used as their documentation shows (see plain_app.py)."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.contestants.base import Command, Contestant, Setup


def command(setup: Setup) -> Command:
    app = f"{Path(__file__).with_name('plain_app.py')}:app"
    serve = ("-m", "hypercorn", "--worker-class", "trio", "--bind", f"127.0.0.1:{setup.port}", "--backlog", "2048")
    return Command(argv=(sys.executable, *serve, app), env={"UPSTREAM": setup.provider_url})


PLAIN = Contestant(
    name="plain",
    title="hypercorn + quart-trio + httpx, plainly used",
    features=frozenset({"stream", "fanout", "gateway"}),
    command=command,
    version=lambda: ", ".join(f"{name} {version(name)}" for name in ("hypercorn", "quart-trio", "httpx")),
    fanout_path="/fanout",
)
