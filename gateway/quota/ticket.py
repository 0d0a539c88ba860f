"""One request's holds on its limits, from the door to the end.

::

    enter ─► reserve ─► … ─► settle      the answer's tokens and cost, whatever its end
       └──────┴──► abandon               it never reached a provider: all comes back but the request itself,
                                         and that, too, if it was a limit or a full line that refused it

A request that is refused takes nothing: else who has spent a budget could, by asking on, use up the requests of a whole
team. Until all limits have agreed a request is set aside only, like tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from gateway.quota.meter import Meter, Verdict, give_back, set_aside
from gateway.quota.refusals import Headers, Notice, Refusal, Told, allowance, header_text, refusal

if TYPE_CHECKING:
    from gateway.quota.quota import Quota, Rules

PATIENCE_S = 0.8  # a slow keeper costs first requests time, no refusal; less than one of its rounds may take
MODELS = 100  # for whose requests a plan remembers what holds
_EXTEND_BY = 4  # an exhausted reservation grows by a quarter, if it can


class Plan:
    """The meters of some rules, by when they are asked.

    Attributes:
        requests, places: One unit each, of what may be made and of what may run.
        gates: Both.
        soft: Those that only warn.
        stops: Whether one of them may end a stream.
        ends_at: When another period of a budget begins, in Unix time; None without budgets.
    """

    __slots__ = ("_terms", "ends_at", "gates", "money", "places", "requests", "soft", "stops", "tokens", "told")

    def __init__(self, meters: Sequence[Meter], ends_at: float | None) -> None:
        self.requests = [meter for meter in meters if meter.rule.kind in ("rpm", "rpd")]
        self.places = [meter for meter in meters if meter.rule.kind == "concurrent"]
        self.gates = self.requests + self.places
        self.tokens = [meter for meter in meters if meter.rule.kind in ("tpm", "tpd")]
        self.money = [meter for meter in meters if meter.rule.kind == "usd"]
        self.soft = [meter for meter in (*self.gates, *self.tokens, *self.money) if not meter.rule.hard]
        self.stops = any(meter.rule.stop_streams for meter in meters)
        self.ends_at = ends_at
        self.told = Told((*self.gates, *self.tokens))
        self._terms: dict[Plan, Terms] = {}

    def terms(self, model: Plan) -> Terms:
        """What holds for a request for a model with these limits."""
        terms = self._terms.get(model)
        if terms is None:
            if len(self._terms) >= MODELS:
                self._terms.clear()
            terms = self._terms[model] = Terms(self, model)
        return terms


class Terms:
    """All that holds for one request: the plan of its key, team and organisation, and that of its model.

    Attributes:
        notice: What its head tells.
    """

    __slots__ = ("model", "money", "notice", "soft", "stops", "tokens")

    def __init__(self, plan: Plan, model: Plan) -> None:
        self.model = model
        self.tokens, self.money = plan.tokens + model.tokens, plan.money + model.money
        self.soft = plan.soft + model.soft
        self.stops = plan.stops or model.stops
        self.notice = Notice(plan.told, model.told)


NO_RULES = Plan((), None)


def _exceeded(soft: Sequence[Meter]) -> list[Meter]:
    return [meter for meter in soft if meter.avail + meter.remaining < 0]


def _warning(meter: Meter) -> str:
    return f"{meter.rule.scope} '{meter.rule.owner}' may {allowance(meter.rule)}; that is exceeded"


class _Holds:
    """As many units of each of some meters of one keeper, set aside for a request.

    Attributes:
        more: What a stream has set aside beyond that, by meter.
        asked_at: The meter's last round when more was asked for.
    """

    __slots__ = ("_lapses", "asked_at", "meters", "more", "units")

    def __init__(self, meters: Sequence[Meter], units: int) -> None:
        self.meters, self.units = meters, units
        self.more: dict[Meter, int] | None = None
        self.asked_at: dict[Meter, float] | None = None
        self._lapses = meters[0].lessee.lapses
        set_aside(meters, units)

    @property
    def lapsed(self) -> bool:
        """Whether the lease is over that they were set aside under."""
        return self.meters[0].lessee.lapses != self._lapses

    def of(self, meter: Meter) -> int:
        """How many units of it are set aside by now."""
        return self.units + (self.more.get(meter, 0) if self.more is not None else 0)

    def settle(self, used: int) -> None:
        """End them; ``used`` units of each meter are used up."""
        if self.more is None and not self.lapsed:
            give_back(self.meters, self.units, used)
            return
        for meter in self.meters:
            meter.settle(self.of(meter), used, lapsed=self.lapsed)

    def extend(self, meter: Meter, by: int) -> bool:
        """Set more of one of them aside; False if there is none."""
        if self.more is None or self.asked_at is None:
            self.more, self.asked_at = {}, {}
        before = self.more.get(meter, 0)
        more = max(by, (self.units + before) // _EXTEND_BY)
        if meter.avail < more:
            more = by
        if meter.avail < more:
            if self.asked_at.get(meter) == meter.touched_at:  # in this very round: once, or the demand seems to grow
                return True
            verdict = meter.short(more, trio.current_time())
            if verdict is Verdict.WAIT:
                self.asked_at[meter] = meter.touched_at
                return True
            if verdict is not Verdict.OWE:
                return False
        meter.reserve(more)
        self.more[meter] = before + more
        return True


class Ticket:
    """See the module; made by :meth:`gateway.quota.quota.Quota.enter`."""

    __slots__ = (
        "_asked", "_done", "_model_places", "_money", "_owed", "_places", "_plan", "_quota", "_requests", "_terms",
        "_tokens",
    )  # fmt: skip

    def __init__(self, quota: Quota, plan: Plan, owed: list[Meter] | None) -> None:
        self._quota, self._plan = quota, plan
        self._terms: Terms | None = None
        self._asked = self._done = False
        requests, places = plan.requests, plan.places
        if owed is not None:
            requests = [meter for meter in requests if meter not in owed]
            places = [meter for meter in places if meter not in owed]
        self._requests = _Holds(requests, 1) if requests else None  # not yet counted
        self._places = _Holds(places, 1) if places else None
        self._model_places: _Holds | None = None
        self._tokens: _Holds | None = None
        self._money: _Holds | None = None
        self._owed = owed

    def reserve(self, model_rules: Rules, tokens: int, micro_usd: int, now: float) -> Refusal | None:
        """Set aside what the request may use, all or nothing. Before this says None, nothing may be sent upstream.

        Args:
            model_rules: Limits of the model; requests and concurrency are counted here, once.
            tokens: Of the prompt and of the answer at most, estimated.
            micro_usd: What that may cost.
            now: ``trio.current_time()``.

        Returns:
            None, or the refusal. The ticket is still to be abandoned then, or asked again if it ``may_wait``.
        """
        quota = self._quota
        self._asked = True
        quota.check_leases(now)
        terms = self._plan.terms(quota.plan(model_rules) if model_rules else NO_RULES)
        gates = terms.model.gates if self._owed is None else [*self._owed, *terms.model.gates]
        waits: tuple[Meter, int] | None = None
        for meters, units in ((gates, 1), (terms.tokens, tokens), (terms.money, micro_usd)):
            for meter in meters:
                if meter.avail < units:
                    verdict = meter.short(units, now)
                    if verdict is Verdict.WAIT:
                        waits = waits or (meter, units)  # go on: what else is missing is asked for in the same round
                    elif verdict is not Verdict.OWE:
                        return refusal(meter, units, verdict, now, quota.wall())
        if waits is not None:
            return refusal(*waits, Verdict.WAIT, now, quota.wall())
        self._owed, self._terms = None, terms
        self._count(1)
        if gates:
            for meter in gates:
                if meter.rule.kind != "concurrent":
                    meter.take_used()
            places = [meter for meter in gates if meter.rule.kind == "concurrent"]
            self._model_places = _Holds(places, 1) if places else None
        self._tokens = _Holds(terms.tokens, tokens) if terms.tokens else None
        self._money = _Holds(terms.money, micro_usd) if terms.money else None
        return None

    async def reserve_soon(
        self,
        model_rules: Rules,
        tokens: int,
        micro_usd: int,
        *,
        refused: Refusal | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Refusal | None:
        """:meth:`reserve`; where there is no slice in hand yet, wait for it, ``patience_s`` at most.

        A keeper that is only slow does not count as away: nobody is let through on trust for that.

        With a slice in hand, or with nothing left, this does not wait and has no checkpoint.

        Args:
            refused: What :meth:`reserve` said just now, if it was asked: who asks twice seems to need twice as much.

        Cancellation: nothing is set aside.
        """
        now = trio.current_time()
        until = now + patience_s
        if refused is None:
            refused = self.reserve(model_rules, tokens, micro_usd, now)
        while refused is not None and refused.may_wait and now < until:
            with trio.move_on_at(until):
                await self._quota.refilled()
            now = trio.current_time()
            refused = self.reserve(model_rules, tokens, micro_usd, now)
        return refused

    def exhausted(self, tokens_so_far: int, micro_usd_so_far: int) -> bool:
        """Whether a stream should end: it has used up what was set aside, and a limit that ends streams has no more.

        Sets more aside if there is some. Cost: 0.3 µs while the reservation lasts.
        """
        for holds, so_far in ((self._tokens, tokens_so_far), (self._money, micro_usd_so_far)):
            if holds is not None and so_far > holds.units and not self._goes_on(holds, so_far):
                return True
        return False

    def _goes_on(self, holds: _Holds, so_far: int) -> bool:
        """Whether each limit that ends streams has enough, and if need be more."""
        for meter in holds.meters:
            missing = so_far - holds.of(meter)
            if missing > 0 and self._ends_streams(meter) and not holds.lapsed and not holds.extend(meter, missing):
                return False
        return True

    def settle(self, tokens: int, micro_usd: int, now: float) -> None:
        """End with what was used. Does nothing the second time. ``now``: ``trio.current_time()``."""
        if self._done:
            return
        self._done = True
        self._quota.check_leases(now)
        self._count(0 if self._asked else 1)
        for held, used in (
            (self._places, 0), (self._model_places, 0), (self._tokens, tokens), (self._money, micro_usd),
        ):  # fmt: skip
            if held is not None:
                held.settle(used)

    def abandon(self, *, counted: bool = True) -> None:
        """End without having reached a provider: tokens and money come back.

        Args:
            counted: Whether the request itself stays counted, if no limit has refused it.
        """
        self._asked = self._asked or not counted
        self.settle(0, 0, trio.current_time())

    @property
    def stops(self) -> bool:
        """Whether one of the limits may end a stream."""
        return self._plan.stops if self._terms is None else self._terms.stops

    def headers(self, now: float) -> Headers:
        """For the answer's head: ``x-ratelimit-*``, ``RateLimit-Policy`` and ``RateLimit``; soft limits exceeded."""
        terms = self._all_terms()
        told = terms.notice.headers(now)
        if terms.soft:
            told = told + [(b"x-sluice-limit-warning", header_text(_warning(meter))) for meter in _exceeded(terms.soft)]
        return told

    def header_lines(self, now: float) -> bytes:
        """The same, written out."""
        terms = self._all_terms()
        if not terms.soft:
            return terms.notice.lines(now)
        return b"".join([b"%b: %b\r\n" % header for header in self.headers(now)])

    def _all_terms(self) -> Terms:
        return self._plan.terms(NO_RULES) if self._terms is None else self._terms

    def _ends_streams(self, meter: Meter) -> bool:
        return meter.rule.hard and (meter.rule.stop_streams or self._quota.stop_streams)

    def _count(self, used: int) -> None:
        """Count what was set aside of limits on requests, or give it back."""
        if self._requests is not None:
            self._requests.settle(used)
            self._requests = None
