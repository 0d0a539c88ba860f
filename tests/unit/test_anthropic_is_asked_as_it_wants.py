"""A call in no dialect becomes a request that Anthropic takes, and what it cannot take is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from attrs import evolve

from gateway.core.errors import RequestError
from gateway.dialects.answer import Answer
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_encode import (
    DEFAULT_MAX_TOKENS,
    FORMAT_TOOL,
    JSON_INSTRUCTION,
)
from gateway.dialects.anthropic_models import abilities_of
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
from gateway.dialects.provider import ProviderDialect

NEW, MIXED, BUDGET, OLD = (
    "claude-opus-5",
    "claude-sonnet-4-6",
    "claude-haiku-4-5-20251001",
    "claude-3-5-sonnet-20241022",
)
PNG = "iVBORw0KGgoAAAANSUhEUg=="
LOOK = Tool(name="look", description="d", schema={"type": "object", "properties": {}})
SCHEMA = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}}}}


def turn(role: Role, *parts: Part | str, name: str = "") -> Message:
    return Message(role=role, parts=tuple(Text(text=p) if isinstance(p, str) else p for p in parts), name=name)


HI = turn("user", "Hi")


def asked(call: Call, model: str = NEW) -> tuple[dict[str, Any], tuple[str, ...]]:
    dialect: ProviderDialect = Anthropic()
    encoded = dialect.encode(call, model)
    return json.loads(encoded.body), encoded.dropped


def body_of(model: str = NEW, *messages: Message, **fields: Any) -> dict[str, Any]:
    return asked(Call(model="chat", messages=messages or (HI,), **fields), model)[0]


def dropped_of(model: str = NEW, *messages: Message, **fields: Any) -> tuple[str, ...]:
    return asked(Call(model="chat", messages=messages or (HI,), **fields), model)[1]


def test_it_is_asked_with_its_own_headers_at_its_own_path() -> None:
    assert Anthropic().path("m", stream=True) == b"/messages"
    assert Anthropic().headers("k") == {b"x-api-key": b"k", b"anthropic-version": b"2023-06-01"}
    assert Anthropic().headers("") == {b"anthropic-version": b"2023-06-01"}


def test_a_plain_question_needs_a_limit() -> None:
    assert body_of() == {
        "model": NEW,
        "max_tokens": DEFAULT_MAX_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


@pytest.mark.parametrize(("model", "limit"), [(NEW, 16_000), (OLD, 8_192), ("claude-3-opus-20240229", 4_096)])
def test_without_a_limit_the_model_gets_what_it_can(model: str, limit: int) -> None:
    assert body_of(model)["max_tokens"] == limit


def test_turns_alternate_with_results_first_and_nothing_empty() -> None:
    body = body_of(
        NEW,
        turn("user", "a", ""),
        turn("system", "Later."),
        turn("user", " ", "b"),
        turn("assistant", ToolCall(id="t:1", name="look", arguments="")),
        turn("user", "and"),
        turn("user", ToolResult(id="t:1", content=(Text(text="17"), Media(kind="image", data=PNG)))),
        turn("assistant", Refusal(text="No. \n")),
        system=(Text(text="First."),),
    )
    assert body["system"] == [{"type": "text", "text": "First."}, {"type": "text", "text": "Later."}]
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t_1", "name": "look", "input": {}}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t_1",
                    "content": [
                        {"type": "text", "text": "17"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                },
                {"type": "text", "text": "and"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
    ]


def test_instructions_alone_are_asked_as_the_users() -> None:
    body, _ = asked(Call(model="m", messages=(), system=(Text(text="A"), Text(text="B"))))
    assert body["system"] == [{"type": "text", "text": "A"}]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "B"}]}]


def test_thoughts_go_back_only_where_anthropic_signed_them() -> None:
    thoughts = turn(
        "assistant",
        Reasoning(text="hm", signature="s"),
        Reasoning(redacted="r"),
        Reasoning(text="from elsewhere"),
        Reasoning(redacted="gAAA", id="rs_1"),
        "So.",
    )
    body, dropped = asked(Call(model="m", messages=(HI, thoughts, HI)))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "So."},
    ]
    assert dropped == ("messages[1].reasoning",)


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media(kind="image", url="https://x/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
        ),
        (Media(kind="image", file_id="f"), {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        (
            Media(kind="file", data="JVBERi0xLjQ=", name="a.pdf", cached="5m"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="},
                "title": "a.pdf",
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (
            Media(kind="file", mime="text/csv", data=base64.b64encode("a;ü".encode()).decode()),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a;ü"}},
        ),
    ],
)
def test_media_become_images_and_documents(media: Media, block: dict[str, Any]) -> None:
    assert body_of(NEW, turn("user", media))["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (Media(kind="audio", mime="audio/wav", data="UklG"), "unsupported_by_provider"),
        (Media(kind="video", url="https://x/a.mp4"), "unsupported_by_provider"),
        (Media(kind="file", mime="application/zip", data="UEsD"), "unsupported_by_provider"),
        (Media(kind="image", data="????"), "invalid_request"),
        (Media(kind="file", mime="text/plain", data="%"), "invalid_request"),
        (ToolCall(id="t", name="look", arguments="[1]"), "invalid_request"),
    ],
)
def test_what_it_cannot_take_is_refused_by_name(part: Part, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        body_of(NEW, HI, turn("user", part))
    assert (caught.value.http_status, caught.value.code) == (400, code)
    assert (caught.value.param or "").startswith("messages[1]")


def test_the_clients_own_names_are_used() -> None:
    with pytest.raises(RequestError) as caught:
        body_of(n=2, dialect="gemini")
    assert caught.value.param == "generationConfig.candidateCount"
    assert dropped_of(seed=1, dialect="gemini") == ("generationConfig.seed",)


def test_what_has_no_counterpart_is_dropped_and_named() -> None:
    said: dict[str, Any] = {
        "seed": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 1.0,
        "logprobs": True,
        "top_logprobs": 2,
        "service_tier": "flex",
        "stop": ("END", "\n"),
        "extra": {"logit_bias": {}},
    }
    body, dropped = asked(Call(model="m", messages=(turn("user", "Hi", name="ann"),), **said))
    assert dropped == (
        "messages[0].name",
        "stop",
        "service_tier",
        "seed",
        "frequency_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
    )
    assert body["stop_sequences"] == ["END"]
    assert body.keys() == {"model", "max_tokens", "messages", "stop_sequences"}


def test_user_tier_and_stream_have_their_places() -> None:
    body = body_of(user="u", service_tier="default", stream=True)
    assert (body["metadata"], body["service_tier"], body["stream"]) == ({"user_id": "u"}, "standard_only", True)


@pytest.mark.parametrize(
    ("model", "kept", "dropped"),
    [
        ("a-model-of-others", {"temperature": 1, "top_p": 0.5, "top_k": 3}, ("temperature",)),
        (MIXED, {"temperature": 1, "top_k": 3}, ("temperature", "top_p")),
        (NEW, {}, ("temperature", "top_p", "top_k")),
    ],
)
def test_sampling_is_what_the_model_knows(model: str, kept: dict[str, Any], dropped: tuple[str, ...]) -> None:
    body, names = asked(Call(model="m", messages=(HI,), temperature=1.5, top_p=0.5, top_k=3), model)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert names == dropped


@pytest.mark.parametrize(
    ("model", "thinking", "sent", "effort"),
    [
        (NEW, Thinking(effort="minimal"), {"type": "adaptive"}, "low"),
        (NEW, Thinking(effort="xhigh", show=True), {"type": "adaptive", "display": "summarized"}, "xhigh"),
        (MIXED, Thinking(effort="xhigh", show=False), {"type": "adaptive", "display": "omitted"}, "high"),
        (NEW, Thinking(budget_tokens=10_000), {"type": "adaptive"}, "medium"),
        (NEW, Thinking(budget_tokens=10), {"type": "adaptive"}, "low"),
        (NEW, Thinking(budget_tokens=-1), {"type": "adaptive"}, None),
        (NEW, Thinking(off=True), {"type": "disabled"}, None),
        (BUDGET, Thinking(effort="low"), {"type": "enabled", "budget_tokens": 2_048}, None),
        (BUDGET, Thinking(budget_tokens=5), {"type": "enabled", "budget_tokens": 1_024}, None),
        (BUDGET, Thinking(budget_tokens=-1), {"type": "enabled", "budget_tokens": 8_192}, None),
        (BUDGET, Thinking(off=True), {"type": "disabled"}, None),
    ],
)
def test_thinking_follows_the_table(model: str, thinking: Thinking, sent: dict[str, Any], effort: str | None) -> None:
    body, dropped = asked(Call(model="m", messages=(HI,), thinking=thinking), model)
    assert body["thinking"] == sent
    assert body.get("output_config", {}).get("effort") == effort
    assert dropped == ()


def test_a_budget_comes_on_top_of_the_default_limit_and_stays_below_a_given_one() -> None:
    assert body_of(BUDGET, thinking=Thinking(effort="high"))["max_tokens"] == DEFAULT_MAX_TOKENS + 16_000
    body = body_of(BUDGET, thinking=Thinking(effort="high"), max_tokens=5_000)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (5_000, 4_999)


ACTED = turn("assistant", ToolCall(id="t", name="look", arguments="{}"))
RESULT = turn("user", ToolResult(id="t"))


@pytest.mark.parametrize(
    ("model", "messages", "fields"),
    [
        (OLD, (HI,), {}),
        (BUDGET, (HI,), {"max_tokens": 1_024}),
        (BUDGET, (HI,), {"tools": (LOOK,), "tool_choice": ToolChoice(mode="required")}),
        (BUDGET, (HI, ACTED, RESULT), {"tools": (LOOK,)}),
        (BUDGET, (HI, turn("assistant", "On")), {"prefill": True}),
    ],
)
def test_thinking_that_would_be_refused_is_left_out(
    model: str, messages: tuple[Message, ...], fields: dict[str, Any]
) -> None:
    call = Call(model="m", messages=messages, thinking=Thinking(effort="high"), **fields)
    body, dropped = asked(call, model)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)


def test_models_that_always_think_are_not_told_to_stop() -> None:
    body, dropped = asked(Call(model="m", messages=(HI,), thinking=Thinking(off=True)), "claude-fable-5")
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)


def test_an_unknown_effort_is_named() -> None:
    for model in (NEW, BUDGET):
        assert dropped_of(model, thinking=Thinking(effort="heroic")) == ("reasoning_effort",)


def test_with_a_budget_sampling_stays_at_its_defaults() -> None:
    call = Call(model="m", messages=(HI,), thinking=Thinking(effort="low"), temperature=0.2, top_k=3)
    body, dropped = asked(call, BUDGET)
    assert "temperature" not in body
    assert dropped == ("temperature", "top_k")


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice(mode="auto"), None, {"type": "auto"}),
        (ToolChoice(mode="required"), True, {"type": "any"}),
        (
            ToolChoice(mode="named", name="look"),
            False,
            {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        ),
        (ToolChoice(mode="none"), False, {"type": "none"}),
    ],
)
def test_the_choice_of_tools_is_kept(choice: ToolChoice | None, parallel: bool | None, sent: Any) -> None:
    body = body_of(tools=(LOOK,), tool_choice=choice, parallel_tools=parallel)
    assert body.get("tool_choice") == sent
    assert body["tools"] == [{"name": "look", "description": "d", "input_schema": LOOK.schema}]


def test_without_tools_there_is_nothing_to_choose() -> None:
    assert "tool_choice" not in body_of(tool_choice=ToolChoice(mode="none"), parallel_tools=False)


def test_a_tool_has_a_schema_and_is_strict_where_the_model_can_be() -> None:
    tool = Tool(name="t", strict=True, cached="5m")
    assert body_of(NEW, tools=(tool,))["tools"] == [
        {
            "name": "t",
            "input_schema": {"type": "object", "properties": {}},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        }
    ]
    assert dropped_of("claude-sonnet-4-20250514", tools=(tool,)) == ("tools[].strict",)


def test_a_schema_is_the_output_format_with_its_objects_closed() -> None:
    body, dropped = asked(Call(model="m", messages=(HI,), format=Format(kind="schema", name="n", schema=SCHEMA)))
    closed = {"type": "object", "additionalProperties": False}
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {**closed, "properties": {"a": {"type": "array", "items": closed}}},
        }
    }
    assert dropped == ()
    assert SCHEMA["properties"] == {"a": {"type": "array", "items": {"type": "object"}}}


def test_a_model_without_output_formats_answers_by_a_tool_that_reads_as_text() -> None:
    call = Call(model="m", messages=(HI,), format=Format(kind="schema", schema=SCHEMA))
    body, _ = asked(call, OLD)
    assert body["tool_choice"] == {"type": "tool", "name": FORMAT_TOOL}
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert asked(evolve(call, tools=(LOOK,)), OLD)[0]["tool_choice"] == {"type": "any"}
    block = {"type": "tool_use", "id": "t", "name": FORMAT_TOOL, "input": {"a": []}}
    message = {"id": "m", "type": "message", "content": [block], "stop_reason": "tool_use"}
    answer = Answer.of(Anthropic().read_whole(json.dumps(message).encode()))
    assert (answer.first.text, answer.first.tools) == ('{"a":[]}', [])
    assert answer.first.finished is not None
    assert answer.first.finished.reason == "stop"


def test_any_json_object_is_asked_for_in_words_and_said_to_be_no_guarantee() -> None:
    body, dropped = asked(Call(model="m", messages=(HI,), format=Format(kind="json")))
    assert body["system"] == [{"type": "text", "text": JSON_INSTRUCTION}]
    assert dropped == ("response_format",)


def test_of_many_cache_marks_the_last_four_stay() -> None:
    texts = [Text(text=str(i), cached="5m") for i in range(3)]
    body = body_of(
        NEW, turn("user", *texts), system=(Text(text="s", cached="5m"),), tools=(Tool(name="t", cached="5m"),)
    )
    assert "cache_control" not in body["tools"][0]
    assert "cache_control" in body["system"][0]
    assert all("cache_control" in block for block in body["messages"][0]["content"])


@pytest.mark.parametrize(
    ("model", "thinking", "schema"),
    [
        ("claude-3-opus-20240229", "none", False),
        ("claude-3-7-sonnet-latest", "budget", False),
        ("claude-sonnet-4-20250514", "budget", False),
        ("claude-opus-4-1-20250805", "budget", True),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "budget", True),
        ("anthropic/claude-opus-4.6", "adaptive", True),
        ("claude-opus-4-8", "adaptive", True),
        ("claude-sonnet-5-5", "adaptive", True),
        ("claude-haiku", "adaptive", True),
        ("claude-mythos-preview", "always", True),
        ("kimi-k2", "budget", True),
    ],
)
def test_generations_are_told_by_the_models_name(model: str, thinking: str, schema: bool) -> None:
    abilities = abilities_of(model)
    assert (abilities.thinking, abilities.schema) == (thinking, schema)


@pytest.mark.parametrize("model", [NEW, "claude-sonnet-4-6", "claude-haiku-5-5", "claude-mythos-preview"])
def test_a_partial_answer_is_not_sent_to_a_model_that_refuses_it(model: str) -> None:
    call = Call(model="m", messages=(HI, turn("assistant", "On")), prefill=True)
    with pytest.raises(RequestError) as caught:
        Anthropic().encode(call, model)
    assert (caught.value.http_status, caught.value.param) == (400, "messages")
    assert Anthropic().encode(call, "claude-haiku-4-5").body.endswith(b'"On"}]}]}')
