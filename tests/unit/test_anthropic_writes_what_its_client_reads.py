"""Events become Anthropic's stream and message documents, in the documented order, and read back as the same answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import DeadlineExceeded, GatewayError, Rejected, RequestError, StreamBroken
from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_message import write_message
from gateway.dialects.anthropic_reader import AnthropicReader
from gateway.dialects.anthropic_voice import AnthropicVoice
from gateway.dialects.anthropic_writer import AnthropicWriter
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.count_tokens import CountTokensVoice
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.provider import BadAnswer, Writer
from gateway.dialects.sse import event_data, split_events
from gateway.dialects.voice import Opening, Voice

GOLDEN = Path(__file__).parents[1] / "golden"
ASKED = b'{"model":"chat","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}'
STARTED = Started("msg_1", "model-a")
USED = Used(Usage(prompt_tokens=30, completion_tokens=7, cached_tokens=20, cache_write_tokens=4, reasoning_tokens=2))


def documents(stream: bytes) -> list[dict[str, Any]]:
    found = [(event, event_data(event)) for event in split_events(stream)]
    read = [json.loads(data) for _, data in found if data is not None]
    names = [event.split(b"\n")[0].decode() for event, _ in found]
    assert names == [f"event: {document['type']}" for document in read]
    return read


def told(*events: Event) -> list[dict[str, Any]]:
    writer: Writer = AnthropicWriter(model="asked-for")
    return documents(b"".join([writer.write([event]) for event in events]) + writer.end())


def kinds(stream: list[dict[str, Any]]) -> list[str]:
    return [f"{event['type']} {event['index']}" if "index" in event else event["type"] for event in stream]


def read_back(stream: bytes) -> Answer:
    reader = AnthropicReader()
    answer = Answer.of(reader.feed(stream))
    assert (reader.done, reader.malformed) == (True, 0)
    return answer


def test_a_text_is_one_block_between_start_and_stop() -> None:
    stream = told(STARTED, TextDelta("Hel"), TextDelta(""), TextDelta("lo"), Finished("stop"), USED)
    assert kinds(stream) == [
        "message_start",
        "ping",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "message_delta",
        "message_stop",
    ]
    message = stream[0]["message"]
    assert (message["id"], message["model"], message["content"], message["stop_reason"]) == (
        "msg_1",
        "model-a",
        [],
        None,
    )
    assert stream[3]["delta"] == {"type": "text_delta", "text": "Hel"}
    assert stream[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_usage_leaves_the_cached_tokens_out_of_the_input_tokens() -> None:
    assert told(STARTED, TextDelta("a"), Finished("stop"), USED)[-2]["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 4,
        "cache_read_input_tokens": 20,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 2},
    }


def test_an_estimated_usage_says_so() -> None:
    usage = told(TextDelta("a"), Used(Usage(prompt_tokens=1, completion_tokens=1, estimated=True)))[-2]["usage"]
    assert usage["estimated"] is True


def test_an_answer_without_a_name_gets_an_id_and_the_model_that_was_asked_for() -> None:
    message = told(TextDelta("a"), Finished("stop"))[0]["message"]
    assert message["id"].startswith("msg_")
    assert message["model"] == "asked-for"


def test_thoughts_text_and_calls_are_blocks_in_their_order() -> None:
    stream = told(
        STARTED,
        ReasoningDelta("Let me"),
        ReasoningDelta(" see."),
        ReasoningDelta(signature="sig"),
        ReasoningDelta(redacted="opaque"),
        TextDelta("I look."),
        ToolCallStarted(0, "call_1", "look"),
        ArgumentsDelta(0, '{"at":'),
        ArgumentsDelta(0, '"it"}'),
        ToolCallStarted(1, "call_2", "wait"),
        Finished("tool_calls"),
        USED,
    )
    starts = [event["content_block"] for event in stream if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
    assert starts[1]["data"] == "opaque"
    assert starts[3] == {"type": "tool_use", "id": "call_1", "name": "look", "input": {}}
    deltas = [event["delta"]["type"] for event in stream if event["type"] == "content_block_delta"]
    assert deltas == [
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "text_delta",
        "input_json_delta",
        "input_json_delta",
    ]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_every_block_is_stopped_before_the_next_begins() -> None:
    stream = told(STARTED, ReasoningDelta("a"), TextDelta("b"), ReasoningDelta("c"), TextDelta("d"), Finished("stop"))
    order = [name for name in kinds(stream) if "start " in name or "stop " in name]
    assert order == [f"content_block_{what} {index}" for index in range(4) for what in ("start", "stop")]


def test_mixed_arguments_of_parallel_calls_are_put_one_after_another() -> None:
    mixed: list[Event] = [
        STARTED,
        ToolCallStarted(0, "a", "first"),
        ToolCallStarted(1, "b", "second"),
        ToolCallStarted(2, "c", "third"),
        ArgumentsDelta(1, '{"b":'),
        ArgumentsDelta(0, '{"a":'),
        ArgumentsDelta(2, '{"c":3}'),
        ArgumentsDelta(1, "2}"),
        ArgumentsDelta(0, "1}"),
        Finished("tool_calls"),
    ]
    writer = AnthropicWriter()
    answer = read_back(writer.write(mixed) + writer.end())
    assert [(tool.id, tool.arguments) for tool in answer.first.tools] == [
        ("a", '{"a":1}'),
        ("b", '{"b":2}'),
        ("c", '{"c":3}'),
    ]


def test_braces_in_texts_end_no_call_and_many_pieces_take_linear_time() -> None:
    pieces = ['{"a":"', *['}{\\"[' for _ in range(50_000)], '"}']
    events: list[Event] = [ToolCallStarted(0, "a", "first"), ToolCallStarted(1, "b", "second")]
    events += [ArgumentsDelta(0, piece) for piece in pieces]
    events += [
        ArgumentsDelta(1, '{"b":1}'),
        ToolCallStarted(2, "c", "third"),
        ArgumentsDelta(2, "{}"),
        Finished("tool_calls"),
    ]
    writer = AnthropicWriter()
    begun = time.process_time()
    stream = writer.write(events)
    assert time.process_time() - begun < 5  # 0.2 s; quadratic, it would be minutes
    tools = read_back(stream + writer.end()).first.tools
    assert [tool.arguments for tool in tools] == ["".join(pieces), '{"b":1}', "{}"]


def test_calls_that_were_cut_off_are_told_as_far_as_they_came() -> None:
    cut: list[Event] = [
        ToolCallStarted(0, "a", "first"),
        ArgumentsDelta(0, '{"a":'),
        ToolCallStarted(1, "b", "second"),
        ArgumentsDelta(1, '{"b'),
        Finished("length"),
    ]
    writer = AnthropicWriter()
    answer = read_back(writer.write(cut) + writer.end())
    assert [tool.arguments for tool in answer.first.tools] == ['{"a":', '{"b']


ENDS: list[tuple[FinishReason, str]] = [
    ("stop", "end_turn"),
    ("length", "max_tokens"),
    ("tool_calls", "tool_use"),
    ("content_filter", "refusal"),
    ("refusal", "refusal"),
    ("pause", "pause_turn"),
    ("error", "max_tokens"),
]


@pytest.mark.parametrize(("reason", "stop_reason"), ENDS)
def test_every_end_has_its_stop_reason(reason: FinishReason, stop_reason: str) -> None:
    assert told(TextDelta("a"), Finished(reason))[-2]["delta"]["stop_reason"] == stop_reason


def test_the_stop_sequence_that_was_met_is_told() -> None:
    delta = told(TextDelta("a"), Finished("stop", stop_sequence="END"))[-2]["delta"]
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_calls_that_end_in_stop_are_still_to_be_run() -> None:
    stream = told(ToolCallStarted(0, "a", "look"), ArgumentsDelta(0, "{}"), Finished("stop"))
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_refusal_in_words_is_text_that_ends_in_refusal() -> None:
    stream = told(RefusalDelta("I will not."), Finished("stop"))
    assert [event["delta"].get("text") for event in stream if event["type"] == "content_block_delta"] == ["I will not."]
    assert stream[-2]["delta"]["stop_reason"] == "refusal"


def test_further_choices_are_not_mixed_in() -> None:
    stream = told(TextDelta("a"), TextDelta("b", 1), Finished("stop"), Finished("length", choice=1))
    assert [event["delta"]["text"] for event in stream if event["type"] == "content_block_delta"] == ["a"]
    assert stream[-2]["delta"]["stop_reason"] == "end_turn"


def test_a_writer_primed_with_what_the_client_has_goes_on_in_the_open_block() -> None:
    first = AnthropicWriter()
    given = first.write([STARTED, TextDelta("One, ")])
    second = AnthropicWriter()
    second.write(Answer.of([STARTED, TextDelta("One, ")]).events())
    rest = second.write([Started("chatcmpl-2", "other"), TextDelta("two."), Finished("stop"), USED]) + second.end()
    answer = read_back(given + rest)
    assert (answer.id, answer.first.text, len(answer.first.blocks)) == ("msg_1", "One, two.", 1)


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "redacted", "max_tokens", "refusal", "cache"])
def test_a_golden_stream_is_read_written_and_read_as_the_same_answer(name: str) -> None:
    first = read_back((GOLDEN / f"anthropic_{name}.sse").read_bytes())
    writer = AnthropicWriter()
    again = read_back(writer.write(first.events()) + writer.end())
    whole = Answer.of(Anthropic().read_whole(write_message(first)))
    for answer in (again, whole):
        assert (answer.id, answer.model, answer.usage) == (first.id, first.model, first.usage)
        assert (answer.first.text, answer.first.reasoning) == (first.first.text, first.first.reasoning)
        assert [(t.id, t.name, json.loads(t.arguments)) for t in answer.first.tools] == [
            (t.id, t.name, json.loads(t.arguments)) for t in first.first.tools
        ]
        assert answer.first.finished == first.first.finished


BLOCKS = st.one_of(
    st.builds(lambda text: [TextDelta(text)], st.text(min_size=1)),
    st.builds(lambda text: [ReasoningDelta(text), ReasoningDelta(signature="s")], st.text(min_size=1)),
    st.builds(lambda data: [ReasoningDelta(redacted=data)], st.text(min_size=1)),
    st.builds(
        lambda value: [ToolCallStarted(-1, "id", "name"), ArgumentsDelta(-1, json.dumps({"a": value}))], st.text()
    ),
)


@given(st.lists(BLOCKS, max_size=6))
def test_any_answer_is_read_back_block_by_block(blocks: list[list[Event]]) -> None:
    events: list[Event] = [STARTED]
    calls = 0
    for block in blocks:
        for event in block:
            if isinstance(event, ToolCallStarted):
                events.append(ToolCallStarted(calls, f"id{calls}", event.name))
            elif isinstance(event, ArgumentsDelta):
                events.append(ArgumentsDelta(calls, event.text))
                calls += 1
            else:
                events.append(event)
    events += [Finished("tool_calls" if calls else "stop"), USED]
    writer = AnthropicWriter()
    expected = Answer.of(events)
    found = read_back(writer.write(events) + writer.end())
    assert [event for event in found.events() if not isinstance(event, Finished)] == [
        event for event in expected.events() if not isinstance(event, Finished)
    ]


def test_a_whole_message_has_arguments_as_an_object_even_if_they_are_none() -> None:
    answer = Answer.of([ToolCallStarted(0, "", "look"), ArgumentsDelta(0, "not json"), Finished("stop")])
    [block] = json.loads(write_message(answer, model="m"))["content"]
    assert block["input"] == {"arguments": "not json"}
    assert block["id"].startswith("toolu_")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("invalid_request", 400, "x"), "invalid_request_error"),
        (RequestError("invalid_api_key", 401, "x"), "authentication_error"),
        (RequestError("model_not_allowed", 403, "x"), "permission_error"),
        (RequestError("model_not_found", 404, "x"), "not_found_error"),
        (RequestError("body_too_large", 413, "x"), "request_too_large"),
        (RequestError("unsupported_media_type", 415, "x"), "invalid_request_error"),
        (Rejected("queue_full", 429, "x"), "rate_limit_error"),
        (Rejected("draining", 503, "x"), "overloaded_error"),
        (GatewayError("internal_error", 500, "x"), "api_error"),
        (DeadlineExceeded("stall", "x"), "timeout_error"),
    ],
)
def test_an_error_has_the_type_of_its_status(error: GatewayError, kind: str) -> None:
    document = AnthropicVoice().error(error)
    assert document == {"type": "error", "error": {"type": kind, "message": "x", "code": error.code}}


def test_a_stream_that_breaks_ends_in_an_error_event() -> None:
    [event] = documents(AnthropicVoice().breaks(StreamBroken("upstream_cut", "The answer broke off.")))
    assert event["error"]["type"] == "api_error"
    assert event["error"]["message"] == "The answer broke off."


def opened(**headers: bytes) -> AnthropicVoice:
    given = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return AnthropicVoice(Opening(path="/v1/messages", query=b"x=1&beta=true", headers=given))


def test_the_clients_headers_go_where_its_bytes_go_and_its_betas_are_named_elsewhere() -> None:
    voice: Voice = opened(anthropic_version=b"2026-10-21", anthropic_beta=b"b1, b2")
    request = voice.parse(ASKED)
    passed = voice.prepare(request, Anthropic(), "claude-opus-5", keep=False)
    assert passed.passes
    assert passed.path == b"/messages?beta=true"
    assert passed.headers == ((b"anthropic-version", b"2026-10-21"), (b"anthropic-beta", b"b1, b2"))
    translated = voice.prepare(request, OpenAIChat(), "gpt-4o", keep=False)
    assert not translated.passes
    assert translated.headers == ()
    assert translated.dropped == ("anthropic-beta: b1", "anthropic-beta: b2")


def test_a_client_that_says_nothing_of_versions_sends_no_headers_of_its_own() -> None:
    asking = AnthropicVoice().prepare(AnthropicVoice().parse(ASKED), Anthropic(), "m", keep=False)
    assert (asking.path, asking.headers) == (b"/messages", ())


@pytest.mark.parametrize("version", [b"2023-01-01", b"a b", b"", b"9" * 33])
def test_a_version_whose_events_are_others_is_refused(version: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        opened(anthropic_version=version).parse(ASKED)
    assert (caught.value.http_status, caught.value.param) == (400, "anthropic-version")


def test_tokens_are_counted_by_anthropic_or_estimated_and_marked() -> None:
    voice: Voice = CountTokensVoice()
    body = {"model": "m", "system": "s" * 40, "tools": [{"name": "t"}], "stream": True}
    image = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r" * 40}, image]}
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    turns = [{"role": "user", "content": "u" * 40}, {"role": "assistant", "content": [call]}]
    document = {**body, "messages": [*turns, {"role": "user", "content": [result]}]}
    request = voice.parse(json.dumps(document).encode())
    asked = voice.prepare(request, Anthropic(), "claude-opus-5", keep=False)
    assert (request.stream, asked.stream, asked.ready, asked.path) == (False, None, None, b"/messages/count_tokens")
    assert json.loads(asked.body) == {**document, "model": "claude-opus-5"}
    ready = voice.prepare(request, OpenAIChat(), "gpt-4o", keep=False).ready
    assert ready is not None
    texts = len("s" * 40 + '[["t","",{}]]' + "u" * 40 + "look{}" + "r" * 40)
    assert json.loads(ready.body) == {"input_tokens": 12 + -(-texts // 4) + 1500, "estimated": True}


def test_a_count_that_is_none_is_no_answer() -> None:
    voice = CountTokensVoice()
    request = voice.parse(ASKED)
    assert voice.read_whole(request, Anthropic(), b'{"input_tokens":14}').usage == Usage()
    with pytest.raises(BadAnswer):
        voice.read_whole(request, Anthropic(), b'{"input_tokens":"many"}')
