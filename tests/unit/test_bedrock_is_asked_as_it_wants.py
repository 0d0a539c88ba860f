"""A call in no dialect becomes a request that Bedrock takes, and what it cannot take is named.

botocore's model of the service checks the shape of every body.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import botocore.session
import pytest
from attrs import evolve
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.dialects.anthropic_encode import FORMAT_TOOL, JSON_INSTRUCTION
from gateway.dialects.bedrock import BedrockConverse
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.provider import ProviderDialect, Quirks

NEW = "global.anthropic.claude-opus-4-7-v1"
MIXED = "anthropic.claude-sonnet-4-6"
BUDGET = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
OLD = "anthropic.claude-3-5-sonnet-20241022-v2:0"
NOVA, NOVA2 = "amazon.nova-pro-v1:0", "global.amazon.nova-2-lite-v1:0"
OSS, LLAMA = "openai.gpt-oss-120b-1:0", "meta.llama3-3-70b-instruct-v1:0"
MODELS = [NEW, MIXED, BUDGET, OLD, NOVA, NOVA2, OSS, LLAMA]
PNG = "iVBORw0KGgoAAAANSUhEUg=="
LOOK = Tool(name="look", description="d", schema={"type": "object", "properties": {}})
SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}}}}
SHAPE = botocore.session.Session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def turn(role: Role, *parts: Part | str, name: str = "") -> Message:
    return Message(role=role, parts=tuple(Text(text=p) if isinstance(p, str) else p for p in parts), name=name)


HI = turn("user", "Hi")


def asked(call: Call, model: str = NEW, *, prefill: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    dialect: ProviderDialect = BedrockConverse(quirks=Quirks(prefill=prefill))
    encoded = dialect.encode(call, model)
    body = json.loads(encoded.body)
    report = ParamValidator().validate({"modelId": model, **body}, SHAPE)
    assert not report.has_errors(), report.generate_report()
    return body, encoded.dropped


def body_of(*messages: Message, model: str = NEW, **fields: Any) -> dict[str, Any]:
    return asked(Call(model="m", messages=messages, **fields), model)[0]


def dropped_of(*messages: Message, model: str = NEW, **fields: Any) -> tuple[str, ...]:
    return asked(Call(model="m", messages=messages or (HI,), **fields), model)[1]


def refused(*messages: Message, model: str = NEW, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        body_of(*messages, model=model, **fields)
    assert caught.value.http_status == 400
    return caught.value


def test_the_path_has_the_model_in_one_segment() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-6"
    path = BedrockConverse().path
    assert path(BUDGET, stream=False) == b"/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    assert path(arn, stream=True) == (
        b"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F"
        b"us.anthropic.claude-sonnet-4-6/converse-stream"
    )
    assert path("../x?y#z", stream=False) == b"/model/..%2Fx%3Fy%23z/converse"
    assert BedrockConverse().headers("k") == {b"authorization": b"Bearer k"}
    assert BedrockConverse().headers("") == {}


def test_a_conversation_takes_turns() -> None:
    messages = (
        turn("user", "What is the weather?"),
        turn("user", "In Zürich."),
        turn("assistant", "Looking.", ToolCall(id="call|1", name="look", arguments='{"x": 12345678901234567890}')),
        turn("user", "By the way …", ToolResult(id="call|1", content=(Text(text="Sunny"),))),
        turn("user", ToolResult(id="two", content=(), is_error=True)),
        turn("system", "Be brief."),
    )
    body = body_of(*messages, system=(Text(text="Help."),), tools=(LOOK,))
    assert body["system"] == [{"text": "Help."}, {"text": "Be brief."}]
    first, called, results = body["messages"]
    assert first == {"role": "user", "content": [{"text": "What is the weather?"}, {"text": "In Zürich."}]}
    assert called["content"][1] == {
        "toolUse": {"toolUseId": "call_1", "name": "look", "input": {"x": 12345678901234567890}}
    }
    assert results["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "Sunny"}]}},
        {"toolResult": {"toolUseId": "two", "content": [], "status": "error"}},
        {"text": "By the way …"},
    ]


def test_what_is_empty_is_left_out_and_a_lone_system_message_is_asked() -> None:
    assert body_of(turn("user", " ", "Hi"), turn("assistant", ""))["messages"] == [
        {"role": "user", "content": [{"text": "Hi"}]}
    ]
    body = body_of(turn("system", "Say hi."), system=(Text(text="Be kind."),))
    assert body == {"messages": [{"role": "user", "content": [{"text": "Say hi."}]}], "system": [{"text": "Be kind."}]}


def test_instructions_are_text() -> None:
    error = refused(turn("system", Media(kind="image", mime="image/png", data="QUJD")), HI)
    assert (error.code, error.param) == ("unsupported_by_provider", "messages[0]")


def test_long_ids_stay_the_same_in_call_and_result() -> None:
    id = "x" * 30 + "y" * 64
    called = turn("assistant", ToolCall(id=id, name="look", arguments=""))
    body = body_of(HI, called, turn("user", ToolResult(id=id)))
    assert body["messages"][1]["content"][0]["toolUse"]["toolUseId"] == "y" * 64
    assert body["messages"][2]["content"][0]["toolResult"]["toolUseId"] == "y" * 64


def test_thoughts_go_back_to_who_signed_them() -> None:
    thoughts = (Reasoning(text="t", signature="s"), Reasoning(redacted="cmVk"))
    messages = (HI, turn("assistant", *thoughts, "ok"), HI)
    assert body_of(*messages)["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "cmVk"}},
        {"text": "ok"},
    ]
    foreign = (Reasoning(text="t"), Reasoning(redacted="x", id="rs_1"))
    assert dropped_of(HI, turn("assistant", *foreign, "ok"), HI) == ("messages[1].reasoning",)
    assert body_of(HI, turn("assistant", Refusal(text="No.")), HI)["messages"][1]["content"] == [{"text": "No."}]


def test_names_and_results_flags_are_named_where_they_are_lost() -> None:
    assert dropped_of(turn("user", "Hi", name="Ann")) == ("messages[0].name",)
    failed = turn("user", ToolResult(id="1", content=(Text(text="x", cached="5m"),), is_error=True))
    messages = (HI, turn("assistant", ToolCall(id="1", name="f", arguments="{}")), failed)
    assert dropped_of(*messages, model=LLAMA) == ("cache_control", "messages[2].is_error")


def test_arguments_that_are_no_object_are_refused() -> None:
    error = refused(HI, turn("assistant", ToolCall(id="1", name="f", arguments="[1]")))
    assert (error.code, error.param) == ("invalid_request", "messages[1].tool_calls")


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (Media(kind="image", mime="image/png", data="QUJD"), {"image": {"format": "png", "source": {"bytes": "QUJD"}}}),
        (Media(kind="image", data=PNG), {"image": {"format": "png", "source": {"bytes": PNG}}}),
        (
            Media(kind="file", mime="image/jpeg", data="/9j/"),
            {"image": {"format": "jpeg", "source": {"bytes": "/9j/"}}},
        ),
        (
            Media(kind="image", url="s3://bucket/a/b.jpg"),
            {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a/b.jpg"}}}},
        ),
        (
            Media(kind="file", data="JVBERi0x", name="Überblick_2026 (v1).pdf"),
            {"document": {"format": "pdf", "source": {"bytes": "JVBERi0x"}, "name": "berblick 2026 (v1)"}},
        ),
        (
            Media(kind="file", mime="text/markdown", data="QUJD"),
            {"document": {"format": "md", "source": {"bytes": "QUJD"}, "name": "document"}},
        ),
        (Media(kind="audio", mime="audio/wav", data="QUJD"), {"audio": {"format": "wav", "source": {"bytes": "QUJD"}}}),
        (Media(kind="video", mime="video/mp4", data="QUJD"), {"video": {"format": "mp4", "source": {"bytes": "QUJD"}}}),
    ],
)
def test_media_become_what_the_api_calls_them(media: Media, block: dict[str, Any]) -> None:
    assert body_of(turn("user", "Look", media))["messages"][0]["content"][1] == block


def test_documents_of_one_name_are_told_apart() -> None:
    page = Media(kind="file", data="JVBERi0x", name="page.pdf")
    blocks = body_of(turn("user", page, page, "?"), turn("assistant", "ok"), turn("user", page))["messages"]
    names = [block["document"]["name"] for each in blocks for block in each["content"] if "document" in block]
    assert names == ["page", "page 2", "page 3"]


@pytest.mark.parametrize(
    ("media", "why"),
    [
        (Media(kind="image", url="https://example.org/a.png"), "fetches no image from the web"),
        (Media(kind="file", file_id="file-1", mime="application/pdf"), "another provider's"),
        (Media(kind="file", mime="application/zip", data="QUJD"), "a document of type application/zip"),
        (Media(kind="audio", data="QUJD"), "an audio whose type is not said"),
    ],
)
def test_media_that_it_does_not_take_are_refused(media: Media, why: str) -> None:
    error = refused(turn("user", media))
    assert (error.code, error.param) == ("unsupported_by_provider", "messages[0]")
    assert why in str(error)


def test_marks_for_the_cache_become_points_behind_what_they_mark() -> None:
    cached = Text(text="long", cached="5m")
    tool = evolve(LOOK, cached="5m")
    body = body_of(turn("user", cached, cached, "?", cached), system=(cached,), tools=(tool,))
    point = {"cachePoint": {"type": "default"}}
    assert len(body["toolConfig"]["tools"]) == 1  # five marks: the first is one too many
    assert body["system"] == [{"text": "long"}, point]
    long = {"text": "long"}
    assert body["messages"][0]["content"] == [long, point, long, point, {"text": "?"}, long, point]
    assert dropped_of(turn("user", cached), model=LLAMA) == ("cache_control",)


def test_one_answer_and_no_prefill_unless_it_can() -> None:
    assert refused(HI, n=2).param == "n"
    partial = Call(model="m", messages=(HI, turn("assistant", "Once \n")), prefill=True)
    assert asked(partial, OLD, prefill=True)[0]["messages"][1]["content"] == [{"text": "Once"}]
    with pytest.raises(RequestError, match="does not go on"):
        asked(partial, OLD)


SAMPLING: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "top_k": 40, "max_tokens": 100}


@pytest.mark.parametrize(
    ("model", "inference", "more", "dropped"),
    [
        (OLD, {"temperature": 1, "topP": 0.9, "maxTokens": 100}, {"top_k": 40}, ("temperature",)),
        (BUDGET, {"temperature": 1, "maxTokens": 100}, {"top_k": 40}, ("temperature", "top_p")),
        (NEW, {"maxTokens": 100}, None, ("temperature", "top_p", "top_k")),
        (
            NOVA,
            {"temperature": 1, "topP": 0.9, "maxTokens": 100},
            {"inferenceConfig": {"topK": 40}},
            ("temperature",),
        ),
        (LLAMA, {"temperature": 1, "topP": 0.9, "maxTokens": 100}, None, ("temperature", "top_k")),
    ],
)
def test_sampling_is_what_the_model_takes(
    model: str, inference: dict[str, Any], more: dict[str, Any] | None, dropped: tuple[str, ...]
) -> None:
    body, lost = asked(Call(model="m", messages=(HI,), **SAMPLING), model)
    assert body["inferenceConfig"] == inference
    assert body.get("additionalModelRequestFields") == more
    assert lost == dropped


@pytest.mark.parametrize(
    ("model", "thinking", "more", "effort", "dropped"),
    [
        (BUDGET, Thinking(effort="low"), {"thinking": {"type": "enabled", "budget_tokens": 2048}}, None, ()),
        (
            BUDGET,
            Thinking(budget_tokens=5000, show=True),
            {"thinking": {"type": "enabled", "budget_tokens": 5000, "display": "summarized"}},
            None,
            (),
        ),
        (BUDGET, Thinking(off=True), {"thinking": {"type": "disabled"}}, None, ()),
        (BUDGET, Thinking(effort="galactic"), None, None, ("reasoning_effort",)),
        (NEW, Thinking(effort="minimal"), {"thinking": {"type": "adaptive"}}, "low", ()),
        (NEW, Thinking(budget_tokens=9000), {"thinking": {"type": "adaptive"}}, "medium", ()),
        (MIXED, Thinking(effort="xhigh"), {"thinking": {"type": "adaptive"}}, "high", ()),
        (NEW, Thinking(effort="odd"), {"thinking": {"type": "adaptive"}}, None, ("reasoning_effort",)),
        (OLD, Thinking(effort="low"), None, None, ("reasoning_effort",)),
        (OLD, Thinking(off=True), None, None, ()),
        (NOVA2, Thinking(), {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}, None, ()),
        (NOVA2, Thinking(off=True), {"reasoningConfig": {"type": "disabled"}}, None, ()),
        (NOVA2, Thinking(effort="odd"), None, None, ("reasoning_effort",)),
        (NOVA, Thinking(effort="low"), None, None, ("reasoning_effort",)),
        (OSS, Thinking(effort="minimal"), {"reasoning_effort": "low"}, None, ()),
        (OSS, Thinking(off=True), None, None, ("reasoning_effort",)),
        (LLAMA, Thinking(off=True), None, None, ()),
    ],
)
def test_thinking_is_asked_for_in_each_makers_words(
    model: str, thinking: Thinking, more: dict[str, Any] | None, effort: str | None, dropped: tuple[str, ...]
) -> None:
    body, lost = asked(Call(model="m", messages=(HI,), thinking=thinking), model)
    assert body.get("additionalModelRequestFields") == more
    assert body.get("outputConfig", {}).get("effort") == effort
    assert lost == dropped


def test_a_budget_for_thoughts_leaves_room_and_refuses_other_sampling() -> None:
    thinking = Thinking(effort="low")
    body, lost = asked(Call(model="m", messages=(HI,), thinking=thinking, temperature=0.5, top_k=3), BUDGET)
    assert body["inferenceConfig"] == {"maxTokens": 18_048}
    assert lost == ("temperature", "top_k")
    body = body_of(HI, thinking=Thinking(effort="high"), max_tokens=2000, model=BUDGET)
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 1999
    for fields in ({"max_tokens": 500}, {"tools": (LOOK,), "tool_choice": ToolChoice(mode="required")}):
        assert dropped_of(thinking=thinking, model=BUDGET, **fields) == ("reasoning_effort",)
    called = turn("assistant", ToolCall(id="1", name="look", arguments="{}"))
    messages = (HI, called, turn("user", ToolResult(id="1")))
    assert dropped_of(*messages, thinking=thinking, model=BUDGET) == ("reasoning_effort",)


def test_novas_highest_effort_takes_no_limit_and_no_sampling() -> None:
    call = Call(model="m", messages=(HI,), thinking=Thinking(effort="max"), **{**SAMPLING, "temperature": 0.5})
    body, lost = asked(call, NOVA2)
    assert body.get("inferenceConfig") is None
    assert body["additionalModelRequestFields"] == {
        "reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}
    }
    assert lost == ("temperature", "top_p", "max_tokens", "top_k")


def test_tools_and_what_shall_be_called() -> None:
    strict = evolve(LOOK, strict=True)
    body = body_of(HI, tools=(strict, Tool(name="bare")), tool_choice=ToolChoice(mode="named", name="look"))
    assert body["toolConfig"] == {
        "tools": [
            {
                "toolSpec": {
                    "name": "look",
                    "description": "d",
                    "inputSchema": {"json": {"type": "object", "properties": {}}},
                    "strict": True,
                }
            },
            {"toolSpec": {"name": "bare", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
        ],
        "toolChoice": {"tool": {"name": "look"}},
    }
    assert body_of(HI, tools=(LOOK,), tool_choice=ToolChoice(mode="required"))["toolConfig"]["toolChoice"] == {
        "any": {}
    }
    assert "toolChoice" not in body_of(HI, tools=(LOOK,), tool_choice=ToolChoice(mode="auto"))["toolConfig"]
    assert dropped_of(tools=(strict,), model=NOVA) == ("tools[].strict",)
    assert dropped_of(tools=(LOOK,), parallel_tools=False) == ("parallel_tool_calls",)


def test_no_tools_are_no_tools_unless_the_conversation_has_calls() -> None:
    none = ToolChoice(mode="none")
    assert "toolConfig" not in body_of(HI, tools=(LOOK,), tool_choice=none)
    called = (HI, turn("assistant", ToolCall(id="1", name="look", arguments="{}")), turn("user", ToolResult(id="1")))
    body, lost = asked(Call(model="m", messages=called, tools=(LOOK,), tool_choice=none))
    assert ("toolConfig" in body, lost) == (True, ("tool_choice",))
    assert body_of(*called)["toolConfig"]["tools"] == [
        {"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object", "properties": {}}}}}
    ]


def test_an_answers_schema_is_a_format_or_else_a_tool() -> None:
    wanted = Format(kind="schema", name="n", schema=SCHEMA)
    text_format = body_of(HI, format=wanted)["outputConfig"]["textFormat"]
    made = text_format["structure"]["jsonSchema"]
    closed = json.loads(made["schema"])
    assert (text_format["type"], made["name"]) == ("json_schema", "n")
    assert closed["additionalProperties"] is closed["properties"]["a"]["items"]["additionalProperties"] is False
    for model in (OLD, NOVA, "anthropic.claude-opus-4-1-20250805-v1:0"):
        config = body_of(HI, format=wanted, model=model)["toolConfig"]
        assert config["tools"][0]["toolSpec"]["name"] == FORMAT_TOOL
        assert config["toolChoice"] == {"tool": {"name": FORMAT_TOOL}}
    both = body_of(HI, format=wanted, tools=(LOOK,), model=OLD)["toolConfig"]
    assert (len(both["tools"]), both["toolChoice"]) == (2, {"any": {}})
    alone = body_of(HI, format=wanted, tools=(LOOK,), tool_choice=ToolChoice(mode="none"), model=OLD)["toolConfig"]
    assert [tool["toolSpec"]["name"] for tool in alone["tools"]] == [FORMAT_TOOL]


def test_json_without_a_schema_is_asked_for_in_words() -> None:
    body, lost = asked(Call(model="m", messages=(HI,), format=Format(kind="json")))
    assert (body["system"], lost) == ([{"text": JSON_INSTRUCTION}], ("response_format",))
    assert "outputConfig" not in body_of(HI, format=Format(kind="text"))


def test_what_has_no_counterpart_is_named_in_the_clients_words() -> None:
    fields: dict[str, Any] = {
        "seed": 0,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.0,
        "logprobs": True,
        "user": "u",
        "stop": ("END", " "),
        "service_tier": "scale",
        "extra": {"store": True},
    }
    body, lost = asked(Call(model="m", messages=(HI,), **fields))
    assert body["inferenceConfig"] == {"stopSequences": ["END"]}
    assert lost == ("stop", "service_tier", "seed", "presence_penalty", "logprobs", "user", "store")
    assert dropped_of(stop=(" ",), dialect="anthropic") == ("stop_sequences",)


@pytest.mark.parametrize(("tier", "made"), [("standard_only", "default"), ("flex", "flex"), ("auto", None), ("", None)])
def test_tiers(tier: str, made: str | None) -> None:
    assert body_of(HI, service_tier=tier).get("serviceTier", {}).get("type") == made


@pytest.mark.parametrize(
    ("model", "point", "lost"),
    [
        (NEW, {"type": "default", "ttl": "1h"}, ()),
        (OLD, {"type": "default"}, ("cache_control.ttl",)),
        (NOVA, {"type": "default"}, ("cache_control.ttl",)),
        (LLAMA, None, ("cache_control",)),
    ],
)
def test_a_mark_for_an_hour_on_a_tools_result_stays_where_it_is(
    model: str, point: dict[str, str] | None, lost: tuple[str, ...]
) -> None:
    called = turn("assistant", ToolCall(id="1", name="look", arguments="{}"))
    result = turn("user", ToolResult(id="1", content=(Text(text="x"),), cached="1h"))
    more = turn("user", ToolResult(id="2", content=(Text(text="y"),)), "and?")
    body, dropped = asked(Call(model="m", messages=(HI, called, result, more), tools=(LOOK,)), model)
    points = [{"cachePoint": point}] if point else []
    first, *rest = body["messages"][-1]["content"]
    assert ([next(iter(first))], rest[: len(points)]) == (["toolResult"], points)
    assert [next(iter(block)) for block in rest[len(points) :]] == ["toolResult", "text"]
    assert dropped == lost


IDS = st.text(min_size=1, max_size=80)
MARKS = st.sampled_from(["", "5m", "1h"])
TEXTS = st.builds(Text, text=st.text(max_size=6), cached=MARKS)
PARTS = st.one_of(
    TEXTS,
    st.builds(ToolCall, id=IDS, name=st.just("f"), arguments=st.just('{"a": 1}'), cached=MARKS),
    st.builds(ToolResult, id=IDS, content=st.tuples(TEXTS), is_error=st.booleans(), cached=MARKS),
    st.builds(Reasoning, text=st.text(max_size=4), signature=st.text(max_size=4)),
    st.builds(Media, kind=st.just("file"), mime=st.just("text/csv"), data=st.just("QUJD"), name=st.text(max_size=12)),
)
MESSAGES = st.one_of(
    st.builds(Message, role=st.just("system"), parts=st.lists(TEXTS, max_size=2).map(tuple)),
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), parts=st.lists(PARTS, max_size=4).map(tuple)),
)
CALLS = st.builds(
    Call,
    model=st.just("m"),
    messages=st.lists(MESSAGES, max_size=6).map(tuple),
    system=st.lists(TEXTS, max_size=2).map(tuple),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 10_000),
    tools=st.sampled_from([(), (LOOK,), (evolve(LOOK, cached="5m", strict=True),)]),
    tool_choice=st.none() | st.builds(ToolChoice, mode=st.sampled_from(["auto", "none", "required"])),
    format=st.none() | st.builds(Format, kind=st.sampled_from(["text", "json", "schema"]), schema=st.just(SCHEMA)),
    thinking=st.none()
    | st.builds(Thinking, effort=st.sampled_from(["", "low", "max", "odd"]), off=st.booleans(), show=st.none()),
)


@given(CALLS, st.sampled_from(MODELS))
def test_every_call_becomes_a_body_of_the_documented_shape(call: Call, model: str) -> None:
    body, _ = asked(call, model)
    roles = [message["role"] for message in body["messages"]]
    assert all(before != after for before, after in pairwise(roles))
    content = [block for message in body["messages"] for block in message["content"]]
    blocks = [*content, *body.get("system", []), *body.get("toolConfig", {}).get("tools", [])]
    assert sum("cachePoint" in block for block in blocks) <= 4
    assert all(block["text"].strip() for block in content if "text" in block)
    assert "toolConfig" in body or not any("toolUse" in block for block in content)


def test_the_answer_in_the_form_of_a_call_is_the_text() -> None:
    body = {
        "output": {"message": {"content": [{"toolUse": {"toolUseId": "t", "name": FORMAT_TOOL, "input": {"a": []}}}]}},
        "stopReason": "tool_use",
    }
    events = BedrockConverse().read_whole(json.dumps(body).encode())
    assert [type(event).__name__ for event in events] == ["Started", "TextDelta", "Finished"]
