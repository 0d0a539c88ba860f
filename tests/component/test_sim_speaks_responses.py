"""The simulated provider speaks OpenAI's responses: seen through OpenAI's own client, and event by event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import trio

from gateway.sim import Simulator

QUESTION = "How do I descale the machine?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}

# OpenAI's client leaves its own generators to the garbage collector.
SDK_LEAVES_GENERATORS = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


@pytest.fixture
async def url(nursery: trio.Nursery) -> str:
    host, port = await nursery.start(Simulator().serve)
    return f"http://{host}:{port}"


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=f"{url}/v1", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def plain(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as plain:
        yield plain


async def events(plain: httpx.AsyncClient, model: str, **fields: Any) -> list[Any]:
    """The documents of the events; None for one that cannot be read. Each is named as its event is."""
    body = {"model": model, "input": QUESTION, "stream": True, **fields}
    answer = await plain.post("/v1/responses", json=body)
    found: list[Any] = []
    for block in answer.text.split("\n\n")[:-1]:
        name, _, data = block.partition("\ndata: ")
        try:
            found.append(orjson.loads(data))
        except orjson.JSONDecodeError:
            found.append(None)
            continue
        assert name == f"event: {found[-1]['type']}"
    return found


def kinds(found: list[Any]) -> list[str]:
    return [document["type"].removeprefix("response.") for document in found]


async def test_a_response_is_read_by_openais_client(sdk: openai.AsyncOpenAI) -> None:
    response = await sdk.responses.create(model="sim-tokens=4", input=QUESTION, instructions="Be brief.")
    assert (response.output_text, response.status) == ("You asked: “How do", "completed")
    assert response.usage is not None
    assert (response.usage.output_tokens, response.usage.total_tokens) == (4, 10 + 4)


@SDK_LEAVES_GENERATORS
async def test_a_stream_is_put_together_by_openais_client(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.responses.stream(model="sim-tokens=4", input=QUESTION, reasoning={"summary": "auto"}) as stream:
        async for _ in stream:
            pass
        response = await stream.get_final_response()
    assert response.output_text == "You asked: “How do"
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    assert (response.usage.output_tokens, response.usage.output_tokens_details.reasoning_tokens) == (16, 12)


@SDK_LEAVES_GENERATORS
async def test_openais_client_calls_tools(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.responses.stream(model="sim", input="weather", tools=[WEATHER]) as stream:
        async for _ in stream:
            pass
        [call] = (await stream.get_final_response()).output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"place":"weather"}')
    turns: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "weather"}]},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees"},
    ]
    answer = await sdk.responses.create(model="sim", input=turns, tools=[WEATHER])
    assert "The tool weather returned: 17 degrees" in answer.output_text


async def test_events_come_in_the_documented_order_and_are_numbered(plain: httpx.AsyncClient) -> None:
    found = await events(plain, "sim-tokens=2")
    assert kinds(found) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [document["sequence_number"] for document in found] == list(range(10))
    assert found[-1]["response"]["output"] == [found[-2]["item"]]


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [("sim", {"max_output_tokens": 3}, "max_output_tokens"), ("sim-filter=2", {}, "content_filter")],
)
async def test_an_incomplete_answer_says_why(
    plain: httpx.AsyncClient, model: str, fields: dict[str, Any], reason: str
) -> None:
    last = (await events(plain, model, **fields))[-1]
    assert (last["type"], last["response"]["incomplete_details"]) == ("response.incomplete", {"reason": reason})


async def test_structured_answers_satisfy_their_schema(plain: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer", "minimum": 3}}}
    wanted = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    answer = (await plain.post("/v1/responses", json={"model": "sim", "input": QUESTION, "text": wanted})).json()
    assert orjson.loads(answer["output"][0]["content"][0]["text"]) == {"count": 3}


async def test_faults_of_the_stream_are_in_the_dialects_words(plain: httpx.AsyncClient) -> None:
    broken = await events(plain, "sim-tokens=5-error=2")
    assert (kinds(broken)[-1], broken[-1]["response"]["error"]["code"]) == ("failed", "server_error")
    assert kinds(await events(plain, "sim-error_first")) == ["error"]
    assert kinds(await events(plain, "sim-tokens=5-end=1"))[-1] == "output_text.delta"
    assert kinds(await events(plain, "sim-tokens=1-nodone"))[-1] == "output_item.done"
    assert kinds(await events(plain, "sim-tokens=1-double_finish"))[-2:] == ["completed", "completed"]
    assert (await events(plain, "sim-tokens=3-malformed=2")).count(None) == 1
    assert (await events(plain, "sim-tokens=1-nousage"))[-1]["response"]["usage"] is None


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"type": "thing"}]}, "input[0].type", "invalid_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice", None),
        ({"text": {"format": {"type": "xml"}}}, "text.format", None),
    ],
)
async def test_faulty_requests_name_the_field(
    plain: httpx.AsyncClient, change: dict[str, Any], param: str, code: str | None
) -> None:
    answer = await plain.post("/v1/responses", json={"model": "sim", "input": QUESTION, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
