"""What a client of OpenAI's Responses says becomes a call; what has no counterpart is refused or named, never lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

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
from gateway.dialects.responses_encode import encode_responses
from gateway.dialects.responses_request import ResponsesRequest, parse_request


def parsed(input: Any = "Hello", **fields: Any) -> ResponsesRequest:
    return parse_request(json.dumps({"model": "m", "input": input, **fields}).encode())


def call_of(input: Any = "Hello", **fields: Any) -> Call:
    return parsed(input, **fields).call()


def refused(*args: Any, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call_of(*args, **fields)
    return caught.value


def user(*parts: Any) -> Message:
    return Message(role="user", parts=parts)


def test_a_text_is_a_users_message_and_instructions_come_first() -> None:
    call = call_of("Hello", instructions="Be brief.")
    assert (call.system, call.messages) == ((Text(text="Be brief."),), (user(Text(text="Hello")),))
    assert (call.model, call.dialect, call.include_usage, call.stream) == ("m", "openai-responses", True, False)


def test_items_become_turns_each_with_all_that_belongs_to_it() -> None:
    call = call_of(
        [
            {"role": "developer", "content": "Rules."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"text": "a"}, {"text": "b"}],
                "encrypted_content": "gAAAA",
            },
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Looking.", "annotations": []},
                    {"type": "refusal", "refusal": "No."},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "clock", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
            {"role": "user", "content": "Thanks"},
            {"role": "system", "content": "Later rules."},
        ]
    )
    assert call.system == (Text(text="Rules."),)
    assert call.messages == (
        user(Text(text="Weather?")),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="a\n\nb", redacted="gAAAA", id="rs_1"),
                Text(text="Looking."),
                Refusal(text="No."),
                ToolCall(id="c1", name="weather", arguments="{}"),
                ToolCall(id="c2", name="clock", arguments="{}"),
            ),
        ),
        user(
            ToolResult(id="c1", name="weather", content=(Text(text="sunny"),)),
            ToolResult(id="c2", name="clock", content=(Text(text="noon"),)),
        ),
        user(Text(text="Thanks")),
        Message(role="system", parts=(Text(text="Later rules."),)),
    )


def test_images_files_and_sounds_are_media() -> None:
    content = [
        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_image", "file_id": "file_1", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"},
        {"type": "input_file", "file_url": "https://x.example/b.pdf"},
        {"type": "input_file", "file_id": "file_2"},
        {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "mp3"}},
        {"type": "input_text", "text": "See", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ]
    assert call_of([{"role": "user", "content": content}]).messages[0].parts == (
        Media(kind="image", url="https://x.example/a.png", detail="low"),
        Media(kind="image", mime="image/png", data="AAAA"),
        Media(kind="image", file_id="file_1"),
        Media(kind="file", mime="application/pdf", data="BBBB", name="a.pdf"),
        Media(kind="file", url="https://x.example/b.pdf"),
        Media(kind="file", file_id="file_2"),
        Media(kind="audio", mime="audio/mpeg", data="CCCC"),
        Text(text="See", cached="5m"),
    )


def test_signatures_come_back_from_under_their_marks() -> None:
    call = call_of(
        [
            {"type": "reasoning", "id": "x", "summary": [{"text": "hm"}], "encrypted_content": "sluice:s:proof"},
            {"type": "reasoning", "id": "x", "summary": [], "encrypted_content": "sluice:r:secret"},
            {"type": "reasoning", "id": "x", "summary": [], "encrypted_content": "sluice:c:call-proof"},
            {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
            {"type": "reasoning", "id": "rs_gone", "summary": []},
        ]
    )
    assert call.messages[0].parts == (
        Reasoning(text="hm", signature="proof"),
        Reasoning(redacted="secret"),
        ToolCall(id="c", name="n", arguments="{}", signature="call-proof"),
    )


def test_settings_have_the_names_of_a_call() -> None:
    schema = {"type": "object"}
    call = call_of(
        stream=True,
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        user="u",
        service_tier="flex",
        tools=[{"type": "function", "name": "clock", "description": "d", "parameters": schema, "strict": True}],
        tool_choice={"type": "function", "name": "clock"},
        text={"format": {"type": "json_schema", "name": "s", "schema": schema, "description": "what", "strict": True}},
        reasoning={"effort": "high", "summary": "auto"},
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=3,
    )
    assert (call.stream, call.max_tokens, call.temperature, call.top_p) == (True, 50, 0.5, 0.9)
    assert (call.parallel_tools, call.user, call.service_tier) == (False, "u", "flex")
    assert call.tools == (Tool(name="clock", description="d", schema=schema, strict=True),)
    assert call.tool_choice == ToolChoice(mode="named", name="clock")
    assert call.format == Format(kind="schema", name="s", schema={"description": "what", **schema}, strict=True)
    assert call.thinking == Thinking(effort="high", show=True)
    assert (call.logprobs, call.top_logprobs, call.extra) == (True, 3, {})


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (None, None),
        ({}, None),
        ({"effort": None}, None),
        ({"effort": "none"}, Thinking(effort="none", off=True)),
        ({"generate_summary": "concise"}, Thinking(show=True)),
    ],
)
def test_thinking_is_as_it_was_said(reasoning: Any, thinking: Thinking | None) -> None:
    assert call_of(reasoning=reasoning).thinking == thinking


def test_allowed_tools_are_those_that_are_passed_on() -> None:
    tools = [{"type": "function", "name": name, "parameters": {}, "strict": None} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    call = call_of(tools=tools, tool_choice=choice)
    assert ([tool.name for tool in call.tools], call.tool_choice) == (["b"], ToolChoice(mode="required"))


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_plain_forms_of_an_answer(kind: str) -> None:
    assert call_of(text={"format": {"type": kind}}).format == Format(kind="text" if kind == "text" else "json")


def test_what_others_may_not_have_is_kept_by_its_name() -> None:
    tool = {"type": "function", "name": "a", "parameters": {}, "defer_loading": True}
    call = call_of(
        metadata={"a": "b"},
        safety_identifier="s",
        max_tool_calls=3,
        tools=[tool],
        text={"verbosity": "low"},
        reasoning={"effort": "low", "context": "all_turns"},
        include=["web_search_call.action.sources"],
        top_logprobs=2,
        truncation="auto",
        stream_options={"include_obfuscation": True},
        store=True,
        background=False,
        conversation=None,
    )
    assert call.extra == {
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "max_tool_calls": 3,
        "tools[0].defer_loading": True,
        "text.verbosity": "low",
        "reasoning.context": "all_turns",
        "include": ["web_search_call.action.sources"],
        "top_logprobs": 2,
        "truncation": "auto",
        "stream_options.include_obfuscation": True,
    }
    assert call_of(truncation="disabled", stream_options={"include_obfuscation": False}).extra == {}


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type", "mcp"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "custom"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "file_search"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice.tools[0].type",
            "mcp",
        ),
        ({"input": [{"type": "web_search_call", "id": "ws"}]}, "input[0].type", "web_search_call"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type", "hologram"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "openai-responses"),
        ({"conversation": "conv_1"}, "conversation", "openai-responses"),
    ],
)
def test_what_only_this_dialects_providers_have_is_refused_by_name(
    fields: dict[str, Any], param: str, said: str
) -> None:
    error = refused(**fields)
    assert (error.code, error.http_status, error.param) == ("unsupported_by_provider", 400, param)
    assert said in error.public_message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "x", "arguments": "{}"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "detail": "low"}]}]}, "input[0].content[0]"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.code, error.http_status, error.param) == ("invalid_request", 400, param)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": ""}, "invalid_request", "model"),
        ({"model": None}, "invalid_request", "model"),
        ({"input": None}, "invalid_request", "input"),
        ({"input": 7}, "invalid_request", "input"),
        ({"stream": "yes"}, "invalid_request", "stream"),
        ({"max_output_tokens": 0}, "invalid_request", "max_output_tokens"),
        ({"background": True}, "unsupported_parameter", "background"),
        (
            {"input": [{"type": "item_reference", "id": f"msg_{n:032x}0000"} for n in range(65)]},
            "invalid_request",
            "input",
        ),
    ],
)
def test_what_no_provider_is_asked_is_refused_at_once(fields: dict[str, Any], code: str, param: str) -> None:
    body = {key: value for key, value in {"model": "m", "input": "x", **fields}.items() if value is not None}
    with pytest.raises(RequestError) as caught:
        parse_request(json.dumps(body).encode())
    assert (caught.value.code, caught.value.http_status, caught.value.param) == (code, 400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"model": "m", "input": "\xff"}', b"[" * 100_000])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(body)
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Hello", "Hello"),
        ([], ""),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
            "a\nb",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}],
            "a",
        ),
        ([{"role": "user", "content": "a"}, {"type": "function_call_output", "call_id": "c", "output": "x"}], "a"),
    ],
)
def test_what_the_user_said_last_is_what_is_looked_for(said: Any, text: str) -> None:
    assert parsed(said).last_user_text == text


def test_items_can_be_rearranged_and_stay_what_they_were() -> None:
    items = [
        {"role": "developer", "content": "Rules."},
        {"role": "user", "content": "a", "phase": None},
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_2"},
    ]
    request = parsed(items, instructions="Mine.")
    messages = request.messages()
    assert [message["role"] for message in messages] == [
        "developer",
        "user",
        "assistant",
        "user",
        "assistant",
        "assistant",
    ]
    again = request.with_messages([{"role": "system", "content": "Gateway's."}, *messages])
    document = json.loads(again.encode_as_is("other", Quirks()))
    assert document == {"model": "other", "instructions": "Gateway's.\n\nMine.", "input": items}
    more = request.with_messages([*messages[:1], {"role": "user", "content": "stored"}, *messages[1:]])
    assert json.loads(more.encode_as_is("m", Quirks()))["input"][1] == {"role": "user", "content": "stored"}


def test_the_document_passes_but_for_the_models_name_and_what_the_provider_refuses() -> None:
    request = parsed("Hi", store=False, new_field={"a": [1.50, None]}, previous_response_id="resp_theirs")
    document = request.encode_as_is("theirs", Quirks(drops=("store",)))
    assert b'"a": [1.5, null]' in document
    assert json.loads(document) == {
        "model": "theirs",
        "input": "Hi",
        "new_field": {"a": [1.5, None]},
        "previous_response_id": "resp_theirs",
    }


def test_thoughts_and_ids_of_others_do_not_pass() -> None:
    ours = "ab" * 16 + "0000"
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": f"rs_{ours}", "summary": []},
        {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "sluice:s:proof"},
        {"type": "reasoning", "id": "rs_theirs", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "message", "id": f"msg_{ours}", "role": "assistant", "status": "completed", "content": "hi"},
        {"role": "user", "content": "and?"},
    ]
    document = json.loads(parsed(items).encode_as_is("m", Quirks()))
    assert document["input"] == [items[2], {"type": "message", "role": "assistant", "content": "hi"}, items[4]]


CONVERSATION: list[Any] = [
    {"role": "user", "content": "Weather?"},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "gAAAA",
    },
    {"type": "message", "role": "assistant", "content": "Looking."},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"place":"Bern"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    {"type": "message", "role": "system", "content": "Be kind."},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "And "}, {"type": "input_image", "file_id": "f", "detail": "high"}],
    },
]


def test_a_call_goes_out_in_the_same_dialect_as_it_came_in() -> None:
    call = call_of(
        CONVERSATION,
        instructions="Be brief.",
        tools=[{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}],
        tool_choice="required",
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "none"},
        metadata={"a": "b"},
        max_output_tokens=9,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    encoded = encode_responses(call, "m", Quirks())
    assert encoded.dropped == ()
    again = parse_request(encoded.body).call()
    assert {name: getattr(again, name) for name in Call.__slots__ if name != "__weakref__"} == {
        name: getattr(call, name) for name in Call.__slots__ if name != "__weakref__"
    }
    assert msgspec.json.decode(encoded.body)["store"] is False
