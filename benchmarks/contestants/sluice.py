"""Sluice with everything on: keys, admission, metrics and one log line per request, as in production."""

from __future__ import annotations

import sys
from importlib.metadata import version

from benchmarks.contestants.base import KEY, Command, Contestant, Setup

LOADERS = ("docs", "profile", "history")


def config(setup: Setup) -> str:
    """The configuration file for one scenario."""
    limits = setup.limits
    lines = [
        "[server]",
        f'bind = "127.0.0.1:{setup.port}"',
        f"client_stall_s = {limits.client_stall_s}",
        "max_connections = 20000",
        "drain_timeout_s = 1.0",
        "[admission]",
        f"workers = {limits.workers}",
        f"queue = {limits.queue}",
        "max_wait_s = 600.0",  # the bounded line is what is measured, not the wait in it
        "[timeouts]",
        "first_token_s = 600.0",
        "stall_s = 600.0",
        "[store]",
        f'url = "sqlite:///{setup.scratch}/sluice.db"',
        "[context]",
        f'allowed_hosts = ["127.0.0.1:{setup.provider_port}"]',
        "[[provider]]",
        'name = "bench"',
        'dialect = "openai"',
        f'base_url = "{setup.provider_url}/v1"',
        'api_key = "sk-upstream"',
        "max_connections = 20000",
        "[[key]]",
        'name = "bench"',
        f'secret = "{KEY}"',
    ]
    for model in sorted({"unary", *setup.models} - {"fanout"}):
        lines += ["[[model]]", f'name = "{model}"', f'targets = [{{ provider = "bench", model = "{model}" }}]']
    if "fanout" in setup.models:
        lines += ["[[assistant]]", 'name = "fanout"', 'model = "unary"', "context_budget_s = 30.0"]
        lines += ['system = "' + r"\n".join(f"{{{name}}}" for name in LOADERS) + '"']
        for name in LOADERS:
            lines += ["[[assistant.loader]]", f'name = "{name}"', 'kind = "http"', "required = true"]
            lines += ["timeout_s = 30.0", f'url = "{setup.provider_url}/context/{name}"', 'pointer = "/text"']
    return "\n".join(lines) + "\n"


def command(setup: Setup) -> Command:
    path = setup.scratch / "sluice.toml"
    path.write_text(config(setup))
    return Command(argv=(sys.executable, "-m", "gateway", "serve", "--config", str(path)))


SLUICE = Contestant(
    name="sluice",
    title="Sluice",
    features=frozenset({"stream", "admission", "fanout", "gateway"}),
    command=command,
    version=lambda: f"sluice {version('sluice')}",
    fanout_model="fanout",
)
