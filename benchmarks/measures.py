"""How each kind of scenario is measured, once, against one started contestant.

A function here drives the load generator, asks provider and /proc, and returns figures by name; which of them are
shown, with which limits and how many clients, stands in :mod:`benchmarks.scenarios`.
"""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

from attrs import evolve, frozen

from benchmarks import procs
from benchmarks.contestants.base import HEDGED, Running
from benchmarks.driver import Instrument

Figures = dict[str, float | None]

REFUSAL_WORKERS, REFUSAL_QUEUE = 20, 100
OVERLOAD_WORKERS, OVERLOAD_QUEUE, OVERLOAD_LATENCY_MS, OVERLOAD_FACTOR = 20, 100, 100, 4
OVERLOAD_UNBOUNDED_CLIENTS = 64  # stands for the workers of a contestant that admits everybody
OVERLOAD_GRACE_S = 10.0
STALL_S = 5.0
LEAVE_S = 10.0  # what the provider did not notice by then counts as so long


class Unfit(Exception):
    """The contestant did not do what the scenario is about, so no figure would mean anything."""


@frozen(kw_only=True, slots=True)
class Bench:
    """What a scenario's function gets."""

    instrument: Instrument
    running: Running
    warmup_s: float
    window_s: float


def cost(bench: Bench, *, per: str, fanout: bool = False, **arguments: Any) -> Figures:
    """A closed loop; CPU is divided by requests or by events (``per``)."""
    bench.instrument.target(bench.running, fanout=fanout)
    if fanout:
        arguments["model"] = bench.running.contestant.fanout_model
    counted = bench.instrument.ask("closed", warmup_s=bench.warmup_s, window_s=bench.window_s, **arguments)
    memory = procs.memory_bytes(bench.running.group)
    return closed_figures(counted, per) | {"memory_mb": memory / 1e6}


def hedge(bench: Bench, *, model: str, clients: int) -> Figures:
    """A heavy-tailed provider, asked without hedges and then with them, through the same gateway in the same round."""
    instrument = bench.instrument
    instrument.target(bench.running)
    figures: Figures = {}
    for name, suffix in (("alone", ""), ("hedged", HEDGED)):
        started = instrument.provider_get("/stats")["started"]
        counted = instrument.ask(
            "closed",
            model=model + suffix,
            clients=clients,
            stream=True,
            warmup_s=bench.warmup_s,
            window_s=bench.window_s,
        )
        seen = closed_figures(counted, "requests")
        calls = instrument.provider_get("/stats")["started"] - started
        figures |= {
            f"{name}_p50_ms": seen["first_p50_ms"],
            f"{name}_p99_ms": seen["first_p99_ms"],
            f"{name}_extra_percent": (calls / counted["sent"] - 1) * 100,
            f"{name}_cpu_us": seen["cpu_us"],
            "foreign_percent": seen["foreign_percent"],
        }
    return figures | {"p99_percent": (figures["hedged_p99_ms"] or 0) / (figures["alone_p99_ms"] or 1) * 100}


def accounted(bench: Bench, *, model: str, like: str, clients: int, turns: int = 4) -> Figures:
    """What a request costs whose key is in the store and has limits and a budget, and one with a static key.

    The two take turns, in the same process and each as long as the other, so that what the machine does meanwhile does
    not look like a difference.
    """
    part = evolve(bench, warmup_s=bench.warmup_s / turns, window_s=bench.window_s / turns)
    cpu_us: dict[bool, list[float]] = {False: [], True: []}
    seen: Figures = {}
    for turn in range(2 * turns):
        stored = turn % 4 in (1, 2)
        bench.instrument.target(bench.running, stored_key=stored)
        window = {"warmup_s": part.warmup_s, "window_s": part.window_s}
        counted = bench.instrument.ask("closed", model=model if stored else like, clients=clients, **window)
        figures = closed_figures(counted, "requests")
        cpu_us[stored].append(figures["cpu_us"] or 0.0)
        seen = figures if stored else seen
    static_us, stored_us = fmean(cpu_us[False]), fmean(cpu_us[True])
    return seen | {"cpu_us": stored_us, "static_us": static_us, "more_us": stored_us - static_us}


def translated(bench: Bench, *, model: str, like: str, stream: bool, clients: int) -> Figures:
    """What a translated answer costs, and in relation to one of the same length that is passed through."""
    arguments = {"per": "requests", "stream": stream, "clients": clients}
    passed = cost(bench, model=like, **arguments)
    seen = cost(bench, model=model, **arguments)
    times = (seen["cpu_us"] or 0) / (passed["cpu_us"] or 1)
    return seen | {"passed_us": passed["cpu_us"], "times": times}


def closed_figures(counted: dict[str, Any], per: str) -> Figures:
    """Per-request or per-event figures of one window.

    Raises:
        Unfit: Nothing was answered, or more than one answer in a hundred was wrong.
    """
    count, errors = counted[per], counted["errors"]
    if counted["problems"]:
        raise Unfit("; ".join(counted["problems"]))
    if not count or errors > counted["requests"] / 100 + (per == "events") * count / 1000:
        raise Unfit(f"{errors} errors, {count} {per}: {'; '.join(counted['error_texts']) or 'no answer at all'}")
    cpu, duration_s = counted["cpu_s"], counted["duration_s"]
    return {
        "cpu_us": cpu["contestant"] / count * 1e6,
        "per_s": count / duration_s,
        "busy_percent": cpu["contestant"] / duration_s * 100,
        "p50_ms": counted["latency_ms"].get("p50"),
        "p99_ms": counted["latency_ms"].get("p99"),
        "first_p50_ms": counted["first_ms"].get("p50"),
        "first_p99_ms": counted["first_ms"].get("p99"),
        "gap_p99_ms": counted["gap_ms"].get("p99"),
        "errors": float(errors),
        "load_us": cpu["load"] / count * 1e6,
        "provider_us": cpu["provider"] / count * 1e6,
        "foreign_percent": counted["foreign_percent"],
    }


def refusal(bench: Bench) -> Figures:
    """Fill workers and line with streams that do not end, then count what a refusal costs."""
    instrument = bench.instrument
    instrument.target(bench.running)
    taken = instrument.ask("hold", model="idle", clients=REFUSAL_WORKERS, timeout_s=10)
    if taken["started"] != REFUSAL_WORKERS:
        raise Unfit(f"only {taken['started']} of {REFUSAL_WORKERS} streams started: {taken['error_texts']}")
    instrument.ask("hold", model="idle", clients=REFUSAL_QUEUE, timeout_s=0.5)
    window = {"warmup_s": bench.warmup_s, "window_s": bench.window_s}
    counted = instrument.ask("closed", model="unary", clients=32, expect=429, **window)
    instrument.ask("leave")
    return closed_figures(counted, "requests")


def overload(bench: Bench) -> Figures:
    """Find the capacity, then offer four times of it in an open loop.

    With admission the capacity is that of the workers; without, it is what the core carries.
    """
    instrument = bench.instrument
    instrument.target(bench.running)
    model = f"slow-{OVERLOAD_LATENCY_MS}-8"
    admits = "admission" in bench.running.contestant.features
    window = {"warmup_s": bench.warmup_s, "window_s": bench.window_s}
    clients = OVERLOAD_WORKERS if admits else OVERLOAD_UNBOUNDED_CLIENTS
    calm = closed_figures(instrument.ask("closed", model=model, clients=clients, stream=True, **window), per="requests")
    capacity = calm["per_s"] or 0.0
    duration_s = 1.0 + 2 * bench.window_s
    flood = instrument.ask(
        "open",
        model=model,
        rate=OVERLOAD_FACTOR * capacity,
        duration_s=duration_s,
        skip_s=1.0,
        grace_s=OVERLOAD_GRACE_S,
        patience_s=duration_s + OVERLOAD_GRACE_S + 60,
    )
    unloaded_ms = calm["first_p50_ms"] or 0.0
    return {
        "goodput_percent": flood["good_per_s"] / capacity * 100,
        "capacity_per_s": capacity,
        "unloaded_ms": unloaded_ms,
        "first_p99_ms": flood["first_ms"].get("p99"),
        "bound_ms": OVERLOAD_QUEUE / capacity * 1000 + 1.5 * unloaded_ms if admits else None,
        "refused_p99_ms": flood["refused_ms"].get("p99"),
        "lost_percent": (flood["errors"] + flood["unanswered"]) / flood["sent"] * 100,
        "foreign_percent": flood["foreign_percent"],
    }


def hold(bench: Bench, clients: int, **arguments: Any) -> None:
    """Gather streams and see that every one started.

    Raises:
        Unfit: Not all did.
    """
    held = bench.instrument.ask("hold", clients=clients, timeout_s=60, **arguments)
    if held["started"] < clients:
        raise Unfit(f"only {held['started']} of {clients} streams started in 60 s: {held['error_texts']}")


def disconnect(bench: Bench, *, clients: int) -> Figures:
    """All clients close at once; the delay of each is from its own close to the provider's notice of it."""
    instrument = bench.instrument
    instrument.target(bench.running)
    hold(bench, clients, model="idle", tagged=True)
    closed_at = instrument.ask("leave")["closed_at"]
    instrument.provider_active_falls_to(0, timeout_s=LEAVE_S)
    seen_at = dict(instrument.provider_get("/stats")["left"])
    delays_ms = sorted((seen_at[tag] - at) * 1000 for tag, at in closed_at.items() if tag in seen_at)
    never = clients - len(delays_ms)
    delays_ms += [LEAVE_S * 1000] * never
    last = len(delays_ms) - 1
    return {
        "p50_ms": delays_ms[round(last * 0.5)],
        "p99_ms": delays_ms[round(last * 0.99)],
        "max_ms": delays_ms[-1],
        "never_percent": never / clients * 100,
    }


def idle(bench: Bench, *, clients: int) -> Figures:
    """Memory with all streams open and silent, less the memory before, by stream."""
    bench.instrument.target(bench.running)
    hold(bench, 50, model="idle")
    before = procs.memory_bytes(bench.running.group)
    hold(bench, clients, model="idle")
    bench.instrument.ask("keep", seconds=0.5)
    after = procs.memory_bytes(bench.running.group)
    bench.instrument.ask("leave")
    return {"stream_kb": (after - before) / clients / 1024, "total_mb": after / 1e6}


def stalled(bench: Bench, *, clients: int) -> Figures:
    """Clients read the first bytes of an endless stream and then nothing, while the provider sends what it can."""
    instrument = bench.instrument
    instrument.target(bench.running)
    before = procs.memory_bytes(bench.running.group)
    hold(bench, clients, model="flood-8", small_window=True)
    began = time.monotonic()
    time.sleep(STALL_S * 0.6)
    during = procs.memory_bytes(bench.running.group)
    gone = instrument.provider_active_falls_to(0, timeout_s=STALL_S + 5.0)
    took_s = time.monotonic() - began
    still_open = instrument.provider_get("/stats")["active"]
    instrument.ask("leave")
    return {
        "stream_kb": (during - before) / clients / 1024,
        "closed_s": took_s if gone else None,
        "open_percent": still_open / clients * 100,
    }


def cold(bench: Bench) -> Figures:
    """From the start of the process to the first 200 of its readiness, and its memory half a second later."""
    time.sleep(0.5)
    memory = procs.memory_bytes(bench.running.group)
    bench.instrument.target(bench.running)
    bench.instrument.ask("closed", model="unary", clients=1, warmup_s=0.0, window_s=0.3)
    used = procs.memory_bytes(bench.running.group)
    return {"ready_s": bench.running.ready_s, "memory_mb": memory / 1e6, "used_mb": used / 1e6}
