"""What the runner knows of a contestant: whether it can run here, how it starts, how to ask it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from benchmarks import procs

# gateway: meant to be used as one; translation: asks providers of Anthropic's dialect for clients of OpenAI's
# accounts: keys in a store, with limits and budgets
Feature = Literal["stream", "admission", "fanout", "gateway", "hedge", "translation", "accounts"]

KEY = "sk-bench-only-on-loopback-7f3b9c41e8d2"
HEDGED = "-hedged"  # the end of a model's name that is the same as the one without it, but hedged
PRICED = "-priced"  # the same, but with a price, for a key of the store that has limits and a budget
AUTHORIZATION = {"authorization": f"Bearer {KEY}"}


@frozen(kw_only=True, slots=True)
class Limits:
    """What a scenario asks of the gateway; a contestant without the feature ignores it."""

    workers: int = 256
    queue: int = 256
    client_stall_s: float = 30.0


@frozen(kw_only=True, slots=True)
class Setup:
    """Where a contestant is to run."""

    port: int
    provider_port: int
    limits: Limits
    scratch: Path  # an empty folder of its own; also its working directory
    models: tuple[str, ...]  # the model names the scenario will ask for

    @property
    def provider_url(self) -> str:
        return f"http://127.0.0.1:{self.provider_port}"


@frozen(kw_only=True, slots=True)
class Command:
    """A program, its arguments and additions to its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True, slots=True)
class Contestant:
    """One gateway under test.

    Attributes:
        features: What it has; scenarios that need more are left out for it.
        absent: Why it cannot run here and what to do about it, or None.
        command: How to start it.
        version: What stands in the result's header.
        ready_path: Answers 200 once requests are served.
        headers: Sent with every request.
        stored_headers: The same with the key of the store, where there are accounts.
        fanout_model: What asks for the fan-out: a model name, on ``fanout_path``.
    """

    name: str
    title: str
    features: frozenset[Feature]
    absent: Callable[[], str | None] = lambda: None
    command: Callable[[Setup], Command]
    version: Callable[[], str]
    ready_path: str = "/readyz"
    ready_timeout_s: float = 20.0
    headers: Callable[[Setup], Mapping[str, str]] = lambda setup: AUTHORIZATION
    stored_headers: Callable[[Setup], Mapping[str, str]] = lambda setup: AUTHORIZATION
    path: str = "/v1/chat/completions"
    fanout_path: str = "/v1/chat/completions"
    fanout_model: str = "unary"


class Running:
    """A started contestant, to be used as a context manager.

    Raises:
        procs.NotReady: From ``__enter__``, when it did not become ready.
    """

    def __init__(self, contestant: Contestant, setup: Setup, core: int) -> None:
        self.contestant = contestant
        self.setup = setup
        self.core = core
        self.log = setup.scratch / "log"

    def __enter__(self) -> Running:
        command = self.contestant.command(self.setup)
        began = os.times().elapsed
        with self.log.open("wb") as log:
            self.process = procs.spawn(command.argv, core=self.core, env=command.env, cwd=self.setup.scratch, log=log)
        try:
            timeout_s = self.contestant.ready_timeout_s
            procs.wait_ready(self.process, self.setup.port, self.contestant.ready_path, self.log, timeout_s)
        except BaseException:
            procs.end(self.process)
            raise
        self.ready_s = os.times().elapsed - began
        return self

    def __exit__(self, *_: object) -> None:
        procs.end(self.process)

    @property
    def group(self) -> int:
        return self.process.pid


def first_line(*argv: str) -> str:
    """The first line a program prints about its version; empty if it cannot say."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0]
