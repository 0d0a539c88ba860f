"""How targets and providers fare: what the policies learnt, and what an attempt holds while it runs.

One :class:`TargetHealth` per configured target (breaker, latency, adaptive limit, hedge delay, attempts in flight) and
one :class:`ProviderHealth` per provider (retry budget, keys, drains). They outlive requests and reloads of the
configuration; a provider whose settings changed starts afresh. Every decision is synchronous
(:meth:`HealthBook.enter`), and what was entered is a :class:`Lease` that is told the end exactly once. Nothing is
shared between processes: each learns by itself.

Metrics: ``sluice_breaker_state``, ``sluice_target_in_flight``, ``sluice_target_limit``, ``sluice_target_ttft_seconds``,
``sluice_retry_budget``, ``sluice_keys_cooling``, ``sluice_streams_draining``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import trio
from attrs import define, field, frozen

from gateway import config
from gateway.core.errors import Retry, UpstreamError
from gateway.flow.limit import ConcurrencyLimit
from gateway.policy import balance
from gateway.policy.adaptive import AdaptiveLimit, Release
from gateway.policy.breaker import Breaker, State, Verdict
from gateway.policy.classify import Health
from gateway.policy.density import TokensPerEvent
from gateway.policy.ewma import PeakEwma
from gateway.policy.hedge import HedgeDelay
from gateway.policy.key_pool import KeyPool
from gateway.policy.retry_budget import RetryBudget
from gateway.upstream.targets import Provider, Target

MOST_LIMITED = 1_000  # targets that are remembered as limited; wildcards make names without end
KEY_COOLS_S = 1.0  # after a 429 that does not say for how long, where there is another key


@define(slots=True, eq=False)
class ProviderHealth:
    """What is known of a provider, whatever the model."""

    settings: config.Provider
    budget: RetryBudget
    keys: KeyPool  # which of them are refused altogether
    limited: dict[str, KeyPool] = field(factory=dict)  # by target: which of them are rate limited there
    forbidden: dict[str, float] = field(factory=dict)  # by target: until when none of them is tried
    drains: int = 0

    def pick_key(self, target: Target, now: float) -> int | None:
        """The next key in turn that this target takes now; None if there is none."""
        limited = self.limited.get(target.name)
        if limited is None:
            return self.keys.pick(now)
        for _ in target.provider.keys:
            key = self.keys.pick(now)
            if key is None or not limited.wait_s(key, now):
                return key
        return None

    def cool(self, target: Target, key: int, now: float, for_s: float) -> None:
        """Leave a key alone at a target that limits it: limits are, as a rule, per model."""
        if target.name not in self.limited and len(self.limited) >= MOST_LIMITED:
            self.limited = {name: pool for name, pool in self.limited.items() if pool.statistics(now).cooling}
            if len(self.limited) >= MOST_LIMITED:
                return
        self.limited.setdefault(target.name, KeyPool(len(target.provider.keys))).cool(key, now, for_s)

    def forbid(self, target: Target, now: float, for_s: float) -> None:
        """Leave a target alone to which our key has no access: that one, for a client may have made up its name."""
        if len(self.forbidden) >= MOST_LIMITED:
            self.forbidden = {name: until for name, until in self.forbidden.items() if until > now}
        if len(self.forbidden) < MOST_LIMITED:
            self.forbidden[target.name] = now + for_s

    def soonest_s(self, target: Target, now: float) -> float:
        """When a key can be used again, in seconds."""
        limited = self.limited.get(target.name)
        if limited is None:
            return self.keys.soonest_s(now)
        keys = range(max(len(target.provider.keys), 1))
        return min(max(self.keys.wait_s(key, now), limited.wait_s(key, now)) for key in keys)


@define(slots=True, eq=False)
class TargetHealth:
    """What is known of a target."""

    provider: ProviderHealth
    breaker: Breaker | None
    limit: ConcurrencyLimit | None
    latency: PeakEwma = field(factory=PeakEwma)
    density: TokensPerEvent = field(factory=TokensPerEvent)
    hedges: dict[tuple[config.Hedge, bool], HedgeDelay] = field(factory=dict)
    in_flight: int = 0

    def hedge(self, rules: config.Hedge, *, whole: bool) -> HedgeDelay:
        """What was learnt for these rules: apart of streams, and of ``whole`` answers, which take so much longer."""
        found = self.hedges.get((rules, whole))
        if found is None:
            found = self.hedges[rules, whole] = HedgeDelay(
                rules.quantile, min_samples=rules.min_samples, min_delay_s=rules.min_delay_s
            )
        return found


@frozen(slots=True)
class Unavailable:
    """Why a target is not asked now, and when it may be.

    Attributes:
        why: ``open`` (its breaker) · ``forbidden`` (our keys have no access) · ``cooling`` (all of them are rate
            limited) · ``saturated`` (its adaptive limit).
    """

    target: Target
    why: str
    for_s: float

    def error(self) -> UpstreamError:
        """As the client is told when there is no other target."""
        code, status, what = _UNAVAILABLE[self.why]
        return UpstreamError(
            code,
            status,
            f"{self.target.name} {what}",
            target=self.target.name,
            retry=Retry.SAFE,
            retry_after_s=max(self.for_s, 0.1),
        )


_UNAVAILABLE = {
    "open": ("upstream_circuit_open", 503, "failed repeatedly and is left alone for a while (provider.breaker)"),
    "forbidden": ("upstream_forbidden", 502, "does not allow the gateway this"),
    "cooling": ("upstream_rate_limited", 429, "is rate limiting the gateway"),
    "saturated": ("upstream_saturated", 503, "has as many requests as it bears (provider.concurrency)"),
}


class Lease:
    """One attempt's hold on its target. :meth:`end` exactly once; later calls change nothing.

    Attributes:
        key: Which of the provider's keys it uses.
        began_at: When it was taken, on ``trio.current_time()``'s clock.
    """

    __slots__ = ("_book", "_ended", "_good", "_health", "_ttft_s", "_verdict", "began_at", "key", "target")

    def __init__(
        self, book: HealthBook, target: Target, health: TargetHealth, key: int, verdict: Verdict | None, now: float
    ) -> None:
        self._book = book
        self._health = health
        self._verdict = verdict
        self._ended = False
        self._good = False
        self._ttft_s: float | None = None
        self.target = target
        self.key = key
        self.began_at = now
        health.in_flight += 1

    def answered(self, ttft_s: float | None, now: float) -> None:
        """The first content is here after ``ttft_s``; None: a whole answer, whose time says nothing of that."""
        health = self._health
        self._good, self._ttft_s = True, ttft_s
        if ttft_s is not None:
            health.latency.observe(ttft_s, now)
        health.provider.budget.succeeded(now)
        if health.breaker is not None and self._verdict is not None:
            health.breaker.succeeded(now, self._verdict)

    @property
    def density(self) -> TokensPerEvent:
        """How many tokens an event of the target's streams holds."""
        return self._health.density

    def end(self, how: Health, retry_after_s: float | None = None) -> None:
        """The attempt is over."""
        if self._ended:
            return
        self._ended = True
        health = self._health
        health.in_flight -= 1
        good = how is Health.GOOD or (how is Health.SILENT and self._good)
        if health.limit is not None:
            dropped = how in (Health.OVERLOADED, Health.LIMITED)
            outcome = Release.DROPPED if dropped else Release.SUCCESS if good else Release.IGNORED
            health.limit.leave(outcome, self._ttft_s)
        if good and self._good:
            return  # all else was told when it answered
        now = trio.current_time()
        if health.breaker is not None and self._verdict is not None:
            if how in (Health.FAILED, Health.OVERLOADED):
                health.breaker.failed(now, self._verdict)
            elif not self._good:
                health.breaker.released(now, self._verdict)
        if how is Health.LIMITED:
            self._cool(now, retry_after_s)
        elif how is Health.LOCKED:
            self._lock(now)
        elif how is Health.FORBIDDEN:
            for_s = health.provider.settings.breaker.auth_open_s
            health.provider.forbid(self.target, now, for_s)
            self._book.on_locked(self.target, self.key, for_s)

    def _cool(self, now: float, retry_after_s: float | None) -> None:
        for_s = retry_after_s if retry_after_s is not None else KEY_COOLS_S if len(self.target.provider.keys) > 1 else 0
        if for_s:
            self._health.provider.cool(self.target, self.key, now, for_s)

    def _lock(self, now: float) -> None:
        """Our key is not taken: use the others if there are any, else leave the target alone for long."""
        health = self._health
        for_s = health.provider.settings.breaker.auth_open_s
        if len(self.target.provider.keys) > 1:
            health.provider.keys.cool(self.key, now, for_s)
        elif health.breaker is not None:
            health.breaker.trip(now, for_s, "key refused")
        self._book.on_locked(self.target, self.key, for_s)


class HealthBook:
    """All targets' and providers' health, by their names.

    Args:
        on_locked: Told ``(target, key number, seconds)`` when a provider refuses our key.
    """

    def __init__(
        self, on_locked: Callable[[Target, int, float], None] = lambda *_: None, rng: random.Random | None = None
    ) -> None:
        self.on_locked = on_locked
        self.rng = rng or random.Random()
        self._providers: dict[str, ProviderHealth] = {}
        self._targets: dict[str, TargetHealth] = {}
        self._former: dict[str, ProviderHealth] = {}  # only requests that began before the last reload know them
        self._former_targets: dict[str, TargetHealth] = {}
        self._reloaded = False

    def keep(self, providers: Iterable[Provider]) -> None:
        """After a reload: go on with what is known of providers whose settings stayed, and afresh with the others.

        Requests that began before it still ask the former ones; what is learnt of those stays apart.
        """
        before = self._providers
        self._providers = {}
        for provider in providers:
            known = before.get(provider.name)
            if known is not None and known.settings == provider.settings:
                known.settings = provider.settings  # equal; :meth:`of` knows its own by identity
                self._providers[provider.name] = before.pop(provider.name)
            else:
                self._providers[provider.name] = _new_provider(provider)
        self._former, self._reloaded = before, True
        stays = {id(provider) for provider in self._providers.values()}
        self._former_targets = {
            label: health for label, health in self._targets.items() if id(health.provider) not in stays
        }
        self._targets = {label: health for label, health in self._targets.items() if id(health.provider) in stays}

    def of(self, target: Target) -> TargetHealth:
        """The target's health, new if it is not known yet."""
        found = self._targets.get(target.label)
        if found is None or found.provider.settings is not target.provider.settings:
            found = self._find(target)
        return found

    def provider(self, provider: Provider) -> ProviderHealth:
        """The provider's health, new if it is not known yet."""
        for known in (self._providers.get(provider.name), self._former.get(provider.name)):
            if known is not None and (known.settings is provider.settings or known.settings == provider.settings):
                return known
        book = self._former if self._reloaded else self._providers
        found = book[provider.name] = _new_provider(provider)
        return found

    def _find(self, target: Target) -> TargetHealth:
        provider = self.provider(target.provider)
        is_current = self._providers.get(target.provider.name) is provider
        targets = self._targets if is_current else self._former_targets
        known = targets.get(target.label)
        if known is not None and known.provider is provider:
            return known
        settings = provider.settings
        breaker, concurrency = settings.breaker, settings.concurrency
        found = targets[target.label] = TargetHealth(
            provider,
            Breaker(
                consecutive=breaker.consecutive,
                ratio=breaker.ratio,
                min_requests=breaker.min_requests,
                window_s=breaker.window_s,
                open_s=breaker.open_s,
                max_open_s=breaker.max_open_s,
            )
            if breaker.enabled
            else None,
            ConcurrencyLimit(
                AdaptiveLimit(floor=concurrency.floor, ceiling=concurrency.ceiling, start=concurrency.start)
            )
            if concurrency is not None
            else None,
        )
        return found

    def enter(self, target: Target) -> Lease | Unavailable:
        """Take a hold on a target, or say why it is not to be asked now. Sync, O(1)."""
        now, health = trio.current_time(), self.of(target)
        forbidden = health.provider.forbidden
        if forbidden and forbidden.get(target.name, 0.0) > now:
            return Unavailable(target, "forbidden", forbidden[target.name] - now)
        key = health.provider.pick_key(target, now)
        if key is None:
            return Unavailable(target, "cooling", health.provider.soonest_s(target, now))
        if health.limit is not None and not health.limit.try_enter():
            return Unavailable(target, "saturated", health.latency.value_s(now) or 1.0)
        return self._admitted(target, health, key, now)

    def _admitted(self, target: Target, health: TargetHealth, key: int, now: float) -> Lease | Unavailable:
        """The breaker's word, last: a probe that it grants must be used."""
        verdict = None
        if health.breaker is not None:
            verdict = health.breaker.admit(now)
            if not verdict.allowed:
                if health.limit is not None:
                    health.limit.leave(Release.IGNORED)
                return Unavailable(target, "open", verdict.wait_s)
        return Lease(self, target, health, key, verdict, now)

    def key_wait_s(self, target: Target) -> float:
        """Seconds until there is a key that the target takes; 0 if there is one now."""
        return self.of(target).provider.soonest_s(target, trio.current_time())

    def would_take(self, target: Target) -> bool:
        """Whether :meth:`enter` would give a hold now; none is taken."""
        now, health = trio.current_time(), self.of(target)
        return not (
            health.provider.forbidden.get(target.name, 0.0) > now
            or health.provider.soonest_s(target, now)
            or (health.limit is not None and health.limit.is_full)
            or (health.breaker is not None and health.breaker.wait_s(now))
        )

    async def wait_and_enter(self, target: Target) -> Lease | Unavailable:
        """The same, waiting for a place under the target's adaptive limit; the caller sets the deadline.

        Cancellation: no place is taken.
        """
        health = self.of(target)
        if health.limit is not None:
            await health.limit.enter()
        now = trio.current_time()
        key = health.provider.pick_key(target, now)
        if key is None:
            if health.limit is not None:
                health.limit.leave(Release.IGNORED)
            return Unavailable(target, "cooling", health.provider.soonest_s(target, now))
        return self._admitted(target, health, key, now)

    def order(self, stage: tuple[Target, ...], how: str) -> list[Target]:
        """The equals of a stage in the order in which this request shall ask them."""
        if len(stage) == 1 or how == "order":
            return list(stage)

        def loads() -> list[float]:
            now = trio.current_time()
            known = ((target, self.of(target)) for target in stage)
            return [
                health.latency.load(health.in_flight, now) / target.weight if target.weight else math.inf
                for target, health in known
            ]

        return [stage[i] for i in balance.order(how, [target.weight for target in stage], loads, self.rng)]

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """For the metrics."""
        now = trio.current_time()
        found: dict[str, dict[tuple[str, ...], float]] = {
            name: {} for name in ("sluice_breaker_state", "sluice_target_in_flight", "sluice_target_limit")
        }
        found["sluice_target_ttft_seconds"] = {}
        for label, health in self._targets.items():
            found["sluice_target_in_flight"][label,] = float(health.in_flight)
            found["sluice_target_ttft_seconds"][label,] = health.latency.value_s(now)
            if health.breaker is not None:
                found["sluice_breaker_state"][label,] = _STATE[health.breaker.state(now)]
            if health.limit is not None:
                found["sluice_target_limit"][label,] = float(health.limit.statistics().adaptive.limit)
        for name in ("sluice_retry_budget", "sluice_keys_cooling", "sluice_streams_draining"):
            found[name] = {}
        for name, provider in self._providers.items():
            found["sluice_retry_budget"][name,] = float(provider.budget.statistics(now).in_hand)
            found["sluice_keys_cooling"][name,] = float(provider.keys.statistics(now).cooling)
            found["sluice_streams_draining"][name,] = float(provider.drains)
        return found

    def states(self) -> list[dict[str, Any]]:
        """One row per target, for people: the playground and ``/readyz?verbose``."""
        now = trio.current_time()
        return [
            {
                "target": label,
                "breaker": health.breaker.state(now).value if health.breaker is not None else "off",
                "in_flight": health.in_flight,
                "ttft_ms": round(health.latency.value_s(now) * 1000, 1),
            }
            for label, health in self._targets.items()
        ]


def _new_provider(provider: Provider) -> ProviderHealth:
    budget = provider.settings.retry_budget
    return ProviderHealth(
        settings=provider.settings,
        budget=RetryBudget(ratio=budget.ratio, floor=budget.floor, floor_per_s=budget.floor_per_s),
        keys=KeyPool(len(provider.keys)),
    )


_STATE = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}
