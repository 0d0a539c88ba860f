"""Promise: whatever mixture of faults, hedges, repairs, drains and leaving clients goes through, nothing of it is left.

Three thousand requests over models whose first target has any of the faults, whose second bears few requests at a time,
and whose last, in another dialect, is healthy. Some clients leave: before the answer, at its first bytes, in its
middle. What an answer says is the same whoever gives it, so every whole answer is compared with the one that a healthy
provider gives; every other one must say that it is none.
"""

from __future__ import annotations

import random

import trio
from attrs import define, field

from gateway.core.facts import Kind, Outcome
from gateway.sim import Behaviour
from tests.component.stage import Stage, ask, chat, hear, request_bytes, staged

REQUESTS = 3_000
SIDE_BY_SIDE = 24
TOKENS = 12
TIMEOUTS = "connect_s = 2\nfirst_token_s = 0.15\nanswer_s = 0.15\nstall_s = 0.15\nkeepalive_s = 0.2\ntotal_s = 5"
PROVIDERS = """
[[provider]]
name = "first"
base_url = "${SIM}"
breaker = { consecutive = 5, open_s = 0.05, max_open_s = 0.2 }
retry_budget = { ratio = 0.5, floor = 50, floor_per_s = 10.0 }
[[provider]]
name = "second"
base_url = "${SIM}"
quirks = { prefill = true }
concurrency = { floor = 2, ceiling = 8, start = 4 }
on_disconnect = "drain"
drain_max_streams = 4
drain_max_s = 0.5
[[provider]]
name = "third"
base_url = "${SIM}"
dialect = "anthropic"
api_key = "sk-ant-0123456789"
retry_budget = { ratio = 0.5, floor = 50, floor_per_s = 10.0 }
"""
MODEL = """
[[model]]
name = "m{number}"
targets = [
  {{ provider = "first", model = "sim-{first}" }},
  {{ provider = "second", model = "sim-{second}" }},
  {{ provider = "third", model = "sim-tps=2000" }},
]
midstream = "{midstream}"
retry = {{ max = 2, base_s = 0.002, max_s = 0.01 }}
hedge = {{ delay_s = 0.01 }}
"""
FAULTS = (
    "status=429-retry_after=0.01",
    "status=503",
    "status=500",
    "flap=2-status=529",
    "reset",
    "silence",
    "error_first",
    "ttft=0.03",
    "pings=0.02",
    "cut=0",
    "cut=5-tps=1000",
    "rst=3-tps=1000",
    "error=4-tps=1000",
    "end=6-tps=1000",
    "stall=3",
    "nodone",
    "nousage",
    "tps=1000",
)
SECOND = ("tps=1000", "prefill=refuse", "cut=4-tps=1000", "status=503", "flap=3", "ttft=0.02-tps=1000")
ENDS = (Outcome.OK, Outcome.BROKEN, Outcome.FAILED, Outcome.CANCELLED)


def models(rng: random.Random) -> tuple[str, int]:
    made = [
        MODEL.format(number=number, first=first, second=rng.choice(SECOND), midstream=midstream)
        for number, (first, midstream) in enumerate(
            (first, midstream) for first in FAULTS for midstream in ("continue", "restart", "error")
        )
    ]
    return "".join(made), len(made)


@define
class Soak:
    """What the clients of one run heard."""

    stage: Stage
    rng: random.Random
    text: str
    models: int
    whole: int = 0
    told: int = 0  # that there is no whole answer
    left: int = 0
    heard: set[str] = field(factory=set)  # ids of requests whose answer was heard to its end

    async def run(self) -> None:
        numbers = iter(range(REQUESTS))

        async def work() -> None:
            for number in numbers:
                await self.one(f"soak-{number}")

        async with trio.open_nursery() as nursery:
            for _ in range(SIDE_BY_SIDE):
                nursery.start_soon(work)

    async def one(self, id: str) -> None:
        rng = self.rng
        stream = rng.random() < 0.7
        document = chat(f"m{rng.randrange(self.models)}", stream=stream)
        if stream and rng.random() < 0.5:
            document["stream_options"] = {"include_usage": True}
        leaves = rng.random()
        async with await self.stage.connect() as client:
            await client.send_all(request_bytes(document, headers={"x-request-id": id}))
            if leaves < 0.1:
                self.left += 1
                await trio.sleep(rng.uniform(0, 0.03))
            elif leaves < 0.3:
                self.left += 1
                with trio.move_on_after(rng.uniform(0.02, 0.1)):  # a short answer may be over by then
                    for _ in range(rng.randint(1, 3)):
                        await client.receive_some()
            else:
                await self.hear(client, id, stream)

    async def hear(self, client: trio.SocketStream, id: str, stream: bool) -> None:
        heard = await hear(client, seconds=10)
        self.heard.add(id)
        assert heard.whole
        assert heard.headers["x-request-id"] == id
        if heard.status != 200:
            self.told += 1
            assert heard.json()["error"]["code"]
            assert heard.status in (429, 502, 503, 504)
        elif not stream:
            self.whole += 1
            assert heard.json()["choices"][0]["message"]["content"] == self.text
        elif heard.finished:
            self.whole += 1
            assert heard.text == self.text
        else:
            self.told += 1
            assert b'"error"' in heard.body
            assert self.text.startswith(heard.text)


async def test_three_thousand_requests_leave_nothing() -> None:
    rng = random.Random(4)
    more, count = models(rng)
    behaviour = Behaviour(tokens=TOKENS)
    async with staged(workers=16, queue=64, timeouts=TIMEOUTS, more=PROVIDERS + more, behaviour=behaviour) as stage:
        text = (await ask(stage, chat("sim/sim", stream=True))).text
        await stage.settle()
        stage.records.clear()
        stage.remember_baseline()
        soak = Soak(stage, rng, text, count)
        await soak.run()
        with trio.fail_after(5):
            while stage.gateway.drains.active:
                await trio.sleep(0.01)
        await stage.settle()
        stage.assert_nothing_left()
        _assert_nothing_is_held(stage)
        _assert_records_are_whole(stage, soak)
        assert (await ask(stage, chat("sim/sim"))).status == 200


def _assert_nothing_is_held(stage: Stage) -> None:
    gateway = stage.gateway
    states = gateway.health.states()
    assert [state["in_flight"] for state in states] == [0] * len(states)
    gauges = gateway.health.gauges()
    assert not any(gauges["sluice_streams_draining"].values())
    assert gauges["sluice_target_limit"]
    assert not any(gauges["sluice_target_in_flight"].values())


def _assert_records_are_whole(stage: Stage, soak: Soak) -> None:
    records = {record.request_id: record for record in stage.records}
    assert len(records) == len(stage.records) <= REQUESTS
    assert soak.heard <= set(records)
    assert len(soak.heard) == soak.whole + soak.told
    assert all(record.outcome in ENDS for record in stage.records)
    facts = [fact for record in stage.records for fact in record.attempts]
    assert all(fact.outcome for fact in facts)
    assert max(len(record.attempts) for record in stage.records) <= 6
    assert {fact.kind for fact in facts} == set(Kind)
    assert {fact.outcome for fact in facts} == {"ok", "failed", "broken", "cancelled", "drained"}
    ok = [record for record in stage.records if record.outcome is Outcome.OK]
    assert all(record.usage is not None and record.attempts[-1].outcome for record in ok)
    assert soak.whole > 10 * soak.told > 0 < soak.left
