"""Codec law for Anthropic's streams: however the network cuts one, the events are the same, and the right ones.

The streams in ``tests/golden`` are written from the documented format.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_reader import AnthropicReader
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.sse import EventTooLong

GOLDEN = {
    path.stem.removeprefix("anthropic_"): path.read_bytes()
    for path in (Path(__file__).parents[1] / "golden").glob("anthropic_*.sse")
}


def hear(*reads: bytes) -> tuple[list[Event], AnthropicReader]:
    reader = AnthropicReader()
    events = [event for read in reads for event in reader.feed(read)]
    return events + reader.end(), reader


def sse(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_any_split_gives_the_same_events(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(places), len(stream)]
    events, reader = hear(*(stream[a:b] for a, b in pairwise(edges)))
    whole, _ = hear(stream)
    assert events == whole
    assert reader.done == (name != "error")
    assert reader.malformed == 0


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_byte_by_byte_and_with_crlf_gives_the_same_events(name: str) -> None:
    stream = GOLDEN[name]
    whole, _ = hear(stream)
    assert hear(*(stream[i : i + 1] for i in range(len(stream))))[0] == whole
    assert hear(stream.replace(b"\n", b"\r\n"))[0] == whole


def test_text_comes_with_its_end_and_usage() -> None:
    assert hear(GOLDEN["text"])[0] == [
        Started("msg_golden_text", "claude-opus-4-8"),
        TextDelta("Grüezi"),
        TextDelta(", wie"),
        TextDelta(" geht’s? ☕"),
        Finished("stop", "end_turn"),
        Used(Usage(prompt_tokens=25, completion_tokens=12)),
    ]


def test_parallel_calls_are_counted_and_one_without_arguments_has_an_empty_object() -> None:
    events = hear(GOLDEN["tools"])[0]
    assert events[3:] == [
        ToolCallStarted(0, "toolu_golden1", "get_weather"),
        ArgumentsDelta(0, '{"place":'),
        ArgumentsDelta(0, ' "Zür'),
        ArgumentsDelta(0, 'ich"}'),
        ToolCallStarted(1, "toolu_golden2", "get_time"),
        ArgumentsDelta(1, "{}"),
        Finished("tool_calls", "tool_use"),
        Used(Usage(prompt_tokens=472, completion_tokens=89)),
    ]


def test_thoughts_keep_their_signature_and_their_share_of_the_usage() -> None:
    answer = Answer.of(hear(GOLDEN["thinking"])[0])
    [thought, _] = answer.first.blocks
    assert answer.first.reasoning == "27 × 453: first 20 × 453 = 9060, then 7 × 453 = 3171."
    assert getattr(thought, "signature", "") == "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk"
    assert answer.usage == Usage(prompt_tokens=40, completion_tokens=61, reasoning_tokens=48)


def test_opaque_thoughts_and_thoughts_without_words_are_blocks_of_their_own() -> None:
    events = hear(GOLDEN["redacted"])[0]
    assert events[1:3] == [ReasoningDelta(redacted="EmwKAhgBEgy3va3pzix"), ReasoningDelta(signature="EqQBCgIYAhIMzzzz")]
    assert len(Answer.of(events).first.blocks) == 3


def test_an_error_event_ends_the_answer_without_its_being_done() -> None:
    events, reader = hear(GOLDEN["error"] + GOLDEN["text"])
    assert events[-1] == Failed("overloaded_error", "Overloaded")
    assert not reader.done


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("max_tokens", Finished("length", "max_tokens")),
        ("refusal", Finished("refusal", "refusal")),
        ("cache", Finished("stop", "stop_sequence", "END")),
    ],
)
def test_the_end_says_why(name: str, finished: Finished) -> None:
    assert Answer.of(hear(GOLDEN[name])[0]).first.finished == finished


def test_prompt_tokens_are_all_of_them_cached_or_not() -> None:
    usage = Answer.of(hear(GOLDEN["cache"])[0]).usage
    assert usage == Usage(
        prompt_tokens=21 + 188 + 2048, completion_tokens=17, cached_tokens=2048, cache_write_tokens=188
    )


def test_what_is_written_to_the_cache_for_an_hour_is_told_apart() -> None:
    for_an_hour = b'{"ephemeral_5m_input_tokens":88,"ephemeral_1h_input_tokens":100}'
    stream = GOLDEN["cache"].replace(b'{"ephemeral_5m_input_tokens":188,"ephemeral_1h_input_tokens":0}', for_an_hour)
    usage = Answer.of(hear(stream)[0]).usage
    assert usage is not None
    assert (usage.cache_write_tokens, usage.long_cache_write_tokens) == (188, 100)


def test_the_prompt_is_known_from_the_beginning() -> None:
    _, reader = hear(GOLDEN["cache"].partition(b"event: content_block_start")[0])
    assert reader.asked == Usage(prompt_tokens=21 + 188 + 2048, cached_tokens=2048, cache_write_tokens=188)


def test_a_start_without_usage_says_nothing_of_the_prompt() -> None:
    reader = AnthropicReader()
    reader.feed(b'data: {"type":"message_start","message":{"id":"m","model":"m"}}\n\n')
    assert reader.asked is None


def test_an_answer_that_breaks_off_tells_no_usage_since_its_first_one_is_a_placeholder() -> None:
    stream = GOLDEN["text"]
    events, _ = hear(stream[: stream.index(b"event: message_delta")])
    assert not any(isinstance(event, Used) for event in events)


def test_what_cannot_be_read_is_counted_and_the_rest_is_heard() -> None:
    stream = GOLDEN["text"].replace(b'"delta":{"type":"text_delta","text":", wie"}}', b'"delta":{"type":"text_del', 1)
    events, reader = hear(stream)
    assert reader.malformed == 1
    assert Answer.of(events).first.text == "Grüezi geht’s? ☕"


def test_events_and_blocks_of_unknown_types_are_left_out() -> None:
    stream = (
        sse("message_start", message={"id": "m", "model": "x", "usage": {"input_tokens": 1}})
        + sse("later_invention", delta={"odd": True}, index=7)
        + sse(
            "content_block_start", index=0, content_block={"type": "server_tool_use", "id": "s", "name": "web_search"}
        )
        + sse("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"q":1}'})
        + sse("content_block_stop", index=0)
        + sse("content_block_start", index=1, content_block={"type": "text", "text": "be"})
        + sse("content_block_delta", index=1, delta={"type": "text_delta", "text": "gun"})
        + sse("message_delta", delta={"stop_reason": "a_new_one"}, usage={"output_tokens": -1})
    )
    events, reader = hear(stream)
    assert events == [Started("m", "x"), TextDelta("be"), TextDelta("gun"), Finished("stop", "a_new_one")]
    assert (reader.malformed, reader.done) == (0, False)


def test_garbage_without_an_end_is_given_up() -> None:
    reader = AnthropicReader()
    reader.feed(b"x" * 8 * 1_048_576)
    with pytest.raises(EventTooLong):
        reader.feed(b"x")


def test_a_whole_message_gives_the_events_of_its_stream() -> None:
    dialect: ProviderDialect = Anthropic()
    document = {
        "id": "msg_golden_tools",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-4-8",
        "content": [
            {"type": "text", "text": "I look that up."},
            {"type": "tool_use", "id": "toolu_golden1", "name": "get_weather", "input": {"place": "Zürich"}},
            {"type": "tool_use", "id": "toolu_golden2", "name": "get_time", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 472, "output_tokens": 89},
    }
    whole = Answer.of(dialect.read_whole(json.dumps(document).encode()))
    streamed = Answer.of(hear(GOLDEN["tools"])[0])
    assert [json.loads(tool.arguments) for tool in whole.first.tools] == [{"place": "Zürich"}, {}]
    assert (whole.first.text, whole.usage, whole.first.finished) == (
        streamed.first.text,
        streamed.usage,
        streamed.first.finished,
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"type":"error","error":{"type":"api_error","message":"x"}}', b"<html>"]
)
def test_what_is_no_message_is_no_answer(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        Anthropic().read_whole(body)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", "context_length_exceeded"),
        ("input length and `max_tokens` exceed context limit: 1 + 2 > 2", "context_length_exceeded"),
        (
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            "prefill_unsupported",
        ),
        ("Output blocked by content filtering policy", "content_policy"),
        ("max_tokens: Field required", ""),
    ],
)
def test_errors_that_matter_have_a_code(message: str, code: str) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    assert Anthropic().error_code(json.dumps(error).encode()) == code


def test_an_error_that_is_no_document_has_no_code() -> None:
    assert Anthropic().error_code(b"<html>prefill</html>") == ""
