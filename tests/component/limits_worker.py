"""A process that asks for requests of one limit at an even pace, and prints what it was told.

``limits_worker.py BACKEND URL KIND AMOUNT WINDOW_S PER_S LEASE_S HOLD_S``; it begins when a line comes in and ends when
its input does. A line ``yes|no ASKED_AT WAITED_S`` for each, on the clock that all processes of a machine share.
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


async def main(backend, url, kind, amount, window_s, per_s, lease_s, hold_s):
    rule = LimitRule(
        scope="key",
        owner="dev",
        kind=kind,
        amount=int(amount),
        window_s=float(window_s) if kind == "rpm" else None,
        period="total" if kind == "usd" else "",
    )
    rules = (rule,)

    async def ask():
        asked_at, asked = time.monotonic(), time.perf_counter()
        ticket = quota.enter(rules, trio.current_time())
        refused = ticket
        if not isinstance(ticket, Exception):
            refused = await ticket.reserve_soon((), 0, 1)
        print("no" if refused else "yes", asked_at, time.perf_counter() - asked, flush=True)
        if ticket is not refused:
            await trio.sleep(float(hold_s))
            ticket.settle(0, 1, trio.current_time()) if refused is None else ticket.abandon()

    async with opened(backend, url) as limits, trio.open_nursery() as nursery:
        quota = Quota(limits, lease_s=float(lease_s))
        nursery.start_soon(quota.run)
        quota.know(rules)
        await trio.sleep(0.3)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

        async def load():
            next_at = trio.current_time()
            while True:
                nursery.start_soon(ask)
                next_at += 1 / float(per_s)
                await trio.sleep_until(next_at)

        with trio.CancelScope() as loading:

            async def end():
                await trio.to_thread.run_sync(sys.stdin.readline)
                loading.cancel()

            nursery.start_soon(end)
            await load()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
