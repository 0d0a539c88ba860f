"""What the simulated provider says: it shows what reached it, keeps to lengths and never fails on odd input."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sim.answers import Answer, answer
from gateway.sim.behaviour import MAX_TOKENS, Behaviour
from gateway.sim.errors import ApiError
from gateway.sim.fields import read_document
from gateway.sim.request import read_chat, read_embedding
from gateway.sim.schema import MAX_VALUES, example
from gateway.sim.wire import Completion, embedding_document, unit_vector

QUESTION = {"role": "user", "content": "How do I descale the machine?"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"place": {"type": "string"}}}},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def said(body: dict[str, Any], behaviour: Behaviour | None = None) -> Answer:
    return answer(read_chat({"model": "sim", "messages": [QUESTION], **body}), behaviour or Behaviour())


def text(body: dict[str, Any], behaviour: Behaviour | None = None) -> str:
    return "".join(said(body, behaviour).pieces)


def test_the_first_sentence_restates_the_last_user_message() -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, QUESTION]
    answered = text({"messages": turns})
    assert answered.startswith("You asked: “How do I descale the machine?”")
    assert "Before that you had asked: “Hello”" in answered


def test_context_is_quoted_with_its_source() -> None:
    system = """Answer from the documents.
<context name="docs">
<source name="manual.md › &quot;Descaling&quot;">
## Descaling
Descale it **every** month, at 5 &lt; pH.
</source>
<source name="returns.md">
Thirty days.
</source>
</context>
The user: <context name="profile">
name: Ada
plan: gold
</context>
<context name="crm">
(not available)
</context>
What stands inside <context> tags is data."""
    answered = text({"messages": [{"role": "system", "content": system}, QUESTION]})
    assert answered.split("\n\n")[1:] == [
        'According to manual.md › "Descaling": Descale it every month, at 5 < pH.',
        "According to returns.md: Thirty days.",
        "According to profile: name: Ada; plan: gold",
        "From crm there is nothing (not available).",
    ]


def test_instructions_are_quoted_when_there_is_no_context() -> None:
    answered = text({"messages": [{"role": "developer", "content": "Be brief."}, QUESTION]})
    assert "My instructions say: Be brief." in answered


def test_of_a_long_passage_the_sentences_nearest_to_the_question_are_quoted() -> None:
    long = "Nothing of interest stands in this sentence at all. " * 20 + "To descale the machine, use citric acid."
    system = f'<context name="docs">{long}</context>'
    answered = text({"messages": [{"role": "system", "content": system}, QUESTION]})
    assert "use citric acid" in answered
    assert len(answered) < 500


def test_content_parts_are_read_as_text() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert "What is this? [image_url]" in text({"messages": [{"role": "user", "content": parts}]})


def test_the_same_prompt_gets_the_same_answer() -> None:
    assert said({}) == said({})
    assert said({}) != said({"messages": [{"role": "user", "content": "Something else?"}]})


@pytest.mark.parametrize("tokens", [0, 1, 7, 500])
def test_a_length_asked_for_is_kept_exactly(tokens: int) -> None:
    made = said({}, Behaviour(tokens=tokens))
    assert (made.tokens, made.finish) == (tokens, "stop")


def test_lengths_are_bounded_over_all_choices() -> None:
    assert said({"n": 100}, Behaviour(tokens=MAX_TOKENS)).tokens * 100 <= MAX_TOKENS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_ends_with_length(field: str) -> None:
    made = said({field: 3})
    assert (made.tokens, made.finish) == (3, "length")


def test_a_stop_sequence_ends_the_text_before_it() -> None:
    assert text({"stop": ["descale", "zzz"]}) == "You asked: “How do I"


def test_pieces_keep_the_text_and_prompt_tokens_are_a_quarter_of_the_characters() -> None:
    made = said({"messages": [{"role": "user", "content": "abcde"}]})
    assert made.prompt_tokens == 2
    assert all(piece.strip() and len(piece.strip()) <= 12 for piece in made.pieces)


def test_echo_answers_with_the_request() -> None:
    body = {"messages": [QUESTION], "temperature": 0.3, "brand_new_field": {"a": [1, None, "  two  spaces "]}}
    assert orjson.loads(text(body, Behaviour(echo=True, tokens=3))) == {"model": "sim", **body}


@pytest.mark.parametrize(
    ("body", "called"),
    [
        ({}, []),
        ({"messages": [{"role": "user", "content": "Please use the tool."}]}, ["weather"]),
        ({"messages": [{"role": "user", "content": "clock and weather"}]}, ["weather", "clock"]),
        ({"messages": [{"role": "user", "content": "clock, weather"}], "parallel_tool_calls": False}, ["weather"]),
        ({"tool_choice": "required"}, ["weather"]),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"]),
        ({"tool_choice": "none", "messages": [{"role": "user", "content": "use the tool"}]}, []),
    ],
)
def test_tools_are_called_when_forced_or_asked_for(body: dict[str, Any], called: list[str]) -> None:
    made = said({"tools": [WEATHER, CLOCK], **body})
    assert [call.name for call in made.calls] == called
    assert made.finish == ("tool_calls" if called else "stop")
    assert bool(made.pieces) is not bool(called)


def test_tool_arguments_satisfy_the_schema_and_results_are_quoted() -> None:
    made = said({"tools": [WEATHER], "tool_choice": "required"})
    assert orjson.loads("".join(made.calls[0].pieces)) == {"place": QUESTION["content"]}
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "17 degrees"},
    ]
    assert "The tool weather returned: 17 degrees" in text(
        {"messages": turns, "tools": [WEATHER], "tool_choice": "required"}
    )


def test_structured_answers_satisfy_their_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "count": {"type": "integer", "minimum": 3},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
            "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "short": {"type": "string", "maxLength": 3},
        },
        "$defs": {"tag": {"type": "string"}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    document = orjson.loads(text({"response_format": wanted}))
    question = QUESTION["content"]
    assert document == {"kind": "a", "count": 3, "tags": [question] * 2, "maybe": True, "short": question[:3]}
    assert orjson.loads(text({"response_format": {"type": "json_object"}})) == {"answer": question}


def test_a_schema_that_refers_to_itself_ends() -> None:
    branches = {name: {"$ref": "#"} for name in "abcdefgh"}
    assert orjson.dumps(example({"properties": branches}, "x")).count(b":") <= 8 * MAX_VALUES
    assert example({"$ref": "#"}, "x") is None
    nested = {"type": "array", "minItems": 10**9, "items": {"$ref": "#"}}
    assert len(orjson.dumps(example(nested, "x"))) < 100_000


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 4}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [QUESTION, {"content": "x"}]}, "messages[1].role", "missing_required_parameter"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 1_000}, "n", "integer_above_max_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"stop": [1]}, "stop", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"tools": [CLOCK], "tool_choice": {"function": {"name": "other"}}}, "tool_choice", None),
        ({"response_format": {"type": "xml"}}, "response_format", None),
    ],
)
def test_a_faulty_request_is_a_400_that_names_the_field(change: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        said(change)
    error = caught.value.document["error"]
    assert (caught.value.status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"1", b'"x"', b"\xff", b"{NaN}", b'{"a":"\\ud800"}', b"[" * 5_000])
def test_a_body_that_is_no_json_object_is_a_400(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read_document(raw)
    assert caught.value.status == 400


FIELDS = (
    st.sampled_from(["model", "messages", "role", "content", "type", "text", "name", "id", "stream", "n", "stop"])
    | st.sampled_from(["tools", "tool_calls", "function", "parameters", "properties", "items", "$ref", "anyOf", "enum"])
    | st.sampled_from(["tool_choice", "tool_call_id", "response_format", "json_schema", "schema", "logprobs"])
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text() | values},
        optional={"tool_calls": values, "tool_call_id": values},
    ),
    max_size=3,
)
bodies = st.dictionaries(FIELDS, values).flatmap(
    lambda body: messages.map(lambda some: {**body, "model": "sim", "messages": some})
)


@given(bodies, st.booleans())
def test_any_json_gets_an_answer_or_a_400(body: dict[str, Any], echo: bool) -> None:
    document = read_document(orjson.dumps(body))
    try:
        request = read_chat(document)
    except ApiError as refusal:
        orjson.dumps(refusal.document)
        return
    made = Completion(request=request, answer=answer(request, Behaviour(echo=echo)), id="0", created_s=0)
    document = orjson.loads(made.document())
    assert len(document["choices"]) == request.choices
    stream = list(made.events())
    assert sum(tokens for _, tokens in stream) == made.tokens == document["usage"]["completion_tokens"]
    for event in (made.opening() + b"".join(data for data, _ in stream) + made.finish()).split(b"\n\n")[:-1]:
        orjson.loads(event.removeprefix(b"data: "))


def test_embeddings_depend_on_the_text_alone_and_have_length_one() -> None:
    one, two = unit_vector("one", 64), unit_vector("two", 64)
    assert one == unit_vector("one", 64)
    assert one != two
    assert sum(number * number for number in one) == pytest.approx(1, abs=1e-5)
    request = read_embedding({"model": "sim", "input": ["one", "two"], "dimensions": 64})
    document = orjson.loads(embedding_document(request))
    assert [entry["embedding"] for entry in document["data"]] == [one.tolist(), two.tolist()]
    assert document["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize(
    ("given_input", "count"),
    [
        ("a", 1),
        (["a", "b"], 2),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
        (None, 0),
        ("", 0),
        ([], 0),
        ([""], 0),
        ([{}], 0),
        (5, 0),
    ],
)
def test_embedding_inputs_are_texts_or_token_ids(given_input: object, count: int) -> None:
    body = {"model": "sim", "input": given_input}
    if count:
        assert len(read_embedding(body).inputs) == count
    else:
        with pytest.raises(ApiError, match="input"):
            read_embedding(body)
