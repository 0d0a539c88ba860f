"""Sluice with everything on: keys, admission, metrics and one log line per request, as in production."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version

from benchmarks.contestants.base import HEDGED, KEY, PRICED, Command, Contestant, Setup

LOADERS = ("docs", "profile", "history")
LIMITS = {"rpm": 10**8, "tpm": 10**11, "max-concurrent": 10**5, "budget-usd": 10**7}  # asked, and never reached


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
        *_provider(setup, "bench", "openai"),
        "[[key]]",
        'name = "bench"',
        f'secret = "{KEY}"',
    ]
    for model in sorted({"unary", *setup.models} - {"fanout"}):
        lines += _model(model)
    if any(model.startswith("tail-") for model in setup.models):
        lines += _provider(setup, "second", "openai")
    if any(model.startswith("claude-") for model in setup.models):
        lines += _provider(setup, "claude", "anthropic")
    if any(model.endswith(PRICED) for model in setup.models):
        lines += _provider(setup, "priced", "openai")
        lines += ['[prices."priced/unary"]', "input_usd_per_mtok = 0.15", "output_usd_per_mtok = 0.6"]
        limits = [f"{name.replace('-', '_')} = {amount}" for name, amount in LIMITS.items()]
        lines += ["[[team]]", 'name = "team"', 'org = "org"', *limits, "[[organisation]]", 'name = "org"', *limits]
    if "fanout" in setup.models:
        lines += ["[[assistant]]", 'name = "fanout"', 'model = "unary"', "context_budget_s = 30.0"]
        lines += ['system = "' + r"\n".join(f"{{{name}}}" for name in LOADERS) + '"']
        for name in LOADERS:
            lines += ["[[assistant.loader]]", f'name = "{name}"', 'kind = "http"', "required = true"]
            lines += ["timeout_s = 30.0", f'url = "{setup.provider_url}/context/{name}"', 'pointer = "/text"']
    return "\n".join(lines) + "\n"


def _provider(setup: Setup, name: str, dialect: str) -> list[str]:
    return [
        "[[provider]]",
        f'name = "{name}"',
        f'dialect = "{dialect}"',
        f'base_url = "{setup.provider_url}/v1"',
        'api_key = "sk-upstream"',
        "max_connections = 20000",
    ]


def _model(name: str) -> list[str]:
    """One model; heavy-tailed ones have a second target, and a hedge if their name says so."""
    asked = name.removesuffix(HEDGED).removesuffix(PRICED)
    kind = "priced" if name.endswith(PRICED) else name.partition("-")[0]
    providers = {"tail": ("bench", "second"), "claude": ("claude",), "priced": ("priced",)}.get(kind, ("bench",))
    targets = ", ".join(f'{{ provider = "{provider}", model = "{asked}" }}' for provider in providers)
    hedge = ["hedge = {}"] if name.endswith(HEDGED) else []
    return ["[[model]]", f'name = "{name}"', f"targets = [{targets}]", *hedge]


def command(setup: Setup) -> Command:
    path = setup.scratch / "sluice.toml"
    path.write_text(config(setup))
    if any(model.endswith(PRICED) for model in setup.models):
        _make_key(setup, str(path))
    return Command(argv=(sys.executable, "-m", "gateway", "serve", "--config", str(path)))


def _make_key(setup: Setup, path: str) -> None:
    """A key in the store, as its owner would make it; the secret goes into the scratch folder."""
    limits = [word for name, amount in LIMITS.items() for word in (f"--{name}", str(amount))]
    argv = [sys.executable, "-m", "gateway", "keys", "create", "stored", "--team", "team", *limits, "--config", path]
    made = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=setup.scratch)
    (setup.scratch / "key").write_text(made.stdout.strip())


def _stored_headers(setup: Setup) -> Mapping[str, str]:
    return {"authorization": f"Bearer {(setup.scratch / 'key').read_text()}"}


SLUICE = Contestant(
    name="sluice",
    title="Sluice",
    features=frozenset({"stream", "admission", "fanout", "gateway", "hedge", "translation", "accounts"}),
    command=command,
    stored_headers=_stored_headers,
    version=lambda: f"sluice {version('sluice')}",
    fanout_model="fanout",
)
