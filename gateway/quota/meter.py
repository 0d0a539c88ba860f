"""One limit as this process sees it: the slice in hand, and how large the next one should be.

::

    granted = used + returned + reserved + avail

``reserved`` is in tickets: running requests, and tokens and money set aside for them. ``avail`` below 0 is owed: used
beyond the slice because an estimate was too low, the limit is soft, or its keeper was away.

The next slice covers ``COVER_S`` of the demand seen lately, at most 1/8 of the limit unless one request needs more.
Demand that ends is forgotten in five seconds, and the slice flows back; 1/128 of a rate stays in hand, so that the
first request of a limit of 128 or more is not a cold one: an idle process keeps less than 1 % of it from the others. Of
a budget, what the largest of the last requests needed stays for a minute or two, if that is no more; and while it is
used its demand is covered, however little of the budget that is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.core.limits import FOREVER_S, HELD_S, Claim, Grant, LimitRule
from gateway.policy.gcra import Gcra
from gateway.policy.lease import SLOTS

if TYPE_CHECKING:
    from gateway.quota.lessee import Lessee

COVER_S = 2.5  # more than the second that a keeper may be away unnoticed, and the rounds around it
FORGET_S = 1.0
CAP_SHARE = 8
KEEP_SHARE = 128
TRIFLE_SHARE = 1_000  # demand for less is none: what is kept in hand is enough for it
BUDGET_TRIFLE = 10.0  # the same in micro-dollars, for budgets of which nothing is kept
BELIEVED_S = 0.5  # for how long "nothing is left" is believed; while somebody asks, the keeper is asked before that
WARM_S = 60.0  # for how long what one request of a budget needs stays in hand
HOPED_S = 0.5  # for how long what a request needed stays in hand: it may be waiting for another limit, too
LONGEST_S = 10.0
TELLING_S = 0.3  # until the keeper has been told, and asked again


class Verdict(enum.Enum):
    """What to do with a request for units that are not in hand."""

    OWE = "owe"  # let it pass
    WAIT = "wait"  # the keeper has been told and may have some
    EXHAUSTED = "exhausted"
    AWAY = "away"  # the keeper is, and the limit is closed then


class Meter:
    """See the module. Everything is sync; ``lessee`` carries it to the keeper and back."""

    __slots__ = (
        "active", "amount", "avail", "away", "back", "believed_until", "cap", "elsewhere", "fallback", "granted",
        "hoped", "hoped_until", "keep", "largest", "lessee", "low", "name", "need", "rate", "refused",
        "remaining", "reserved", "reset_at", "returned", "rule", "share", "smallest_need", "taken", "told",
        "touched_at", "trifle", "used", "wanted", "warm", "warm_until", "window_s",
    )  # fmt: skip

    def __init__(self, rule: LimitRule, name: str, lessee: Lessee) -> None:
        self.name, self.lessee = name, lessee
        self.change(rule)
        self.avail = self.reserved = self.granted = self.used = self.returned = 0
        self.told = 0  # of what is used, the keeper knows
        self.low = self.wanted = self.keep  # wake the lessee below it; what the next slice should have
        self.taken = self.need = self.smallest_need = 0  # since the last round
        self.rate = 0.0  # units a second, lately
        self.remaining = rule.amount  # in the pool, as last told
        self.reset_at = self.believed_until = self.hoped_until = -math.inf
        self.elsewhere = 0  # in other processes' slices, as last told
        self.back: list[tuple[float, int]] = []  # when used units come back, and how many will be by then
        self.hoped = self.warm = self.largest = 0
        self.warm_until = -math.inf
        self.touched_at = -math.inf
        self.active = False
        self.refused = self.away = 0  # so far: requests refused; requests decided without the keeper

    def change(self, rule: LimitRule) -> None:
        """The same limit has another amount, or another policy."""
        self.rule, self.amount, self.window_s = rule, rule.amount, rule.pool_window_s
        self.cap = max(rule.amount // CAP_SHARE, 1)
        self.trifle = max(rule.amount / TRIFLE_SHARE, 0.5)
        self.share = rule.amount // KEEP_SHARE
        self.keep = 0 if self.window_s == FOREVER_S else self.share
        self.fallback: Gcra | None = None

    # ── the request path ─────────────────────────────────────────────────────────────────────────────────────────

    def short(self, units: int, now: float) -> Verdict:
        """Decide on ``units`` that are more than what is in hand; tells the lessee of the demand."""
        if not self.rule.hard:
            return Verdict.OWE
        if units > self.amount:
            return Verdict.EXHAUSTED
        self.lessee.touch(self)
        self.need = min(self.need + units, self.amount)
        self.smallest_need = min(self.smallest_need, units) if self.smallest_need else units
        if self.lessee.is_away:
            return self._alone(units, now)
        if self.avail + self.remaining < units and (now < self.believed_until or self.lessee.is_late(now)):
            return Verdict.EXHAUSTED
        self.lessee.wake()
        return Verdict.WAIT

    def take_used(self) -> None:
        """Use one unit up."""
        self.avail -= 1
        self.used += 1
        self.taken += 1
        if self.avail < self.low or not self.active:
            self.lessee.touch(self)

    def reserve(self, units: int) -> None:
        """Set units aside."""
        set_aside((self,), units)

    def settle(self, reserved: int, used: int, *, lapsed: bool) -> None:
        """End a reservation; ``used`` units of it, or more, are used up and the rest is in hand again.

        Args:
            lapsed: The lease it was made under is over.
        """
        if not lapsed:
            self.reserved -= reserved
            self.used += used
            self.avail += reserved - used
        elif self.window_s == HELD_S:  # its unit was carried over
            self.reserved -= reserved
            self.avail += reserved
        else:  # the slice was written off as used; what went beyond it was not
            beyond = max(used - reserved, 0)
            self.used += beyond
            self.avail -= beyond
        if not self.active:
            self.lessee.touch(self)

    def left(self) -> int:
        """Units that this process knows to be left: in its slice, and in the pool as last told."""
        units = self.remaining + self.avail if self.avail > 0 else self.remaining
        if units < 0:
            return 0
        return units if units < self.amount else self.amount

    def back_at(self, units: int, now: float) -> float:
        """When so many units will be left, as far as is known; ``now`` or before it if nobody can say."""
        missing = units - self.left()
        at = next((at for at, back in self.back if back >= missing), self.back[-1][0] if self.back else now)
        if at <= now and self.used > self.told:  # what was used just now comes back a window later
            at = now + self.window_s * (1 + 1 / SLOTS) + TELLING_S
        return at

    def _alone(self, units: int, now: float) -> Verdict:
        """The keeper is away: by the rule, and if that is open, by this process's part of a rate, evenly."""
        self.away += 1
        if (self.rule.on_failure or self.lessee.on_failure) == "closed":
            return Verdict.AWAY
        if self.window_s > 0:
            if self.fallback is None:
                part = max(self.amount // self.lessee.holders, 1)
                self.fallback = Gcra(part, self.window_s, burst=max(part // CAP_SHARE, 1))
            if self.fallback.take(now, units) > 0.0:
                return Verdict.EXHAUSTED
        elif self.window_s == HELD_S and self.reserved + units > max(self.amount // self.lessee.holders, 1):
            return Verdict.EXHAUSTED
        elif self.window_s == FOREVER_S and self.avail + self.remaining // self.lessee.holders < units:
            return Verdict.EXHAUSTED  # of what was left when the keeper was last heard of, this process's part is spent
        return Verdict.OWE

    # ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, now: float) -> Claim:
        """What to tell the keeper; gives back what is too much in hand."""
        since_s = min(now - self.touched_at, LONGEST_S)
        self.touched_at = now
        demand = self.taken / since_s if since_s > 0 else 0.0
        self.rate = min(max(demand, self.rate * math.exp(-since_s / FORGET_S)), self.cap / COVER_S)
        cover = 0 if self._asks_little(now) else math.ceil(self.rate * COVER_S)
        if self.need:
            self.hoped, self.hoped_until = self.need, now + HOPED_S
        if self.largest:
            self.warm = self.largest if self.window_s == FOREVER_S and self.largest <= self.share else 0
            self.largest, self.warm_until = 0, now + WARM_S
        hoped = self.hoped if now < self.hoped_until else 0
        if not self.need:
            hoped = min(hoped, max(self.avail, 0))  # keeps what there is, asks for no more
        self.wanted = max(cover, self._kept(now), hoped)
        if 0 < self.avail < self.smallest_need:  # a part of a need helps nobody here; all of it is asked for anew
            self.returned += self.avail
            self.avail = 0
        if self.avail > _and_some(self.wanted):
            self.returned += self.avail - self.wanted
            self.avail = self.wanted
        need = self.reserved + self.smallest_need if self.smallest_need > self.avail else 0
        claim = Claim(
            name=self.name,
            amount=self.amount,
            window_s=self.window_s,
            used=self.used,
            returned=self.returned,
            target=self.wanted + self.reserved,
            need=need,
        )
        self.taken = self.need = self.smallest_need = 0
        return claim

    def apply(self, claim: Claim, grant: Grant, now: float) -> None:
        """Take the keeper's answer to ``claim``."""
        more = grant.granted - self.granted
        self.granted = grant.granted
        self.avail += more
        self.remaining = grant.remaining
        self.reset_at = now + grant.reset_s
        self.back = [(now + after_s, units) for after_s, units in grant.back]
        self.low = min(self.wanted // 2, max(grant.remaining, 0))
        self.fallback = None
        self.elsewhere = max(grant.held - max(grant.granted - claim.used - claim.returned, 0), 0)
        self.told = claim.used
        self.believed_until = now + BELIEVED_S

    def is_at_rest(self, claim: Claim) -> bool:
        """Whether the keeper knows all since ``claim`` and no more is wanted or too much: no rounds until touched."""
        return (
            self._asks_little(self.touched_at)
            and self.avail <= _and_some(self._kept(self.touched_at))
            and not self.taken
            and not self.need
            and self.touched_at >= self.hoped_until
            and (self.used, self.returned) == (claim.used, claim.returned)
        )

    def is_stale(self, now: float) -> bool:
        """Whether it rests with more in hand than should be now."""
        return not self.active and self.avail > _and_some(self._kept(now))

    def _asks_little(self, now: float) -> bool:
        """Whether what is kept in hand is enough for the demand. Of a budget that is one request's, or nothing."""
        trifle = self.trifle
        if self.window_s == FOREVER_S:
            trifle = min(trifle, max(self._kept(now), BUDGET_TRIFLE))
        return self.rate * COVER_S <= trifle

    def _kept(self, now: float) -> int:
        """What stays in hand without any demand."""
        return max(self.keep, self.warm) if now < self.warm_until else self.keep

    def lapse(self) -> None:
        """The lease has run out: the slice is void. Requests that run go on holding their units."""
        written_off = max(self.granted - self.told - self.returned, 0)
        owed = max(self.used - self.told - written_off, 0)
        if self.window_s != HELD_S:
            self.reserved = 0
        self.granted = self.returned = self.told = 0
        self.used = owed
        self.avail = -owed - self.reserved
        self.believed_until = -math.inf


def set_aside(meters: Sequence[Meter], units: int) -> None:
    """Reserve as many units of each. In one loop without calls, for every request goes through it several times."""
    for meter in meters:
        avail = meter.avail = meter.avail - units
        meter.reserved += units
        meter.taken += units
        if avail < meter.low or units > meter.largest or not meter.active:
            meter.largest = max(meter.largest, units)
            meter.lessee.touch(meter)


def give_back(meters: Sequence[Meter], reserved: int, used: int) -> None:
    """Settle as many units of each, under the lease they were reserved under; the other half of :func:`set_aside`."""
    for meter in meters:
        meter.reserved -= reserved
        meter.used += used
        meter.avail += reserved - used
        if not meter.active:
            meter.lessee.touch(meter)


def _and_some(units: int) -> int:
    """What is not yet too much in hand where ``units`` are wanted: a little up and down is not worth a round."""
    return units + units // 4
