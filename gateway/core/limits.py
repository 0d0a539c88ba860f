"""Limits as values: what somebody may use, and how a process and the keeper of the limits speak of it.

A rule says how much of one thing an owner may use: requests or tokens in any minute or any 24 hours, requests at the
same time, or money in a period. Each rule has one :class:`Pool` of units over all processes. A process claims a slice
of the pool and is granted one; the arithmetic is in :mod:`gateway.policy.lease`.

Units are requests, tokens or micro-dollars, always whole numbers.
"""

from __future__ import annotations

import calendar
import time
from typing import Literal

from attrs import frozen

Scope = Literal["key", "team", "org", "model"]
LimitKind = Literal["rpm", "rpd", "tpm", "tpd", "concurrent", "usd"]
Period = Literal["", "minute", "day", "month", "total"]
OnFailure = Literal["", "open", "closed"]

FOREVER_S = -1.0  # a window that nothing comes back from
HELD_S = 0.0  # a window of what is held and then given back, not used up
LONGEST_LEASE_S = 600.0  # that may be configured

_WINDOW_S: dict[LimitKind, float] = {
    "rpm": 60.0, "tpm": 60.0, "rpd": 86_400.0, "tpd": 86_400.0, "concurrent": HELD_S, "usd": FOREVER_S,
}  # fmt: skip
NEVER = float("inf")


@frozen(kw_only=True, slots=True)
class LimitRule:
    """How much of one thing an owner may use.

    Attributes:
        scope: What kind of owner.
        owner: Its name; with ``scope`` and ``kind`` it names the limit in messages and over all processes.
        kind: ``rpm``/``rpd`` requests and ``tpm``/``tpd`` tokens in any minute / any 24 hours, ``concurrent`` requests
            at the same time, ``usd`` money.
        amount: Units allowed; micro-dollars for ``usd``.
        period: Of a budget: ``day`` and ``month`` begin at 0:00 UTC, ``total`` never ends. "" elsewhere.
        hard: Whether to refuse; a soft limit only warns.
        on_failure: While the keeper of the limits is away: go on by a local estimate, or refuse; "" is as for all.
        stop_streams: Whether a stream may be ended when what was reserved for it is used up and no more is left.
        window_s: Of a rate, if it differs from the kind's (tests use short ones).
    """

    scope: Scope
    owner: str
    kind: LimitKind
    amount: int
    period: Period = ""
    hard: bool = True
    on_failure: OnFailure = ""
    stop_streams: bool = False
    window_s: float | None = None

    @property
    def pool_window_s(self) -> float:
        """Seconds after which a used unit may be used again; ``HELD_S`` or ``FOREVER_S`` for those without."""
        return _WINDOW_S[self.kind] if self.window_s is None else self.window_s

    def period_at(self, wall_s: float) -> tuple[str, float]:
        """The name of the period that ``wall_s`` (Unix time) is in, and when it ends."""
        if self.kind != "usd" or self.period in ("", "total"):
            return "", NEVER
        at = time.gmtime(wall_s)
        if self.period == "minute":
            begin = int(wall_s) // 60 * 60
            return time.strftime("%Y-%m-%dT%H:%M", at), float(begin + 60)
        if self.period == "day":
            begin = calendar.timegm((at.tm_year, at.tm_mon, at.tm_mday, 0, 0, 0))
            return time.strftime("%Y-%m-%d", at), float(begin + 86_400)
        year, month = (at.tm_year + 1, 1) if at.tm_mon == 12 else (at.tm_year, at.tm_mon + 1)
        return time.strftime("%Y-%m", at), float(calendar.timegm((year, month, 1, 0, 0, 0)))

    def pool_name(self, period: str) -> str:
        """The name of the pool over all processes. A changed amount goes on with what is used of the old one."""
        return f"{self.kind}:{self.scope}:{self.owner}" + (
            f":{self.period or 'total'}:{period}" if self.kind == "usd" else ""
        )


@frozen(kw_only=True, slots=True)
class Claim:
    """What one process says of one pool. Everything is a state and no change, so that it may be told twice.

    Attributes:
        amount: Units of the whole pool.
        window_s: When used units come back; see ``LimitRule.pool_window_s``.
        used: Units this holder has used since it began.
        returned: Units it has given back unused since it began.
        target: Units it would like to hold when this is done.
        need: Units it must hold, of ``target``, for what is waiting now; 0 if nothing is.
    """

    name: str
    amount: int
    window_s: float
    used: int
    returned: int
    target: int
    need: int = 0


@frozen(kw_only=True, slots=True)
class Grant:
    """The answer to a :class:`Claim`.

    Attributes:
        granted: Units this holder was granted since it began.
        remaining: Units that nobody has used or holds.
        held: Units in slices, this holder's included.
        back: When used units come back: seconds from now, and how many will be back by then; in order, a few points.
    """

    name: str
    granted: int
    remaining: int
    held: int = 0
    back: tuple[tuple[float, int], ...] = ()

    @property
    def reset_s(self) -> float:
        """Seconds until the next used unit comes back; 0 if none is to come."""
        return self.back[0][0] if self.back else 0.0


@frozen(kw_only=True, slots=True)
class Granted:
    """The answer to a round of claims.

    Attributes:
        holders: Processes that hold slices now, this one included.
    """

    grants: tuple[Grant, ...]
    holders: int
