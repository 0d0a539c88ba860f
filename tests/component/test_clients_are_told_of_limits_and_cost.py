"""Promise: an answer says what is left of its key's limits and what it cost; a spent budget warns, or ends a stream."""

from __future__ import annotations

import json

from gateway.core.facts import Outcome
from gateway.sim import Behaviour
from tests.component.stage import Heard, Stage, ask, chat, staged

KEYS = {name: f"sk-{name}-0123456789abcdef" for name in ("rated", "soft", "stopped", "small")}
MORE = f"""
[prices."sim/sim"]
input_usd_per_mtok = 0
output_usd_per_mtok = 10
[[key]]
name = "rated"
secret = "{KEYS["rated"]}"
rpm = 50
tpm = 100000
[[key]]
name = "soft"
secret = "{KEYS["soft"]}"
budget_usd = 0.0001
period = "total"
on_budget = "warn"
[[key]]
name = "stopped"
secret = "{KEYS["stopped"]}"
budget_usd = 0.001
period = "total"
stop_streams = true
[[key]]
name = "small"
secret = "{KEYS["small"]}"
tpm = 200
[[assistant]]
name = "helper"
model = "sim/sim"
"""


async def asked(stage: Stage, key: str, *, stream: bool = False, **fields: int) -> Heard:
    return await ask(stage, chat(stream=stream, **fields), key=KEYS[key])


async def test_limits_are_told_in_both_forms_and_go_down() -> None:
    async with staged(more=MORE) as stage:
        left = []
        for stream in (False, True):
            heard = await asked(stage, "rated", stream=stream, max_tokens=20)
            headers = heard.headers
            assert heard.status == 200
            assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-limit-tokens"]) == ("50", "100000")
            assert '"key-rpm";q=50;w=60' in headers["ratelimit-policy"]
            assert f'"key-rpm";r={headers["x-ratelimit-remaining-requests"]};' in headers["ratelimit"]
            assert "x-ratelimit-reset-requests" in headers
            left.append(int(headers["x-ratelimit-remaining-requests"]))
        assert left == [49, 48]


async def test_cost_is_told_in_the_head_behind_a_stream_and_in_the_usage_event() -> None:
    async with staged(more=MORE) as stage:
        whole = await asked(stage, "rated")
        assert float(whole.headers["x-sluice-cost-usd"]) == 20 * 10 / 1_000_000
        streamed = await asked(stage, "rated", stream=True)
        cost = whole.headers["x-sluice-cost-usd"]
        assert f": x-sluice-cost-usd {cost}\n" in streamed.body.decode()
        document = {"assistant": "helper", "input": "hello", "stream": True}
        told = await ask(stage, document, path="/v1/orchestrate", key=KEYS["rated"])
        usage = [json.loads(event) for event in told.events if "cost_usd" in event]
        assert [float(one["cost_usd"]) for one in usage] == [20 * 10 / 1_000_000]


async def test_what_has_no_answer_in_tokens_needs_none_for_one() -> None:
    async with staged(more=MORE) as stage:
        refused = await asked(stage, "small")
        assert (refused.status, refused.headers["x-should-retry"]) == (429, "false")
        assert "this request alone may take" in refused.json()["error"]["message"]
        assert refused.headers["x-ratelimit-limit-tokens"] == "200"
        document = {"model": "sim/sim", "input": "hello"}
        assert (await ask(stage, document, path="/v1/embeddings", key=KEYS["small"])).status == 200
        assert (await ask(stage, chat(), path="/v1/messages/count_tokens", key=KEYS["small"])).status == 200


async def test_a_soft_budget_warns_and_answers() -> None:
    async with staged(more=MORE) as stage:
        for _ in range(2):
            heard = await asked(stage, "soft", max_tokens=20)
            assert heard.status == 200
        warning = "key 'soft' may spend 0.0001 USD in all; that is exceeded"
        assert heard.headers["x-sluice-limit-warning"] == warning


async def test_a_stream_that_has_used_up_its_budget_ends_with_an_error_that_says_so() -> None:
    async with staged(more=MORE, behaviour=Behaviour(tokens=50)) as stage:
        for _ in range(5):
            await asked(stage, "rated")  # answers of this model have 50 tokens, it seems, so that many are reserved
        stage.sim.behave(Behaviour(tokens=10_000, tokens_per_s=400))
        heard = await asked(stage, "stopped", stream=True)
        assert heard.status == 200
        assert not heard.finished
        error = [json.loads(event)["error"] for event in heard.events if event.startswith('{"error"')]
        assert [one["code"] for one in error] == ["budget_exhausted"]
        await stage.settle()
        record = stage.records[-1]
        assert (record.outcome, record.code) == (Outcome.BROKEN, "budget_exhausted")
        assert 100 < record.tokens <= 150, "all of the budget, and what was on its way"
        assert record.finish_reason == "budget_exhausted"
        refused = await asked(stage, "stopped", max_tokens=10)
        assert (refused.status, refused.json()["error"]["code"]) == (429, "budget_exhausted")
        stage.assert_nothing_left()
