"""A process that asks for requests of one limit, evenly or as many clients do, and prints what it was told.

``limits_worker.py BACKEND URL KIND AMOUNT WINDOW_S PACE LEASE_S HOLD_S``; it begins when a line comes in and ends when
its input does. PACE is requests a second, or ``100x`` for a hundred clients that ask again at once when they passed and
after half a second when they were refused.

A line ``yes|no ASKED_AT WAITED_S AT_ONCE`` for each, on the clock that all processes of a machine share; AT_ONCE is
whether nothing was waited for. Those of the refused are printed at the end.
"""

import sys
import time
from contextlib import asynccontextmanager

import trio

from gateway.core.limits import LimitRule
from gateway.quota.quota import Quota
from gateway.store.database import Database
from gateway.store.limits_redis import RedisLimits
from gateway.store.limits_sql import SqlLimits
from gateway.store.postgresql import Postgres
from gateway.store.sql import SqliteSql


@asynccontextmanager
async def opened(kind, url):
    if kind == "redis":
        async with RedisLimits.open(url) as limits:
            yield limits
        return
    store = Postgres(url) if kind == "postgresql" else SqliteSql(Database(url))
    try:
        yield SqlLimits(store)
    finally:
        await store.aclose()


async def main(backend, url, kind, amount, window_s, pace, lease_s, hold_s):
    rule = LimitRule(
        scope="key",
        owner="dev",
        kind=kind,
        amount=int(amount),
        window_s=float(window_s) if kind == "rpm" else None,
        period="total" if kind == "usd" else "",
        on_failure="closed",  # a round may fail where a machine stands still for a second
    )
    rules = (rule,)

    refusals = []

    async def ask():
        asked_at, asked = time.monotonic(), time.perf_counter()
        ticket = quota.enter(rules, trio.current_time())
        refused, at_once = ticket, True
        if not isinstance(ticket, Exception):
            refused = ticket.reserve((), 0, 1, trio.current_time())
            at_once = refused is None or not refused.may_wait
            if not at_once:
                refused = await ticket.reserve_soon((), 0, 1)
        line = f"{'no' if refused else 'yes'} {asked_at} {time.perf_counter() - asked} {int(at_once)}"
        if refused:
            refusals.append(line)
        else:
            print(line, flush=True)
        if ticket is not refused:
            await trio.sleep(float(hold_s))
            ticket.settle(0, 1, trio.current_time()) if refused is None else ticket.abandon()
        return refused

    async def client():
        while True:
            await trio.sleep(0.5 if await ask() else 0)

    async with opened(backend, url) as limits, trio.open_nursery() as nursery:
        quota = Quota(limits, lease_s=float(lease_s))
        nursery.start_soon(quota.run)
        quota.know(rules)
        await trio.sleep(0.3)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

        async def load():
            if pace.endswith("x"):
                async with trio.open_nursery() as clients:
                    for _ in range(int(pace[:-1])):
                        clients.start_soon(client)
            next_at = trio.current_time()
            while True:
                nursery.start_soon(ask)
                next_at += 1 / float(pace)
                await trio.sleep_until(next_at)

        with trio.CancelScope() as loading:

            async def end():
                await trio.to_thread.run_sync(sys.stdin.readline)
                loading.cancel()

            nursery.start_soon(end)
            await load()
        nursery.cancel_scope.cancel()
    print(*refusals, sep="\n")
    print(quota.backends(), quota.statistics(), file=sys.stderr)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
