"""Codec law for OpenAI's Responses: however the network cuts a stream, the events are the same, and the right ones.

The streams in ``tests/golden`` are written from the documented format; that they are in it is checked against the types
of OpenAI's own client.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.responses_provider import ResponsesProvider
from gateway.dialects.responses_reader import ResponsesReader
from gateway.dialects.sse import EventTooLong, event_data, split_events

GOLDEN = {
    path.stem.removeprefix("responses_"): path.read_bytes()
    for path in (Path(__file__).parents[1] / "golden").glob("responses_*.sse")
}
MODEL = "gpt-5.4-2026-03-05"
AT = 1784000000
OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def hear(*reads: bytes, passed: bool = False) -> tuple[list[Event], ResponsesReader]:
    reader = ResponsesReader(passed=passed)
    events = [event for read in reads for event in reader.feed(read)]
    return events + reader.end(), reader


def sse(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def completed(*output: object, **fields: object) -> bytes:
    return sse("response.completed", response={"id": "resp_1", "status": "completed", "output": output, **fields})


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_the_golden_streams_are_in_openais_format(name: str) -> None:
    documents = [data for event in split_events(GOLDEN[name]) if (data := event_data(event)) is not None]
    for number, document in enumerate(documents):
        assert OFFICIAL.validate_json(document).sequence_number == number


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_any_split_gives_the_same_events(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(places), len(stream)]
    events, reader = hear(*(stream[a:b] for a, b in pairwise(edges)))
    whole, _ = hear(stream)
    assert events == whole
    assert reader.done == (name != "failed")
    assert reader.malformed == 0


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_byte_by_byte_and_with_crlf_gives_the_same_events(name: str) -> None:
    stream = GOLDEN[name]
    whole, _ = hear(stream)
    assert hear(*(stream[i : i + 1] for i in range(len(stream))))[0] == whole
    assert hear(stream.replace(b"\n", b"\r\n"))[0] == whole


def test_text_comes_with_its_end_and_usage() -> None:
    events, reader = hear(GOLDEN["text"])
    assert events == [
        Started("resp_golden_text", MODEL, AT),
        TextDelta("Grüezi"),
        TextDelta(", wie"),
        TextDelta(" geht’s? ☕"),
        Finished("stop", "completed"),
        Used(Usage(prompt_tokens=36, completion_tokens=12, cached_tokens=20)),
    ]
    assert reader.sequence_number == 10


def test_tool_calls_have_their_own_index_and_end_the_answer() -> None:
    assert hear(GOLDEN["tools"])[0][1:] == [
        TextDelta("Let me look."),
        ToolCallStarted(0, "call_one", "weather"),
        ArgumentsDelta(0, '{"pla'),
        ArgumentsDelta(0, 'ce":"Bern"}'),
        ToolCallStarted(1, "call_two", "weather"),
        ArgumentsDelta(1, '{"place":'),
        ArgumentsDelta(1, '"Chur"}'),
        Finished("tool_calls", "completed"),
        Used(Usage(prompt_tokens=80, completion_tokens=40)),
    ]


def test_the_parts_of_a_summary_are_paragraphs_and_the_encrypted_thoughts_follow() -> None:
    assert hear(GOLDEN["reasoning"])[0][1:] == [
        ReasoningDelta("**Adding** ", id="rs_golden_0"),
        ReasoningDelta("two numbers", id="rs_golden_0"),
        ReasoningDelta("\n\nChecking ", id="rs_golden_0"),
        ReasoningDelta("the sum", id="rs_golden_0"),
        ReasoningDelta(redacted="gAAAAAwhole", id="rs_golden_0"),
        TextDelta("2 + 2 = "),
        TextDelta("4"),
        Finished("stop", "completed"),
        Used(Usage(prompt_tokens=20, completion_tokens=90, reasoning_tokens=80)),
    ]


def test_a_refusal_is_the_reason_of_the_end() -> None:
    assert hear(GOLDEN["refusal"])[0][1:4] == [
        RefusalDelta("I’m sorry, "),
        RefusalDelta("but I can’t help with that."),
        Finished("refusal", "completed"),
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("something_new", "length")],
)
def test_an_incomplete_answer_says_why(reason: str, finish: str) -> None:
    stream = GOLDEN["incomplete"].replace(b'"reason":"max_output_tokens"', f'"reason":"{reason}"'.encode())
    assert [event for event in hear(stream)[0] if isinstance(event, Finished)] == [Finished(finish, reason)]


def test_a_failed_response_is_an_error_after_which_nothing_is_read() -> None:
    events, reader = hear(GOLDEN["failed"] + GOLDEN["text"])
    failed = Failed("server_error", "The model failed to generate a response.")
    assert events == [Started("resp_golden_failed", MODEL, AT), TextDelta("The first"), failed]
    assert not reader.done


@pytest.mark.parametrize(
    "error",
    [
        {"code": "too_many_requests", "message": "slow down", "param": None},
        {"error": {"type": "too_many_requests", "code": None, "message": "slow down"}},
    ],
    ids=["as documented", "as sent"],
)
def test_an_error_event_is_read_in_both_its_forms(error: dict[str, object]) -> None:
    assert hear(sse("error", sequence_number=2, **error))[0] == [Failed("too_many_requests", "slow down")]


def test_what_was_not_streamed_is_read_where_it_is_told() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "clock", "arguments": "{}"}
    text = {"type": "message", "content": [{"type": "output_text", "text": "noon"}]}
    assert hear(completed(text, call))[0][1:] == [
        TextDelta("noon"),
        ToolCallStarted(0, "call_1", "clock"),
        ArgumentsDelta(0, "{}"),
        Finished("tool_calls", "completed"),
    ]
    only_done = sse("response.output_text.done", output_index=0, content_index=0, text="noon")
    assert hear(only_done * 2, completed(text))[0][0] == TextDelta("noon")
    assert [event for event in hear(only_done * 2, completed(text))[0] if isinstance(event, TextDelta)] == [
        TextDelta("noon")
    ]
    no_delta = sse("response.output_item.added", output_index=1, item={**call, "arguments": ""})
    done = sse("response.function_call_arguments.done", output_index=1, arguments="{}")
    done += sse("response.output_item.done", output_index=1, item=call)
    assert hear(no_delta, done)[0] == [ToolCallStarted(0, "call_1", "clock"), ArgumentsDelta(0, "{}")]


def test_thoughts_in_full_are_read_where_there_is_no_summary_and_not_twice() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    delta = sse("response.reasoning_text.delta", item_id="rs_1", output_index=0, content_index=0, delta="hm")
    later = sse(
        "response.reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=0, delta="in short"
    )
    done = sse("response.output_item.done", output_index=0, item=item)
    assert hear(delta, later, done)[0] == [ReasoningDelta("hm", id="rs_1")]
    assert hear(done)[0] == [ReasoningDelta("hm", id="rs_1")]


def test_hosted_tools_commit_a_stream_that_passes_and_are_nothing_to_others() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "in_progress"}
    added = sse("response.output_item.added", output_index=0, item=search)
    assert hear(added, passed=True)[0] == [ToolCallStarted(0, "ws_1", "web_search_call")]
    assert hear(added)[0] == []
    assert hear(added, completed(search), passed=True)[0][-1] == Finished("stop", "completed")


def test_log_probabilities_come_with_their_text() -> None:
    entries = [{"token": "hi", "logprob": -0.5, "top_logprobs": []}]
    delta = sse("response.output_text.delta", output_index=0, content_index=0, delta="hi", logprobs=entries)
    assert hear(delta)[0] == [TextDelta("hi", logprobs=entries)]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from(
        ["item", "response", "delta", "text", "error", "logprobs", "output_index", "summary_index", "arguments"]
    ),
    st.sampled_from(
        [
            "response.created",
            "response.output_item.added",
            "response.output_item.done",
            "response.output_text.delta",
            "response.refusal.done",
            "response.reasoning_summary_text.delta",
            "response.function_call_arguments.delta",
            "response.completed",
            "response.failed",
            "error",
        ]
    ),
)
def test_no_document_raises_anything_but_what_is_promised(value: object, field: str, kind: str) -> None:
    shapes: list[dict[str, object]] = [
        {field: value},
        {"item": {"type": "function_call", field: value}},
        {"item": {"type": "reasoning", "summary": value, "content": [value]}},
        {"response": {"output": [value, {"type": "message", "content": value}], "usage": value, "created_at": value}},
    ]
    try:
        hear(*(sse(kind, **shape) for shape in shapes), passed=True)
        hear(b"data: " + json.dumps(value).encode() + b"\n\n")
    except (EventTooLong, BadAnswer):
        pass


def test_a_whole_answer_has_the_same_events_as_its_stream() -> None:
    dialect: ProviderDialect = ResponsesProvider()
    for name in ("text", "tools", "reasoning", "refusal", "incomplete"):
        events, reader = hear(GOLDEN[name])
        assert reader.last is not None
        whole, streamed = Answer.of(dialect.read_whole(reader.last)), Answer.of(events)
        assert (whole.id, whole.usage) == (streamed.id, streamed.usage)
        assert whole.first.text == streamed.first.text
        assert whole.first.reasoning == streamed.first.reasoning
        assert [(tool.id, tool.arguments) for tool in whole.first.tools] == [
            (tool.id, tool.arguments) for tool in streamed.first.tools
        ]
        assert whole.first.finished == streamed.first.finished


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"output": "text"}',
        b'{"status": "failed", "output": [], "error": {"code": "server_error", "message": "no"}}',
        b'{"status": "queued", "output": []}',
    ],
)
def test_what_is_no_whole_answer_is_a_bad_one(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        ResponsesProvider().read_whole(body)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            b'{"error": {"message": "too much", "type": "x", "code": "context_length_exceeded"}}',
            "context_length_exceeded",
        ),
        (b'{"error": {"message": "no", "code": "previous_response_not_found"}}', ""),
        (b"not json", ""),
    ],
)
def test_errors_have_the_meanings_of_chat(body: bytes, code: str) -> None:
    assert ResponsesProvider().error_code(body) == code


def test_it_is_asked_at_its_path_with_a_bearer_key() -> None:
    dialect: ProviderDialect = ResponsesProvider()
    assert dialect.path("gpt-5.4", stream=True) == b"/responses"
    assert dialect.headers("sk-1") == {b"authorization": b"Bearer sk-1"}
    assert dialect.headers("") == {}
    assert (dialect.name, dialect.wire) == ("openai-responses", "openai-responses")
