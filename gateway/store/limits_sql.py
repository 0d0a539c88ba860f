"""Pools of limits in SQLite (one machine) or PostgreSQL: one round of claims is one transaction.

Rounds are serial, over all processes: SQLite has one writer, and PostgreSQL takes an advisory lock. A process makes ten
rounds a second while it is busy, so with more than some tens of busy processes Redis should keep the rates
(``[limits] url``).

*Cost*, measured: a round of nine limits 0.5 ms in SQLite and 2 ms in PostgreSQL on loopback, of a hundred 5 and 8 ms.

The clock is the database's: in SQLite the machine's, for all its processes are there. If it is set back, what was used
before comes back a window after that; if it is set on, sooner.

What nobody has asked for in 40 days is deleted, but for budgets without an end: rates are empty and months are over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from gateway.core.limits import FOREVER_S, LONGEST_LEASE_S, Claim, Grant, Granted
from gateway.policy.lease import Pool, Share, leave, reconcile, take, write_off
from gateway.store.sql import Session, SqlStore

KEEP_S = 40 * 86_400.0
_LOCK = 7_585_824  # of the rounds; any number that is nobody else's in this database
_ENDLESS = "usd:%:total:"
_LOST = "SELECT name FROM limit_pool WHERE lost > 0 AND held = 0 AND seen_s < ?"
_PER_QUERY = 400  # names

_PUT_POOL = """
INSERT INTO limit_pool (name, window_s, held, lost, charges, seen_s) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET window_s = excluded.window_s, held = excluded.held, lost = excluded.lost,
    charges = excluded.charges, seen_s = excluded.seen_s
"""
_PUT_SHARE = """
INSERT INTO limit_share (holder, name, granted, used, returned) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (holder, name) DO UPDATE SET granted = excluded.granted, used = excluded.used, returned = excluded.returned
"""
_PUT_HOLDER = """
INSERT INTO limit_holder (holder, expires_s) VALUES (?, ?)
ON CONFLICT (holder) DO UPDATE SET expires_s = excluded.expires_s
"""
# What is later than any lease was written before the clock was set back.
_SET_BACK = "UPDATE limit_holder SET expires_s = ? WHERE expires_s > ?"


class SqlLimits:
    """A :class:`gateway.quota.backend.LimitBackend` in a database. All methods raise ``StoreError``.

    Args:
        clock: Of the machine, in seconds since the epoch; for SQLite, PostgreSQL has its own.
    """

    def __init__(self, store: SqlStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def settle(self, holder: str, lease_s: float, claims: Sequence[Claim], *, new: bool) -> Granted | None:
        def work(session: Session) -> Granted | None:
            return _settle(session, holder, lease_s, claims, self._now_s(session), new=new)

        return await self._store.write(work)

    async def leave(self, holder: str, claims: Sequence[Claim]) -> None:
        def work(session: Session) -> None:
            now_s = self._now_s(session)
            if session.rows("SELECT 1 FROM limit_holder WHERE holder = ?", (holder,)):
                _leave(session, holder, claims, now_s)
                _end(session, holder, now_s)

        await self._store.write(work)

    async def with_losses(self, rest_s: float) -> list[str]:
        """Budgets that crashes lost something of, and that nobody has had a slice of or asked for during ``rest_s``."""

        def work(session: Session) -> list[str]:
            return [name for (name,) in session.rows(_LOST, (self._now_s(session) - rest_s,))]

        return await self._store.write(work)  # in PostgreSQL the clock is read under a lock

    async def reconcile(self, name: str, spent: int) -> int:
        def work(session: Session) -> int:
            now_s = self._now_s(session)
            pool = _pools(session, [name]).get(name)
            lost = pool.lost if pool is not None else 0
            back = reconcile(pool, spent) if pool is not None else 0
            if pool is not None and lost:
                session.run_many(_PUT_POOL, [_pool_row(name, FOREVER_S, pool, now_s)])
            return back

        return await self._store.write(work)

    def _now_s(self, session: Session) -> float:
        """Wait for the rounds of others to end; then what time it is."""
        if session.dialect == "sqlite":
            return self._clock()
        session.rows("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        return float(session.rows("SELECT extract(epoch FROM clock_timestamp())")[0][0])


def _settle(
    session: Session, holder: str, lease_s: float, claims: Sequence[Claim], now_s: float, *, new: bool
) -> Granted | None:
    gone = session.rows("SELECT holder FROM limit_holder WHERE expires_s <= ?", (now_s,))
    for (name,) in gone:
        _end(session, name, now_s)
    if gone or new:  # seldom enough to clean up as well
        session.run(
            "DELETE FROM limit_pool WHERE seen_s < ? AND held = 0 AND name NOT LIKE ?", (now_s - KEEP_S, _ENDLESS)
        )
    longest_s = now_s + LONGEST_LEASE_S
    session.run(_SET_BACK, (longest_s, longest_s))
    if not new and not session.rows("SELECT 1 FROM limit_holder WHERE holder = ?", (holder,)):
        return None
    session.run(_PUT_HOLDER, (holder, now_s + lease_s))
    holders = int(session.rows("SELECT count(*) FROM limit_holder")[0][0])
    return Granted(grants=_take(session, holder, claims, now_s, alone=holders == 1), holders=holders)


def _take(session: Session, holder: str, claims: Sequence[Claim], now_s: float, *, alone: bool) -> tuple[Grant, ...]:
    names = [claim.name for claim in claims]
    pools, shares = _pools(session, names), _shares(session, holder, names)
    grants = tuple(
        take(pools.setdefault(claim.name, Pool()), shares.setdefault(claim.name, Share()), claim, now_s, alone=alone)
        for claim in claims
    )
    session.run_many(_PUT_POOL, [_pool_row(one.name, one.window_s, pools[one.name], now_s) for one in claims])
    session.run_many(_PUT_SHARE, [_share_row(holder, name, shares[name]) for name in names])
    return grants


def _leave(session: Session, holder: str, claims: Sequence[Claim], now_s: float) -> None:
    names = [claim.name for claim in claims]
    pools, shares = _pools(session, names), _shares(session, holder, names)
    known = [claim for claim in claims if claim.name in shares]
    for claim in known:
        leave(pools[claim.name], shares[claim.name], claim, now_s)
    session.run_many(_PUT_POOL, [_pool_row(one.name, one.window_s, pools[one.name], now_s) for one in known])
    session.run_many(_PUT_SHARE, [_share_row(holder, one.name, shares[one.name]) for one in known])


def _end(session: Session, holder: str, now_s: float) -> None:
    """Write off all that a holder had. Slices that hold nothing need no look at their pools."""
    rows = session.rows(
        "SELECT s.name, s.granted, s.used, s.returned, p.window_s FROM limit_share s"
        " JOIN limit_pool p ON p.name = s.name WHERE s.holder = ? AND s.granted > s.used + s.returned",
        (holder,),
    )
    pools = _pools(session, [row[0] for row in rows])
    for name, granted, used, returned, window_s in rows:
        write_off(pools[name], Share(granted, used, returned), window_s, now_s)
    session.run_many(_PUT_POOL, [_pool_row(row[0], row[4], pools[row[0]], now_s) for row in rows])
    session.run("DELETE FROM limit_share WHERE holder = ?", (holder,))
    session.run("DELETE FROM limit_holder WHERE holder = ?", (holder,))


def _pools(session: Session, names: Sequence[str]) -> dict[str, Pool]:
    found = {}
    for some in _parts(names):
        sql = f"SELECT name, held, lost, charges FROM limit_pool WHERE name IN ({_marks(some)})"  # noqa: S608
        for name, held, lost, charges in session.rows(sql, some):
            found[name] = Pool(held, lost, _read(charges))
    return found


def _shares(session: Session, holder: str, names: Sequence[str]) -> dict[str, Share]:
    found = {}
    for some in _parts(names):
        sql = "SELECT name, granted, used, returned FROM limit_share WHERE holder = ? AND name IN "
        sql += f"({_marks(some)})"
        for name, granted, used, returned in session.rows(sql, (holder, *some)):
            found[name] = Share(granted, used, returned)
    return found


def _parts(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[first : first + _PER_QUERY] for first in range(0, len(names), _PER_QUERY))


def _marks(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names))


def _pool_row(name: str, window_s: float, pool: Pool, now_s: float) -> tuple[str, float, int, int, str, float]:
    charges = ",".join(f"{slot}:{units}" for slot, units in pool.charges.items())
    return name, window_s, pool.held, pool.lost, charges, now_s


def _share_row(holder: str, name: str, share: Share) -> tuple[str, str, int, int, int]:
    return holder, name, share.granted, share.used, share.returned


def _read(charges: str) -> dict[int, int]:
    pairs = (one.partition(":") for one in charges.split(",") if one)
    return {int(slot): int(units) for slot, _, units in pairs}
