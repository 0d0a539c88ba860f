"""What the load generator counts between two moments, and what that cost the contestant."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import procs
from benchmarks.loop import Client, Loop

ERRORS_KEPT = 5


class Window:
    """What was counted between two moments, and what it cost."""

    def __init__(self, groups: dict[str, int], core: int) -> None:
        self.groups = groups
        self.core = core
        self.latencies_s: list[float] = []
        self.first_s: list[float] = []
        self.gaps_s: list[float] = []
        self.statuses: dict[int, int] = {}
        self.errors = 0
        self.error_texts: list[str] = []
        self.problems: list[str] = []  # with the run itself, not with one answer
        self.began = 0.0
        self.counted = (0, 0)
        self.cpu: dict[str, float] = {}
        self.busy_s = 0.0

    def restart(self, *, keep_first: bool) -> None:
        """Forget what the warm-up left, in place: callbacks hold these lists."""
        for values in (self.latencies_s, self.gaps_s, self.error_texts, *(() if keep_first else (self.first_s,))):
            values.clear()
        self.statuses.clear()
        self.errors = 0

    def begin(self, loop: Loop) -> None:
        self.cpu = {name: procs.cpu_s(group) for name, group in self.groups.items()}
        self.busy_s = procs.core_busy_s(self.core)
        self.counted = (loop.events, loop.bytes)
        self.began = time.monotonic()

    def end(self, loop: Loop) -> dict[str, Any]:
        """Close the window and return everything counted, times in milliseconds."""
        duration_s = time.monotonic() - self.began
        cpu = {name: procs.cpu_s(group) - self.cpu[name] for name, group in self.groups.items()}
        foreign_s = procs.core_busy_s(self.core) - self.busy_s - cpu.get("contestant", 0.0)
        return {
            "duration_s": duration_s,
            "requests": len(self.latencies_s),
            "events": loop.events - self.counted[0],
            "bytes": loop.bytes - self.counted[1],
            "statuses": self.statuses,
            "errors": self.errors,
            "error_texts": self.error_texts,
            "problems": self.problems,
            "cpu_s": cpu,
            "foreign_percent": max(0.0, foreign_s / duration_s * 100),
            "latency_ms": percentiles(self.latencies_s),
            "first_ms": percentiles(self.first_s),
            "gap_ms": percentiles(self.gaps_s),
        }

    def answered(self, client: Client, *, expected: bool) -> None:
        """Count an answer's status; an unexpected one is an error."""
        self.statuses[client.status] = self.statuses.get(client.status, 0) + 1
        if not expected:
            client.problem = f"status {client.status}: {client.tail[-200:]!r}"
            self.fail(client)

    def fail(self, client: Client) -> None:
        self.errors += 1
        if len(self.error_texts) < ERRORS_KEPT and client.problem not in self.error_texts:
            self.error_texts.append(client.problem)


def percentiles(values_s: list[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds; empty without values. Nearest rank."""
    if not values_s:
        return {}
    ordered = sorted(values_s)
    last = len(ordered) - 1
    return {name: ordered[round(last * q)] * 1000 for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
