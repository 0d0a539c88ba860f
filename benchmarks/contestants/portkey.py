"""Portkey's AI gateway on Node, in an environment of its own (README.md here has the command that makes it)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contestants.base import AUTHORIZATION, Command, Contestant, Setup

PACKAGE = Path(__file__).parent.parent / ".env-portkey" / "node_modules" / "@portkey-ai" / "gateway"
SERVER = PACKAGE / "build" / "start-server.js"


def absent() -> str | None:
    if not shutil.which("node"):
        return "no `node` on the PATH"
    return None if SERVER.exists() else f"{SERVER} is not there; benchmarks/contestants/README.md says how to make it"


def version() -> str:
    return "portkey " + str(json.loads((PACKAGE / "package.json").read_text())["version"])


def command(setup: Setup) -> Command:
    return Command(
        argv=("node", str(SERVER), f"--port={setup.port}", "--headless"),
        env={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
    )


def headers(setup: Setup) -> Mapping[str, str]:
    """Portkey takes the target from the request's headers instead of a configuration."""
    return {
        **AUTHORIZATION,
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{setup.provider_url}/v1",
    }


PORTKEY = Contestant(
    name="portkey",
    title="Portkey gateway",
    features=frozenset({"stream", "gateway"}),
    absent=absent,
    command=command,
    version=version,
    ready_path="/",
    ready_timeout_s=60.0,
    headers=headers,
)
