"""The Go control (see go/main.go), built when ``go`` is on the PATH.

The program is kept in the user's cache folder, named by its source and compiler, never in the repository.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.contestants.base import Command, Contestant, Setup, first_line

SOURCE = Path(__file__).with_name("go") / "main.go"


def absent() -> str | None:
    return None if shutil.which("go") else "no `go` on the PATH; install Go 1.22 or newer (https://go.dev/dl/)"


def version() -> str:
    return first_line("go", "version").removeprefix("go version ")


def built() -> Path:
    """The program, compiled if this source was not compiled by this compiler before."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice-bench"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / ("gateway-" + hashlib.sha256(SOURCE.read_bytes() + version().encode()).hexdigest()[:16])
    if not program.exists():
        fresh = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["go", "build", "-o", str(fresh), str(SOURCE)], check=True, cwd=SOURCE.parent)
        fresh.rename(program)
    return program


def command(setup: Setup) -> Command:
    limits = setup.limits
    return Command(
        argv=(
            str(built()),
            *("-listen", f"127.0.0.1:{setup.port}", "-upstream", setup.provider_url),
            *("-workers", str(limits.workers), "-queue", str(limits.queue)),
        ),
        env={"GOMAXPROCS": "1"},
    )


GO = Contestant(
    name="go",
    title="Go net/http",
    features=frozenset({"stream", "admission", "fanout", "gateway"}),
    absent=absent,
    command=command,
    version=version,
    fanout_path="/fanout",
)
