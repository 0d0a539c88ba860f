"""Answers written in OpenAI's chat dialect: byte by byte for one, by reading them back for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.chat_writer import ChatWriter, write_chat
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.sse import event_data, split_events

GOLDEN = Path(__file__).parents[1] / "golden"
WHOLE = sorted(
    path.stem
    for path in GOLDEN.glob("*.sse")
    if path.stem.startswith(("openai_", "openrouter_", "mistral_", "deepseek_", "azure_")) and "error" not in path.stem
)
START = Started("chatcmpl-1", "m", 7)
HEAD = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",'


def chunks(data: bytes) -> list[Any]:
    found = [event_data(event) for event in split_events(data)]
    return [json.loads(one) for one in found if one and one != b"[DONE]"]


def written(*events: Event, include_usage: bool = False) -> list[Any]:
    writer = ChatWriter(include_usage=include_usage)
    return chunks(writer.write(list(events)) + writer.end())


def deltas(*events: Event) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in written(START, *events)]


def read(data: bytes) -> Answer:
    reader = OpenAIChat().reader()
    return Answer.of(reader.feed(data) + reader.end())


def golden(name: str) -> list[Event]:
    return OpenAIChat().reader().feed((GOLDEN / f"{name}.sse").read_bytes())


def test_a_stream_byte_by_byte() -> None:
    writer = ChatWriter(include_usage=True)
    out = writer.write([START, TextDelta("Hé")]) + writer.write([Finished("length"), Used(Usage(prompt_tokens=2))])
    assert out == (
        HEAD + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        b'"finish_reason":null}],"usage":null}\n\n'
        + HEAD
        + '"choices":[{"index":0,"delta":{"content":"Hé"},'.encode()
        + b'"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
        + HEAD
        + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}\n\n'
    )
    assert writer.end() == (
        HEAD + b'"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":0,"total_tokens":2,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("name", WHOLE)
def test_what_was_read_is_written_and_read_again(name: str) -> None:
    events = golden(name)
    writer = ChatWriter(include_usage=True)
    out = b"".join(writer.write([event]) for event in events) + writer.end()
    first, second = Answer.of(events), read(out)
    assert (second.id, second.created, second.model, second.usage) == (
        first.id,
        first.created,
        first.model,
        first.usage,
    )
    assert second.choices.keys() == first.choices.keys()
    for index, choice in second.choices.items():
        assert [event for event in Answer(choices={0: choice}).events() if not isinstance(event, Finished)] == [
            event for event in Answer(choices={0: first.choices[index]}).events() if not isinstance(event, Finished)
        ]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_answers_say_the_same(name: str) -> None:
    first = Answer.of(golden(name))
    second = Answer.of(OpenAIChat().read_whole(write_chat(first)))
    assert second.usage == first.usage
    for index, choice in first.choices.items():
        again = second.choices[index]
        assert (again.text, again.reasoning, again.refusal) == (choice.text, choice.reasoning, choice.refusal)
        assert [(t.id, t.name, t.arguments) for t in again.tools] == [(t.id, t.name, t.arguments) for t in choice.tools]
        assert again.finished is not None
        assert choice.finished is not None
        assert again.finished.reason == choice.finished.reason


@pytest.mark.parametrize("name", WHOLE)
def test_openais_own_client_understands_it(name: str) -> None:
    events = golden(name)
    writer = ChatWriter(include_usage=True)
    for chunk in chunks(writer.write(events) + writer.end()):
        ChatCompletionChunk.model_validate(chunk, strict=True)
    ChatCompletion.model_validate_json(write_chat(Answer.of(events)), strict=True)


def test_the_usage_is_told_only_to_those_who_asked() -> None:
    told = written(START, TextDelta("a"), Finished("stop"), Used(Usage(prompt_tokens=1, estimated=True)))
    assert all("usage" not in chunk for chunk in told)
    asked = written(START, TextDelta("a"), Used(Usage(prompt_tokens=1, estimated=True)), include_usage=True)
    assert asked[-1]["usage"]["estimated"] is True
    assert asked[-1]["choices"] == []
    assert all(chunk["usage"] is None for chunk in asked[:-1])


def test_an_end_without_usage_is_only_done() -> None:
    assert ChatWriter(include_usage=True).end() == b"data: [DONE]\n\n"


def test_a_repair_keeps_the_id_and_names_the_new_model() -> None:
    events = [START, TextDelta("a"), Started("other", "n", 9), TextDelta("b"), Finished("stop")]
    told = written(*events)
    assert {(chunk["id"], chunk["created"]) for chunk in told} == {("chatcmpl-1", 7)}
    assert [chunk["model"] for chunk in told] == ["m", "m", "n", "n"]


def test_a_writer_that_was_primed_goes_on_where_the_first_stopped() -> None:
    first, second = ChatWriter(id="chatcmpl-x", created=5), ChatWriter(id="chatcmpl-x", created=5)
    so_far: list[Event] = [Started("", "m"), TextDelta("a")]
    told = chunks(first.write(so_far))
    second.write(Answer.of(so_far).events())
    rest = chunks(second.write([Started("other", "n", 9), TextDelta("b")]))
    assert {(chunk["id"], chunk["created"]) for chunk in told + rest} == {("chatcmpl-x", 5)}
    assert [chunk["choices"][0]["delta"] for chunk in rest] == [{"content": "b"}]


def test_an_id_is_made_up_if_nobody_gives_one() -> None:
    told = written(TextDelta("a"), Finished("stop"))
    (id,) = {chunk["id"] for chunk in told}
    assert id.startswith("chatcmpl-")
    assert told[0]["created"] > 0
    assert json.loads(write_chat(Answer(), id="chatcmpl-y", created=3, model="m"))["id"] == "chatcmpl-y"


def test_a_second_finish_is_not_written() -> None:
    told = written(START, TextDelta("a"), Finished("stop"), Finished("length"))
    assert [chunk["choices"][0]["finish_reason"] for chunk in told] == [None, None, "stop"]


def test_calls_come_with_their_index_and_signature() -> None:
    events = [ToolCallStarted(0, "a", "one", 0, "c2ln"), ArgumentsDelta(0, "{}"), ToolCallStarted(1, "", "two")]
    role, first, arguments, second = deltas(*events)
    assert role == {"role": "assistant", "content": None}
    assert first["tool_calls"] == [
        {
            "index": 0,
            "id": "a",
            "type": "function",
            "function": {"name": "one", "arguments": ""},
            "extra_content": {"google": {"thought_signature": "c2ln"}},
        }
    ]
    assert arguments == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    assert second["tool_calls"][0]["id"] == "call_chatcmpl-1_0_1"


def test_a_signed_thought_is_told_whole_at_its_end() -> None:
    told = deltas(
        ReasoningDelta("Two and"), ReasoningDelta(" two."), ReasoningDelta(signature="s"), ReasoningDelta(redacted="e")
    )
    assert told[1:] == [
        {"reasoning_content": "Two and"},
        {"reasoning_content": " two."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Two and two.", "signature": "s", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "e", "index": 1}]},
    ]


def test_an_unsigned_thought_has_no_details() -> None:
    assert deltas(ReasoningDelta("Hm."), TextDelta("a"))[1:] == [{"reasoning_content": "Hm."}, {"content": "a"}]


@pytest.mark.parametrize(
    ("events", "finish"),
    [
        ([RefusalDelta("No."), Finished("refusal")], "stop"),
        ([TextDelta("a"), Finished("refusal")], "content_filter"),
        ([TextDelta("a"), Finished("pause")], "stop"),
        ([ToolCallStarted(0, "a", "one"), Finished("tool_calls")], "tool_calls"),
        ([Finished("content_filter")], "content_filter"),
    ],
)
def test_each_finish_has_openais_word(events: list[Event], finish: str) -> None:
    assert written(START, *events)[-1]["choices"][0]["finish_reason"] == finish
    document = json.loads(write_chat(Answer.of([START, *events])))
    assert document["choices"][0]["finish_reason"] == finish


def test_text_is_empty_but_absent_beside_calls_and_refusals() -> None:
    def content(*events: Event) -> Any:
        return json.loads(write_chat(Answer.of(events)))["choices"][0]["message"]["content"]

    assert content(Finished("stop")) == ""
    assert content(ToolCallStarted(0, "a", "one")) is None
    assert content(RefusalDelta("No.")) is None


def test_usage_has_its_details() -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=5, cached_tokens=4, reasoning_tokens=3, cache_write_tokens=2)
    told = json.loads(write_chat(Answer(usage=usage)))["usage"]
    assert told == {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert json.loads(write_chat(Answer(usage=evolve(usage, estimated=True))))["usage"]["estimated"] is True
