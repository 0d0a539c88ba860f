"""Promise: OpenAI's own client, async under Trio, uses the Responses API here as it uses OpenAI's.

Once with a provider of another dialect, where everything is translated, and once with one of its own, where the bytes
pass.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from gateway.sim import Behaviour
from tests.component.stage import KEY, Stage, staged

# OpenAI's client leaves its own generators to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

QUESTION = "How do I descale the machine?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}
OWN = """
[[provider]]
name = "own"
dialect = "openai-responses"
base_url = "${SIM}"
[[model]]
name = "own"
targets = [{ provider = "own", model = "sim" }]
retry = { max = 0 }
"""
BOTH = pytest.mark.parametrize("model", ["chat", "own"])  # translated, passed


@asynccontextmanager
async def talking(**options: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Stage]]:
    async with (
        staged(more=OWN, **options) as stage,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{stage.url}/v1", max_retries=0) as client,
    ):
        yield client, stage


@BOTH
async def test_it_gets_a_whole_response_with_usage(model: str) -> None:
    async with talking() as (client, stage):
        response = await client.responses.create(model=model, input=QUESTION, instructions="Be kind.")
        assert QUESTION in response.output_text
        assert (response.status, response.model, response.instructions) == ("completed", "sim", "Be kind.")
        assert response.usage is not None
        assert response.usage.output_tokens == 20
        Response.model_validate(response.to_dict())
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        assert [record.endpoint for record in stage.records] == ["/v1/responses"]
        assert stage.records[0].usage is not None
        assert stage.records[0].usage.completion_tokens == 20


@BOTH
async def test_it_reads_a_stream_up_to_its_response(model: str) -> None:
    async with talking() as (client, stage):
        async with client.responses.stream(model=model, input=QUESTION) as stream:
            events = [event async for event in stream]
            response = await stream.get_final_response()
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == response.output_text
        assert text.startswith("You asked")
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert response.usage is not None
        assert response.usage.output_tokens == 20
        await stage.settle()
        stage.assert_nothing_left(requests=1)


@BOTH
async def test_it_calls_tools_and_hands_their_results_back(model: str) -> None:
    async with talking() as (client, _):
        said: list[Any] = [{"role": "user", "content": "Use the tool."}]
        response = await client.responses.create(model=model, input=said, tools=[WEATHER])
        [call] = [item for item in response.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("weather", {"place": "Use the tool."})
        said += [item.to_dict() for item in response.output]
        said.append({"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees"})
        final = await client.responses.create(model=model, input=said, tools=[WEATHER])
        assert "17 degrees" in final.output_text


@BOTH
async def test_it_puts_streamed_arguments_together(model: str) -> None:
    async with talking() as (client, _):
        async with client.responses.stream(model=model, input="Use the tool.", tools=[WEATHER]) as stream:
            response = await stream.get_final_response()
        [call] = [item for item in response.output if item.type == "function_call"]
        assert json.loads(call.arguments) == {"place": "Use the tool."}


async def test_an_answer_that_is_cut_short_is_incomplete() -> None:
    async with talking() as (client, _):
        async with client.responses.stream(model="chat", input=QUESTION, max_output_tokens=3) as stream:
            events = [event async for event in stream]
        last = events[-1]
        assert last.type == "response.incomplete"
        assert last.response.incomplete_details is not None
        assert last.response.incomplete_details.reason == "max_output_tokens"


@BOTH
async def test_a_structured_answer_is_asked_for_and_parsed(model: str) -> None:
    class Place(BaseModel):
        place: str

    async with talking() as (client, stage):
        response = await client.responses.parse(model=model, input="Where?", text_format=Place)
        assert response.output_parsed is not None
        assert response.output_parsed.place
        await stage.settle()
        assert stage.records[0].dropped == ()


async def test_another_dialects_thoughts_are_a_summary_before_the_answer() -> None:
    async with talking() as (client, _):
        async with client.responses.stream(model="sim/sim-thinking=5", input=QUESTION) as stream:
            events = [event async for event in stream]
            response = await stream.get_final_response()
        thought, message = response.output
        assert (thought.type, message.type) == ("reasoning", "message")
        assert thought.summary[0].text == "".join(
            event.delta for event in events if event.type == "response.reasoning_summary_text.delta"
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hosted_tool_is_a_bad_request_where_nobody_runs_it(stream: bool) -> None:
    async with talking() as (client, stage):
        tools: Any = [{"type": "web_search"}]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="chat", input=QUESTION, tools=tools, stream=stream)
        assert (caught.value.code, caught.value.param) == ("unsupported_by_provider", "tools[0].type")
        assert "web_search" in caught.value.message
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_a_response_that_nobody_kept_is_its_not_found_error() -> None:
    async with talking() as (client, _):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="chat", input="And?", previous_response_id="resp_unknown")
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_work_in_the_background_is_refused() -> None:
    async with talking() as (client, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="own", input=QUESTION, background=True)
        assert caught.value.param == "background"


async def test_what_the_provider_has_no_counterpart_for_is_named() -> None:
    async with talking() as (client, _):
        answer = await client.responses.with_raw_response.create(
            model="chat", input=QUESTION, truncation="auto", max_tool_calls=2, text={"verbosity": "low"}
        )
        assert set(answer.headers["x-sluice-dropped"].split(", ")) == {"truncation", "max_tool_calls", "text.verbosity"}


@BOTH
async def test_a_stream_that_breaks_off_says_so_and_fails(model: str) -> None:
    cut = Behaviour(ttft_s=0.0, tokens_per_s=0.0, tokens=20, cut_after=8)
    async with talking(behaviour=cut) as (client, stage):
        stream = await client.responses.create(model=model, input=QUESTION, stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        numbers = [event.sequence_number for event in events]
        assert numbers == sorted(set(numbers))
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_the_stream_is_events_by_name_without_done() -> None:
    async with staged(more=OWN) as stage, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{stage.url}/v1/responses",
            json={"model": "chat", "input": QUESTION, "stream": True},
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = answer.text.split("\n\n")[:-1]
        for block in blocks:
            name, _, data = block.partition("\ndata: ")
            assert name == f"event: {json.loads(data)['type']}"
        assert "[DONE]" not in answer.text
