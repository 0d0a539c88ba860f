"""Promise: however many clients leave, and whenever, and even if processes are killed, the ledger has one entry for
each request, it adds up to what the budgets have as spent, and no slot and no reservation is left behind."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from gateway.config import Ledger as LedgerRules
from gateway.sim import Behaviour, Simulator
from gateway.store.limits_sql import SqlLimits
from gateway.store.sqlite import Store
from tests.component.served import Served, served
from tests.component.stage import Stage, chat, request_bytes, staged
from tests.component.test_workers_are_processes import serving_pids, until

SECRET = "sk-storm-0123456789abcdef"
SLOTS = 160  # more than clients at a time, so that what is refused is the exception
CLIENTS = 60
RESERVED_MICRO_USD = 20 * 10 + 2_000  # 20 tokens, and more than the prompt can cost
STALLS = "sim/sim-stall=3"  # sends three tokens, and then nothing more
SLACK_S = 1.0  # for a machine that is busy with other tests
POOL = "usd:key:storm:total:"
MORE = f"""
[limits]
lease_s = 2
[prices."sim/sim"]
input_usd_per_mtok = 2
output_usd_per_mtok = 10
[prices."{STALLS}"]
input_usd_per_mtok = 2
output_usd_per_mtok = 10
[[key]]
name = "storm"
secret = "{SECRET}"
max_concurrent = {SLOTS}
budget_usd = 100
period = "total"
"""
PACE = Behaviour(ttft_s=0.02, tokens=20, tokens_per_s=400)


@define
class Visit:
    """A request as its client saw it; times on the test's clock."""

    began: float
    left: float  # when it ended, or was left
    status: int = 0


WAYS = ("any moment", "half a request", "any moment", "a token", "any moment", "asked")  # of clients that leave


@define
class Storm:
    """Clients, half of which leave: at any moment, or because of what they see, so that each phase is left by some.

    A client that has sent half of its request leaves then. One leaves at an event of its stream, which then has more to
    say than it ever gets to; one when the provider, which stays silent, has its request. Neither depends on how busy
    the machine is.
    """

    connect: Callable[[], Any]
    sim: Simulator
    visits: dict[int, Visit] = field(factory=dict)
    _dice: random.Random = field(factory=lambda: random.Random(5))

    async def blow(self, requests: int, clients: int = CLIENTS) -> None:
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                await self._visit(number)

        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(client)

    async def _visit(self, number: int) -> None:
        visit = self.visits[number] = Visit(began=trio.current_time(), left=0.0)
        way = WAYS[number // 2 % len(WAYS)] if number % 2 else "stays"
        patience_s = self._dice.uniform(0.0, 0.1) if way == "any moment" else 30.0
        model = {"a token": STALLS, "asked": silent(number)}.get(way, "sim/sim")
        document = chat(model, stream=way == "a token" or number % 3 != 0, max_tokens=20)
        request = request_bytes(document, key=SECRET, headers={"x-request-id": f"c{number}"})
        with trio.move_on_after(patience_s), suppress(OSError, trio.BrokenResourceError):  # its process was killed
            async with await self.connect() as stream:
                if way == "half a request":
                    await stream.send_all(request[: -len(request) // 4])
                else:
                    await stream.send_all(request)
                    await self._wait(stream, visit, way, model)
        visit.left = trio.current_time()

    async def _wait(self, stream: trio.SocketStream, visit: Visit, way: str, model: str) -> None:
        """Hear the answer to its end, or to the moment when this client leaves."""
        async with trio.open_nursery() as nursery:
            if way == "asked":
                nursery.start_soon(self._leave_when_asked, model, nursery.cancel_scope)
            await self._hear(stream, visit, at_a_token=way == "a token")
            nursery.cancel_scope.cancel()

    async def _leave_when_asked(self, model: str, scope: trio.CancelScope) -> None:
        name = model.partition("/")[2]
        await self.sim.until(lambda now: name in now.by_model)
        scope.cancel()

    async def _hear(self, stream: trio.SocketStream, visit: Visit, *, at_a_token: bool) -> None:
        answer = b""
        with suppress(trio.BrokenResourceError):  # its process was killed
            while not _whole(answer) and (more := await stream.receive_some()):
                answer += more
                visit.status = int(answer.split()[1]) if len(answer) > 12 else 0
                if at_a_token and b"content" in answer.partition(b"\r\n\r\n")[2]:
                    return


def silent(number: int) -> str:
    """A model that takes a request and says nothing; each has a name of its own, by which the provider counts it."""
    return f"sim/sim-silence-tokens={number + 1}"


def _whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    _, found, length = head.partition(b"content-length: ")
    return bool(found) and len(body) >= int(length.split(b"\r")[0])


@define
class Books:
    """What ledger and limits have, once nobody writes any more."""

    rows: dict[int, sqlite3.Row]
    spent: int  # by the ledger, in micro-dollars
    used: int  # by the budget's pool
    lost: int
    held: int  # in slices, of all pools
    holders: int

    @classmethod
    def of(cls, database: Path) -> Books:
        with sqlite3.connect(database) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM usage_entry WHERE key_name = 'storm'").fetchall()
            rows = {int(row["request_id"][1:]): row for row in found if row["request_id"].startswith("c")}
            assert len(rows) == sum(row["request_id"].startswith("c") for row in found), "an entry is there twice"
            pools = connection.execute("SELECT name, held, lost, charges FROM limit_pool").fetchall()
            [(holders,)] = connection.execute("SELECT count(*) FROM limit_holder").fetchall()
        connection.close()
        [budget] = [pool for pool in pools if pool["name"].startswith(POOL)]
        charges = (one.partition(":")[2] for one in budget["charges"].split(",") if one)
        return cls(
            rows=rows,
            spent=sum((row["cost_micro_usd"] or 0) + (row["lost_micro_usd"] or 0) for row in found),
            used=sum(int(units) for units in charges),
            lost=budget["lost"],
            held=sum(pool["held"] for pool in pools),
            holders=holders,
        )


async def test_in_one_process_ledger_and_budget_agree_to_the_micro_dollar(tmp_path: Path) -> None:
    store = tmp_path / "sluice.db"
    async with staged(workers=SLOTS + 5, store=f"sqlite:///{store}", more=MORE, behaviour=PACE) as stage:
        stage.remember_baseline()
        storm = Storm(stage.connect, stage.sim)
        await storm.blow(800)
        await stage.settle()
        stage.assert_nothing_left()
        reserved = {limit.rule.kind: limit.reserved for limit in stage.gateway.accounts.quota.statistics()}
        assert reserved == {"concurrent": 0, "usd": 0}
        started = stage.sim.statistics().started
        await all_slots_are_free(stage)
        stage.shutdown.set()
        await stage.stopped.wait()
        records = {int(record.request_id[1:]) for record in stage.records if record.request_id.startswith("c")}
    books = Books.of(store)
    assert (books.held, books.lost, books.holders) == (0, 0, 0)
    assert books.used == books.spent > 0
    assert set(books.rows) == records
    assert {number for number, visit in storm.visits.items() if visit.status == 200} <= records
    outcomes = {row["outcome"] for row in books.rows.values()}
    assert {"ok", "cancelled"} <= outcomes
    phases = {row["phase"] for row in books.rows.values() if row["outcome"] == "cancelled"}
    assert {"body", "upstream", "stream"} <= phases
    with_attempts = sum(row["attempts"] != "[]" for row in books.rows.values())
    assert 400 < started <= with_attempts < len(books.rows)


async def test_killed_processes_lose_no_more_than_a_batch_and_nothing_leaks(tmp_path: Path) -> None:
    arguments = ("--workers", "4")
    async with served(tmp_path, arguments=arguments, workers=4 * SLOTS, behaviour=PACE, more=MORE) as gateway:
        await until(lambda: len(serving_pids(gateway)) >= 4, seconds=40)
        storm, killed_at = Storm(gateway.connect, gateway.sim), []

        async def kill_two() -> None:
            for victim, after in zip(sorted(serving_pids(gateway)), (500, 900), strict=False):
                await until(lambda after=after: len(storm.visits) >= after, seconds=60)  # type: ignore[misc]
                os.kill(victim, signal.SIGKILL)
                killed_at.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_two)
            await storm.blow(1_500)
        started = gateway.sim.statistics().started
        await until(lambda: len(serving_pids(gateway)) >= 6, seconds=20)
        await all_slots_are_free(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        code, _ = await gateway.ended(seconds=10)
        assert code == 0
    books = Books.of(tmp_path / "sluice.db")
    answered = {number for number, visit in storm.visits.items() if visit.status == 200}
    missing = answered - set(books.rows)
    for number in missing:  # running when a process was killed, or just before
        visit = storm.visits[number]
        assert any(visit.began <= at and at - visit.left <= LedgerRules().flush_s + SLACK_S for at in killed_at)
    assert len(missing) < 0.4 * len(answered)
    with_attempts = sum(row["attempts"] != "[]" for row in books.rows.values())
    unwritten = started - with_attempts
    assert unwritten <= len(missing) + CLIENTS, "what had not answered yet was running when its process was killed"
    assert (books.held, books.holders) == (0, 0)
    assert books.spent <= books.used + books.lost, "what a process had when it was killed counts as spent"
    await reconcile(tmp_path, books)
    after = Books.of(tmp_path / "sluice.db")
    assert after.used + after.lost == max(books.used, books.spent)
    assert after.used + after.lost - books.spent <= (len(missing) + CLIENTS) * RESERVED_MICRO_USD


async def reconcile(folder: Path, books: Books) -> None:
    """Tell the budget what the ledger has."""
    async with Store.open(f"sqlite:///{folder}/sluice.db") as store:
        [(name,)] = await store.sql.read(
            lambda session: session.rows("SELECT name FROM limit_pool WHERE name LIKE ?", (POOL + "%",))
        )
        await SqlLimits(store.sql).reconcile(name, books.spent)


async def all_slots_are_free(stage: Stage | Served) -> None:
    """Everything that may run at the same time does, and no more."""
    stage.sim.reset()

    async def client(number: int) -> None:
        slow = request_bytes(chat("sim/sim-tokens=1000-tps=20", stream=True), key=SECRET)
        while True:
            async with await stage.connect() as stream:
                await stream.send_all(slow)
                head = await stream.receive_some()
                if head.split()[1] == b"200":
                    await trio.sleep_forever()
            await trio.sleep(0.2)  # the process it came to has to ask for a larger part first

    async with trio.open_nursery() as nursery:
        for number in range(SLOTS + 5):
            nursery.start_soon(client, number)
        with trio.fail_after(20):
            await stage.sim.until(lambda now: now.active == SLOTS)
        await trio.sleep(0.3)
        assert stage.sim.statistics().peak_active == SLOTS
        nursery.cancel_scope.cancel()
    with trio.fail_after(10):
        await stage.sim.until(lambda now: now.active == 0)
