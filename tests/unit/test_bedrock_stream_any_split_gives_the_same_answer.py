"""Codec law for Bedrock's event streams: however the network cuts one, the answer is the same; and it is the right one.

The streams in ``tests/golden`` are written from the documented format; botocore's reader has to understand them, too.
"""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer, ReasoningBlock
from gateway.dialects.bedrock import BedrockConverse
from gateway.dialects.bedrock_reader import BedrockReader, usage_of
from gateway.dialects.events import Event, Failed, Finished, Started
from gateway.dialects.eventstream import FrameSplitter
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.sse import EventTooLong

GOLDEN = {
    path.stem.removeprefix("bedrock_"): path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "golden").glob("bedrock_*.bin"))
}


def read(*reads: bytes) -> tuple[list[Event], BedrockReader]:
    reader = BedrockReader()
    events = [event for data in reads for event in reader.feed(data)]
    return events + reader.end(), reader


def answer_of(name: str) -> Answer:
    return Answer.of(read(GOLDEN[name])[0])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


def message(payload: bytes, headers: bytes = b"", *, length: int | None = None, of_headers: int | None = None) -> bytes:
    sizes = (length or 16 + len(headers) + len(payload), len(headers) if of_headers is None else of_headers)
    prelude = struct.pack(">II", *sizes)
    whole = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", crc32(whole))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([kind]) + value


def text_header(name: bytes, value: bytes) -> bytes:
    return header(name, 7, struct.pack(">H", len(value)) + value)


def event(kind: bytes, **payload: Any) -> bytes:
    headers = text_header(b":event-type", kind) + text_header(b":message-type", b"event")
    return message(json.dumps(payload).encode(), headers)


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_any_split_gives_the_same_events(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    events, reader = read(*cut(stream, places))
    assert events == read(stream)[0]
    assert reader.malformed == 0


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_a_cut_stream_raises_nothing_and_says_a_beginning(name: str, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    events, reader = read(stream[: data.draw(st.integers(0, len(stream) - 1))])
    assert events == read(stream)[0][: len(events)]
    assert reader.malformed == 0


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_botocore_reads_the_same_messages(name: str) -> None:
    theirs = EventStreamBuffer()
    theirs.add_data(GOLDEN[name])
    frames, fault = FrameSplitter().feed(GOLDEN[name])
    assert fault is None
    assert [(frame.headers, frame.payload) for frame in frames] == [(each.headers, each.payload) for each in theirs]


def test_text_and_usage() -> None:
    events, reader = read(GOLDEN["text"])
    answer = Answer.of(events)
    assert events[0] == Started()
    assert answer.first.text == 'The kettle boils at 100 °C — at sea level. "Quoted" 🫖\n'
    assert answer.first.finished == Finished("stop", "end_turn")
    assert answer.usage == Usage(prompt_tokens=12, completion_tokens=18)
    assert reader.done


def test_what_came_from_and_went_into_the_cache_is_part_of_the_prompt() -> None:
    usage = answer_of("cache").usage
    assert usage == Usage(prompt_tokens=2185, completion_tokens=3, cached_tokens=2048, cache_write_tokens=128)


@pytest.mark.parametrize(
    ("details", "long"),
    [
        ([{"ttl": "1h", "inputTokens": 100}, {"ttl": "5m", "inputTokens": 28}], 100),
        ([{"ttl": "5m", "inputTokens": 128}], 0),
        ([None, "1h"], 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_what_is_written_to_the_cache_for_an_hour_is_told_apart(details: Any, long: int) -> None:
    usage = usage_of({"inputTokens": 9, "cacheWriteInputTokens": 128, "outputTokens": 3, "cacheDetails": details})
    assert usage is not None
    assert (usage.prompt_tokens, usage.cache_write_tokens, usage.long_cache_write_tokens) == (137, 128, long)


def test_tools_are_called_with_what_was_streamed() -> None:
    choice = answer_of("tools").first
    assert choice.finished == Finished("tool_calls", "tool_use")
    assert [(call.id, call.name, call.arguments) for call in choice.tools] == [
        ("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", "get_weather", '{"place": "Zürich", "days": 2}'),
        ("tooluse_8sJ2m4", "now", "{}"),
    ]


def test_thoughts_keep_their_signature_and_their_encryption() -> None:
    answer = answer_of("thinking")
    thought, hidden, _ = answer.first.blocks
    assert isinstance(thought, ReasoningBlock)
    assert (thought.text, thought.signature) == (
        "First the legs, then the heads.",
        "EqoBCkgIARABGAIiQL7mR0NvdW50aW5n",
    )
    assert hidden == ReasoningBlock(redacted="RW5jcnlwdGVkIHRob3VnaHQ=")
    assert answer.first.text == "There are 23 chickens."


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("max_tokens", Finished("length", "max_tokens")),
        ("guardrail", Finished("content_filter", "guardrail_intervened")),
    ],
)
def test_what_ends_an_answer_early_is_said(name: str, finished: Finished) -> None:
    assert answer_of(name).first.finished == finished


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("throttled", Failed("throttlingException", "Too many tokens, please wait before trying again.")),
        ("error", Failed("InternalFailure", "The service broke.")),
        ("malformed_call", Failed("malformed_tool_use")),
    ],
)
def test_exceptions_end_the_answer_and_nothing_follows(name: str, failed: Failed) -> None:
    events, reader = read(GOLDEN[name] + GOLDEN["text"])
    assert events[-1] == failed
    assert not any(isinstance(each, Finished) for each in events)
    assert not reader.done


@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_a_byte_that_changed_on_the_way_is_never_taken_for_an_answer(name: str, data: st.DataObject) -> None:
    stream = bytearray(GOLDEN[name])
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    reader, events = BedrockReader(), []
    with suppress(BadAnswer, EventTooLong):
        for piece in (bytes(stream), b"more"):
            events += reader.feed(piece)
    good = read(GOLDEN[name])[0]
    assert events == good[: len(events)]


def test_what_came_before_the_damage_is_given_out_first() -> None:
    reader = BedrockReader()
    good = event(b"contentBlockDelta", contentBlockIndex=0, delta={"text": "Hi"})
    damaged = good[:-1] + bytes([good[-1] ^ 1])
    assert Answer.of(reader.feed(good + damaged)).first.text == "Hi"
    with pytest.raises(BadAnswer, match="damaged"):
        reader.feed(good)


def test_a_message_that_is_too_long_is_refused_by_its_first_bytes() -> None:
    reader = BedrockReader()
    with pytest.raises(EventTooLong):
        reader.feed(message(b"", length=2**31)[:12])


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(message(b"{}", of_headers=3), id="longer than the message"),
        pytest.param(message(b"", length=8), id="shorter than a message"),
        pytest.param(message(b"{}", header(b":x", 42, b"")), id="of no known type"),
        pytest.param(message(b"{}", header(b":x", 7, b"\x00\xff")), id="longer than the headers"),
        pytest.param(message(b"{}", header(b"\xff", 0, b"")), id="no text"),
    ],
)
def test_headers_that_cannot_be_are_garbage(stream: bytes) -> None:
    with pytest.raises(BadAnswer):
        read(stream)


def test_headers_of_every_type_are_passed_over() -> None:
    kinds = {0: b"", 1: b"", 2: b"\x01", 3: b"\x00\x01", 4: bytes(4), 5: bytes(8), 8: bytes(8), 9: bytes(16)}
    others = b"".join(header(b"h%d" % kind, kind, value) for kind, value in kinds.items())
    others += header(b"raw", 6, struct.pack(">H", 3) + b"abc")
    [frame], fault = FrameSplitter().feed(message(b"{}", others + text_header(b":event-type", b"x")))
    assert (frame.headers, frame.payload, fault) == ({":event-type": "x"}, b"{}", None)


def test_what_cannot_be_read_is_counted_and_left_out() -> None:
    headers = text_header(b":event-type", b"contentBlockDelta")
    events, reader = read(message(b"{not json", headers) + event(b"newEvent", x=1) + GOLDEN["text"])
    assert reader.malformed == 1
    assert events == read(GOLDEN["text"])[0]


def test_tools_that_bedrock_runs_itself_are_not_the_clients_to_run() -> None:
    tool = {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use"}
    stream = event(b"contentBlockStart", contentBlockIndex=0, start={"toolUse": tool})
    stream += event(b"contentBlockDelta", contentBlockIndex=0, delta={"toolUse": {"input": '{"q": 1}'}})
    stream += event(b"contentBlockStop", contentBlockIndex=0) + event(b"messageStop", stopReason="end_turn")
    assert read(stream)[0] == [Finished("stop", "end_turn")]


def test_a_whole_answer_is_the_same_events() -> None:
    dialect: ProviderDialect = BedrockConverse()
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "c2ln"}}},
        {"text": "Hi"},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"x": 12345678901234567890}}},
    ]
    usage = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    document = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "tool_use"}
    answer = Answer.of(dialect.read_whole(json.dumps({**document, "usage": usage}).encode()))
    assert answer.first.blocks[0] == ReasoningBlock(pieces=["Hm"], signature="c2ln")
    assert (answer.first.text, answer.first.tools[0].arguments) == ("Hi", '{"x": 12345678901234567890}')
    assert answer.first.finished == Finished("tool_calls", "tool_use")
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=4)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"message": "no"}',
        b'{"output": {"message": {"content": []}}, "stopReason": "malformed_model_output"}',
    ],
)
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        BedrockConverse().read_whole(body)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Input is too long for requested model.", "context_length_exceeded"),
        (
            "The model returned the following errors: prompt is too long: 200049 tokens > 200000 maximum",
            "context_length_exceeded",
        ),
        (
            "This model does not support assistant message prefill. The conversation must end with a user message.",
            "prefill_unsupported",
        ),
        ("The provided model identifier is invalid.", ""),
    ],
)
def test_errors_that_change_what_happens_next_are_known(said: str, code: str) -> None:
    assert BedrockConverse().error_code(json.dumps({"message": said}).encode()) == code


def test_errors_that_are_none_say_nothing() -> None:
    assert [BedrockConverse().error_code(body) for body in (b"", b"[]", b'{"message": 3}', b"<html>")] == [""] * 4
