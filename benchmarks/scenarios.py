"""The scenarios: what is asked of a contestant, and which figures come of it.

Each is a value: limits the contestant starts with, features it must have, the metrics of its table and the function
of :mod:`benchmarks.measures` that runs it. The first metric of a scenario is the one pictures and summary show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import field, frozen

from benchmarks.contestants.base import HEDGED, PRICED, Feature, Limits
from benchmarks.measures import (
    OVERLOAD_FACTOR,
    OVERLOAD_LATENCY_MS,
    OVERLOAD_QUEUE,
    OVERLOAD_WORKERS,
    REFUSAL_QUEUE,
    REFUSAL_WORKERS,
    STALL_S,
    Bench,
    Figures,
    accounted,
    cold,
    cost,
    disconnect,
    hedge,
    idle,
    overload,
    refusal,
    stalled,
    translated,
)


@frozen(kw_only=True, slots=True)
class Metric:
    """One column. ``better`` says which way is good; ``ratio`` whether it is set in relation to Go."""

    name: str
    unit: str
    title: str
    better: str = "lower"
    ratio: bool = True


@frozen(kw_only=True, slots=True)
class Scenario:
    """See the module's docstring.

    Attributes:
        models: Model names a contestant's configuration must know.
        quick: Part of ``--quick``.
    """

    name: str
    text: str
    run: Callable[[Bench], Figures]
    metrics: tuple[Metric, ...]
    needs: frozenset[Feature] = frozenset()
    limits: Limits = field(factory=Limits)
    models: tuple[str, ...] = ("unary",)
    quick: bool = False


CPU_REQUEST = Metric(name="cpu_us", unit="µs", title="CPU per request")
CPU_CHUNK = Metric(name="cpu_us", unit="µs", title="CPU per chunk")
RATE = Metric(name="per_s", unit="/s", title="throughput", better="higher")
P50 = Metric(name="p50_ms", unit="ms", title="p50")
P99 = Metric(name="p99_ms", unit="ms", title="p99")
FIRST_P50 = Metric(name="first_p50_ms", unit="ms", title="TTFT p50")
FIRST_P99 = Metric(name="first_p99_ms", unit="ms", title="TTFT p99")
GAP_P99 = Metric(name="gap_p99_ms", unit="ms", title="gap between chunks p99", ratio=False)
BUSY = Metric(name="busy_percent", unit="%", title="core in use", ratio=False)
MEMORY = Metric(name="memory_mb", unit="MB", title="memory", ratio=False)


def paced(clients: int, *, quick: bool = False) -> Scenario:
    return Scenario(
        name=f"paced-{clients}",
        text=f"{clients} streams, one chunk every 20 ms each",
        run=partial(cost, per="events", model="paced-20-100000", stream=True, clients=clients, endless=True),
        metrics=(CPU_CHUNK, RATE, BUSY, FIRST_P99, GAP_P99, MEMORY),
        needs=frozenset({"stream"}),
        limits=Limits(workers=clients + 16),
        models=("paced-20-100000",),
        quick=quick,
    )


def translating(name: str, text: str, *, model: str, like: str, stream: bool) -> Scenario:
    return Scenario(
        name=name,
        text=f"32 clients of OpenAI's dialect, a provider of Anthropic's: {text}; beside it the same passed through",
        run=partial(translated, model=model, like=like, stream=stream, clients=32),
        metrics=(
            CPU_REQUEST,
            Metric(name="passed_us", unit="µs", title="passed through"),
            Metric(name="times", unit="×", title="of it", ratio=False),
            RATE,
            P99,
        ),
        needs=frozenset({"stream", "translation"}),
        models=(model, like),
    )


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order of the report."""
    known = (
        Scenario(
            name="unary-32",
            text="32 clients, JSON answers of 700 bytes",
            run=partial(cost, per="requests", model="unary", clients=32),
            metrics=(CPU_REQUEST, RATE, P50, P99, MEMORY),
            quick=True,
        ),
        Scenario(
            name="stream-64",
            text="32 clients, streams of 64 chunks as fast as they go",
            run=partial(cost, per="requests", model="stream-64", stream=True, clients=32),
            metrics=(CPU_REQUEST, RATE, FIRST_P50, FIRST_P99, P99, MEMORY),
            needs=frozenset({"stream"}),
            models=("stream-64",),
            quick=True,
        ),
        paced(64, quick=True),
        paced(250),
        paced(1000),
        Scenario(
            name="paced-saturated",
            text="1,500 streams at 20 ms: more than the core can carry",
            run=partial(cost, per="events", model="paced-20-100000", stream=True, clients=1500, endless=True),
            metrics=(CPU_CHUNK, RATE, BUSY, GAP_P99, MEMORY),
            needs=frozenset({"stream"}),
            limits=Limits(workers=1516),
            models=("paced-20-100000",),
        ),
        Scenario(
            name="fanout",
            text="32 clients; three documents loaded side by side over HTTP, then a JSON answer",
            run=partial(cost, per="requests", fanout=True, clients=32),
            metrics=(CPU_REQUEST, RATE, P50, P99, MEMORY),
            needs=frozenset({"fanout"}),
            models=("unary", "fanout"),
            quick=True,
        ),
        translating("translate-unary", "JSON answers of 16 words", model="claude-16", like="unary", stream=False),
        translating("translate-stream", "streams of 64 chunks", model="claude-64", like="stream-64", stream=True),
        Scenario(
            name="accounts",
            text="32 clients, JSON answers; a key of the store with limits and budgets of its own, its team and its "
            "organisation, and a model with a price; beside it a static key without any of that",
            run=partial(accounted, model="unary" + PRICED, like="unary", clients=32),
            metrics=(
                CPU_REQUEST,
                Metric(name="static_us", unit="µs", title="with a static key"),
                Metric(name="more_us", unit="µs", title="more", ratio=False),
                RATE,
                P99,
            ),
            needs=frozenset({"accounts"}),
            models=("unary", "unary" + PRICED),
        ),
        Scenario(
            name="hedge",
            text="16 streams one after the other; the provider takes 10 to 20 times its 20 ms for 5 % of the requests. "
            "Without hedges, then with `hedge = {}` (the learnt 95th percentile) and a second target",
            run=partial(hedge, model="tail-20-5", clients=16),
            metrics=(
                Metric(name="hedged_p99_ms", unit="ms", title="TTFT p99, hedged"),
                Metric(name="alone_p99_ms", unit="ms", title="not hedged"),
                Metric(name="p99_percent", unit="%", title="of it"),
                Metric(name="hedged_extra_percent", unit="%", title="more upstream calls"),
                Metric(name="hedged_p50_ms", unit="ms", title="TTFT p50, hedged"),
                Metric(name="alone_p50_ms", unit="ms", title="not hedged"),
                Metric(name="hedged_cpu_us", unit="µs", title="CPU per request, hedged"),
                Metric(name="alone_cpu_us", unit="µs", title="not hedged"),
            ),
            needs=frozenset({"stream", "hedge"}),
            models=("tail-20-5", "tail-20-5" + HEDGED),
        ),
        Scenario(
            name="refusal",
            text=f"{REFUSAL_WORKERS} workers and a line of {REFUSAL_QUEUE} taken; 32 clients are refused",
            run=refusal,
            metrics=(Metric(name="cpu_us", unit="µs", title="CPU per refusal"), RATE, P50, P99),
            needs=frozenset({"stream", "admission"}),
            limits=Limits(workers=REFUSAL_WORKERS, queue=REFUSAL_QUEUE),
            models=("unary", "idle"),
            quick=True,
        ),
        Scenario(
            name="overload",
            text=f"open loop at {OVERLOAD_FACTOR}× capacity: {OVERLOAD_WORKERS} workers, a line of {OVERLOAD_QUEUE}, "
            f"{OVERLOAD_LATENCY_MS} ms to the first token",
            run=overload,
            metrics=(
                Metric(name="goodput_percent", unit="%", title="goodput kept", better="higher"),
                Metric(name="capacity_per_s", unit="/s", title="capacity", better="higher", ratio=False),
                Metric(name="first_p99_ms", unit="ms", title="TTFT p99 of the accepted"),
                Metric(name="bound_ms", unit="ms", title="queue wait + 1.5 × unloaded TTFT", ratio=False),
                Metric(name="refused_p99_ms", unit="ms", title="p99 of refusals"),
                Metric(name="lost_percent", unit="%", title="failed or unanswered", ratio=False),
            ),
            needs=frozenset({"stream", "gateway"}),
            limits=Limits(workers=OVERLOAD_WORKERS, queue=OVERLOAD_QUEUE),
            models=(f"slow-{OVERLOAD_LATENCY_MS}-8",),
        ),
        Scenario(
            name="disconnect-1000",
            text="1,000 clients with silent streams leave at once; time until the provider sees each close",
            run=partial(disconnect, clients=1000),
            metrics=(
                Metric(name="p99_ms", unit="ms", title="p99"),
                Metric(name="p50_ms", unit="ms", title="p50"),
                Metric(name="max_ms", unit="ms", title="last"),
                Metric(name="never_percent", unit="%", title="not within 10 s", ratio=False),
            ),
            needs=frozenset({"stream"}),
            limits=Limits(workers=1016),
            models=("idle",),
        ),
        Scenario(
            name="idle-5000",
            text="5,000 open streams that say nothing",
            run=partial(idle, clients=5000),
            metrics=(
                Metric(name="stream_kb", unit="KB", title="memory per stream"),
                Metric(name="total_mb", unit="MB", title="in all"),
            ),
            needs=frozenset({"stream"}),
            limits=Limits(workers=5100),
            models=("idle",),
        ),
        Scenario(
            name="stalled-500",
            text=f"500 clients stop reading a stream that never ends (client_stall_s = {STALL_S:g})",
            run=partial(stalled, clients=500),
            metrics=(
                Metric(name="stream_kb", unit="KB", title="memory per stream"),
                Metric(name="closed_s", unit="s", title="until the provider is free of all", ratio=False),
                Metric(name="open_percent", unit="%", title="still open 13 s later", ratio=False),
            ),
            needs=frozenset({"stream"}),
            limits=Limits(workers=600, client_stall_s=STALL_S),
            models=("flood-8",),
        ),
        Scenario(
            name="cold",
            text="from the start of the process to the first 200 of its readiness",
            run=cold,
            metrics=(
                Metric(name="ready_s", unit="s", title="ready after", ratio=False),
                Metric(name="memory_mb", unit="MB", title="idle memory"),
                Metric(name="used_mb", unit="MB", title="memory after first use"),
            ),
        ),
        Scenario(
            name="large",
            text="8 clients, 1 MB in, 1 MB out",
            run=partial(cost, per="requests", model="large-1048576", clients=8, padding_bytes=1_048_576),
            metrics=(CPU_REQUEST, RATE, P50, P99, MEMORY),
            models=("large-1048576",),
        ),
    )
    return {scenario.name: scenario for scenario in known}
