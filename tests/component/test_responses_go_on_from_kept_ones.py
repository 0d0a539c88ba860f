"""Promise: a client of the Responses API goes on from an earlier response by its id, whoever answered it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from tests.component.stage import KEY, Stage, staged

# OpenAI's client leaves its own generators to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

MORE = """
[[provider]]
name = "own"
dialect = "openai-responses"
base_url = "${SIM}"
[[model]]
name = "own"
targets = [{ provider = "own", model = "sim" }]
retry = { max = 0 }
[[key]]
name = "other"
secret = "sk-other-0123456789"
"""
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@asynccontextmanager
async def talking(key: str = KEY, **options: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Stage]]:
    async with staged(more=MORE, **options) as stage, client_of(stage, key) as client:
        yield client, stage


def client_of(stage: Stage, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=f"{stage.url}/v1", max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_request_needs_only_what_is_new(stream: bool) -> None:
    async with talking() as (client, stage):
        asked: Any = {"model": "chat", "tools": [WEATHER]}
        if stream:
            async with client.responses.stream(input="Use the tool.", **asked) as events:
                first = await events.get_final_response()
        else:
            first = await client.responses.create(input="Use the tool.", **asked)
        [call] = [item for item in first.output if item.type == "function_call"]
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees"}
        second = await client.responses.create(input=[output], previous_response_id=first.id, **asked)
        assert "17 degrees" in second.output_text
        assert second.previous_response_id == first.id
        third = await client.responses.create(input="And?", previous_response_id=second.id, **asked)
        assert third.usage is not None
        assert second.usage is not None
        assert third.usage.input_tokens > second.usage.input_tokens
        await stage.settle()
        stage.assert_nothing_left(requests=3)


async def test_a_response_of_one_provider_is_gone_on_from_with_another() -> None:
    async with talking() as (client, _):
        tools: Any = [WEATHER]
        first = await client.responses.create(model="chat", input="Use the tool.", tools=tools)
        [call] = [item for item in first.output if item.type == "function_call"]
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees"}
        second = await client.responses.create(model="own", input=[output], previous_response_id=first.id)
        assert "17 degrees" in second.output_text


async def test_another_key_does_not_find_it() -> None:
    async with talking() as (client, stage), client_of(stage, "sk-other-0123456789") as other:
        first = await client.responses.create(model="chat", input="Hello")
        with pytest.raises(openai.NotFoundError):
            await other.responses.create(model="chat", input="And?", previous_response_id=first.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.delete(first.id)


async def test_a_response_can_be_retrieved_and_deleted() -> None:
    async with talking() as (client, _):
        first = await client.responses.create(model="chat", input="Hello")
        again = await client.responses.retrieve(first.id)
        assert again.to_dict() == first.to_dict()
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="chat", input="And?", previous_response_id=first.id)
        assert caught.value.code == "previous_response_not_found"


async def test_nothing_is_kept_that_must_not_be() -> None:
    async with talking() as (client, _):
        first = await client.responses.create(model="chat", input="Hello", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="chat", input="And?", previous_response_id=first.id)


async def test_a_store_that_is_away_is_said_to_be() -> None:
    async with talking(store="sqlite:////nowhere/at/all.db") as (client, _):
        first = await client.responses.create(model="chat", input="Hello")
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="chat", input="And?", previous_response_id=first.id)
        assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")


@pytest.mark.parametrize("id", ["resp_\0", "resp_\x7f", "resp_\u20ac", "resp_\n"])
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_an_id_that_no_response_has_is_not_found(store: str, id: str, request: pytest.FixtureRequest) -> None:
    url = "sqlite:///:memory:"
    if store == "postgresql":
        url = request.getfixturevalue("postgres").new_database() + '"\nlocal_url = "sqlite:///:memory:'
    async with talking(store=url) as (client, _):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model="chat", input="And?", previous_response_id=id)
        assert caught.value.code == "previous_response_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(id)
