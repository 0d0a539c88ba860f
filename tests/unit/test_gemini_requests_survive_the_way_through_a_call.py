"""Promise: what a Gemini client asks for means the same to other providers, and what others ask for the same to Gemini.

The requests are the documented examples, in both of the spellings that Google takes.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from gateway.dialects.gemini import Gemini
from gateway.dialects.gemini_encode import thinks_in_levels
from gateway.dialects.gemini_request import GeminiRequest, parse_request
from gateway.dialects.gemini_schema import json_schema
from gateway.dialects.gemini_turns import UNSIGNED
from gateway.dialects.provider import ProviderDialect, Quirks
from gateway.dialects.signatures import mark_googles
from gateway.dialects.voice import Request

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
CALLED = {
    "role": "model",
    "parts": [
        {"text": "I look."},
        {"functionCall": {"name": "weather", "args": {"place": "Bern"}, "id": "a"}, "thoughtSignature": "QUJD"},
        {"functionCall": {"name": "weather", "args": {"place": "Chur"}}},
    ],
}
ANSWERED = {
    "role": "user",
    "parts": [
        {"functionResponse": {"name": "weather", "response": {"output": "rain"}, "id": "a"}},
        {"functionResponse": {"name": "weather", "response": {"error": "no such place"}}},
        {"text": "and?"},
    ],
}


def parsed(document: dict[str, Any], *, stream: bool = False) -> GeminiRequest:
    return parse_request(json.dumps(document).encode(), model="m", stream=stream)


def call_of(**fields: Any) -> Call:
    return parsed({**HELLO, **fields}).call()


def encoded(call: Call, model: str = "gemini-2.5-flash", quirks: Quirks | None = None) -> dict[str, Any]:
    dialect: ProviderDialect = Gemini(quirks=quirks or Quirks())
    body: dict[str, Any] = json.loads(dialect.encode(call, model).body)
    return body


def dropped(call: Call, model: str = "gemini-2.5-flash") -> tuple[str, ...]:
    return Gemini().encode(call, model).dropped


def asking(*messages: Message, **fields: Any) -> Call:
    user = Message(role="user", parts=(Text(text="Hello"),))
    return Call(model="m", messages=messages or (user,), **{"dialect": "openai", **fields})


def user(*parts: Any) -> Message:
    return Message(role="user", parts=parts)


def assistant(*parts: Any) -> Message:
    return Message(role="assistant", parts=parts)


# ── a client's request ───────────────────────────────────────────────────────────────────────────────────────────


def test_every_field_of_the_configuration_has_its_place() -> None:
    config = {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40.0,
        "candidateCount": 2,
        "maxOutputTokens": "100",
        "stopSequences": ["END"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
        "thinkingConfig": {"thinkingBudget": 512, "includeThoughts": True},
    }
    call = call_of(
        generationConfig=config, systemInstruction={"parts": [{"text": "Be brief."}]}, serviceTier="standard"
    )
    assert (call.temperature, call.top_p, call.top_k, call.n) == (0.5, 0.9, 40, 2)
    assert (call.max_tokens, call.stop, call.seed) == (100, ("END",), 7)
    assert (call.presence_penalty, call.frequency_penalty, call.logprobs, call.top_logprobs) == (0.1, 0.2, True, 3)
    assert call.format == Format(kind="schema", name="answer", schema={"type": "object"})
    assert call.thinking == Thinking(budget_tokens=512, show=True)
    assert (call.system, call.service_tier) == ((Text(text="Be brief."),), "default")
    assert (call.include_usage, call.dialect, call.extra) == (True, "gemini", {})


def test_both_spellings_and_single_entries_are_the_same() -> None:
    snake = {
        "contents": {"parts": {"inline_data": {"mime_type": "image/png", "data": "-_8"}}},
        "system_instruction": {"parts": {"text": "Be brief."}},
        "generation_config": {"max_output_tokens": 5, "candidate_count": 2},
        "tools": {"function_declarations": {"name": "f_x", "parameters": {"properties": {"a_b": {"type": "STRING"}}}}},
    }
    request = parsed(snake)
    call = request.call()
    assert request.n == call.n == 2
    assert call.messages == (user(Media(kind="image", mime="image/png", data="+/8=")),)
    assert (call.system, call.max_tokens) == ((Text(text="Be brief."),), 5)
    assert call.tools == (Tool(name="f_x", schema={"properties": {"a_b": {"type": "string"}}}),)


def test_calls_and_responses_find_each_other() -> None:
    call = call_of(contents=[*HELLO["contents"], CALLED, ANSWERED])
    _, called, answered = call.messages
    assert called == assistant(
        Text(text="I look."),
        ToolCall(id="a", name="weather", arguments='{"place":"Bern"}', signature="QUJD"),
        ToolCall(id="call_2", name="weather", arguments='{"place":"Chur"}'),
    )
    assert answered == user(
        ToolResult(id="a", name="weather", content=(Text(text="rain"),)),
        ToolResult(id="call_2", name="weather", content=(Text(text="no such place"),), is_error=True),
        Text(text="and?"),
    )


def test_thoughts_come_together_and_signatures_stay_with_what_they_sign() -> None:
    parts = [
        {"text": "Let me ", "thought": True},
        {"text": "see.", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "A-_9"},
        {"text": "Yes.", "thoughtSignature": "QUJD"},
    ]
    call = call_of(contents=[{"role": "model", "parts": parts}])
    thought = Reasoning(text="Let me see.", signature=mark_googles("A+/9"))
    assert call.messages == (assistant(thought, Text(text="Yes."), Reasoning(signature=mark_googles("QUJD"))),)


def test_media_and_results_of_any_form() -> None:
    parts: list[dict[str, Any]] = [
        {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/x"}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "QUJD", "displayName": "a.pdf"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "QUJD"}},
    ]
    [message] = call_of(contents=[{"parts": parts}]).messages
    assert message.parts == (
        Media(kind="video", mime="video/mp4", url="https://youtu.be/x"),
        Media(kind="file", file_id="https://generativelanguage.googleapis.com/v1beta/files/abc"),
        Media(kind="file", mime="application/pdf", data="QUJD", name="a.pdf"),
        Media(kind="audio", mime="audio/wav", data="QUJD"),
    )


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"result": {"a": 1}}, '{"a":1}'),
        ({"output": [1, 2]}, "[1,2]"),
        ({"a": 1, "b": "x"}, '{"a":1,"b":"x"}'),
        ({}, "{}"),
    ],
)
def test_what_a_tool_returned_is_text(response: dict[str, Any], text: str) -> None:
    answered = {"parts": [{"functionResponse": {"name": "f", "id": "1", "response": response}}]}
    [message] = call_of(contents=[answered]).messages
    assert message.parts == (ToolResult(id="1", name="f", content=(Text(text=text),)),)


@pytest.mark.parametrize(
    ("config", "choice", "names"),
    [
        ({"mode": "ANY", "allowedFunctionNames": ["b"]}, ToolChoice(mode="named", name="b"), ["a", "b", "c"]),
        ({"mode": "ANY", "allowedFunctionNames": ["a", "b"]}, ToolChoice(mode="required"), ["a", "b"]),
        ({"mode": "ANY"}, ToolChoice(mode="required"), ["a", "b", "c"]),
        ({"mode": "NONE"}, ToolChoice(mode="none"), ["a", "b", "c"]),
        ({"mode": "VALIDATED"}, ToolChoice(mode="auto"), ["a", "b", "c"]),
        ({}, None, ["a", "b", "c"]),
    ],
)
def test_modes_of_calling_are_choices(config: dict[str, Any], choice: ToolChoice | None, names: list[str]) -> None:
    tools = [{"functionDeclarations": [{"name": name} for name in "abc"]}]
    call = call_of(tools=tools, toolConfig={"functionCallingConfig": config})
    assert (call.tool_choice, [tool.name for tool in call.tools]) == (choice, names)


@pytest.mark.parametrize(
    ("config", "thinking"),
    [
        ({"thinkingBudget": 0}, Thinking(off=True)),
        ({"thinkingBudget": -1}, Thinking(budget_tokens=-1)),
        ({"thinkingLevel": "LOW"}, Thinking(effort="low")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED", "includeThoughts": False}, Thinking(show=False)),
    ],
)
def test_thinking_is_an_effort_or_a_budget(config: dict[str, Any], thinking: Thinking) -> None:
    assert call_of(generationConfig={"thinkingConfig": config}).thinking == thinking


def test_schemas_become_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "propertyOrdering": ["b", "a"],
        "required": ["b"],
        "properties": {
            "a": {"type": "ARRAY", "items": {"type": "INTEGER", "format": "int32"}, "min_items": "2", "nullable": True},
            "b": {"type": "STRING", "format": "enum", "enum": ["x"], "nullable": True, "example": "x"},
            "type": {"anyOf": [{"type": "NUMBER"}, {"ref": "#/defs/P"}]},
        },
        "defs": {"P": {"type": "BOOLEAN"}},
    }
    made = json_schema(schema)
    assert list(made["properties"]) == ["b", "a", "type"]
    assert made == {
        "type": "object",
        "required": ["b"],
        "properties": {
            "a": {"type": ["array", "null"], "items": {"type": "integer", "format": "int32"}, "minItems": 2},
            "b": {"type": ["string", "null"], "enum": ["x", None], "examples": ["x"]},
            "type": {"anyOf": [{"type": "number"}, {"$ref": "#/defs/P"}]},
        },
        "$defs": {"P": {"type": "boolean"}},
    }
    assert json_schema(made) == made


def test_what_nobody_else_knows_is_kept_by_its_name() -> None:
    call = call_of(
        safetySettings=[{"category": "X"}],
        labels={"a_b": "c"},
        toolConfig={"retrievalConfig": {"languageCode": "de"}},
        tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}],
        generationConfig={"mediaResolution": "LOW", "topP": 1},
        contents=[{"parts": [{"fileData": {"fileUri": "https://x/y"}, "videoMetadata": {"fps": 1}}]}],
    )
    assert call.extra == {
        "safetySettings": [{"category": "X"}],
        "labels": {"a_b": "c"},
        "generationConfig.mediaResolution": "LOW",
        "contents[0].parts[0].videoMetadata": {"fps": 1},
        "toolConfig.retrievalConfig": {"languageCode": "de"},
        "tools[0].functionDeclarations[0].behavior": "BLOCKING",
    }


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tools": [{"googleSearch": {}}]}, "unsupported_by_provider", "tools[0].googleSearch"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "invalid_request", "tools[0].functionDeclarations[0]"),
        ({"cachedContent": "cachedContents/x"}, "unsupported_by_provider", "cachedContent"),
        (
            {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
            "unsupported_by_provider",
            "generationConfig.responseModalities",
        ),
        (
            {"generationConfig": {"responseMimeType": "text/x.enum"}},
            "unsupported_by_provider",
            "generationConfig.responseMimeType",
        ),
        ({"generationConfig": {"topP": "x"}}, "invalid_request", "generationConfig.topP"),
        (
            {"contents": [{"parts": [{"executableCode": {"code": "1"}}]}]},
            "unsupported_by_provider",
            "contents[0].parts[0]",
        ),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
            "invalid_request",
            "contents[0].parts[0].functionResponse",
        ),
        ({"contents": [{"parts": [{"text": 3}]}]}, "invalid_request", "contents[0].parts[0].text"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        call_of(**fields)
    assert (refused.value.code, refused.value.param, refused.value.http_status) == (code, param, 400)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "contents"),
        (b'{"contents": []}', "contents"),
        (b'{"contents": "x"}', "contents"),
        (b'{"contents": [{"parts": 3}]}', "contents[0].parts"),
        (b'{"contents": [{}], "generationConfig": {"candidateCount": 0}}', "generationConfig.candidateCount"),
    ],
)
def test_what_the_gateway_itself_needs_is_checked_at_once(body: bytes, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_request(body, model="m", stream=False)
    assert (refused.value.http_status, refused.value.param) == (400, param)


def test_what_is_no_json_is_said_to_be_none() -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(RequestError):
            parse_request(body, model="m", stream=False)


def test_to_a_provider_of_the_same_dialect_the_bytes_pass() -> None:
    body = b'{"contents":[{"parts":[{"text":"a"}],"new":1.50}],"anything":{"x":[1e2,null]},"safetySettings":[]}'
    request = parse_request(body, model="m", stream=True)
    assert request.encode_as_is("other", Quirks()) == body
    assert b"safetySettings" not in request.encode_as_is("other", Quirks(drops=("safetySettings",)))


def test_an_assistants_messages_stand_before_the_clients() -> None:
    document = {
        "contents": [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"text": "A"}]}],
        "system_instruction": {"parts": {"text": "mine"}},
    }
    request: Request = parsed(document)
    messages = request.messages()
    assert [message["role"] for message in messages] == ["user", "assistant"]
    added: list[dict[str, Any]] = [{"role": "system", "content": "ours"}, {"role": "user", "content": "earlier"}]
    made = json.loads(request.with_messages(added + messages).encode_as_is("m", Quirks()))
    assert made == {
        "contents": [{"role": "user", "parts": [{"text": "earlier"}]}, *document["contents"]],
        "system_instruction": {"parts": [{"text": "ours"}, {"text": "mine"}]},
    }
    alone = json.loads(parsed(HELLO).with_messages(added[:1]).encode_as_is("m", Quirks()))
    assert alone == {"contents": [], "systemInstruction": {"parts": [{"text": "ours"}]}}


def test_loaders_get_the_last_thing_the_user_said() -> None:
    assert parsed({"contents": [*HELLO["contents"], CALLED]}).last_user_text == "Hello"
    results = {"parts": ANSWERED["parts"][:2]}
    assert parsed({"contents": [*HELLO["contents"], CALLED, results]}).last_user_text == "Hello"
    assert parsed({"contents": [CALLED, ANSWERED]}).last_user_text == "and?"


# ── a call for Gemini ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_comes_out_as_it_went_in() -> None:
    document = {
        "contents": [
            {"role": "user", "parts": [{"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]},
            CALLED,
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"output": "rain"}, "id": "a"}},
                    {"functionResponse": {"name": "weather", "response": {"error": "none"}, "id": "call_2"}},
                ],
            },
            {"role": "model", "parts": [{"text": "It rains.", "thoughtSignature": "REVG"}]},
            {"role": "user", "parts": [{"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/a.pdf"}}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "d", "parametersJsonSchema": {"type": "object"}}
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 100,
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 3,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"thinkingBudget": 512, "includeThoughts": True},
        },
        "serviceTier": "flex",
    }
    call = parsed(document).call()
    document["contents"][1]["parts"][2]["functionCall"]["id"] = "call_2"  # type: ignore[index]
    made = Gemini().encode(call, "gemini-2.5-flash")
    assert json.loads(made.body) == document
    assert made.dropped == ()


def test_turns_alternate_and_instructions_stand_apart() -> None:
    body = encoded(
        asking(
            user(Text(text="a")),
            user(Text(text="b"), Text(text="")),
            Message(role="system", parts=(Text(text="later"),)),
            assistant(Refusal(text="No."), Reasoning(text="thought", signature="c2ln")),
            assistant(Reasoning(text="only a thought")),
            user(Text(text="c")),
            system=(Text(text="first"),),
        )
    )
    assert body["systemInstruction"] == {"parts": [{"text": "first"}, {"text": "later"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "No."}]},
        {"role": "user", "parts": [{"text": "c"}]},
    ]


def test_results_get_their_names_and_their_media_follow() -> None:
    result = ToolResult(id="1", content=(Text(text='{"a": 1.50}'), Media(kind="image", data="QUJD")))
    called = assistant(ToolCall(id="1", name="f", arguments=""))
    body = Gemini().encode(asking(called, user(result, Text(text="so"))), "gemini-2.5-flash").body
    assert b'"output":{"a": 1.50}' in body
    assert json.loads(body)["contents"][1]["parts"] == [
        {"functionResponse": {"name": "f", "response": {"output": {"a": 1.5}}, "id": "1"}},
        {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}},
        {"text": "so"},
    ]
    assert json.loads(body)["contents"][0]["parts"] == [{"functionCall": {"name": "f", "args": {}, "id": "1"}}]


def test_from_gemini_3_on_unsigned_calls_are_marked_as_another_models() -> None:
    calls = [ToolCall(id=str(n), name="f", arguments="{}") for n in range(2)]
    first, second = encoded(asking(assistant(*calls)), "gemini-3-flash-preview")["contents"][0]["parts"]
    assert (first["thoughtSignature"], "thoughtSignature" in second) == (UNSIGNED, False)
    signed = ToolCall(id="1", name="f", arguments="{}", signature="QUJD")
    [part] = encoded(asking(assistant(signed)), "gemini-3-flash-preview")["contents"][0]["parts"]
    assert part["thoughtSignature"] == "QUJD"
    assert "thoughtSignature" not in encoded(asking(assistant(calls[0])))["contents"][0]["parts"][0]


def test_a_signature_that_came_before_its_text_finds_it() -> None:
    said = assistant(Reasoning(signature=mark_googles("QUJD")), Text(text="Yes."), Text(text="No."))
    assert encoded(asking(said))["contents"][0]["parts"] == [
        {"text": "Yes.", "thoughtSignature": "QUJD"},
        {"text": "No."},
    ]


@pytest.mark.parametrize(
    ("thinking", "older", "modern", "pro"),
    [
        (Thinking(effort="minimal"), 1024, "MINIMAL", "LOW"),
        (Thinking(effort="low"), 1024, "LOW", "LOW"),
        (Thinking(effort="medium"), 8192, "MEDIUM", "MEDIUM"),
        (Thinking(effort="high"), 24576, "HIGH", "HIGH"),
        (Thinking(effort="max"), 24576, "HIGH", "HIGH"),
        (Thinking(effort="none", off=True), 0, "MINIMAL", "LOW"),
    ],
)
def test_efforts_follow_googles_table(thinking: Thinking, older: int, modern: str, pro: str) -> None:
    call = asking(thinking=thinking)
    assert encoded(call, "gemini-2.5-pro")["generationConfig"] == {"thinkingConfig": {"thinkingBudget": older}}
    for model, level in (("gemini-3-flash-preview", modern), ("gemini-3.1-pro-preview", pro)):
        assert encoded(call, model)["generationConfig"] == {"thinkingConfig": {"thinkingLevel": level}}
    assert dropped(call, "gemini-3-flash-preview") == (("reasoning_effort",) if thinking.off else ())


def test_budgets_pass_and_unknown_efforts_are_named() -> None:
    call = asking(thinking=Thinking(budget_tokens=-1, show=True))
    for model in ("gemini-2.5-pro", "gemini-3-flash-preview"):
        config = encoded(call, model)["generationConfig"]["thinkingConfig"]
        assert config == {"thinkingBudget": -1, "includeThoughts": True}
    odd = asking(thinking=Thinking(effort="extreme"))
    assert ("generationConfig" in encoded(odd), dropped(odd)) == (False, ("reasoning_effort",))


@pytest.mark.parametrize(
    ("model", "modern"),
    [
        ("gemini-1.5-pro", False),
        ("gemini-2.5-flash-lite", False),
        ("models/gemini-2.0-flash", False),
        ("gemini-3-flash-preview", True),
        ("gemini-3.5-flash", True),
        ("gemini-10-pro", True),
        ("gemini-flash-latest", True),
        ("gemma-3-27b-it", False),
    ],
)
def test_the_generation_is_read_from_the_name(model: str, modern: bool) -> None:
    assert thinks_in_levels(model) is modern


def test_what_has_no_counterpart_is_named_as_the_client_calls_it() -> None:
    call = asking(
        user(Text(text="a", cached="5m")),
        user=("u"),
        parallel_tools=False,
        tools=(Tool(name="f", cached="5m"),),
        service_tier="scale",
        extra={"logit_bias": {}},
    )
    assert dropped(call) == ("cache_control", "parallel_tool_calls", "service_tier", "user", "logit_bias")
    assert encoded(asking(service_tier="auto", parallel_tools=True)) == HELLO


@pytest.mark.parametrize(
    "parts",
    [
        (Media(kind="file", file_id="file-abc"),),
        (ToolResult(id="unknown"),),
    ],
)
def test_what_must_not_be_lost_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(RequestError) as refused:
        encoded(asking(user(*parts)))
    assert (refused.value.http_status, refused.value.param) == (400, "messages")


def test_arguments_that_are_no_object_are_refused() -> None:
    for arguments in ("[1]", '{"a": ', "x"):
        with pytest.raises(RequestError, match="no JSON object"):
            encoded(asking(assistant(ToolCall(id="1", name="f", arguments=arguments))))


def test_an_answer_is_gone_on_with_only_where_the_provider_does_so() -> None:
    call = asking(user(Text(text="a")), assistant(Text(text="b")), prefill=True)
    with pytest.raises(RequestError) as refused:
        encoded(call)
    assert refused.value.code == "unsupported_by_provider"
    assert encoded(call, quirks=Quirks(prefill=True))["contents"][-1] == {"role": "model", "parts": [{"text": "b"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["text", "parts", "role", "functionCall", "function_response", "name", "args", "thought", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "system_instruction"]
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    with contextlib.suppress(RequestError):
        call = parsed({**HELLO, **document}).call()
        assert Gemini().encode(call, "gemini-2.5-flash").body
