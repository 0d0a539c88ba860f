"""Events become streams and documents of OpenAI's Responses: in its order, valid for its client, read back the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
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
from gateway.dialects.provider import Writer
from gateway.dialects.responses_document import Echo
from gateway.dialects.responses_reader import ResponsesReader
from gateway.dialects.responses_writer import Numbers, ResponsesWriter, write_response
from gateway.dialects.sse import event_data, split_events

OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ID = "resp_" + "ab" * 16
HEX = "ab" * 16
STARTED = Started("chatcmpl-1", "model-a", 1784000000)
USED = Used(Usage(prompt_tokens=30, completion_tokens=7, cached_tokens=20, cache_write_tokens=4, reasoning_tokens=2))
BEGINNING = ["created", "in_progress"]


def echo(**fields: Any) -> Echo:
    return Echo({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}, "asked-for")


def documents(stream: bytes) -> list[dict[str, Any]]:
    found = [(event, event_data(event)) for event in split_events(stream)]
    read = [json.loads(data) for _, data in found if data is not None]
    assert [event.split(b"\n")[0].decode() for event, _ in found] == [f"event: {each['type']}" for each in read]
    for document in read:
        OFFICIAL.validate_python(document)
    assert [document["sequence_number"] for document in read] == list(range(len(read)))
    return read


def written(*events: Event, said: Echo | None = None) -> bytes:
    writer: Writer = ResponsesWriter(said or echo(), ID)
    return b"".join([writer.write([event]) for event in events]) + writer.end()


def told(*events: Event, said: Echo | None = None) -> list[dict[str, Any]]:
    return documents(written(*events, said=said))


def kinds(stream: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in stream]


def final(*events: Event, said: Echo | None = None) -> dict[str, Any]:
    response = told(*events, said=said)[-1]["response"]
    Response.model_validate(response)
    assert isinstance(response, dict)
    return response


def read_back(stream: bytes) -> Answer:
    reader = ResponsesReader()
    answer = Answer.of(reader.feed(stream))
    assert (reader.done, reader.malformed) == (True, 0)
    return answer


def test_a_text_is_one_message_between_created_and_completed() -> None:
    stream = told(STARTED, TextDelta("Hel"), TextDelta(""), TextDelta("lo"), Finished("stop"), USED)
    assert kinds(stream) == [
        *BEGINNING,
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert stream[2]["item"]["content"] == []
    assert {event["item_id"] for event in stream if "item_id" in event} == {f"msg_{HEX}0000"}
    assert stream[6]["text"] == stream[7]["part"]["text"] == "Hello"
    response = stream[-1]["response"]
    assert (response["id"], response["model"], response["created_at"]) == (ID, "model-a", 1784000000)
    assert (response["status"], response["completed_at"] is None) == ("completed", False)
    assert response["output"] == [stream[8]["item"]]
    assert response["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 37,
    }


def test_a_response_in_progress_has_no_output_and_no_usage_yet() -> None:
    stream = told(STARTED, TextDelta("Hi"), Finished("stop"), USED)
    for event in stream[:2]:
        assert (event["response"]["status"], event["response"]["output"]) == ("in_progress", [])
        assert (event["response"]["usage"], event["response"]["completed_at"]) == (None, None)


def test_parallel_calls_whose_arguments_are_mixed_keep_apart() -> None:
    stream = told(
        STARTED,
        TextDelta("Let me see."),
        ToolCallStarted(0, "call_a", "weather"),
        ArgumentsDelta(0, '{"place":'),
        ToolCallStarted(1, "call_b", "clock"),
        ArgumentsDelta(1, "{}"),
        ArgumentsDelta(0, '"Bern"}'),
        Finished("tool_calls"),
        USED,
    )
    output = stream[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output[1:]] == [
        ("call_a", "weather", '{"place":"Bern"}'),
        ("call_b", "clock", "{}"),
    ]
    assert [item["status"] for item in output] == ["completed"] * 3
    deltas = [event for event in stream if event["type"] == "response.function_call_arguments.delta"]
    assert [(event["output_index"], event["delta"]) for event in deltas] == [
        (1, '{"place":'),
        (2, "{}"),
        (1, '"Bern"}'),
    ]
    added = [event for event in stream if event["type"] == "response.output_item.added"]
    assert [event["item"].get("arguments") for event in added] == [None, "", ""]


def test_a_call_that_is_whole_ends_before_the_next_begins_and_none_has_no_arguments() -> None:
    first, second = ToolCallStarted(0, "call_a", "a"), ToolCallStarted(1, "", "b")
    stream = told(STARTED, first, ArgumentsDelta(0, "{}"), second, Finished("tool_calls"))
    assert kinds(stream)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    output = stream[-1]["response"]["output"]
    assert (output[1]["arguments"], output[1]["call_id"]) == ("{}", f"call_fc_{HEX}0001")


def test_thoughts_are_the_summary_of_a_reasoning_item_that_ends_with_its_signature() -> None:
    stream = told(
        STARTED,
        ReasoningDelta("Let "),
        ReasoningDelta("me think"),
        ReasoningDelta(signature="proof"),
        ReasoningDelta(redacted="secret"),
        TextDelta("4"),
        Finished("stop"),
    )
    assert kinds(stream)[2:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
    ]
    thought, hidden, _ = stream[-1]["response"]["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Let me think"}]
    assert (thought["encrypted_content"], hidden["encrypted_content"]) == ("sluice:s:proof", "sluice:r:secret")
    assert hidden["summary"] == []


def test_what_openai_encrypted_keeps_its_id_and_words() -> None:
    events = [ReasoningDelta("short", id="rs_1"), ReasoningDelta(redacted="gAAAA", id="rs_1"), TextDelta("4")]
    thought, _ = final(STARTED, *events, Finished("stop"))["output"]
    summary = [{"type": "summary_text", "text": "short"}]
    assert thought == {"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": "gAAAA"}


def test_a_calls_signature_is_a_reasoning_item_before_it() -> None:
    signed, call = final(STARTED, ToolCallStarted(0, "call_1", "clock", signature="sig"), Finished("tool_calls"))[
        "output"
    ]
    assert (signed["type"], signed["encrypted_content"]) == ("reasoning", "sluice:c:sig")
    assert call["call_id"] == "call_1"


def test_a_refusal_is_a_part_of_its_own() -> None:
    stream = told(STARTED, TextDelta("Well. "), RefusalDelta("I won"), RefusalDelta("’t."), Finished("refusal"))
    assert kinds(stream)[7:] == [
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    [message] = stream[-1]["response"]["output"]
    assert [part.get("refusal") for part in message["content"]] == [None, "I won’t."]


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("pause", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("refusal", "incomplete", "content_filter"),
        ("error", "failed", None),
    ],
)
def test_the_end_has_its_own_event_and_reason(reason: FinishReason, status: str, why: str | None) -> None:
    stream = told(STARTED, TextDelta("Once"), Finished(reason))
    assert stream[-1]["type"] == f"response.{status}"
    response = stream[-1]["response"]
    assert response["status"] == status
    assert (response["incomplete_details"] or {}).get("reason") == why
    assert response["output"][0]["status"] == ("completed" if status == "completed" else "incomplete")
    assert (response["error"] is not None) == (status == "failed")


def test_a_cut_call_stays_incomplete() -> None:
    response = final(STARTED, ToolCallStarted(0, "c", "n"), ArgumentsDelta(0, '{"a'), Finished("length"))
    assert response["output"][0]["status"] == "incomplete"


def test_log_probabilities_get_the_bytes_that_the_dialect_wants() -> None:
    entry = {"token": "é", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -2}]}
    stream = told(STARTED, TextDelta("é", logprobs=[entry]), Finished("stop"))
    top = {"token": "e", "bytes": [101], "logprob": -2}
    wanted = [{"token": "é", "bytes": [195, 169], "logprob": -0.1, "top_logprobs": [top]}]
    assert stream[4]["logprobs"] == wanted
    assert stream[-1]["response"]["output"][0]["content"][0]["logprobs"] == wanted


def test_the_document_repeats_what_was_asked_for_and_says_the_defaults() -> None:
    tool = {"type": "function", "name": "clock", "parameters": {"type": "object"}, "strict": None}
    said = echo(
        instructions="Be brief.",
        tools=[tool],
        tool_choice={"type": "function", "name": "clock"},
        metadata={"run": "7"},
        temperature=0.5,
        previous_response_id="resp_0",
        store=False,
        reasoning={"effort": "low"},
        max_output_tokens=None,
        secret_field="stays away",
    )
    response = final(STARTED, TextDelta("Hi"), Finished("stop"), said=said)
    assert (response["instructions"], response["metadata"]) == ("Be brief.", {"run": "7"})
    assert (response["tools"], response["tool_choice"]["name"]) == ([tool], "clock")
    assert (response["temperature"], response["store"]) == (0.5, False)
    assert response["previous_response_id"] == "resp_0"
    assert (response["max_output_tokens"], response["truncation"]) == (None, "disabled")
    assert "secret_field" not in response


def test_an_estimated_usage_is_marked() -> None:
    assert final(STARTED, TextDelta("Hi"), Finished("stop"), Used(Usage(estimated=True)))["usage"]["estimated"] is True


def test_an_answer_without_anything_is_a_response_without_output() -> None:
    assert kinds(told()) == [*BEGINNING, "completed"]
    assert final()["model"] == "asked-for"
    assert final()["output"] == []


def test_other_choices_are_left_out() -> None:
    assert final(STARTED, TextDelta("b", choice=1), TextDelta("a"), Finished("stop"))["output"][0]["content"][0][
        "text"
    ] == ("a")


def test_a_repaired_stream_goes_on_with_the_same_ids_and_higher_numbers() -> None:
    numbers = Numbers()
    first = ResponsesWriter(echo(), ID, numbers)
    events: list[Event] = [STARTED, ReasoningDelta("hm"), TextDelta("Hel"), TextDelta("lo")]
    before = [json.loads(event_data(event) or b"") for event in split_events(first.write(events))]
    second = ResponsesWriter(echo(), ID, numbers)
    second.write(Answer.of(events).events())
    rest = second.write([Started("other", "model-b"), TextDelta(" again"), Finished("stop")]) + second.end()
    after = [json.loads(event_data(event) or b"") for event in split_events(rest)]
    assert after[0]["type"] == "response.output_text.delta"
    assert (after[0]["item_id"], after[0]["output_index"]) == (before[-1]["item_id"], before[-1]["output_index"])
    order = [event["sequence_number"] for event in [*before, *after]]
    assert order == sorted(set(order))
    response = after[-1]["response"]
    assert (response["id"], response["model"]) == (ID, "model-b")
    assert response["output"][1]["content"][0]["text"] == "Hello again"


def test_a_stream_that_another_provider_began_keeps_the_id_it_began_with() -> None:
    assert final(Started("resp_theirs", "m"), TextDelta("Hi"), Finished("stop"))["id"] == "resp_theirs"


def test_the_last_document_is_handed_over_as_the_client_gets_it() -> None:
    kept: list[bytes] = []
    writer = ResponsesWriter(echo(), ID, on_end=kept.append)
    stream = writer.write([STARTED, TextDelta("Hi"), Finished("stop"), USED]) + writer.end()
    assert json.loads(kept[0]) == documents(stream)[-1]["response"]


def test_a_whole_answer_is_the_document_at_the_end_of_its_stream() -> None:
    events: list[Event] = [STARTED, ReasoningDelta("hm"), TextDelta("Hi"), ToolCallStarted(0, "c", "n")]
    events += [ArgumentsDelta(0, "{}"), Finished("tool_calls"), USED]
    whole = json.loads(write_response(Answer.of(events), echo(), ID))
    streamed = final(*events)
    assert {**whole, "completed_at": 0} == {**streamed, "completed_at": 0}
    Response.model_validate(whole)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
BLOCKS = st.lists(
    st.one_of(
        st.lists(TEXTS, min_size=1, max_size=3).map(lambda pieces: [TextDelta(piece) for piece in pieces]),
        st.lists(TEXTS, min_size=1, max_size=3).map(lambda pieces: [RefusalDelta(piece) for piece in pieces]),
        TEXTS.map(lambda text: [ReasoningDelta(text)]),
        st.tuples(TEXTS, TEXTS).map(
            lambda two: [ReasoningDelta(two[0], id="rs_1"), ReasoningDelta("", "", two[1], 0, "rs_1")]
        ),
        st.integers(0, 9).map(lambda n: [ArgumentsDelta(-1, json.dumps({"n": n}))]),
    ),
    max_size=6,
)


@given(BLOCKS)
def test_what_is_written_is_valid_and_reads_back_as_the_same_answer(blocks: list[list[Event]]) -> None:
    events: list[Event] = [STARTED]
    calls = 0
    for block in blocks:
        if isinstance(block[0], ArgumentsDelta):
            events += [ToolCallStarted(calls, f"call_{calls}", "n"), ArgumentsDelta(calls, block[0].text)]
            calls += 1
        else:
            events += block
    events += [Finished("tool_calls" if calls else "stop"), USED]
    stream = written(*events)
    documents(stream)
    said, read = Answer.of(events), read_back(stream)
    assert read.first.text == said.first.text
    assert read.first.refusal == said.first.refusal
    assert read.first.reasoning == said.first.reasoning
    assert [(tool.id, tool.arguments) for tool in read.first.tools] == [
        (tool.id, tool.arguments) for tool in said.first.tools
    ]
    assert read.usage == said.usage
