"""The plain way: a chat completion, whole and streamed, through the real server and a provider on a real socket."""

import json

from tests.component.stage import ask, chat, staged


async def test_a_whole_answer_comes_from_the_provider_as_it_is():
    async with staged() as stage:
        stage.remember_baseline()
        heard = await ask(stage, chat("chat", content="ping"))
        assert heard.status == 200
        document = heard.json()
        assert document["object"] == "chat.completion"
        assert document["model"] == "sim"
        assert "ping" in document["choices"][0]["message"]["content"]
        assert heard.headers["x-sluice-target"] == "sim/sim"
        assert heard.headers["x-sluice-attempts"] == "1"
        assert heard.headers["x-sluice-queue-ms"] == "0"
        assert heard.headers["x-request-id"]
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_a_stream_ends_with_done_and_without_usage_that_nobody_asked_for():
    async with staged() as stage:
        heard = await ask(stage, chat("chat", stream=True, content="ping"))
        assert heard.status == 200
        assert heard.headers["content-type"].startswith("text/event-stream")
        assert heard.finished
        assert heard.whole
        assert "ping" in heard.text
        assert all(json.loads(event)["choices"] for event in heard.events[:-1])
        await stage.settle()
        [record] = stage.records
        assert record.usage is not None
        assert not record.usage.estimated
        assert record.usage.completion_tokens == 20


async def test_usage_comes_last_when_it_is_asked_for():
    async with staged() as stage:
        heard = await ask(stage, chat("chat", stream=True, stream_options={"include_usage": True}))
        usage = json.loads(heard.events[-2])
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 20


async def test_every_field_reaches_the_provider_as_it_was_written():
    fields = {
        "temperature": 0.30000000000000004,
        "seed": 12345678901234567890,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "reasoning_effort": "low",
        "metadata": {"a": "b"},
        "a_field_of_next_year": {"deep": [1, {"x": None}]},
    }
    async with staged() as stage:
        heard = await ask(stage, chat("sim/sim-echo", **fields))
        echoed = json.loads(heard.json()["choices"][0]["message"]["content"])
        assert {name: echoed[name] for name in fields} == fields
        assert echoed["model"] == "sim-echo"


async def test_the_clients_own_request_id_is_taken_over_if_it_is_a_sane_one():
    async with staged() as stage:
        heard = await ask(stage, chat(), headers={"x-request-id": "trace-42:7"})
        assert heard.headers["x-request-id"] == "trace-42:7"
        heard = await ask(stage, chat(), headers={"x-request-id": "no spaces; or <tags>"})
        assert heard.headers["x-request-id"].startswith("req_")
