"""One request's holds on its limits, from the door to the end.

::

    enter ─► reserve ─► … ─► settle      the answer's tokens and cost, whatever its end
       └──────┴──► abandon               it never reached a provider: all comes back but the request itself,
                                         and that, too, if it was a limit or a full line that refused it

A request that is refused takes nothing: else who has spent a budget could, by asking on, use up the requests of a whole
team. Until all limits have agreed a request is set aside only, like tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from gateway.quota.meter import Meter, Verdict
from gateway.quota.refusals import Headers, Notice, Refusal, Told, allowance, refusal

if TYPE_CHECKING:
    from gateway.quota.quota import Quota, Rules

PATIENCE_S = 0.8  # a slow keeper costs first requests time, no refusal; less than one of its rounds may take
NOTICES = 100  # of a key, for as many models
_NEVER = -math.inf
_EXTEND_BY = 4  # an exhausted reservation grows by a quarter, if it can


class Plan:
    """The meters of some rules, by when they are asked.

    Attributes:
        gates: Requests, then concurrency: one unit each.
        soft: Those that only warn.
        stops: Whether one of them may end a stream.
        ends_at: When another period of a budget begins, in Unix time; None without budgets.
    """

    __slots__ = ("_notices", "_told", "ends_at", "gates", "money", "soft", "stops", "tokens")

    def __init__(self, meters: Sequence[Meter], ends_at: float | None) -> None:
        requests = [meter for meter in meters if meter.rule.kind in ("rpm", "rpd")]
        self.gates = requests + [meter for meter in meters if meter.rule.kind == "concurrent"]
        self.tokens = [meter for meter in meters if meter.rule.kind in ("tpm", "tpd")]
        self.money = [meter for meter in meters if meter.rule.kind == "usd"]
        self.soft = [meter for meter in (*self.gates, *self.tokens, *self.money) if not meter.rule.hard]
        self.stops = any(meter.rule.stop_streams for meter in meters)
        self.ends_at = ends_at
        self._told = Told((*self.gates, *self.tokens))
        self._notices: dict[Plan | None, Notice] = {}

    def notice_with(self, model: Plan | None) -> Notice:
        """What heads tell of these limits and of those of a model."""
        notice = self._notices.get(model)
        if notice is None:
            if len(self._notices) >= NOTICES:
                self._notices.clear()
            notice = Notice(self._told) if model is None else Notice(self._told, model._told)
            self._notices[model] = notice
        return notice


class _Hold:
    """Units of a meter that are set aside for a request.

    Attributes:
        asked_at: The meter's last round when more was asked for.
    """

    __slots__ = ("asked_at", "epoch", "meter", "units")

    def __init__(self, meter: Meter, units: int) -> None:
        self.meter, self.units, self.epoch = meter, units, meter.epoch
        self.asked_at = _NEVER
        meter.reserve(units)


class Ticket:
    """See the module; made by :meth:`gateway.quota.quota.Quota.enter`."""

    __slots__ = (
        "_asked", "_done", "_model", "_money", "_owed", "_places", "_plan", "_quota", "_requests", "_tokens",
    )  # fmt: skip

    def __init__(self, quota: Quota, plan: Plan, owed: list[Meter] | None) -> None:
        self._quota, self._plan = quota, plan
        self._model: Plan | None = None
        self._asked = self._done = False
        self._requests: list[_Hold] = []  # not yet counted
        self._places: list[_Hold] = []
        self._tokens: list[_Hold] = []
        self._money: list[_Hold] = []
        self._owed = owed
        for meter in plan.gates:
            if owed is None or meter not in owed:
                holds = self._places if meter.rule.kind == "concurrent" else self._requests
                holds.append(_Hold(meter, 1))

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
        plan, model = self._plan, quota.plan(model_rules)
        gates = model.gates if self._owed is None else [*self._owed, *model.gates]
        of_tokens, of_money = (*plan.tokens, *model.tokens), (*plan.money, *model.money)
        waits: tuple[Meter, int] | None = None
        for meters, units in ((gates, 1), (of_tokens, tokens), (of_money, micro_usd)):
            for meter in meters:
                if meter.avail < units:
                    verdict = meter.short(units, now)
                    if verdict is Verdict.WAIT:
                        waits = waits or (meter, units)  # go on: what else is missing is asked for in the same round
                    elif verdict is not Verdict.OWE:
                        return refusal(meter, units, verdict, now, quota.wall())
        if waits is not None:
            return refusal(*waits, Verdict.WAIT, now, quota.wall())
        self._owed, self._model = None, model
        self._count(1)
        for meter in gates:
            self._pass_gate(meter)
        self._tokens = [_Hold(meter, tokens) for meter in of_tokens]
        self._money = [_Hold(meter, micro_usd) for meter in of_money]
        return None

    async def reserve_soon(
        self, model_rules: Rules, tokens: int, micro_usd: int, *, patience_s: float = PATIENCE_S
    ) -> Refusal | None:
        """:meth:`reserve`; where there is no slice in hand yet, wait for it, ``patience_s`` at most.

        A keeper that is only slow does not count as away: nobody is let through on trust for that.

        With a slice in hand, or with nothing left, this does not wait and has no checkpoint.

        Cancellation: nothing is set aside.
        """
        now = trio.current_time()
        until = now + patience_s
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
            for hold in holds:
                if so_far > hold.units and self._ends_streams(hold) and not _extend(hold, so_far - hold.units):
                    return True
        return False

    def settle(self, tokens: int, micro_usd: int, now: float) -> None:
        """End with what was used. Does nothing the second time. ``now``: ``trio.current_time()``."""
        if self._done:
            return
        self._done = True
        self._quota.check_leases(now)
        self._count(0 if self._asked else 1)
        for hold in self._places:
            hold.meter.settle(hold.units, 0, hold.epoch)
        for hold in self._tokens:
            hold.meter.settle(hold.units, tokens, hold.epoch)
        for hold in self._money:
            hold.meter.settle(hold.units, micro_usd, hold.epoch)

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
        return self._plan.stops or (self._model is not None and self._model.stops)

    def headers(self) -> Headers:
        """What is left, for the answer's head: ``x-ratelimit-*``, ``RateLimit-Policy`` and ``RateLimit``."""
        return self._plan.notice_with(self._model).headers(trio.current_time())

    def warnings(self) -> list[str]:
        """The soft limits that are exceeded, in words."""
        plans = (self._plan,) if self._model is None else (self._plan, self._model)
        return [
            f"{meter.rule.scope} '{meter.rule.owner}' may {allowance(meter.rule)}; that is exceeded"
            for plan in plans
            for meter in plan.soft
            if meter.avail + meter.remaining < 0
        ]

    def _ends_streams(self, hold: _Hold) -> bool:
        rule = hold.meter.rule
        return rule.hard and (rule.stop_streams or self._quota.stop_streams) and hold.epoch == hold.meter.epoch

    def _count(self, used: int) -> None:
        """Count what was set aside of limits on requests, or give it back."""
        for hold in self._requests:
            hold.meter.settle(hold.units, used, hold.epoch)
        self._requests = []

    def _pass_gate(self, meter: Meter) -> None:
        if meter.rule.kind == "concurrent":
            self._places.append(_Hold(meter, 1))
        else:
            meter.take_used()


def _extend(hold: _Hold, by: int) -> bool:
    """Set more aside; False if there is none."""
    meter = hold.meter
    more = max(by, hold.units // _EXTEND_BY)
    if meter.avail < more:
        more = by
    if meter.avail < more:
        if hold.asked_at == meter.touched_at:  # in this very round: once is enough, or the demand seems to grow
            return True
        verdict = meter.short(more, trio.current_time())
        if verdict is Verdict.WAIT:
            hold.asked_at = meter.touched_at
            return True
        if verdict is not Verdict.OWE:
            return False
    meter.reserve(more)
    hold.units += more
    return True
