"""Promise: a conversation of any provider goes on at one that refuses fields and ids that it does not know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config import load, quirks_of
from gateway.dialects import anthropic_request
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.openai_chat import ChatVoice
from gateway.dialects.provider import Quirks

FOREIGN = "toolu_01VpEm654HvfMoRcrE3Hgdc6"
THOUGHT: list[dict[str, Any]] = [
    {"role": "user", "content": "Look.", "name": "anna"},
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "reasoning_content": "Hm.",
        "tool_calls": [
            {
                "id": FOREIGN,
                "type": "function",
                "function": {"name": "look", "arguments": "{}"},
            },
            {"id": "abcDEF123", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": FOREIGN, "content": "so"},
    {"role": "tool", "tool_call_id": "abcDEF123", "content": "so"},
]


def quirks(preset: str) -> Quirks:
    return Quirks(
        **quirks_of(load(None, environ={}, text=f'[[provider]]\nname = "p"\npreset = "{preset}"').provider[0])
    )


def passed(preset: str, **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a chat client's request becomes, which passes as bytes."""
    voice = ChatVoice()
    request = voice.parse(json.dumps({"model": "m", "messages": THOUGHT, **more}).encode())
    asking = voice.prepare(request, OpenAIChat(quirks=quirks(preset)), "m", keep=False)
    body = json.loads(asking.body)
    assert isinstance(body, dict)
    return body, asking.dropped


def test_mistral_gets_no_field_that_it_refuses_and_ids_of_nine_characters() -> None:
    body, dropped = passed("mistral", seed=7, stream=True, stream_options={"include_usage": True}, user="u")
    asked, called, first, second = body["messages"]
    assert asked == {"role": "user", "content": "Look."}
    assert set(called) == {"role", "content", "tool_calls"}
    ids = [call["id"] for call in called["tool_calls"]]
    assert [len(id) for id in ids] == [9, 9]
    assert "".join(ids).isalnum()
    assert ids == [first["tool_call_id"], second["tool_call_id"]]
    assert ids[1] == "abcDEF123"
    assert set(body) == {"model", "messages", "stream", "random_seed"}
    assert body["random_seed"] == 7
    assert dropped == ("user", "messages[0].name", "messages[1].reasoning_content")


@pytest.mark.parametrize("preset", ["groq", "cerebras"])
def test_thoughts_of_others_are_left_out_and_named(preset: str) -> None:
    body, dropped = passed(preset, seed=7)
    assert "reasoning_content" not in body["messages"][1]
    assert body["messages"][1]["tool_calls"] == THOUGHT[1]["tool_calls"]
    assert body["seed"] == 7
    assert "messages[1].reasoning_content" in dropped
    assert ("name" in body["messages"][0]) == (preset == "cerebras")


def test_nothing_changes_for_a_provider_without_such_quirks() -> None:
    body, dropped = passed("openai", seed=7)
    assert (body, dropped) == ({"model": "m", "messages": THOUGHT, "seed": 7}, ())


def test_what_the_client_asked_of_the_stream_goes_nowhere_it_is_refused() -> None:
    body, _ = passed("cohere", stream=True, stream_options={"include_usage": True})
    assert "stream_options" not in body


def test_clients_of_other_dialects_reach_mistral_in_the_middle_of_their_tools() -> None:
    turns = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": FOREIGN, "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": FOREIGN, "content": "so"}]},
    ]
    document = json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode()
    call = anthropic_request.parse_request(document).call()
    _, called, result = json.loads(OpenAIChat(quirks=quirks("mistral")).encode(call, "m").body)["messages"]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9


def test_openrouter_gets_the_marks_for_the_cache_of_texts_and_results() -> None:
    hour = {"type": "ephemeral", "ttl": "1h"}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Look.", "cache_control": hour}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": FOREIGN, "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": FOREIGN, "content": "so", "cache_control": hour}],
        },
    ]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    document = json.dumps({"model": "m", "max_tokens": 9, "system": system, "messages": turns}).encode()
    call = anthropic_request.parse_request(document).call()
    made = OpenAIChat(quirks=quirks("openrouter")).encode(call, "m")
    told, asked, _, result = json.loads(made.body)["messages"]
    five = {"type": "ephemeral", "ttl": "5m"}
    assert told["content"] == [{"type": "text", "text": "Be brief.", "cache_control": five}]
    assert asked["content"] == [{"type": "text", "text": "Look.", "cache_control": hour}]
    assert result["content"] == [{"type": "text", "text": "so", "cache_control": hour}]
    assert made.dropped == ()
    plain = OpenAIChat(quirks=quirks("openai")).encode(call, "m")
    assert "cache_control" not in plain.body.decode()
    assert plain.dropped == ("cache_control",)


@pytest.mark.parametrize(
    ("preset", "said", "lost"),
    [
        ("deepseek", {"thinking": {"type": "disabled"}}, ()),
        ("cohere", {"reasoning_effort": "none"}, ()),
        ("openai", {}, ("thinking",)),
    ],
)
def test_a_client_that_forbids_thinking_is_understood(preset: str, said: dict[str, Any], lost: tuple[str, ...]) -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "thinking": {"type": "disabled"}}
    asked["messages"] = [{"role": "user", "content": "Hi"}]
    call = anthropic_request.parse_request(json.dumps(asked).encode()).call()
    made = OpenAIChat(quirks=quirks(preset)).encode(call, "m")
    body = json.loads(made.body)
    assert {name: body[name] for name in ("thinking", "reasoning_effort") if name in body} == said
    assert made.dropped == lost
