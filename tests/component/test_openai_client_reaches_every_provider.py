"""Promise: OpenAI's own client gets the same from every provider, and uses what is only passed through.

Its helpers put streams together, parse structured answers and raise on what they do not understand: stricter readers
than a test would be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.lib.streaming.chat import ContentDoneEvent, FunctionToolCallArgumentsDoneEvent
from pydantic import BaseModel

from gateway.core.facts import Outcome
from gateway.sim import Behaviour
from tests.component.stage import Stage, staged
from tests.component.test_every_dialect_reaches_every_provider import PROVIDERS, tables
from tests.component.test_openai_client_talks_to_it import QUESTION, client_of

# OpenAI's client stops reading its own generators at [DONE] and leaves them to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

EVERY = pytest.mark.parametrize("provider", PROVIDERS)
SCHEMA: Any = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA, "strict": True}}
    for name in ("weather", "tides")
]
MEDIA = '[[provider]]\nname = "media"\nbase_url = "${SIM}"\npassthrough = ["/files/*", "/audio/*", "/moderations"]\n'


class Place(BaseModel):
    place: str


@asynccontextmanager
async def talking(more: str = "") -> AsyncIterator[tuple[openai.AsyncOpenAI, Stage]]:
    async with staged(more=tables() + more, behaviour=Behaviour(tokens=20)) as stage, client_of(stage) as client:
        yield client, stage


@EVERY
async def test_its_stream_helper_puts_an_answer_together(provider: str) -> None:
    async with talking() as (client, stage):
        async with client.chat.completions.stream(
            model=f"{provider}/sim", messages=QUESTION, stream_options={"include_usage": True}
        ) as stream:
            events = [event async for event in stream]
            answer = await stream.get_final_completion()
        [done] = [event for event in events if isinstance(event, ContentDoneEvent)]
        assert done.content == answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
        await stage.settle()
        assert answer.usage is not None
        assert answer.usage.completion_tokens == stage.sim.served()[-1].tokens_sent


@EVERY
async def test_it_puts_parallel_calls_together(provider: str) -> None:
    async with talking() as (client, _):
        asked: Any = [{"role": "user", "content": "Ask the weather and the tides in Kiel"}]
        async with client.chat.completions.stream(
            model=f"{provider}/sim-tokens=off", messages=asked, tools=TOOLS, parallel_tool_calls=True
        ) as stream:
            events = [event async for event in stream]
            answer = await stream.get_final_completion()
        done = [event for event in events if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
        calls = answer.choices[0].message.tool_calls or []
        assert [call.function.name for call in calls] == ["weather", "tides"]
        assert sorted(event.name for event in done) == ["tides", "weather"]
        assert len({call.id for call in calls}) == 2
        assert answer.choices[0].finish_reason == "tool_calls"


@EVERY
async def test_it_parses_a_structured_answer(provider: str) -> None:
    async with talking() as (client, _):
        answer = await client.chat.completions.parse(
            model=f"{provider}/sim-tokens=off", messages=QUESTION, response_format=Place
        )
        assert isinstance(answer.choices[0].message.parsed, Place)


@pytest.mark.parametrize("provider", ["openai", "gemini"])
@pytest.mark.parametrize("stream", [True, False])
async def test_it_gets_several_answers_where_they_can_be_given(provider: str, stream: bool) -> None:
    async with talking() as (client, _):
        if stream:
            async with client.chat.completions.stream(model=f"{provider}/sim", messages=QUESTION, n=2) as told:
                answer: Any = await told.get_final_completion()
        else:
            answer = await client.chat.completions.create(model=f"{provider}/sim", messages=QUESTION, n=2)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.message.content and choice.finish_reason == "stop" for choice in answer.choices)


# ── what is only passed through ─────────────────────────────────────────────────────────────────────────────────────


async def test_it_uploads_a_file() -> None:
    async with talking(MEDIA) as (client, stage):
        made = await client.files.create(file=("notes.txt", b"x" * 300_000), purpose="user_data")
        assert made.bytes > 300_000
        await stage.settle()
        [record] = stage.records
        assert (record.endpoint, record.path, record.target) == ("passthrough", "/files", "media")
        assert (record.outcome, record.status) == (Outcome.OK, 200)
        assert record.bytes_in > 300_000


async def test_it_hears_speech_as_it_is_made_and_asks_for_moderation() -> None:
    async with talking(MEDIA) as (client, stage):
        async with client.audio.speech.with_streaming_response.create(
            model="sim", voice="alloy", input="Hello there"
        ) as spoken:
            sound = b"".join([piece async for piece in spoken.iter_bytes()])
        assert sound
        judged = await client.moderations.create(model="sim", input=["one", "two"])
        assert len(judged.results) == 2
        await stage.settle()
        assert [record.path for record in stage.records] == ["/audio/speech", "/moderations"]


async def test_what_is_not_passed_is_its_not_found_error() -> None:
    async with talking(MEDIA) as (client, _):
        with pytest.raises(openai.NotFoundError, match=r"provider\.passthrough"):
            await client.images.generate(model="sim", prompt="a pump")
        with pytest.raises(openai.NotFoundError):
            await client.batches.list()
