"""Promise: OpenAI's own client, async under Trio, talks to the gateway as it talks to OpenAI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import trio

from tests.component.stage import KEY, Stage, ask, chat, staged

# OpenAI's client stops reading its own generators at [DONE] and leaves them to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

QUESTION: Any = [{"role": "user", "content": "How do I descale the machine?"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"place": {"type": "string"}}}},
}
NARROW = """
[[key]]
name = "narrow"
secret = "sk-narrow"
models = ["sim/*"]
"""


@asynccontextmanager
async def client_of(stage: Stage, *, key: str = KEY, retries: int = 0) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{stage.url}/v1", max_retries=retries) as client:
        yield client


@asynccontextmanager
async def talking(
    *, key: str = KEY, retries: int = 0, **options: Any
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Stage]]:
    async with staged(more=NARROW, **options) as stage, client_of(stage, key=key, retries=retries) as client:
        yield client, stage


async def test_it_gets_a_whole_answer_with_usage() -> None:
    async with talking() as (client, stage):
        answer = await client.chat.completions.create(model="chat", messages=QUESTION)
        [choice] = answer.choices
        assert "How do I descale the machine?" in (choice.message.content or "")
        assert (answer.model, choice.finish_reason) == ("sim", "stop")
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 20
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_it_reads_a_stream_that_ends_in_usage() -> None:
    async with talking() as (client, stage):
        stream = await client.chat.completions.create(
            model="chat", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.startswith("You asked: “How do I descale the machine?”")
        assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [20]
        assert (chunks[-1].choices, chunks[-1].usage is None) == ([], False)
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_it_reads_a_stream_without_the_usage_it_did_not_ask_for() -> None:
    async with talking() as (client, _):
        stream = await client.chat.completions.create(model="chat", messages=QUESTION, stream=True)
        chunks = [chunk async for chunk in stream]
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_it_calls_tools_and_hands_their_results_back() -> None:
    async with talking() as (client, _):
        wanted: Any = {"model": "chat", "messages": [{"role": "user", "content": "Use the tool."}], "tools": [WEATHER]}
        message = (await client.chat.completions.create(**wanted)).choices[0].message
        assert message.tool_calls is not None
        [call] = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"place": "Use the tool."})
        result = {"role": "tool", "tool_call_id": call.id, "content": "17 degrees"}
        wanted["messages"] += [message.model_dump(exclude_none=True), result]
        final = await client.chat.completions.create(**wanted)
        assert "17 degrees" in (final.choices[0].message.content or "")


async def test_it_puts_streamed_tool_arguments_together() -> None:
    async with talking(sim_options={"send_buffer_bytes": 4096}) as (client, _):
        wanted: Any = {"messages": [{"role": "user", "content": "weather and clock, please"}]}
        wanted["tools"] = [WEATHER, {"type": "function", "function": {"name": "clock"}}]
        async with client.chat.completions.stream(model="sim/sim-tps=2000", **wanted) as stream:
            pieces = [event async for event in stream if event.type == "tool_calls.function.arguments.delta"]
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert [call.function.name for call in calls] == ["weather", "clock"]
        assert json.loads(calls[0].function.arguments) == {"place": "weather and clock, please"}
        assert len(pieces) > 2  # they did come in pieces
        assert final.choices[0].finish_reason == "tool_calls"


async def test_it_lists_models_and_looks_one_up() -> None:
    async with talking() as (client, _):
        listed = [model async for model in client.models.list()]
        assert [(model.id, model.object, model.owned_by) for model in listed] == [("chat", "model", "sim")]
        assert (await client.models.retrieve("chat")).id == "chat"
        assert (await client.models.retrieve("sim/gpt-4o")).id == "sim/gpt-4o"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")


async def test_a_wrong_key_is_its_authentication_error() -> None:
    async with talking(key="sk-wrong") as (client, _):
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="chat", messages=QUESTION)
        assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
        assert caught.value.request_id
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_a_model_its_key_may_not_ask_for_is_its_permission_error() -> None:
    async with talking(key="sk-narrow") as (client, _):
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await client.chat.completions.create(model="chat", messages=QUESTION)
        assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


async def test_an_unknown_model_is_its_not_found_error() -> None:
    async with talking() as (client, _):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="gpt-9", messages=QUESTION)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert "GET /v1/models" in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_request_is_its_bad_request_error_that_names_the_field(stream: bool) -> None:
    async with talking() as (client, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="chat", messages=[], stream=stream)
        assert (caught.value.param, caught.value.code) == ("messages", "invalid_request")
        with pytest.raises(openai.BadRequestError) as caught:  # the provider's own, passed on
            await client.chat.completions.create(model="chat", messages=QUESTION, stream=stream, top_logprobs=5)
        assert caught.value.param == "top_logprobs"


async def test_a_body_too_large_is_a_413() -> None:
    async with talking(server="max_body_bytes = 100000") as (client, _):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x" * 1_000_000}])
        assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


async def test_a_refusal_is_its_rate_limit_error_with_retry_after() -> None:
    async with talking(workers=1, queue=0) as (client, stage), trio.open_nursery() as nursery:
        nursery.start_soon(ask, stage, chat("sim/sim-ttft=60"))
        await stage.sim.until(lambda now: now.active == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="chat", messages=QUESTION)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        nursery.cancel_scope.cancel()


async def test_it_waits_as_retry_after_says_and_is_then_served() -> None:
    """The provider is busy once and says when to come back; the gateway passes that on, and the client obeys."""
    async with talking(retries=1) as (client, stage):
        began = trio.current_time()
        with trio.fail_after(10):
            answer = await client.chat.completions.create(
                model="sim/sim-flap=1-status=429-retry_after=1", messages=QUESTION
            )
        waited_s = trio.current_time() - began
        assert answer.choices[0].finish_reason == "stop"
        assert [record.status for record in stage.records] == [429, 200]
        # Without a Retry-After it would try again after 0.5 s at most; with one it adds nothing and takes nothing off.
        assert waited_s >= 1.0
        assert stage.sim.statistics().started == 2


async def test_it_waits_out_a_full_gateway_and_is_then_served() -> None:
    async with talking(workers=1, queue=0, retries=1) as (client, stage), trio.open_nursery() as nursery:
        occupied = trio.CancelScope()

        async def occupy() -> None:
            with occupied:
                await ask(stage, chat("sim/sim-ttft=60"))

        nursery.start_soon(occupy)
        await stage.sim.until(lambda now: now.active == 1)
        began = trio.current_time()

        async def make_room_after_the_refusal() -> None:
            while not stage.records:
                await trio.sleep(0.001)
            occupied.cancel()

        nursery.start_soon(make_room_after_the_refusal)
        with trio.fail_after(10):
            await client.chat.completions.create(model="chat", messages=QUESTION)
        assert trio.current_time() - began >= 1.0
        assert [record.code for record in stage.records if record.status == 429] == ["queue_full"]


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("sim/sim-status=500", openai.InternalServerError, "upstream_error"),
        ("sim/sim-status=503", openai.InternalServerError, "upstream_unavailable"),
        ("sim/sim-status=401", openai.InternalServerError, "upstream_auth"),
        ("sim/sim-reset", openai.InternalServerError, "upstream_read"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_fails_is_its_server_error(
    model: str, kind: type[Exception], code: str, stream: bool
) -> None:
    async with talking() as (client, _):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model=model, messages=QUESTION, stream=stream)
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.code == code


async def test_a_stream_that_breaks_off_raises_and_never_ends_quietly() -> None:
    async with talking() as (client, _):
        stream = await client.chat.completions.create(model="sim/sim-cut=5", messages=QUESTION, stream=True)
        heard: list[Any] = []

        async def read() -> None:
            async for chunk in stream:
                heard.append(chunk)

        with pytest.raises(openai.APIError) as caught:
            await read()
        assert heard
        assert caught.value.code in ("upstream_cut", "upstream_read")


async def test_a_stream_that_it_closes_stops_the_provider() -> None:
    async with talking() as (client, stage):
        stream = await client.chat.completions.create(
            model="sim/sim-tps=50-tokens=100000", messages=QUESTION, stream=True
        )
        async for _ in stream:
            break
        assert stage.sim.statistics().active == 1
        await stream.close()
        with trio.fail_after(5):
            after = await stage.sim.until(lambda now: now.active == 0)
        assert (after.cancelled, after.finished) == (1, 0)
