"""Facts become Prometheus metrics.

Counting happens in plain dictionaries, once per request when its record closes, so neither a request nor a token pays
for label look-ups or locks. ``prometheus-client`` is imported, and its objects are made, when somebody scrapes.

Labels are bounded: endpoints, outcomes, codes and phases are our own words; models, targets, loaders and keys come
from the configuration, and a name that is not configured counts as ``other``.

==================================  =========  =============================================================
metric                              kind       labels
==================================  =========  =============================================================
sluice_requests_total               counter    endpoint, model, outcome, code
sluice_requests_in_flight           gauge
sluice_requests_waiting             gauge      priority
sluice_shed_total                   counter    reason
sluice_cancelled_total              counter    phase
sluice_upstream_responses_total     counter    target, status
sluice_attempts_total               counter    target, kind, outcome
sluice_tokens_total                 counter    model, direction (in, out, cached, reasoning), source
sluice_cost_usd_total               counter    model
sluice_lost_usd_total               counter    model (attempts that failed, broke off or lost a race)
sluice_unpriced_total               counter    model (requests whose price is unknown)
sluice_left_tokens_total            counter    model, fate (delivered, generated) of answers whose client left
sluice_tokens_saved_total           counter    model (of answers whose client left, estimated)
sluice_saved_usd_total              counter    model (what they would have cost)
sluice_passed_bytes_total           counter    target (a provider), direction (in, out)
sluice_config_reloads_total         counter    outcome (applied, unchanged, refused)
sluice_queue_wait_seconds           histogram
sluice_request_duration_seconds     histogram  endpoint, outcome
sluice_time_to_first_token_seconds  histogram  target
sluice_inter_token_seconds          histogram  target (mean of a stream, counted once per stream)
sluice_context_seconds              histogram  loader, outcome
sluice_connections                  gauge      state
sluice_upstream_connections         gauge      provider, state
sluice_breaker_state                gauge      target (0 closed, 1 half-open, 2 open)
sluice_target_in_flight             gauge      target
sluice_target_limit                 gauge      target (where provider.concurrency is set)
sluice_target_ttft_seconds          gauge      target (recent peak, decaying)
sluice_retry_budget                 gauge      provider (extra attempts in hand)
sluice_keys_cooling                 gauge      provider
sluice_streams_draining             gauge      provider
sluice_ledger_entries               gauge      fate (written, spilled, replayed, lost, torn, pruned)
sluice_ledger_waiting               gauge
sluice_ledger_spilled_bytes         gauge
sluice_ledger_away                  gauge
sluice_ledger_degraded              gauge
sluice_log_lines_dropped            gauge
sluice_turns_lost                   gauge
sluice_limits_refused               gauge      scope, kind (requests refused since the start, by limit)
sluice_limits_decided_alone         gauge      scope, kind (decided while the keeper of the limits was away)
sluice_limits_keeper_away           gauge      keeper (rates, budgets)
sluice_limits_leases_lost           gauge      keeper
sluice_limits_processes             gauge      keeper (that hold slices)
sluice_virtual_keys                 gauge      (each process has them all)
sluice_key_store_down               gauge      (processes; known keys work for identity.grace_s, new ones are 503)
sluice_key_store_failures           gauge
sluice_issuer_keys                  gauge      issuer
sluice_issuer_down                  gauge      issuer (processes)
sluice_responses_lost               gauge
==================================  =========  =============================================================
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.facts import Outcome, Record

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]
Gauges = dict[str, dict[Labels, float]]

DURATIONS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKEN_GAPS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)

COUNTERS: dict[str, tuple[str, Labels]] = {
    "sluice_requests": ("Requests by how they ended", ("endpoint", "model", "outcome", "code")),
    "sluice_shed": ("Requests refused before anything was started", ("reason",)),
    "sluice_cancelled": ("Requests whose client left, by how far they had come", ("phase",)),
    "sluice_upstream_responses": ("Answers of providers by status (0: none came)", ("target", "status")),
    "sluice_attempts": ("Targets asked, by why and by what came of it", ("target", "kind", "outcome")),
    "sluice_tokens": ("Tokens", ("model", "direction", "source")),
    "sluice_cost_usd": ("What answers cost, in dollars", ("model",)),
    "sluice_lost_usd": ("What attempts cost that came to nothing, in dollars", ("model",)),
    "sluice_unpriced": ("Requests whose cost is not known", ("model",)),
    "sluice_left_tokens": ("Tokens of answers whose client left: what it had got, what was made", ("model", "fate")),
    "sluice_tokens_saved": ("Tokens that were not generated because the client left, estimated", ("model",)),
    "sluice_saved_usd": ("What those would have cost, in dollars, estimated", ("model",)),
    "sluice_passed_bytes": ("Bytes of bodies that were passed through", ("target", "direction")),
    "sluice_config_reloads": ("Readings of the configuration while running", ("outcome",)),
}
HISTOGRAMS: dict[str, tuple[str, Labels, tuple[float, ...]]] = {
    "sluice_queue_wait_seconds": ("Time in the admission line", (), DURATIONS_S),
    "sluice_request_duration_seconds": ("Headers to last byte", ("endpoint", "outcome"), DURATIONS_S),
    "sluice_time_to_first_token_seconds": ("Asking a provider to its first content", ("target",), DURATIONS_S),
    "sluice_inter_token_seconds": ("Mean time between the tokens of a stream", ("target",), TOKEN_GAPS_S),
    "sluice_context_seconds": ("Time a context loader took", ("loader", "outcome"), DURATIONS_S),
}
GAUGES: dict[str, tuple[str, Labels]] = {
    "sluice_requests_in_flight": ("Requests that hold a permit", ()),
    "sluice_requests_waiting": ("Requests in the admission line", ("priority",)),
    "sluice_connections": ("Client connections", ("state",)),
    "sluice_upstream_connections": ("Connections to providers", ("provider", "state")),
    "sluice_breaker_state": ("Circuit breakers: 0 closed, 1 half-open, 2 open", ("target",)),
    "sluice_target_in_flight": ("Attempts that run", ("target",)),
    "sluice_target_limit": ("Attempts that a target seems to bear", ("target",)),
    "sluice_target_ttft_seconds": ("Recent peak of the time to first token", ("target",)),
    "sluice_retry_budget": ("Extra attempts in hand", ("provider",)),
    "sluice_keys_cooling": ("Keys that are left alone for a while", ("provider",)),
    "sluice_streams_draining": ("Streams read on after their clients left", ("provider",)),
    "sluice_ledger_entries": ("Ledger entries by where they went since the start", ("fate",)),
    "sluice_ledger_waiting": ("Ledger entries in memory", ()),
    "sluice_ledger_spilled_bytes": ("Ledger entries on disk that are yet to be replayed", ()),
    "sluice_ledger_away": ("Whether the ledger's database is away", ()),
    "sluice_ledger_degraded": ("Whether entries can go neither to the database nor to the disk", ()),
    "sluice_log_lines_dropped": ("Log lines that could not be written since the start", ()),
    "sluice_responses_lost": ("Responses that could not be kept since the start", ()),
    "sluice_turns_lost": ("Conversation turns that could not be kept since the start", ()),
    "sluice_limits_refused": ("Requests that a limit refused since the start", ("scope", "kind")),
    "sluice_limits_decided_alone": ("Requests decided while the limits' keeper was away", ("scope", "kind")),
    "sluice_limits_keeper_away": ("Whether the keeper of the limits cannot be reached", ("keeper",)),
    "sluice_limits_leases_lost": ("Leases of limits that ran out since the start", ("keeper",)),
    "sluice_limits_processes": ("Processes that hold slices of limits", ("keeper",)),
    "sluice_virtual_keys": ("Keys of the store in memory, of all processes together", ()),
    "sluice_key_store_down": ("Processes that the key store does not answer", ()),
    "sluice_key_store_failures": ("How often the key store did not answer since the start", ()),
    "sluice_issuer_keys": ("Keys of a token issuer in memory, of all processes together", ("issuer",)),
    "sluice_issuer_down": ("Processes that could not fetch an issuer's keys", ("issuer",)),
}


class Spent(Protocol):
    """What a request cost, as the ledger has it: None where a price is unknown."""

    @property
    def model(self) -> str: ...
    @property
    def cost_micro_usd(self) -> int | None: ...
    @property
    def lost_micro_usd(self) -> int | None: ...
    @property
    def tokens_delivered(self) -> int: ...
    @property
    def tokens_generated(self) -> int: ...
    @property
    def tokens_saved(self) -> int: ...
    @property
    def saved_micro_usd(self) -> int: ...


class Histogram:
    """Bucket counts of one labelled series."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """The counts of one process.

    Args:
        models: Configured names of models and assistants; others count as ``other``.
        gauges: Read at each scrape: metric name → labels → value.
    """

    def __init__(self, models: Iterable[str] = (), gauges: Callable[[], Gauges] = dict) -> None:
        self._models = frozenset(models)
        self._gauges = gauges
        self.counters: dict[str, defaultdict[Labels, float]] = {name: defaultdict(float) for name in COUNTERS}
        self.histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in HISTOGRAMS}

    def know(self, models: Iterable[str]) -> None:
        """Count these models by their names, too. Names that are gone stay: requests for them may still run."""
        self._models |= frozenset(models)

    def reloaded(self, outcome: str) -> None:
        """Count a reading of the configuration."""
        self.counters["sluice_config_reloads"][outcome,] += 1

    def observe(self, record: Record) -> None:
        """Count a closed record. Sync; a few microseconds."""
        outcome = record.outcome or Outcome.FAILED
        model = record.model if record.model in self._models else "other" if record.model else ""
        count = self.counters
        count["sluice_requests"][record.endpoint, model, outcome._value_, record.code] += 1
        if outcome is Outcome.REFUSED:
            count["sluice_shed"][record.code,] += 1
            return
        if outcome is Outcome.CANCELLED:
            count["sluice_cancelled"][record.phase.value,] += 1
        self._time("sluice_request_duration_seconds", (record.endpoint, outcome._value_), record.total_s)
        self._time("sluice_queue_wait_seconds", (), record.queue_s)
        for fact in record.loaders:
            self._time("sluice_context_seconds", (fact.loader, fact.outcome), fact.ms / 1000)
        if record.target:
            self._count_upstream(record, model)

    def spend(self, spent: Spent) -> None:
        """Count what a request cost. Sync; a microsecond."""
        model = spent.model if spent.model in self._models else "other" if spent.model else ""
        count, cost, lost = self.counters, spent.cost_micro_usd, spent.lost_micro_usd
        if cost:
            count["sluice_cost_usd"][model,] += cost / 1_000_000
        if lost:
            count["sluice_lost_usd"][model,] += lost / 1_000_000
        if cost is None or lost is None:
            count["sluice_unpriced"][model,] += 1
        if spent.tokens_generated:
            count["sluice_left_tokens"][model, "delivered"] += spent.tokens_delivered
            count["sluice_left_tokens"][model, "generated"] += spent.tokens_generated
        if spent.tokens_saved:
            count["sluice_tokens_saved"][model,] += spent.tokens_saved
            count["sluice_saved_usd"][model,] += spent.saved_micro_usd / 1_000_000

    def _count_upstream(self, record: Record, model: str) -> None:
        target = record.target_label
        responses, attempts = self.counters["sluice_upstream_responses"], self.counters["sluice_attempts"]
        for fact in record.attempts:
            responses[fact.label, str(fact.status)] += 1
            attempts[fact.label, fact.kind._value_, fact.outcome] += 1
        if record.first_token_at:
            self._time("sluice_time_to_first_token_seconds", (target,), record.ttft_s)
            if record.tokens > 1:
                gap_s = (record.ended_at - record.first_token_at) / (record.tokens - 1)
                self._time("sluice_inter_token_seconds", (target,), gap_s)
        if record.path:
            self.counters["sluice_passed_bytes"][target, "in"] += record.bytes_in
            self.counters["sluice_passed_bytes"][target, "out"] += record.bytes_out
        usage = record.usage
        if usage is not None:
            source = "estimated" if usage.estimated else "reported"
            tokens = self.counters["sluice_tokens"]
            tokens[model, "in", source] += usage.prompt_tokens
            tokens[model, "out", source] += usage.completion_tokens
            if usage.cached_tokens:
                tokens[model, "cached", source] += usage.cached_tokens
            if usage.reasoning_tokens:
                tokens[model, "reasoning", source] += usage.reasoning_tokens

    def _time(self, name: str, labels: Labels, seconds: float) -> None:
        series = self.histograms[name]
        histogram = series.get(labels)
        if histogram is None:
            histogram = series[labels] = Histogram(HISTOGRAMS[name][2])
        histogram.observe(seconds)

    def snapshot(self) -> dict[str, Any]:
        """All values as JSON-able lists, so that another process can add them to its own."""
        return {
            "counters": {name: [[*k, v] for k, v in series.items()] for name, series in self.counters.items()},
            "histograms": {
                name: [[*k, h.counts, h.total] for k, h in series.items()] for name, series in self.histograms.items()
            },
            "gauges": {name: [[*k, v] for k, v in series.items()] for name, series in self._gauges().items()},
        }

    def expose(self, peers: Iterable[dict[str, Any]] = ()) -> tuple[bytes, str]:
        """The Prometheus text of this process and its peers added up, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(_add_up([self.snapshot(), *peers])))
        return generate_latest(registry), CONTENT_TYPE_LATEST


def _add_up(snapshots: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {
        "counters": {name: defaultdict(float) for name in COUNTERS},
        "gauges": {name: defaultdict(float) for name in GAUGES},
        "histograms": {name: {} for name in HISTOGRAMS},
    }
    for snapshot in snapshots:
        for kind in ("counters", "gauges"):
            for name, rows in snapshot[kind].items():
                for *labels, value in rows:
                    total[kind][name][tuple(labels)] += value
        for name, rows in snapshot["histograms"].items():
            for *labels, counts, seconds in rows:
                sums = total["histograms"][name].setdefault(tuple(labels), ([0] * len(counts), [0.0]))
                sums[0][:] = [a + b for a, b in zip(sums[0], counts, strict=True)]
                sums[1][0] += seconds
    return total


class _Collector:
    """Hands the sums to ``prometheus-client``, which knows the text format."""

    def __init__(self, total: dict[str, Any]) -> None:
        self._total = total

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, (text, label_names) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=label_names)
            for labels, value in self._total["counters"][name].items():
                counter.add_metric(labels, value)
            yield counter
        for name, (text, label_names) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=label_names)
            for labels, value in self._total["gauges"][name].items():
                gauge.add_metric(labels, value)
            yield gauge
        for name, (text, label_names, bounds) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, text, labels=label_names)
            for labels, (counts, seconds) in self._total["histograms"][name].items():
                histogram.add_metric(labels, _cumulative(counts, bounds), seconds[0])
            yield histogram


def _cumulative(counts: list[int], bounds: tuple[float, ...]) -> list[tuple[str, int]]:
    buckets, seen = [], 0
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    return buckets
