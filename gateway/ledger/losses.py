"""What crashes lost of budgets comes back: as much as the ledger does not show as spent.

A process that is killed leaves its slices behind, and what its requests had set aside. The keeper counts both as spent,
for nobody knows (:mod:`gateway.policy.lease`). The ledger knows, once all entries are in it: so whoever runs looks
every :data:`EVERY_S` for budgets with losses that nobody has used for as long as a request may run (one that outlived
its process's lease is still spending what was counted as lost) and :data:`ARRIVAL_S` more, in which entries arrive,
also those that another process of the machine adopts from the disk.

Limits: a budget that is in use all the time has to wait for a pause. A model's budget waits for its period to end: the
ledger says what a client asked for, not whose budget that was. Entries that the killed process had not written
(``ledger.flush_s``) are money that comes back though it was spent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import cast

from gateway.store.ledger import SPENDERS, Spender, spent_micro_usd
from gateway.store.limits_sql import SqlLimits
from gateway.store.sql import SqlStore

EVERY_S = 60.0
ARRIVAL_S = 30.0


async def recover(limits: SqlLimits, sql: SqlStore, rest_s: float) -> dict[str, int]:
    """Set right all budgets that it can be done for. Returns the micro-dollars that came back, by the pools' names.

    Args:
        rest_s: For how long nobody has used a budget.

    Raises: StoreError.
    *Cancellation*: each budget is set right or not.
    *Cost*: one pass over the pools; for each loss one over the ledger's rows of that budget's period.
    """
    back = {}
    for name in await limits.with_losses(rest_s):
        _, scope, rest = name.split(":", 2)
        owner, period, begin = rest.rsplit(":", 2)
        if scope in SPENDERS:
            since_s, until_s = _span(period, begin)
            spent = await spent_micro_usd(sql, cast("Spender", scope), owner, since_s, until_s)
            back[name] = await limits.reconcile(name, spent)
    return back


def _span(period: str, begin: str) -> tuple[float, float]:
    """When a budget's period began and ends, by how its pool is named (:meth:`LimitRule.period_at`)."""
    if period == "total":
        return -inf, inf
    at = datetime.fromisoformat(begin if period == "day" else f"{begin}-01").replace(tzinfo=UTC)
    after = at + timedelta(days=1 if period == "day" else 31)
    end = after if period == "day" else after.replace(day=1)
    return at.timestamp(), end.timestamp()
