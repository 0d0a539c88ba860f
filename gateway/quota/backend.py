"""What keeps the pools of all limits: one round of claims and grants, whatever the store behind it.

``settle`` is lease, renewal, report, return and refill in one: a process tells what it has used and given back in all,
and what it would like to hold; it learns what it was granted in all. A holder that has not been heard of for its
lease's time is written off by whoever settles next.

Implementations: :class:`MemoryLimits` here (one process), and in ``store/``: ``limits_sqlite`` (one machine),
``limits_postgresql``, ``limits_redis``. All do the arithmetic of :mod:`gateway.policy.lease`; one contract test runs
against each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.limits import LONGEST_LEASE_S, Claim, Granted
from gateway.policy.lease import Pool, Share, leave, reconcile, take, write_off


class LimitBackend(Protocol):
    """The keeper of the pools.

    Every method may raise anything when the keeper is away; what it was asked for may then have happened or not.
    """

    async def settle(self, holder: str, lease_s: float, claims: Sequence[Claim], *, new: bool) -> Granted | None:
        """Note the claims of ``holder``, renew its lease for ``lease_s``, and grant what there is.

        Args:
            new: The holder begins; else None is returned if it is not known (any more), and nothing is changed.
        """

    async def leave(self, holder: str, claims: Sequence[Claim]) -> None:
        """Note the last claims and end the holder. What requests still hold (``target``) is written off."""

    async def reconcile(self, name: str, spent: int) -> int:
        """Set right what crashes lost of a budget; see :func:`gateway.policy.lease.reconcile`."""


class LaterLimits:
    """A keeper that is opened after who uses it was made. Until then it is away.

    Attributes:
        keeper: Set it when it is there.
    """

    keeper: LimitBackend | None = None

    async def settle(self, holder: str, lease_s: float, claims: Sequence[Claim], *, new: bool) -> Granted | None:
        return await self._opened().settle(holder, lease_s, claims, new=new)

    async def leave(self, holder: str, claims: Sequence[Claim]) -> None:
        await self._opened().leave(holder, claims)

    async def reconcile(self, name: str, spent: int) -> int:
        return await self._opened().reconcile(name, spent)

    def _opened(self) -> LimitBackend:
        if self.keeper is None:
            raise RuntimeError("the keeper of the limits is not open yet")
        return self.keeper


class MemoryLimits:
    """Pools in this process's memory: exact for one process, gone with it.

    Args:
        clock: Seconds; the wall clock by default.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._pools: dict[str, tuple[Pool, float]] = {}
        self._shares: dict[str, dict[str, Share]] = {}
        self._expires: dict[str, float] = {}

    async def settle(self, holder: str, lease_s: float, claims: Sequence[Claim], *, new: bool) -> Granted | None:
        now_s = self._clock()
        for gone in [name for name, at in self._expires.items() if at <= now_s]:
            self._end(gone, now_s)
        for name, at in self._expires.items():  # what is later than any lease is of before the clock was set back
            self._expires[name] = min(at, now_s + LONGEST_LEASE_S)
        if not new and holder not in self._expires:
            return None
        self._expires[holder] = now_s + lease_s
        shares, alone = self._shares.setdefault(holder, {}), len(self._expires) == 1
        grants = tuple(
            take(self._pool(claim), shares.setdefault(claim.name, Share()), claim, now_s, alone=alone)
            for claim in claims
        )
        return Granted(grants=grants, holders=len(self._expires))

    async def leave(self, holder: str, claims: Sequence[Claim]) -> None:
        now_s = self._clock()
        shares = self._shares.get(holder, {})
        for claim in claims:
            if claim.name in shares:
                leave(self._pool(claim), shares[claim.name], claim, now_s)
        self._end(holder, now_s)

    async def reconcile(self, name: str, spent: int) -> int:
        kept = self._pools.get(name)
        return reconcile(kept[0], spent) if kept is not None else 0

    def _pool(self, claim: Claim) -> Pool:
        return self._pools.setdefault(claim.name, (Pool(), claim.window_s))[0]

    def _end(self, holder: str, now_s: float) -> None:
        self._expires.pop(holder, None)
        for name, share in self._shares.pop(holder, {}).items():
            pool, window_s = self._pools[name]
            write_off(pool, share, window_s, now_s)
