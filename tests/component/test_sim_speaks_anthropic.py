"""The simulated provider speaks Anthropic's wire: seen through Anthropic's own client, and event by event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import orjson
import pytest
import trio

from gateway.sim import Simulator

QUESTION: Any = [{"role": "user", "content": "How do I descale the machine?"}]
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}}}
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
async def url(nursery: trio.Nursery, simulator: Simulator) -> str:
    host, port = await nursery.start(simulator.serve)
    return f"http://{host}:{port}"


@pytest.fixture
async def client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="sk-test", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
async def plain(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, headers=VERSION) as plain:
        yield plain


async def events(plain: httpx.AsyncClient, model: str, **fields: Any) -> list[tuple[str, Any]]:
    """Names and documents of the events; None for a document that cannot be read."""
    body = {"model": model, "max_tokens": 4000, "messages": QUESTION, "stream": True, **fields}
    answer = await plain.post("/v1/messages", json=body)
    assert answer.status_code == 200
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, _, data = block.partition("\ndata: ")
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = None
        found.append((name.removeprefix("event: "), document))
    return found


async def test_a_message_is_read_by_anthropics_client(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model="sim-tokens=4", max_tokens=100, messages=QUESTION)
    assert isinstance(message.content[0], anthropic.types.TextBlock)
    assert message.content[0].text == "You asked: “How do"
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 8, 4)


async def test_a_stream_is_put_together_by_anthropics_client(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="sim-tokens=6", max_tokens=4000, messages=QUESTION, thinking=THINKING) as s:
        text = [piece async for piece in s.text_stream]
        message = await s.get_final_message()
    assert text == ["You", " asked:", " “How", " do", " I", " descale"]
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 12 + 6)


async def test_thoughts_come_back_only_with_their_signature(client: anthropic.AsyncAnthropic) -> None:
    wanted: Any = {"model": "sim", "max_tokens": 4000, "thinking": THINKING, "tools": [WEATHER]}
    ask: Any = {"role": "user", "content": "weather"}
    message = await client.messages.create(messages=[ask], **wanted)
    thought, call = message.model_dump(exclude_none=True)["content"]
    assert (thought["type"], call["type"], call["input"]) == ("thinking", "tool_use", {"place": "weather"})
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "17 degrees"}]}
    turns: Any = [ask, {"role": "assistant", "content": [thought, call]}, result]
    answer = await client.messages.create(messages=turns, **wanted)
    assert "The tool weather returned: 17 degrees" in answer.content[-1].text  # type: ignore[union-attr]
    thought["signature"] = "forged"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await client.messages.create(messages=turns, **wanted)


async def test_streamed_tool_calls_are_put_together(client: anthropic.AsyncAnthropic) -> None:
    tools: Any = [WEATHER, {"name": "clock", "input_schema": {"type": "object"}}]
    asked: Any = [{"role": "user", "content": "weather and clock"}]
    async with client.messages.stream(model="sim", max_tokens=100, messages=asked, tools=tools) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [(call.name, call.input) for call in message.content] == [  # type: ignore[union-attr]
        ("weather", {"place": "weather and clock"}),
        ("clock", {}),
    ]


async def test_events_come_in_the_documented_order(plain: httpx.AsyncClient) -> None:
    names = [name for name, _ in await events(plain, "sim-tokens=2-thinking=1")]
    block = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"]
    assert names == ["message_start", *block, *block, "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("limits", "reason", "sequence"),
    [
        ({"max_tokens": 3}, "max_tokens", None),
        ({"stop_sequences": ["zzz", "descale"]}, "stop_sequence", "descale"),
        ({"model": "sim-filter=2"}, "refusal", None),
    ],
)
async def test_an_answer_says_why_it_ended(
    client: anthropic.AsyncAnthropic, limits: Any, reason: str, sequence: str | None
) -> None:
    wanted: Any = {"model": "sim", "max_tokens": 100, "messages": QUESTION, **limits}
    message = await client.messages.create(**wanted)
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


async def test_tokens_are_counted_and_models_listed(client: anthropic.AsyncAnthropic) -> None:
    assert (await client.messages.count_tokens(model="sim", messages=QUESTION)).input_tokens == 8
    assert [model.id async for model in client.models.list()] == ["sim"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
async def test_a_status_is_the_clients_error(client: anthropic.AsyncAnthropic, status: int, error: type) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(model=f"sim-status={status}", max_tokens=9, messages=QUESTION)
    assert isinstance(caught.value, error)
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: "),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "x "}]}, "messages: final assistant content"),
        (
            {"messages": [*QUESTION, {"role": "assistant", "content": "x"}], "thinking": THINKING},
            "messages.1.content.0",
        ),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema: Field required"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name: "),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type: "),
        ({"system": 5}, "system: "),
    ],
)
async def test_faulty_requests_get_anthropics_error_shape(
    plain: httpx.AsyncClient, simulator: Simulator, change: dict[str, Any], message: str
) -> None:
    body = {"model": "sim", "max_tokens": 100, "messages": QUESTION, **change}
    answer = await plain.post("/v1/messages", json=body)
    document = answer.json()
    assert (answer.status_code, document["type"], document["error"]["type"]) == (400, "error", "invalid_request_error")
    assert document["error"]["message"].startswith(message)
    assert document["request_id"] == answer.headers["request-id"]
    assert simulator.statistics().refused_for == {"invalid": 1}


async def test_the_version_header_is_required(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as bare:
        answer = await bare.post("/v1/messages", json={"model": "sim", "max_tokens": 1, "messages": QUESTION})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "anthropic-version: header is required")


async def test_faults_of_the_stream_are_in_anthropics_words(plain: httpx.AsyncClient) -> None:
    broken = await events(plain, "sim-tokens=5-error=2")
    assert broken[-1][0] == "error"
    assert broken[-1][1]["error"]["type"] == "api_error"
    assert [name for name, _ in await events(plain, "sim-error_first")] == ["error"]
    assert [name for name, _ in await events(plain, "sim-end=0")] == ["message_start", "content_block_start"]
    names = [name for name, _ in await events(plain, "sim-tokens=1-double_finish")]
    assert names[-4:] == ["message_delta", "message_delta", "message_stop", "message_stop"]
    assert (await events(plain, "sim-tokens=1-nodone"))[-1][0] == "message_delta"
    malformed = await events(plain, "sim-tokens=3-malformed=2")
    assert [name for name, document in malformed if document is None] == ["content_block_delta"]
    quiet = await events(plain, "sim-tokens=1-nousage")
    assert not any("usage" in document or "usage" in document.get("message", {}) for _, document in quiet)
