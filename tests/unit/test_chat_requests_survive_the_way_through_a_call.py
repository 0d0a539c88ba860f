"""A chat request read as a call and written for a chat provider again says the same; what cannot be said is named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.chat_call import chat_call
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.openai_chat import parse_request
from gateway.dialects.provider import Quirks

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current temperature",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
USER = {"role": "user", "content": "Hello!"}
PNG = "data:image/png;base64,iVBORw0KGgo="

DOCUMENTED: dict[str, dict[str, Any]] = {
    "default": {"messages": [{"role": "system", "content": "You are helpful."}, USER]},
    "sampling": {
        "messages": [USER],
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "n": 2,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.2,
        "stop": ["\n", "END"],
        "user": "u-1",
        "service_tier": "flex",
    },
    "logprobs": {"messages": [USER], "logprobs": True, "top_logprobs": 2},
    "image": {
        "messages": [
            {
                "role": "user",
                "name": "anna",
                "content": [
                    {"type": "text", "text": "What is in these?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": PNG}},
                ],
            }
        ]
    },
    "sound and files": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
                ],
            }
        ]
    },
    "tools": {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALLED, {**CALLED, "id": "call_2"}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "20 °C"},
            {"role": "tool", "tool_call_id": "call_2", "content": "21 °C"},
            {"role": "assistant", "content": "Warm."},
            {"role": "system", "content": "Be brief."},
            USER,
        ],
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
    },
    "signed call": {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{**CALLED, "extra_content": {"google": {"thought_signature": "c2ln"}}}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "20 °C"},
        ]
    },
    "refused before": {"messages": [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER]},
    "schema": {
        "messages": [USER],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    },
    "json": {"messages": [USER], "response_format": {"type": "json_object"}},
    "effort": {"messages": [USER], "reasoning_effort": "none"},
    "stream": {
        "messages": [USER],
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    },
    "others": {"messages": [USER], "logit_bias": {"50256": -100}, "metadata": {"a": "b"}, "store": False, "top_k": 4},
}


def call_of(**fields: Any) -> Call:
    body = json.dumps({"model": "chat", "messages": [USER], **fields}).encode()
    return parse_request(body).call()


def encoded(call: Call, **quirks: Any) -> Any:
    return json.loads(OpenAIChat(quirks=Quirks(**quirks)).encode(call, "m").body)


def dropped(call: Call, **quirks: Any) -> tuple[str, ...]:
    return OpenAIChat(quirks=Quirks(**quirks)).encode(call, "m").dropped


def said(*messages: Message, **fields: Any) -> Call:
    return Call(model="chat", messages=messages, **{"dialect": "anthropic", **fields})


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Part) -> Message:
    return Message(role="assistant", parts=parts)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_documented_requests_come_back(name: str) -> None:
    call = call_of(**DOCUMENTED[name])
    assert encoded(call) == {"model": "m", **DOCUMENTED[name]}
    assert dropped(call) == ()


def test_parts_are_read_for_what_they_are() -> None:
    call = call_of(**DOCUMENTED["image"])
    assert call.messages == (
        Message(
            role="user",
            name="anna",
            parts=(
                Text(text="What is in these?"),
                Media(kind="image", url="https://example.com/a.jpg", detail="low"),
                Media(kind="image", mime="image/png", data="iVBORw0KGgo="),
            ),
        ),
    )


def test_results_of_parallel_calls_stand_in_one_message() -> None:
    call = call_of(**DOCUMENTED["tools"])
    assert [message.role for message in call.messages] == ["user", "assistant", "user", "assistant", "system", "user"]
    assert call.messages[2].parts == (
        ToolResult(id="call_1", name="get_weather", content=(Text(text="20 °C"),)),
        ToolResult(id="call_2", name="get_weather", content=(Text(text="21 °C"),)),
    )


def test_leading_instructions_are_the_calls_own() -> None:
    leading = [{"role": "developer", "content": "A"}, {"role": "system", "content": [{"type": "text", "text": "B"}]}]
    call = call_of(messages=[*leading, USER])
    assert call.system == (Text(text="A"), Text(text="B"))
    assert encoded(call, system_role="developer")["messages"][0] == {"role": "developer", "content": "A\n\nB"}


def test_a_single_stop_and_the_old_limit_are_understood() -> None:
    call = call_of(stop="END", max_tokens=5)
    assert (call.stop, call.max_tokens) == (("END",), 5)
    assert encoded(call, max_tokens_field="max_tokens")["max_tokens"] == 5
    assert encoded(call)["max_completion_tokens"] == 5


def test_allowed_tools_are_the_only_ones() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    call = call_of(tools=[WEATHER, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in call.tools] == ["other"]
    assert call.tool_choice == ToolChoice(mode="required")


def test_a_schemas_description_is_not_lost() -> None:
    schema = {"name": "a", "description": "An answer", "schema": {"type": "object"}}
    call = call_of(response_format={"type": "json_schema", "json_schema": schema})
    assert call.format == Format(kind="schema", name="a", schema={"description": "An answer", "type": "object"})


@pytest.mark.parametrize(
    ("message", "thoughts"),
    [
        ({"reasoning_content": "Hm."}, [Reasoning(text="Hm.")]),
        ({"reasoning": "Hm."}, [Reasoning(text="Hm.")]),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "H", "index": 0},
                    {"type": "reasoning.text", "text": "m.", "index": 0},
                    {"type": "reasoning.text", "signature": "s", "index": 0},
                    {"type": "reasoning.encrypted", "data": "e", "index": 1},
                ]
            },
            [Reasoning(text="Hm.", signature="s"), Reasoning(redacted="e")],
        ),
        (
            {"reasoning_content": "Hm.", "reasoning_details": [{"type": "reasoning.text", "signature": "s"}]},
            [Reasoning(text="Hm.", signature="s")],
        ),
        (
            {
                "reasoning_content": "Sum.",
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "Sum.", "id": "rs_1"},
                    {"type": "reasoning.encrypted", "data": "e", "id": "rs_1"},
                ],
            },
            [Reasoning(text="Sum.", redacted="e", id="rs_1")],
        ),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]},
            [Reasoning(text="Hm.")],
        ),
    ],
)
def test_thoughts_are_taken_back(message: dict[str, Any], thoughts: list[Reasoning]) -> None:
    call = call_of(messages=[USER, {"role": "assistant", **message}, USER])
    assert list(call.messages[1].parts) == thoughts


def test_thoughts_go_only_where_they_are_wanted() -> None:
    call = said(user(Text(text="a")), assistant(Reasoning(text="Hm.", signature="s"), Text(text="b")), user())
    assert encoded(call)["messages"][1] == {"role": "assistant", "content": "b"}
    back = encoded(call, reasoning_back=True)["messages"][1]
    assert back == {"role": "assistant", "content": "b", "reasoning_content": "Hm."}
    signed = encoded(call, reasoning_back=True, reasoning_field="reasoning")["messages"][1]
    assert signed["reasoning"] == "Hm."
    (detail,) = signed["reasoning_details"]
    assert (detail["text"], detail["signature"]) == ("Hm.", "s")


def test_media_of_a_tools_result_follow_the_results() -> None:
    image = Media(kind="image", mime="image/png", data="AAAA")
    call = said(
        user(Text(text="Look")),
        assistant(ToolCall(id="1", name="a", arguments=""), ToolCall(id="2", name="b", arguments="{}")),
        user(
            ToolResult(id="1", content=(Text(text="one"), image), is_error=True),
            ToolResult(id="2", content=(Text(text="x"), Text(text="y"))),
            Text(text="And?"),
        ),
    )
    messages = encoded(call)["messages"]
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert messages[2:4] == [
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "x\ny"},
    ]
    assert messages[4]["role"] == "user"
    assert [part["type"] for part in messages[4]["content"]] == ["image_url", "text"]
    assert dropped(call) == ("is_error",)


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(budget_tokens=1024), "low"),
        (Thinking(budget_tokens=8192), "medium"),
        (Thinking(budget_tokens=8193), "high"),
        (Thinking(budget_tokens=-1), None),
        (Thinking(effort="xhigh", budget_tokens=1), "xhigh"),
        (Thinking(off=True), None),
    ],
)
def test_a_thinking_budget_becomes_an_effort(thinking: Thinking, effort: str | None) -> None:
    assert encoded(said(user(Text(text="a")), thinking=thinking)).get("reasoning_effort") == effort


def test_what_is_left_out_is_named_as_the_client_calls_it() -> None:
    call = said(
        user(Text(text="a", cached="5m")),
        tools=(Tool(name="t", cached="5m"),),
        top_k=4,
        thinking=Thinking(off=True),
        seed=1,
        extra={"container": "c"},
    )
    assert dropped(call, drops=("seed", "user")) == ("cache_control", "top_k", "thinking", "container", "seed")
    assert "seed" not in encoded(call, drops=("seed",))
    assert dropped(evolve(call, dialect="gemini"))[1:3] == (
        "generationConfig.topK",
        "generationConfig.thinkingConfig",
    )


def test_fields_of_the_same_meaning_pass_from_responses() -> None:
    call = said(user(Text(text="a")), extra={"store": False, "truncation": "auto"}, dialect="openai-responses")
    assert encoded(call)["store"] is False
    assert dropped(call) == ("truncation",)


def test_a_prefill_is_asked_for_in_the_providers_way() -> None:
    call = said(user(Text(text="a")), assistant(Text(text="b")), prefill=True)
    assert encoded(call, prefill=True)["messages"][-1] == {"role": "assistant", "content": "b"}
    assert encoded(call, prefill=True, prefill_field="prefix")["messages"][-1]["prefix"] is True
    vllm = encoded(call, prefill=True, prefill_field="continue_final_message")
    assert (vllm["continue_final_message"], vllm["add_generation_prompt"]) == (True, False)
    with pytest.raises(RequestError, match="go on from"):
        encoded(call)


def test_a_chat_clients_prefix_is_a_prefill() -> None:
    assert call_of(messages=[USER, {"role": "assistant", "content": "b", "prefix": True}]).prefill
    assert not call_of(messages=[USER, {"role": "assistant", "content": "b"}]).prefill


def test_the_usage_is_asked_for_only_where_it_is_understood() -> None:
    call = said(user(Text(text="a")), stream=True)
    assert encoded(call)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in encoded(call, usage_in_stream=False)


@pytest.mark.parametrize(
    "part",
    [
        Media(kind="image", file_id="file-1"),
        Media(kind="audio", url="https://example.com/a.wav"),
        Media(kind="file", url="https://example.com/a.pdf"),
        ToolCall(id="1", name="a", arguments="{}"),
    ],
)
def test_what_must_not_be_lost_is_refused(part: Part) -> None:
    with pytest.raises(RequestError) as refused:
        encoded(said(user(part)))
    assert (refused.value.http_status, refused.value.code) == (400, "unsupported_by_provider")
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    ("dialect", "param"),
    [("openai", "messages"), ("openai-responses", "input"), ("anthropic", "messages"), ("gemini", "contents")],
)
def test_what_has_none_is_named_as_the_client_names_it(dialect: str, param: str) -> None:
    document = Message(role="user", parts=(Media(kind="file", url="https://example.com/a.pdf"),))
    with pytest.raises(RequestError) as refused:
        OpenAIChat().encode(Call(model="m", messages=(document,), dialect=dialect), "theirs")
    assert refused.value.param == param
    assert refused.value.public_message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": 3}}]}]},
            "messages[1].content[0].image_url.url",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].file"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [1]}, "stop[0]"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_wrong_shapes_are_named(fields: dict[str, Any], param: str) -> None:
    raw = msgspec.json.decode(
        json.dumps({"model": "chat", "messages": [USER], **fields}).encode(), type=dict[str, msgspec.Raw]
    )
    with pytest.raises(RequestError) as refused:
        chat_call(raw)
    assert refused.value.http_status == 400
    assert (refused.value.param or "").startswith(param)


def test_null_says_nothing() -> None:
    names = ("temperature", "stop", "tools", "tool_choice", "response_format", "n", "functions", "logit_bias", "user")
    assert call_of(**dict.fromkeys(names)) == call_of()


def test_a_refusal_in_parts_is_one() -> None:
    call = call_of(messages=[USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, USER])
    assert call.messages[1].parts == (Refusal(text="No."),)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "text", "a", "file", "data:x;base64,A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "file", "file_data", "content", "id", "function", "name", "data"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["content", "tool_calls", "reasoning", "reasoning_details", "name", "refusal", "prefix", "tool_call_id"]
)
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.dictionaries(FIELDS, ODD, max_size=3)),
    min_size=1,
    max_size=4,
)


@given(MESSAGES, st.dictionaries(st.sampled_from(["tools", "stop", "response_format", "tool_choice", "x"]), ODD))
def test_any_request_is_a_call_or_a_refusal_that_names_its_field(messages: Any, fields: dict[str, Any]) -> None:
    document = {"messages": [{**said, "role": role} for role, said in messages], **fields}
    raw = msgspec.json.decode(json.dumps(document).encode(), type=dict[str, msgspec.Raw])
    refused: RequestError | None = None
    try:
        call = chat_call(raw)
        json.loads(OpenAIChat(quirks=Quirks(reasoning_back=True, prefill=True)).encode(call, "m").body)
    except RequestError as error:
        refused = error
    assert refused is None or (refused.http_status == 400 and refused.param)


def test_thousands_of_results_make_one_message() -> None:
    result = {"role": "tool", "tool_call_id": "1", "content": "x"}
    call = call_of(messages=[USER, *[result] * 5000, USER])
    assert [len(message.parts) for message in call.messages] == [1, 5000, 1]
