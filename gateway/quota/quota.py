"""Who may use how much, decided at once: limits on requests, tokens, concurrency and money, over all processes.

The request path is synchronous and asks nobody: this process holds a slice of every limit it uses
(:mod:`gateway.quota.meter`), filled in the background (:mod:`gateway.quota.lessee`) by the keeper of the limits
(:mod:`gateway.quota.backend`). Two keepers may be used: rates and concurrency by a fast one, budgets by one that
forgets nothing.

**Without a slice in hand** (the first request of a key in this process, or one that needs more than is in hand) a
request is never let through on trust, for then P processes could pass P too many. The door lets it in, nothing may be
sent upstream before :meth:`Ticket.reserve` has said None, and until then the slice is there, as a rule: it was asked
for at the door. Who is still too early gets a refusal with ``may_wait``; :meth:`Ticket.reserve_soon` waits for a round.
Only requests without a slice ever wait; nobody does while the keeper is away. Slices of known rules can be fetched
before the first request: :meth:`Quota.know`.

**What holds.** No rate is exceeded in any window, over all processes, restarts and crashes, with ``on_failure =
"closed"``. With "open", while the keeper is away and the slice is used up, each process passes its part of the rate
evenly, or spends its part of what was left of the budget, and tells later. Budgets and token limits can be exceeded by
what the reservations were too low.

**What a crash loses**: what that process held: what its requests had set aside, and the slice in hand, at most 1/8 of a
limit or what waiting requests need. Of a rate for the lease and one window; of concurrency for the lease; of a budget
until it was not used for half a minute and the ledger has shown what was really spent (:mod:`gateway.ledger.losses`).
A keeper that loses its data (Redis without persistence) forgets what was used; budgets belong into a database.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial

import trio
from attrs import frozen

from gateway.core.limits import LimitRule, OnFailure
from gateway.quota.backend import LimitBackend
from gateway.quota.lessee import Lessee, LesseeStatistics
from gateway.quota.meter import Meter, Verdict
from gateway.quota.refusals import Refusal, refusal
from gateway.quota.ticket import Plan, Ticket

LEASE_S = 10.0
PLANS = 10_000
SWEEP_S = 60.0
KEPT_AFTER_END_S = 86_400.0  # a budget's meter; no request runs that long

Rules = tuple[LimitRule, ...]


@frozen(kw_only=True, slots=True)
class LimitStatistics:
    """One limit in this process.

    Attributes:
        name: Of the pool.
        in_hand: Units this process may use without asking.
        reserved: Units set aside for requests that run.
        left: Units left, as far as is known here.
        refused: Requests refused so far.
        away: Requests decided without the keeper so far.
    """

    name: str
    rule: LimitRule
    in_hand: int
    reserved: int
    left: int
    refused: int
    away: int


class Quota:
    """See the module.

    Args:
        backend: Keeps the rates and concurrency limits.
        budgets: Keeps the budgets; ``backend`` if None.
        lease_s: After so long without a word, a process's slices are written off.
        on_failure: Of limits that do not say what to do while their keeper is away.
        stop_streams: Whether every limit may end streams, and not only those that say so.
        say: The log: level, event, fields.
        wall: Unix time; decides which period a budget is in.
    """

    def __init__(
        self,
        backend: LimitBackend,
        *,
        budgets: LimitBackend | None = None,
        lease_s: float = LEASE_S,
        on_failure: OnFailure = "open",
        stop_streams: bool = False,
        say: Callable[..., None] = lambda level, event, **fields: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        lessee = partial(
            Lessee,
            lease_s=lease_s,
            on_failure=on_failure,
            say=say,
            on_round=self._on_round,
            on_lease=self._note_leases,
        )
        self._rates = self._budgets = lessee(backend)
        if budgets is not None:
            self._budgets = lessee(budgets)
        self._lessees = (self._rates,) if budgets is None else (self._rates, self._budgets)
        self._valid_until = math.inf  # of the slices in hand, the first that ends
        self._round = trio.Event()
        self._meters: dict[str, Meter] = {}
        self._ends: dict[str, float] = {}  # of meters whose budget's period ends
        self._plans: dict[int, tuple[Rules, Plan]] = {}
        self.stop_streams = stop_streams
        self.wall = wall

    # ── the request path ─────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, rules: Rules, now: float) -> Ticket | Refusal:
        """Count a request at the door: requests and concurrency of its key, team and organisation.

        Args:
            rules: All that apply; the same tuple for the same principal, as their meters are found by it.
            now: ``trio.current_time()``.

        Returns:
            A ticket that must be settled or abandoned exactly once; or the refusal, and then nothing was counted.

        Cost: 3 µs with three limits on requests and three on concurrency.
        """
        plan = self.plan(rules)
        self.check_leases(now)
        owed: list[Meter] | None = None
        for meter in plan.gates:
            if meter.avail < 1:
                verdict = meter.short(1, now)
                if verdict is Verdict.WAIT:
                    owed = [*owed, meter] if owed else [meter]
                elif verdict is not Verdict.OWE:
                    return refusal(meter, 1, verdict, now, self.wall())
        return Ticket(self, plan, owed)

    def plan(self, rules: Rules) -> Plan:
        """The meters of some rules, of the periods that are now."""
        found = self._plans.get(id(rules))
        if found is not None and found[0] is rules:
            plan = found[1]
            if plan.ends_at is None or self.wall() < plan.ends_at:
                return plan
        if len(self._plans) >= PLANS:
            self._plans.clear()
        wall_s = self.wall()
        ends = [rule.period_at(wall_s)[1] for rule in rules if rule.kind == "usd"]
        plan = Plan([self._meter(rule, wall_s) for rule in rules], min(ends, default=None))
        self._plans[id(rules)] = (rules, plan)
        return plan

    def check_leases(self, now: float) -> None:
        """Void the slices whose lease is over."""
        if now < self._valid_until:
            return
        for lessee in self._lessees:
            if now >= lessee.valid_until:
                lessee.lapse(self._meters.values())

    def _note_leases(self) -> None:
        self._valid_until = min(lessee.valid_until for lessee in self._lessees)

    def _meter(self, rule: LimitRule, wall_s: float) -> Meter:
        period, ends_at = rule.period_at(wall_s)
        name = rule.pool_name(period)
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(rule, name, self._budgets if rule.kind == "usd" else self._rates)
            if rule.kind == "usd":
                self._ends[name] = ends_at
        elif meter.rule != rule:
            meter.change(rule)
        return meter

    # ── the background ───────────────────────────────────────────────────────────────────────────────────────────

    def know(self, rules: Iterable[LimitRule]) -> None:
        """Fetch slices of these rules before anybody asks."""
        wall_s = self.wall()
        for rule in rules:
            meter = self._meter(rule, wall_s)
            meter.lessee.touch(meter)

    async def run(self) -> None:
        """Keep the slices filled until cancelled, then give back what is unused (within 2 s).

        End it after the last request has settled: what requests still hold then is written off.
        """
        async with trio.open_nursery() as nursery:
            for lessee in self._lessees:
                nursery.start_soon(lessee.run, self._all)
            while True:
                await trio.sleep(SWEEP_S)
                self._sweep()

    async def refilled(self) -> None:
        """Wait until a keeper has answered, or could not be reached."""
        await self._round.wait()

    def statistics(self) -> list[LimitStatistics]:
        """Every limit that this process knows."""
        return [
            LimitStatistics(
                name=meter.name,
                rule=meter.rule,
                in_hand=meter.avail,
                reserved=meter.reserved,
                left=meter.left(),
                refused=meter.refused,
                away=meter.away,
            )
            for meter in self._meters.values()
        ]

    def backends(self) -> dict[str, LesseeStatistics]:
        """The keepers, by what they keep."""
        both = {"rates": self._rates.statistics()}
        return both if self._budgets is self._rates else both | {"budgets": self._budgets.statistics()}

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What to show as metrics: metric, labels, value. Owners are no labels: there may be any number of them."""
        refused: dict[tuple[str, ...], float] = {}
        alone: dict[tuple[str, ...], float] = {}
        for meter in self._meters.values():
            labels = (meter.rule.scope, meter.rule.kind)
            refused[labels] = refused.get(labels, 0.0) + meter.refused
            alone[labels] = alone.get(labels, 0.0) + meter.away
        keepers = self.backends().items()
        return {
            "sluice_limits_refused": refused,
            "sluice_limits_decided_alone": alone,
            "sluice_limits_keeper_away": {(name,): float(one.is_away) for name, one in keepers},
            "sluice_limits_leases_lost": {(name,): float(one.lapses) for name, one in keepers},
            "sluice_limits_processes": {(name,): float(one.holders) for name, one in keepers},
        }

    def _all(self) -> Iterable[Meter]:
        return self._meters.values()

    def _sweep(self) -> None:
        """Give back what nobody needs any more; forget the meters of budgets whose period is long over."""
        now, wall_s = trio.current_time(), self.wall()
        for meter in self._meters.values():
            if meter.is_stale(now):
                meter.lessee.touch(meter)
        for name, ends_at in list(self._ends.items()):
            meter = self._meters[name]
            if wall_s > ends_at + KEPT_AFTER_END_S and not meter.reserved and not meter.active:
                del self._meters[name], self._ends[name]

    def _on_round(self) -> None:
        done, self._round = self._round, trio.Event()
        done.set()
