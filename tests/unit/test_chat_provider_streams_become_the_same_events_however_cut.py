"""Codec law for chat providers: however the network cuts a stream, the answer is the same; and it is the right one.

The streams in ``tests/golden`` are written from the providers' documented formats.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer, ReasoningBlock, TextBlock
from gateway.dialects.azure import AzureOpenAI
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.chat_reader import ChatReader
from gateway.dialects.events import Event, Failed, Finished, Started
from gateway.dialects.provider import BadAnswer, ProviderDialect

PREFIXES = ("openai_", "openrouter_", "azure_", "mistral_", "deepseek_")
GOLDEN = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*.sse"))
    if path.stem.startswith(PREFIXES)
}


def read(*reads: bytes) -> tuple[list[Event], ChatReader]:
    reader = ChatReader()
    events = [event for data in reads for event in reader.feed(data)]
    return events + reader.end(), reader


def answer_of(*reads: bytes) -> Answer:
    return Answer.of(read(*reads)[0])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"id": "x", "model": "m", "choices": [choice]}).encode() + b"\n\n"


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_any_split_gives_the_same_answer(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    events, reader = read(*cut(stream, places))
    whole, whole_reader = read(stream)
    assert events == whole
    assert (reader.done, reader.malformed) == (whole_reader.done, whole_reader.malformed)


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_a_cut_stream_raises_nothing_and_says_a_beginning(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    events, reader = read(stream[: data.draw(st.integers(0, len(stream) - 1))])
    whole, _ = read(stream)
    assert events == whole[: len(events)]
    assert reader.malformed == 0


def test_the_start_comes_first_and_once() -> None:
    for name, stream in GOLDEN.items():
        events, _ = read(stream)
        assert isinstance(events[0], Started), name
        assert sum(isinstance(event, Started) for event in events) == 1, name


def test_tools_of_two_choices_stay_apart() -> None:
    answer = answer_of(GOLDEN["openai_two_choices_tools"])
    assert [(t.id, t.name, t.arguments) for t in answer.choices[0].tools] == [
        ("call_a1", "get_weather", '{"city":"Paris"}'),
        ("call_a2", "get_weather", '{"city":"Oslo"}'),
    ]
    assert [(t.id, t.name, t.arguments) for t in answer.choices[1].tools] == [("call_b1", "get_time", "{}")]
    assert [choice.finished and choice.finished.reason for choice in answer.choices.values()] == ["tool_calls"] * 2


def test_a_refusal_is_one_and_not_a_text() -> None:
    choice = answer_of(GOLDEN["openai_refusal"]).first
    assert (choice.text, choice.refusal) == ("", "I'm sorry, but I can't help with that.")
    assert choice.finished == Finished("refusal", "stop")


def test_log_probabilities_stay_with_their_text() -> None:
    (block,) = answer_of(GOLDEN["openai_logprobs"]).first.blocks
    assert isinstance(block, TextBlock)
    assert [(entry["token"], entry["logprob"]) for entry in block.logprobs] == [("Yes", -0.25), (" é", -0.5)]


def test_reasoning_tokens_and_cached_ones_are_counted() -> None:
    expected = Usage(prompt_tokens=12, completion_tokens=141, cached_tokens=8, reasoning_tokens=128)
    assert answer_of(GOLDEN["openai_reasoning"]).usage == expected


def test_openrouters_thoughts_keep_signature_and_encrypted_block() -> None:
    choice = answer_of(GOLDEN["openrouter_reasoning"]).first
    thoughts = [block for block in choice.blocks if isinstance(block, ReasoningBlock)]
    assert [(t.text, t.signature, t.redacted) for t in thoughts] == [
        ("Two and two.", "c2lnbmVk", ""),
        ("", "", "cmVkYWN0ZWQ="),
    ]
    assert choice.text == "Four."


def test_an_error_in_the_middle_ends_the_answer() -> None:
    events, reader = read(GOLDEN["openrouter_error"] + chunk({"content": "more"}))
    assert events[-1] == Failed("502", "Provider disconnected unexpectedly")
    assert not reader.done
    assert answer_of(GOLDEN["openai_error"]).failed == Failed(
        "server_error", "The server had an error while processing your request."
    )


def test_azures_preamble_is_no_content_and_its_filter_a_finish() -> None:
    preamble, _, rest = GOLDEN["azure_filtered"].partition(b"\n\n")
    reader = AzureOpenAI().reader()
    assert reader.feed(preamble + b"\n\n") == []
    answer = Answer.of(reader.feed(rest))
    assert (answer.id, answer.first.text) == ("chatcmpl-golden-azure", "Well, then")
    assert answer.first.finished == Finished("content_filter", "content_filter")


@pytest.mark.parametrize("name", ["mistral_thinking", "deepseek_reasoning"])
def test_thoughts_come_before_the_text_they_belong_to(name: str) -> None:
    first, second = answer_of(GOLDEN[name]).first.blocks
    assert isinstance(first, ReasoningBlock)
    assert isinstance(second, TextBlock)
    assert first.text
    assert second.text in ("Four.", "9.8 is larger.")


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def call(id: str, name: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": "{}"}}]}

    tools = answer_of(chunk(call("a", "one")), chunk(call("b", "two")), chunk({}, "stop")).first.tools
    assert [(t.index, t.id, t.name, t.arguments) for t in tools] == [(0, "a", "one", "{}"), (1, "b", "two", "{}")]


def test_stop_after_tool_calls_means_tool_calls() -> None:
    call = {"tool_calls": [{"id": "a", "function": {"name": "one", "arguments": {"x": 1}}}]}
    choice = answer_of(chunk(call), chunk({}, "stop")).first
    assert choice.finished == Finished("tool_calls", "stop")
    assert choice.tools[0].arguments == '{"x":1}'


def test_arguments_wait_for_the_name() -> None:
    early = {"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": '{"x"'}}]}
    named = {"tool_calls": [{"index": 0, "function": {"name": "one", "arguments": ":1}"}}]}
    (tool,) = answer_of(chunk(early), chunk(named), chunk({}, "tool_calls")).first.tools
    assert (tool.id, tool.name, tool.arguments) == ("a", "one", '{"x":1}')


def test_a_thought_signature_of_a_call_is_kept() -> None:
    call = {"id": "a", "function": {"name": "one", "arguments": "{}"}}
    delta = {"tool_calls": [{**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}]}
    assert answer_of(chunk(delta)).first.tools[0].signature == "c2ln"


def test_malformed_events_are_counted_and_skipped() -> None:
    events, reader = read(chunk({"content": "a"}), b"data: {bad\n\ndata: 3\n\n", chunk({"content": "b"}, "stop"))
    assert Answer.of(events).first.text == "ab"
    assert reader.malformed == 2
    assert not reader.done


def test_what_follows_the_end_is_ignored() -> None:
    events, reader = read(chunk({"content": "a"}, "stop"), b"data: [DONE]\n\n", chunk({"content": "b"}))
    assert reader.done
    assert Answer.of(events).first.text == "a"


def test_a_second_finish_is_not_told() -> None:
    events, _ = read(chunk({"content": "a"}, "stop"), chunk({}, "length"))
    assert [event.reason for event in events if isinstance(event, Finished)] == ["stop"]


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource", "abort", "aborted"])
def test_a_finish_that_means_failure_is_a_failure(finish: str) -> None:
    assert answer_of(chunk({"content": "a"}), chunk({}, finish)).failed == Failed(finish)


def test_a_last_event_without_its_blank_line_counts() -> None:
    last = chunk({"content": "b"}, "stop").rstrip(b"\n")
    assert answer_of(chunk({"content": "a"}), last).first.text == "ab"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(prompt_tokens=5, completion_tokens=5, reasoning_tokens=3),
        ),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(prompt_tokens=5, cached_tokens=4)),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": "5"}, None),
        ({"prompt_tokens": 10**12}, None),
    ],
)
def test_usage_is_read_in_its_variants(usage: dict[str, Any], expected: Usage | None) -> None:
    data = b"data: " + json.dumps({"id": "x", "choices": [], "usage": usage}).encode() + b"\n\n"
    assert answer_of(data).usage == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "content",
        "refusal",
        "reasoning",
        "reasoning_details",
        "tool_calls",
        "index",
        "delta",
        "finish_reason",
        "logprobs",
        "function",
        "name",
        "arguments",
        "id",
        "extra_content",
        "thinking",
        "text",
        "usage",
        "choices",
        "created",
        "error",
    ]
)
ODD = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@given(ODD)
def test_no_document_of_a_provider_raises(odd: Any) -> None:
    for document in (odd, {"choices": odd}, {"choices": [odd]}, {"choices": [{"delta": odd}]}):
        body = json.dumps(document).encode()
        read(b"data: " + body + b"\n\n")
        try:
            assert OpenAIChat().read_whole(body)
        except BadAnswer:
            continue


def test_whole_answers_say_the_same() -> None:
    message = {
        "role": "assistant",
        "content": "Four.",
        "reasoning": "Two and two.",
        "reasoning_details": [{"type": "reasoning.text", "text": "Two and two.", "signature": "c2ln"}],
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "one", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "two", "arguments": "{}"}},
        ],
    }
    body = {
        "id": "chatcmpl-1",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    answer = Answer.of(OpenAIChat().read_whole(json.dumps(body).encode()))
    assert (answer.id, answer.created, answer.model) == ("chatcmpl-1", 7, "m")
    thought = answer.first.blocks[0]
    assert isinstance(thought, ReasoningBlock)
    assert (thought.text, thought.signature) == ("Two and two.", "c2ln")
    assert answer.first.text == "Four."
    assert [tool.name for tool in answer.first.tools] == ["one", "two"]
    assert answer.usage == Usage(prompt_tokens=1, completion_tokens=2)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"choices":[]}', b'{"error":{"message":"no"}}', b'{"choices":[{"finish_reason":"error"}]}'],
)
def test_what_is_no_answer_is_a_bad_one(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        OpenAIChat().read_whole(body)


@pytest.mark.parametrize(
    ("dialect", "path", "header"),
    [
        (OpenAIChat(), b"/chat/completions", (b"authorization", b"Bearer k")),
        (AzureOpenAI(), b"/openai/v1/chat/completions", (b"api-key", b"k")),
        (
            AzureOpenAI(api_version="2024-10-21"),
            b"/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21",
            (b"api-key", b"k"),
        ),
    ],
)
def test_each_address_has_its_path_and_key(dialect: ProviderDialect, path: bytes, header: tuple[bytes, bytes]) -> None:
    assert dialect.path("my gpt/4", stream=True) == path
    assert list(dialect.headers("k").items()) == [header]
    assert dialect.headers("") == {}
    assert dialect.wire == "openai"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "context_length_exceeded", "message": "…"}, "context_length_exceeded"),
        ({"message": "This model's maximum context length is 65536 tokens"}, "context_length_exceeded"),
        ({"message": "This model's maximum prompt length is 131072"}, "context_length_exceeded"),
        ({"type": "exceed_context_size_error", "message": "the request exceeds"}, "context_length_exceeded"),
        ({"code": "content_filter", "message": "The response was filtered"}, "content_policy"),
        ({"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}, "content_policy"),
        ({"message": "This model does not support assistant message prefill."}, "prefill_unsupported"),
        ({"message": "Expected last role User or Tool"}, "prefill_unsupported"),
        ({"code": "invalid_api_key", "message": "Incorrect API key"}, ""),
        ({"message": "temperature must be at most 2"}, ""),
    ],
)
def test_errors_that_change_what_is_done_are_known(error: dict[str, Any], code: str) -> None:
    assert OpenAIChat().error_code(json.dumps({"error": error}).encode()) == code
    assert OpenAIChat().error_code(json.dumps([{"error": error}]).encode()) == code
    assert OpenAIChat().error_code(json.dumps(error).encode()) == code


@pytest.mark.parametrize("body", [b"", b"<html>", b"3", b"[]", b'{"error":null}', b'{"error":"busy"}', b"[[]]"])
def test_other_error_documents_say_nothing(body: bytes) -> None:
    assert OpenAIChat().error_code(body) == ""


@pytest.mark.parametrize("content", [1.5, "x", {"token": "a"}, True])
def test_log_probabilities_that_are_no_list_are_none(content: Any) -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "logprobs": {"content": content}, "finish_reason": "stop"}
    answer = Answer.of(ChatReader().whole(json.dumps({"choices": [choice]}).encode()))
    assert answer.first.text == "Hi"
