"""LiteLLM's proxy, in an environment of its own (README.md here has the command that makes it)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestants.base import KEY, Command, Contestant, Setup, first_line

ENVIRONMENT = Path(__file__).parent.parent / ".env-litellm"


def absent() -> str | None:
    program = ENVIRONMENT / "bin" / "litellm"
    return None if program.exists() else f"{program} is not there; benchmarks/contestants/README.md says how to make it"


def version() -> str:
    ask = "from importlib.metadata import version; print('litellm', version('litellm'))"
    return first_line(str(ENVIRONMENT / "bin" / "python"), "-c", ask)


def command(setup: Setup) -> Command:
    """One worker, one key, no database, no telemetry, no verbose log."""
    lines = ["model_list:"]
    for model in sorted({"unary", *setup.models}):
        lines += [f"  - model_name: {model}", "    litellm_params:", f"      model: openai/{model}"]
        lines += [f"      api_base: {setup.provider_url}/v1", "      api_key: sk-upstream"]
    lines += ["litellm_settings:", "  telemetry: false", "  num_retries: 0", "  request_timeout: 600"]
    lines += ["general_settings:", f"  master_key: {KEY}"]
    path = setup.scratch / "litellm.yaml"
    path.write_text("\n".join(lines) + "\n")
    serve = ("--config", str(path), "--host", "127.0.0.1", "--port", str(setup.port), "--num_workers", "1")
    return Command(
        argv=(str(ENVIRONMENT / "bin" / "litellm"), *serve, "--telemetry", "False"),
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    )


LITELLM = Contestant(
    name="litellm",
    title="LiteLLM proxy",
    features=frozenset({"stream", "gateway"}),
    absent=absent,
    command=command,
    version=version,
    ready_path="/health/readiness",
    ready_timeout_s=120.0,
)
