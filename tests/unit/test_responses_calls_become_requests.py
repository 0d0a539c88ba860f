"""A call becomes a request for a provider of OpenAI's Responses; what it has no counterpart for is refused or named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from gateway.core.errors import RequestError
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.provider import Quirks
from gateway.dialects.responses_provider import ResponsesProvider

HELLO = Message(role="user", parts=(Text(text="Hello"),))
PLAIN = Call(model="asked-for", messages=(HELLO,), dialect="openai")


def sent(call: Call = PLAIN, *, quirks: Quirks | None = None, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    encoded = ResponsesProvider(quirks=quirks or Quirks()).encode(evolve(call, **fields), "theirs")
    document = json.loads(encoded.body)
    assert isinstance(document, dict)
    return document, encoded.dropped


def items(*messages: Message) -> list[dict[str, Any]]:
    document, dropped = sent(messages=messages)
    assert dropped == ()
    found = document["input"]
    assert isinstance(found, list)
    return found


def answered(*parts: Any) -> Message:
    return Message(role="assistant", parts=parts)


def test_a_plain_question_is_not_stored_by_the_provider() -> None:
    document, dropped = sent(system=(Text(text="a"), Text(text="b")))
    assert document == {
        "model": "theirs",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        "instructions": "a\n\nb",
        "store": False,
    }
    assert dropped == ()


def test_a_turn_of_the_assistant_is_items_in_its_order() -> None:
    found = items(
        HELLO,
        answered(
            Reasoning(text="hm", id="rs_1"),
            Reasoning(redacted="gAAAA1", id="rs_1"),
            Text(text="Looking."),
            ToolCall(id="c1", name="weather", arguments="{}"),
            ToolCall(id="c2", name="clock", arguments=""),
        ),
        Message(role="user", parts=(ToolResult(id="c1", content=(Text(text="sun"), Text(text="wind"))),)),
        answered(Text(text="Well."), Refusal(text="No.")),
    )
    summary = [{"type": "summary_text", "text": "hm"}]
    assert found[1:] == [
        {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAAAA1"},
        {"type": "message", "role": "assistant", "content": "Looking."},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "clock", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun\nwind"},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "Well.", "annotations": []},
                {"type": "refusal", "refusal": "No."},
            ],
        },
    ]


def test_thoughts_that_openai_did_not_make_are_dropped_and_named() -> None:
    others = [Reasoning(text="hm", signature="proof"), Reasoning(redacted="EvwB"), Reasoning(text="plain")]
    document, dropped = sent(messages=(HELLO, answered(*others, Text(text="4"))))
    assert document["input"][1:] == [{"type": "message", "role": "assistant", "content": "4"}]
    assert dropped == ("messages[1].reasoning",)
    without_id = answered(Reasoning(redacted="gAAAA1"), Text(text="4"))
    assert items(HELLO, without_id)[1] == {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA1"}


def test_media_are_parts_of_a_message_and_of_a_result() -> None:
    picture = Media(kind="image", mime="image/png", data="AAAA")
    parts = (
        picture,
        Media(kind="image", url="https://x.example/a.png", detail="low"),
        Media(kind="image", file_id="file_1"),
        Media(kind="file", mime="text/csv", data="BBBB"),
        Media(kind="file", url="https://x.example/b.pdf"),
        Media(kind="file", file_id="file_2"),
        ToolResult(id="c", content=(Text(text="see"), picture)),
    )
    result, message = items(Message(role="user", parts=parts))
    shown = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
    assert message["content"] == [
        shown,
        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
        {"type": "input_image", "file_id": "file_1", "detail": "auto"},
        {"type": "input_file", "filename": "file.csv", "file_data": "data:text/csv;base64,BBBB"},
        {"type": "input_file", "file_url": "https://x.example/b.pdf"},
        {"type": "input_file", "file_id": "file_2"},
    ]
    assert result["output"] == [{"type": "input_text", "text": "see"}, shown]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"prefill": True}, "messages"),
        ({"messages": (Message(role="user", parts=(Media(kind="audio", data="A"),)),)}, "messages"),
        ({"messages": (Message(role="user", parts=(ToolCall(id="c", name="n", arguments="{}"),)),)}, "messages"),
        ({"messages": (Message(role="user", parts=(Media(kind="video", url="x"),)),), "dialect": "gemini"}, "contents"),
    ],
)
def test_what_must_not_be_lost_is_refused_by_the_clients_name_of_it(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        sent(**fields)
    assert (caught.value.http_status, caught.value.code) == (400, "unsupported_by_provider")
    assert caught.value.param == param


def test_settings_have_their_places() -> None:
    tool = Tool(name="clock", description="d", schema={"type": "object"})
    document, dropped = sent(
        stream=True,
        max_tokens=50,
        temperature=0.0,
        top_p=0.9,
        user="u",
        service_tier="flex",
        logprobs=True,
        top_logprobs=0,
        tools=(tool, Tool(name="bare", strict=True)),
        tool_choice=ToolChoice(mode="named", name="clock"),
        parallel_tools=False,
        format=Format(kind="schema", name="s", schema={"type": "object"}, strict=True),
        thinking=Thinking(effort="high", show=True),
        extra={"verbosity": "low", "metadata": {"a": "b"}, "store": True},
    )
    assert dropped == ()
    empty = {"type": "object", "properties": {}}
    assert {name: value for name, value in document.items() if name not in ("model", "input")} == {
        "stream": True,
        "store": True,
        "max_output_tokens": 50,
        "temperature": 0.0,
        "top_p": 0.9,
        "user": "u",
        "service_tier": "flex",
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "top_logprobs": 0,
        "tools": [
            {
                "type": "function",
                "name": "clock",
                "parameters": {"type": "object"},
                "strict": False,
                "description": "d",
            },
            {"type": "function", "name": "bare", "parameters": empty, "strict": True},
        ],
        "tool_choice": {"type": "function", "name": "clock"},
        "parallel_tool_calls": False,
        "text": {
            "format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True},
            "verbosity": "low",
        },
        "reasoning": {"effort": "high", "summary": "auto"},
        "metadata": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("thinking", "dialect", "reasoning", "dropped"),
    [
        (Thinking(off=True), "openai", {"effort": "none"}, ()),
        (Thinking(off=True), "anthropic", None, ("thinking",)),
        (Thinking(budget_tokens=1_024), "anthropic", {"effort": "low"}, ()),
        (Thinking(budget_tokens=8_192), "anthropic", {"effort": "medium"}, ()),
        (Thinking(budget_tokens=8_193), "anthropic", {"effort": "high"}, ()),
        (Thinking(budget_tokens=-1), "anthropic", None, ()),
        (Thinking(show=True), "openai-responses", {"summary": "auto"}, ()),
    ],
)
def test_thinking_is_an_effort(thinking: Thinking, dialect: str, reasoning: Any, dropped: tuple[str, ...]) -> None:
    document, left_out = sent(thinking=thinking, dialect=dialect)
    assert (document.get("reasoning"), left_out) == (reasoning, dropped)
    assert ("include" in document) == (not thinking.off)


def test_what_is_dropped_is_named_as_the_client_names_it() -> None:
    marked = Message(role="user", name="ann", parts=(Text(text="x", cached="5m"), ToolResult(id="c", is_error=True)))
    _, dropped = sent(
        messages=(marked,),
        stop=("x",),
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        top_k=3,
        extra={"logit_bias": {}},
    )
    assert set(dropped) == {
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "top_k",
        "logit_bias",
        "name",
        "cache_control",
        "is_error",
    }
    assert sent(stop=("x",), dialect="anthropic")[1] == ("stop_sequences",)


def test_what_the_provider_is_known_to_refuse_is_left_out() -> None:
    document, dropped = sent(quirks=Quirks(drops=("store", "temperature")), temperature=1.0)
    assert ("store" in document, "temperature" in document) == (False, False)
    assert dropped == ("temperature",)
    assert sent(quirks=Quirks(drops=("store",)), extra={"store": True})[1] == ("store",)
