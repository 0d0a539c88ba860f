"""Promise: when to hedge a stream is learnt from streams; what a loser cost is known; odd answers pass all the same."""

from __future__ import annotations

import trio

from gateway.core.facts import AttemptFact, Kind
from gateway.core.principal import Principal
from gateway.dialects.chat_stream import ChatStream
from gateway.dialects.voice import Whole
from gateway.upstream.attempt import Attempt, NotAsked
from gateway.upstream.targets import Route
from tests.component.stage import Stage, ask, chat, staged

HEDGED = """
[[provider]]
name = "other"
base_url = "${SIM}"
[[model]]
name = "m"
targets = [{ provider = "sim", model = "sim-tps=500" }, { provider = "other", model = "sim" }]
hedge = { min_samples = 3 }
"""


def route(stage: Stage) -> Route:
    return stage.gateway.routes.resolve("m", Principal(name="dev"))


async def test_whole_answers_teach_nothing_about_streams() -> None:
    async with staged(more=HEDGED) as stage:
        for _ in range(4):
            assert (await ask(stage, chat("m"))).status == 200
        found = route(stage)
        assert found.model.hedge is not None
        health = stage.gateway.health.of(found.targets[0])
        assert health.hedge(found.model.hedge, whole=False).delay_s() is None
        assert health.hedge(found.model.hedge, whole=True).delay_s() is not None


def attempt(stage: Stage, *, stream: ChatStream | None = None, whole: Whole | None = None) -> Attempt:
    found = route(stage)
    target = found.targets[0]
    fact = AttemptFact(target=target.name, label=target.label, kind=Kind.HEDGE, began_at=trio.current_time())
    return Attempt(
        target=target,
        fact=fact,
        response=NotAsked(),
        timeouts=found.timeouts,
        stream=stream,
        whole=whole,
        asked=b"x" * 40,
    )


async def test_who_lost_by_a_hair_has_cost_something() -> None:
    async with staged(more=HEDGED) as stage:
        stream = ChatStream(want_usage=False)
        stream.feed(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n')
        for lost in (attempt(stage, stream=stream), attempt(stage, whole=Whole(body=b"{}"))):
            lost.lose()
            assert (lost.fact.outcome, lost.fact.code) == ("cancelled", "outrun")
            assert lost.fact.usage is not None
            assert (lost.fact.usage.prompt_tokens, lost.fact.usage.completion_tokens) == (10, 1)


async def test_an_answer_that_only_its_client_understands_is_none_to_be_remembered() -> None:
    async with staged(more=HEDGED) as stage:
        assert attempt(stage, whole=Whole(body=b'{"choices":"odd"}')).answer() is None
