"""How a limit is shared out over processes: the arithmetic of slices, for every backend that keeps pools.

A pool has ``amount`` units. A process (a holder) takes a slice of them and decides by itself while it lasts. What is in
slices is taken, used or not::

    remaining = amount − in slices − used within the window

**Never more than the limit, in any window.** A used unit is charged when the holder *tells* of it, which is after it
was used, and comes back a window (and at most 1/64 of one) after that. Take any window, and the last grant that was
used in it. At that moment every unit used in the window was either still in a slice or already charged, and charged
less than a window ago: so all of them were counted, together at most ``amount``. Clocks of processes play no part; only
the keeper's does: if it is set back, what was used before comes back a window after that; if it is set on, sooner. The
price: under full load a unit is used once in ``window × (1 + 1/64)`` and the time until it is told of, 98 % of the
limit.

**Why no GCRA here.** A GCRA with burst B passes B + rate × window in a window. To keep below the limit and use 95 % of
it, B must be 5 % of the limit, and no request of 8,000 tokens fits through 5 % of 100,000 tokens a minute. The window
allows bursts up to the whole limit. GCRA (:mod:`gateway.policy.gcra`) is what a process goes by when it is on its own.

**Told twice is told once.** Claims and grants are running totals of a holder, so an answer that was lost on the way is
made good by the next.

**A crash** leaves a slice behind. When its holder has not been heard of for the lease's time: a slice of a rate counts
as used at that moment, for nobody knows; one of a concurrency limit is free again; one of a budget counts as ``lost``:
spent, until :func:`reconcile` says what was really spent. So no crash lets a limit be exceeded.

**A holder may owe.** What was used beyond the slice (an estimate was too low, the keeper was away) is charged like all
else; the next grant makes up for it before it adds to the slice.
"""

from __future__ import annotations

import math

from attrs import Factory, define, evolve

from gateway.core.limits import FOREVER_S, HELD_S, Claim, Grant

SLOTS = 64  # per window
BACK_POINTS = 8  # at which it is told how much will be back
_FOR_EVER = -1  # the slot of what never comes back


@define(slots=True)
class Pool:
    """What is kept per limit.

    Attributes:
        held: Units in slices.
        lost: Units of a budget that crashed holders had; counted as spent.
        charges: Used units by slot of the window.
    """

    held: int = 0
    lost: int = 0
    charges: dict[int, int] = Factory(dict)

    def used(self) -> int:
        return sum(self.charges.values())


@define(slots=True)
class Share:
    """What is kept per holder and pool: running totals."""

    granted: int = 0
    used: int = 0
    returned: int = 0

    @property
    def balance(self) -> int:
        """Units in the slice; below 0 what the holder owes."""
        return self.granted - self.used - self.returned


def take(pool: Pool, share: Share, claim: Claim, now_s: float, *, alone: bool = False) -> Grant:
    """Note what the holder tells, and grant what it asks for as far as there is some.

    Where the pool cannot fill ``target``, half of what remains is granted, so that the next to ask finds some, and at
    least ``need`` if all of that is there: a part of a need helps nobody and is missed elsewhere.

    Args:
        now_s: The keeper's clock; seconds since anything, the same for all.
        alone: There is no other holder, so nothing is kept back for the next to ask.

    Cost: O(slots).
    """
    _release(pool, claim.window_s, now_s)
    before = max(share.balance, 0)
    _charge(pool, claim.window_s, max(claim.used - share.used, 0), now_s)
    share.used = max(share.used, claim.used)
    share.returned = max(share.returned, claim.returned)
    pool.held += max(share.balance, 0) - before
    remaining = claim.amount - pool.held - pool.lost - pool.used()
    now_held = max(share.balance, 0)
    wanted = claim.target - now_held
    if wanted > 0 and remaining > 0:
        needed = max(claim.need - now_held, 0)
        more = min(wanted, remaining, max(needed, remaining if alone else remaining // 2, 1))
        if needed <= remaining:
            share.granted += more + now_held - share.balance  # what it owed is charged already
            pool.held += more
            remaining -= more
    back = _coming_back(pool, claim, now_s)
    return Grant(name=claim.name, granted=share.granted, remaining=max(remaining, 0), held=pool.held, back=back)


def leave(pool: Pool, share: Share, claim: Claim, now_s: float) -> None:
    """Take a holder's last word: all comes back that is not used and not held by requests that run (``target``).

    Also what was granted by an answer that the holder never saw.
    """
    returned = max(claim.returned, share.granted - claim.used - claim.target)
    take(pool, share, evolve(claim, returned=returned, target=0, need=0), now_s)


def write_off(pool: Pool, share: Share, window_s: float, now_s: float) -> None:
    """End a slice whose holder has gone without a word; see the module."""
    left = max(share.balance, 0)
    pool.held -= left
    if window_s == FOREVER_S:
        pool.lost += left
    else:
        _charge(pool, window_s, left, now_s)


def reconcile(pool: Pool, spent: int) -> int:
    """Set a budget's losses right: ``spent`` is what the ledger proves. Returns the units that came back.

    Only what was lost can come back, and only if no slice is out: then all that was spent is in the ledger. The rest of
    it counts as used, for good.
    """
    if pool.held > 0 or not pool.lost:
        return 0
    back = min(pool.lost, max(pool.used() + pool.lost - spent, 0))
    pool.charges[_FOR_EVER] = pool.charges.get(_FOR_EVER, 0) + pool.lost - back
    pool.lost = 0
    return back


def _charge(pool: Pool, window_s: float, units: int, now_s: float) -> None:
    if units and window_s != HELD_S:
        slot = _FOR_EVER if window_s == FOREVER_S else math.floor(now_s * SLOTS / window_s)
        pool.charges[slot] = pool.charges.get(slot, 0) + units


def _release(pool: Pool, window_s: float, now_s: float) -> None:
    """Forget charges whose slot ended a window ago. What lies ahead was used before the clock was set back: now."""
    if window_s > 0 and pool.charges:
        last = math.floor(now_s * SLOTS / window_s)
        first = last - SLOTS  # this one may hold units used less than a window ago
        for slot in [slot for slot in pool.charges if not first <= slot <= last]:
            units = pool.charges.pop(slot)
            if slot > last:
                pool.charges[last] = pool.charges.get(last, 0) + units


def _coming_back(pool: Pool, claim: Claim, now_s: float) -> tuple[tuple[float, int], ...]:
    """When used units come back, told to an eighth of the limit; rather a little late than early."""
    if claim.window_s <= 0 or not pool.charges:
        return ()
    slots = sorted(pool.charges)
    points, total, step = [], 0, max(claim.amount // BACK_POINTS, 1)
    mark = 1
    for slot in slots:
        total += pool.charges[slot]
        if total >= mark or slot == slots[-1]:
            points.append((max((slot + 1 + SLOTS) * claim.window_s / SLOTS - now_s, 0.0), total))
            mark = (total // step + 1) * step
    return tuple(points)
