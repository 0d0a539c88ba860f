"""Anthropic's requests: checked, passed on as their own bytes, and read into a call that loses nothing in silence."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from attrs import evolve

from gateway.core.errors import RequestError
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_request import AnthropicRequest, parse_request
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.provider import Quirks
from gateway.dialects.voice import Request

ASKED: dict[str, Any] = {"model": "chat", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
PNG = "iVBORw0KGgoAAAANSUhEUg=="


def parsed(**more: Any) -> AnthropicRequest:
    return parse_request(json.dumps({**ASKED, **more}).encode())


def call_of(**more: Any) -> Call:
    request: Request = parsed(**more)
    return request.call()


def parts_of(*content: dict[str, Any], role: str = "user") -> tuple[Any, ...]:
    return call_of(messages=[{"role": role, "content": list(content)}]).messages[0].parts


def test_what_the_gateway_needs_is_read() -> None:
    request = parsed(stream=True, metadata={"user_id": "u1"})
    assert (request.model, request.stream, request.user, request.last_user_text) == ("chat", True, "u1", "Hi")


def test_the_last_words_of_the_user_are_found_behind_a_tool_result() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": "warm?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "17"}]},
    ]
    assert parsed(messages=turns).last_user_text == "How\nwarm?"


def test_only_the_model_is_renamed_and_all_other_bytes_stay() -> None:
    body = b'{"model": "chat", "max_tokens":1e2, "messages" : [ {"role":"user","content":"\\u00e9"} ], "new": 1.50}'
    body = body.replace(b"1e2", b"100")
    sent = parse_request(body).encode_as_is("claude-opus-5", Quirks())
    fields = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
    assert {name: bytes(raw) for name, raw in fields.items()} == {
        "model": b'"claude-opus-5"',
        "max_tokens": b"100",
        "messages": b'[ {"role":"user","content":"\\u00e9"} ]',
        "new": b"1.50",
    }


def test_what_a_provider_refuses_is_left_out() -> None:
    sent = json.loads(parsed(temperature=1).encode_as_is("m", Quirks(drops=("temperature",))))
    assert "temperature" not in sent


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({**ASKED, "model": 3}, "model"),
        ({"model": "m", "messages": ASKED["messages"]}, "max_tokens"),
        ({**ASKED, "max_tokens": -1}, "max_tokens"),
        ({**ASKED, "messages": []}, "messages"),
        ({**ASKED, "messages": [{"role": "user"}]}, "messages[0].content"),
        ({**ASKED, "stream": "yes"}, "stream"),
        ({**ASKED, "metadata": {"user_id": 7}}, "metadata.user_id"),
    ],
)
def test_a_wrong_field_is_named(document: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(json.dumps(document).encode())
    assert (caught.value.http_status, caught.value.code, caught.value.param) == (400, "invalid_request", param)


@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "\xff"}', b'{"x":' + b"[" * 100_000])
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(body)
    assert caught.value.code == "invalid_json"


def test_instructions_of_the_gateway_go_before_the_clients_own() -> None:
    ours = {"role": "system", "content": "Ours."}
    request = parsed(system="Theirs.")
    sent = json.loads(request.with_messages([ours, *request.messages()]).encode_as_is("m", Quirks()))
    assert sent["system"] == [{"type": "text", "text": "Ours."}, {"type": "text", "text": "Theirs."}]
    assert sent["messages"] == ASKED["messages"]


def test_instructions_in_blocks_keep_their_marks() -> None:
    theirs = [{"type": "text", "text": "Theirs.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    request = parsed(system=theirs)
    sent = json.loads(
        request.with_messages([{"role": "system", "content": "Ours."}, *request.messages()]).encode_as_is("m", Quirks())
    )
    assert sent["system"] == [{"type": "text", "text": "Ours."}, *theirs]


def test_messages_that_come_back_unchanged_change_nothing_but_white_space() -> None:
    request = parsed(
        messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "system", "content": "y"}]
    )
    sent = json.loads(request.with_messages(request.messages()).encode_as_is("chat", Quirks()))
    assert sent == json.loads(request.encode_as_is("chat", Quirks()))


def test_sampling_and_limits_are_read() -> None:
    call = call_of(
        system="S",
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "u"},
        service_tier="standard_only",
    )
    assert call == Call(
        model="chat",
        messages=(Message(role="user", parts=(Text(text="Hi"),)),),
        system=(Text(text="S"),),
        stream=True,
        include_usage=True,
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=("END",),
        user="u",
        service_tier="default",
        dialect="anthropic",
    )


def test_media_are_read_from_each_of_their_sources() -> None:
    assert parts_of(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}, "cache_control": {"type": "ephemeral"}},
        {
            "type": "document",
            "title": "T",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        },
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "title": "Terms", "source": {"type": "text", "media_type": "text/plain", "data": "§ 1"}},
        {"type": "document", "context": "C", "source": {"type": "content", "content": [{"type": "text", "text": "t"}]}},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "found"}]},
    ) == (
        Media(kind="image", mime="image/png", data=PNG),
        Media(kind="image", url="https://example.com/a.png"),
        Media(kind="image", file_id="file_1", cached="5m"),
        Media(kind="file", mime="application/pdf", data="JVBERi0=", name="T"),
        Media(kind="file", url="https://example.com/a.pdf"),
        Text(text="Terms"),
        Text(text="§ 1"),
        Text(text="C"),
        Text(text="t"),
        Text(text="t\ns\nfound"),
    )


def test_tools_their_calls_and_results_are_read() -> None:
    call = call_of(
        tools=[
            {"name": "look", "description": "d", "input_schema": {"type": "object"}, "strict": True},
            {
                "type": "custom",
                "name": "wait",
                "input_schema": {"type": "object"},
                "cache_control": {"type": "ephemeral"},
            },
        ],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        messages=[
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "r"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1.50}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "gone", "is_error": True},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "17"}]},
                ],
            },
        ],
    )
    assert call.tools == (
        Tool(name="look", description="d", schema={"type": "object"}, strict=True),
        Tool(name="wait", schema={"type": "object"}, cached="5m"),
    )
    assert (call.tool_choice, call.parallel_tools) == (ToolChoice(mode="named", name="look"), False)
    assert call.messages == (
        Message(
            role="assistant",
            parts=(
                Reasoning(text="hm", signature="s"),
                Reasoning(redacted="r"),
                Text(text="I look."),
                ToolCall(id="t1", name="look", arguments='{"at":1.5}'),
            ),
        ),
        Message(
            role="user",
            parts=(
                ToolResult(id="t1", name="look", content=(Text(text="gone"),), is_error=True),
                ToolResult(id="t2", content=(Text(text="17"),)),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Thinking(budget_tokens=2048)),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, Thinking(budget_tokens=-1, show=True)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, Thinking(effort="max")),
        ({"output_config": {"effort": "low"}}, Thinking(effort="low")),
        ({"thinking": {"type": "disabled"}}, Thinking(off=True)),
        ({"thinking": {"type": "between_tools"}}, Thinking(off=True)),
        ({}, None),
    ],
)
def test_thinking_is_read(fields: dict[str, Any], thinking: Thinking | None) -> None:
    assert call_of(**fields).thinking == thinking


def test_a_schema_is_a_strict_format() -> None:
    call = call_of(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})
    assert call.format == Format(kind="schema", name="answer", schema={"type": "object"}, strict=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
        ({"container": "c1"}, "container"),
        (
            {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_only_anthropic_can_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        call_of(**fields)
    assert (caught.value.http_status, caught.value.code, caught.value.param) == (400, "unsupported_by_provider", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ],
)
def test_a_shape_that_cannot_be_translated_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        call_of(**fields)
    assert (caught.value.http_status, caught.value.param) == (400, param)


def test_what_has_no_counterpart_is_kept_by_its_name() -> None:
    call = call_of(
        speed="fast",
        inference_geo=None,
        tools=[{"name": "look", "input_schema": {"type": "object"}, "defer_loading": True}],
        messages=[
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                        "citations": {"enabled": True},
                    }
                ],
            }
        ],
    )
    assert call.extra == {
        "speed": "fast",
        "tools[0].defer_loading": True,
        "messages[0].content[0].citations": {"enabled": True},
    }


def test_a_request_is_the_same_after_it_was_a_call() -> None:
    document = {
        "model": "claude-opus-4-6",
        "max_tokens": 4096,
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "r"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "17"}],
                        "is_error": True,
                    }
                ],
            },
        ],
        "tools": [{"name": "look", "description": "d", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {
            "format": {
                "type": "json_schema",
                "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
            },
            "effort": "high",
        },
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "stream": True,
        "speed": "fast",
    }
    call = parse_request(json.dumps(document).encode()).call()
    encoded = Anthropic().encode(call, "claude-opus-4-6")
    assert encoded.dropped == ()
    assert json.loads(encoded.body) == document
    assert json.loads(Anthropic().encode(evolve(call, extra={}), "claude-opus-4-6").body).keys() == document.keys() - {
        "speed"
    }


def test_marks_for_the_cache_keep_their_place_and_their_time() -> None:
    hour = {"type": "ephemeral", "ttl": "1h"}
    document = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q", "cache_control": hour}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t", "name": "look", "input": {}, "cache_control": {"type": "ephemeral"}}
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "cache_control": hour}]},
        ],
    }
    call = parse_request(json.dumps(document).encode()).call()
    assert json.loads(Anthropic().encode(call, "m").body) == document


@pytest.mark.parametrize(
    ("role", "block"),
    [
        ("user", {"type": "thinking", "thinking": "hm", "signature": "s"}),
        ("user", {"type": "tool_use", "id": "t", "name": "look", "input": {}}),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}),
    ],
)
def test_a_block_in_the_wrong_turn_is_refused_and_not_lost(role: str, block: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        call_of(messages=[{"role": role, "content": [block]}])
    assert (caught.value.http_status, caught.value.param) == (400, "messages[0].content[0]")
