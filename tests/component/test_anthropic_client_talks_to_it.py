"""Promise: Anthropic's own client, async under Trio, talks to the gateway as it talks to Anthropic.

Once to a provider of another dialect, where everything is translated, and once to one of its own, where the bytes pass.
The latter is a few lines here that answer with the golden streams.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import pytest
import trio
from attrs import define, field

from tests.component.stage import KEY, Stage, staged

# The client leaves its own generators to the garbage collector when a stream is not read to its end.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

GOLDEN = Path(__file__).parents[1] / "golden"
QUESTION: Any = [{"role": "user", "content": "How do I descale the machine?"}]
ASKED: Any = {"model": "chat", "max_tokens": 1000, "messages": QUESTION}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather at a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
CLAUDE = """
[[provider]]
name = "claude"
dialect = "anthropic"
api_key = "sk-ant-0123456789"
base_url = "http://127.0.0.1:{port}/v1"
[[model]]
name = "claude"
targets = [{{ provider = "claude", model = "claude-opus-5" }}]
retry = {{ max = 0 }}
[[assistant]]
name = "support"
model = "claude"
system = "Answer from the documents."
"""


@define
class Claude:
    """A provider of Anthropic's dialect: answers with what it is told to, and remembers how it was asked.

    Attributes:
        rest: Of the answer, sent once ``heard`` is set.
    """

    answer: bytes = b""
    rest: bytes = b""
    heard: trio.Event = field(factory=trio.Event)
    status: int = 200
    heads: list[bytes] = field(factory=list)
    bodies: list[dict[str, Any]] = field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some(65_536)
            if not data:
                return
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += await stream.receive_some(65_536)
        self.heads.append(head)
        self.bodies.append(json.loads(body))
        kind = b"application/json" if self.answer.startswith(b"{") else b"text/event-stream"
        reply = b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(reply % (self.status, kind, len(self.answer + self.rest)) + self.answer)
        if self.rest:
            await self.heard.wait()
            await stream.send_all(self.rest)
        await stream.aclose()


@asynccontextmanager
async def client_of(stage: Stage, **options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=stage.url, max_retries=0, **options) as client:
        yield client


@asynccontextmanager
async def talking(**options: Any) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Stage]]:
    async with staged(**options) as stage, client_of(stage) as client:
        yield client, stage


@asynccontextmanager
async def talking_to_claude() -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Stage, Claude]]:
    claude = Claude()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, claude.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with talking(more=CLAUDE.format(port=port)) as (client, stage):
            yield client, stage, claude
        nursery.cancel_scope.cancel()


def golden(name: str) -> bytes:
    return (GOLDEN / f"anthropic_{name}.sse").read_bytes()


async def test_it_gets_a_whole_answer_from_a_provider_of_another_dialect() -> None:
    async with talking() as (client, stage):
        message = await client.messages.create(**ASKED)
        [block] = message.content
        assert block.type == "text"
        assert "How do I descale the machine?" in block.text
        assert (message.model, message.role, message.stop_reason) == ("sim", "assistant", "end_turn")
        assert message.usage.output_tokens == 20
        assert message.usage.input_tokens > 0
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_it_reads_a_stream_from_a_provider_of_another_dialect() -> None:
    async with talking() as (client, stage):
        async with client.messages.stream(**ASKED) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()
        assert text.startswith("You asked: “How do I descale the machine?”")
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 20
        assert message.usage.input_tokens is not None
        assert message.usage.input_tokens > 0
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_it_calls_tools_and_hands_their_results_back() -> None:
    async with talking() as (client, _):
        messages: Any = [{"role": "user", "content": "Use the tool."}]
        async with client.messages.stream(model="chat", max_tokens=100, messages=messages, tools=[WEATHER]) as stream:
            message = await stream.get_final_message()
        call = message.content[-1]
        assert call.type == "tool_use"
        assert (call.name, call.input, message.stop_reason) == ("weather", {"place": "Use the tool."}, "tool_use")
        messages += [
            message.to_param(),
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "17 degrees"}]},
        ]
        final = await client.messages.create(model="chat", max_tokens=100, messages=messages, tools=[WEATHER])
        assert final.content[0].type == "text"
        assert "17 degrees" in final.content[0].text


async def test_it_counts_tokens_by_an_estimate_where_nobody_can_be_asked() -> None:
    async with talking() as (client, _):
        count = await client.messages.count_tokens(model="chat", messages=QUESTION, tools=[WEATHER], system="Be kind.")
        assert 20 < count.input_tokens < 100
        assert count.model_dump()["estimated"] is True


async def test_errors_are_its_own() -> None:
    async with talking() as (client, _):
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.messages.create(**{**ASKED, "model": "nobody"})
        assert missing.value.type == "not_found_error"
        with pytest.raises(anthropic.BadRequestError) as wrong:
            await client.messages.create(**ASKED, extra_body={"temperature": "hot"})
        assert "temperature" in str(wrong.value)
        with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
            await client.messages.create(**ASKED, extra_headers={"anthropic-version": "2023-01-01"})
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="sk-wrong").messages.create(**ASKED)


async def test_what_others_cannot_do_is_told_in_a_header() -> None:
    async with talking() as (client, _):
        raw = await client.messages.with_raw_response.create(
            **ASKED, extra_body={"speed": "fast"}, extra_headers={"anthropic-beta": "fast-mode-2026-02-01"}
        )
        dropped = raw.headers["x-sluice-dropped"]
        assert "speed" in dropped
        assert "anthropic-beta: fast-mode-2026-02-01" in dropped


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "redacted", "cache", "refusal", "max_tokens"])
async def test_a_provider_of_its_own_dialect_answers_in_its_own_bytes(name: str) -> None:
    async with talking_to_claude() as (client, stage, claude):
        claude.answer = golden(name)
        async with client.messages.with_streaming_response.create(
            **{**ASKED, "model": "claude"}, stream=True, extra_headers={"anthropic-beta": "b1,b2"}
        ) as response:
            assert await response.read() == claude.answer
        [head], [body] = claude.heads, claude.bodies
        assert body == {**ASKED, "model": "claude-opus-5", "stream": True}
        assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
        assert b"\r\nx-api-key: sk-ant-0123456789\r\n" in head
        assert head.lower().count(b"anthropic-version:") == 1
        assert f"\r\nanthropic-version: {anthropic._constants.ANTHROPIC_API_VERSION}\r\n".encode() in head
        assert b"\r\nanthropic-beta: b1,b2" in head
        assert KEY.encode() not in head
        await stage.settle()
        [record] = stage.records
        assert record.usage is not None
        assert (record.usage.estimated, record.dropped) == (False, ())
        assert record.usage.completion_tokens > 0


async def test_an_openai_client_reads_what_claude_says() -> None:
    async with talking_to_claude() as (client, _, claude):
        claude.answer = golden("tools")
        asked = {"model": "claude", "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"authorization": f"Bearer {KEY}"}
        response = await client._client.post("/v1/chat/completions", json=asked, headers=headers)
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
        assert "".join(delta.get("content") or "" for delta in deltas) == "I look that up."
        assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["get_weather", "get_time"]
        assert chunks[-1]["usage"]["completion_tokens"] == 89
        [body] = claude.bodies
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]


async def test_an_assistants_instructions_reach_claude_before_the_clients() -> None:
    async with talking_to_claude() as (client, _, claude):
        claude.answer = golden("text")
        async with client.messages.stream(**{**ASKED, "model": "support"}, system="Be brief.") as stream:
            await stream.until_done()
        [body] = claude.bodies
        assert [block["text"] for block in body["system"]] == ["Answer from the documents.", "Be brief."]


async def test_an_error_in_the_stream_is_an_error_of_the_client() -> None:
    async with talking_to_claude() as (client, stage, claude):
        before, mark, after = golden("error").partition(b"event: error")
        claude.answer, claude.rest = before, mark + after
        async with client.messages.stream(**{**ASKED, "model": "claude"}) as stream:
            assert await anext(stream.text_stream) == "Once upon"
            claude.heard.set()
            with pytest.raises(anthropic.APIStatusError) as caught:
                await stream.until_done()
        assert caught.value.type == "api_error"
        assert "Overloaded" not in str(caught.value)
        await stage.settle()
        [record] = stage.records
        assert record.outcome is not None
        assert record.outcome.value == "broken"


async def test_a_refusal_of_its_own_provider_passes_with_its_reason() -> None:
    async with talking_to_claude() as (client, _, claude):
        error = {"type": "invalid_request_error", "message": "max_tokens: 1000000 > 64000"}
        claude.status, claude.answer = 400, json.dumps({"type": "error", "error": error}).encode()
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: 1000000 > 64000"):
            await client.messages.create(**{**ASKED, "model": "claude"})


async def test_tokens_are_counted_by_the_provider_where_it_can() -> None:
    async with talking_to_claude() as (client, _, claude):
        claude.answer = b'{"input_tokens": 14}'
        count = await client.messages.count_tokens(model="claude", messages=QUESTION)
        assert count.input_tokens == 14
        assert claude.heads[0].startswith(b"POST /v1/messages/count_tokens HTTP/1.1\r\n")
        assert claude.bodies == [{"model": "claude-opus-5", "messages": QUESTION}]
