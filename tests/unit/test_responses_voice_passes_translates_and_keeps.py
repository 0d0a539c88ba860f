"""The voice of Responses clients: bytes pass to their own dialect, the rest is translated, and what may be gone on from
is handed over to be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.errors import RequestError, StreamBroken
from gateway.core.facts import Record, Usage
from gateway.dialects.call import Message, Text, ToolCall, ToolResult
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.responses_kept import ToKeep, deleted_document, document_of
from gateway.dialects.responses_provider import ResponsesProvider
from gateway.dialects.responses_request import ResponsesRequest
from gateway.dialects.responses_voice import ResponsesVoice
from gateway.dialects.resumed import ResumedStream
from gateway.dialects.sse import event_data, split_events
from gateway.dialects.voice import Voice

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CHAT: ProviderDialect = OpenAIChat()
OWN: ProviderDialect = ResponsesProvider()
RECORD = Record(request_id="r", received_at=0.0, endpoint="/v1/responses")


def body(input: Any = "Hello", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": input, **fields}).encode()


def chat_answer(text: str = "Hi", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return json.dumps({"id": "chatcmpl-1", "model": "theirs", "choices": [choice], "usage": usage}).encode()


def own_answer(id: str = "resp_theirs", text: str = "Hi") -> bytes:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output = [{"type": "message", "id": "msg_theirs", "role": "assistant", "status": "completed", "content": content}]
    return json.dumps({"id": id, "object": "response", "status": "completed", "output": output}).encode()


def answered(
    sent: bytes, answer: bytes, dialect: ProviderDialect = CHAT, found: Mapping[str, list[bytes]] | None = None
) -> tuple[dict[str, Any], ToKeep | None]:
    """A whole answer as the client gets it, and what is to be kept of it."""
    voice = ResponsesVoice()
    request = voice.parse(sent)
    if found is not None:
        request = request.with_kept(found)
    voice.prepare(request, dialect, "theirs", keep=False)
    whole = voice.whole(voice.read_whole(request, dialect, answer).body, RECORD)
    return json.loads(whole), voice.to_keep(request)


def kept(sent: bytes, answer: bytes, dialect: ProviderDialect = CHAT) -> ToKeep:
    _, to_keep = answered(sent, answer, dialect)
    assert to_keep is not None
    return to_keep


def following(to_keep: ToKeep, sent: bytes) -> ResponsesRequest:
    request = ResponsesVoice().parse(sent)
    return request.with_kept({to_keep.id: [to_keep.data]})


def events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for event in split_events(stream) if (data := event_data(event)) is not None]


def test_it_is_a_voice() -> None:
    voice: Voice = ResponsesVoice()
    assert (voice.dialect, voice.speaks_early, voice.conversation) == ("openai-responses", False, None)


def test_the_same_dialect_passes_as_bytes_both_ways() -> None:
    voice, stream = ResponsesVoice(), (GOLDEN / "responses_text.sse").read_bytes()
    request = voice.parse(body(stream=True, tools=[{"type": "web_search"}]))
    asking = voice.prepare(request, OWN, "theirs", keep=False)
    assert (asking.path, asking.passes) == (b"/responses", True)
    assert json.loads(asking.body)["tools"] == [{"type": "web_search"}]
    assert asking.stream is not None
    assert asking.stream.feed(stream) == b""
    assert asking.stream.committed
    assert asking.stream.first() == stream
    assert asking.stream.usage == Usage(prompt_tokens=36, completion_tokens=12, cached_tokens=20)
    assert (asking.stream.done, asking.stream.end(None)) == (True, b"")


def test_a_whole_answer_of_the_same_dialect_passes_as_it_is() -> None:
    voice = ResponsesVoice()
    whole = voice.read_whole(voice.parse(body()), OWN, own_answer())
    assert (whole.body, whole.finish_reason) == (own_answer(), "stop")


def test_another_dialects_answer_is_a_valid_response_with_an_id_of_ours() -> None:
    document, _ = answered(body(instructions="Be brief."), chat_answer())
    response = Response.model_validate(document)
    assert (response.output_text, response.model, response.instructions) == ("Hi", "theirs", "Be brief.")
    assert response.id.startswith("resp_")
    assert response.usage is not None
    assert response.usage.total_tokens == 5


def test_the_assistants_own_instructions_are_not_repeated_to_the_client() -> None:
    voice = ResponsesVoice()
    request = voice.parse(body(instructions="Be brief."))
    request = request.with_messages([{"role": "system", "content": "Secret."}, *request.messages()])
    assert [text.text for text in request.call().system] == ["Secret.\n\nBe brief."]
    written = voice.whole(voice.read_whole(request, CHAT, chat_answer()).body, RECORD)
    assert json.loads(written)["instructions"] == "Be brief."
    to_keep = voice.to_keep(request)
    assert to_keep is not None
    assert b"Secret" not in to_keep.data


def test_a_request_goes_on_from_the_response_that_was_kept() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    first = kept(body("Weather?"), chat_answer("Looking.", tool_calls=[call]))
    assert first.previous is None
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
    second = following(first, body([output], previous_response_id=first.id))
    assert second.wanted == (first.id,)
    assert second.call().messages == (
        Message(role="user", parts=(Text(text="Weather?"),)),
        Message(role="assistant", parts=(Text(text="Looking."), ToolCall(id="call_1", name="weather", arguments="{}"))),
        Message(role="user", parts=(ToolResult(id="call_1", name="weather", content=(Text(text="sunny"),)),)),
    )


def test_a_chain_is_told_from_its_beginning_and_instructions_are_not_carried_over() -> None:
    first = kept(body("one", instructions="Old."), chat_answer("1"))
    document, second = answered(
        body("two", previous_response_id=first.id), chat_answer("2"), found={first.id: [first.data]}
    )
    assert document["previous_response_id"] == first.id
    assert second is not None
    assert second.previous == first.id
    assert b"one" not in second.data  # each turn is kept once
    third = ResponsesVoice().parse(body("three", previous_response_id=second.id))
    call = third.with_kept({second.id: [first.data, second.data]}).call()
    assert [message.parts for message in call.messages] == [
        (Text(text=text),) for text in ("one", "1", "two", "2", "three")
    ]
    assert call.system == ()


@pytest.mark.parametrize("found", [None, {}, {"resp_x": []}])
def test_an_unknown_response_is_not_found_where_it_is_needed(found: Any) -> None:
    request = ResponsesVoice().parse(body(previous_response_id="resp_x"))
    if found is not None:
        request = request.with_kept(found)
    with pytest.raises(RequestError) as caught:
        ResponsesVoice().prepare(request, CHAT, "theirs", keep=False)
    error = caught.value
    assert (error.http_status, error.code, error.param) == (404, "previous_response_not_found", "previous_response_id")
    assert "resp_x" in error.public_message
    passing = ResponsesVoice().prepare(request, OWN, "theirs", keep=False)
    assert json.loads(passing.body)["previous_response_id"] == "resp_x"


def test_a_provider_is_given_the_id_of_what_it_holds_and_the_items_of_what_it_does_not() -> None:
    theirs = kept(body("one"), own_answer(), OWN)
    assert theirs.id == "resp_theirs"
    passing = following(theirs, body("two", previous_response_id=theirs.id)).encode_as_is("m", OWN.quirks)
    assert json.loads(passing) == {"model": "m", "input": "two", "previous_response_id": "resp_theirs"}
    ours = kept(body("one"), chat_answer("1"))
    sent = json.loads(following(ours, body("two", previous_response_id=ours.id)).encode_as_is("m", OWN.quirks))
    assert "previous_response_id" not in sent
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert all("id" not in item for item in sent["input"])
    assert sent["input"][1]["content"][0]["text"] == "1"


def test_what_another_provider_held_can_be_gone_on_from_by_any() -> None:
    theirs = kept(body("one"), own_answer(), OWN)
    call = following(theirs, body("two", previous_response_id=theirs.id)).call()
    assert [message.parts for message in call.messages] == [(Text(text=text),) for text in ("one", "Hi", "two")]


def test_hosted_tools_calls_of_a_kept_response_are_dropped_and_named() -> None:
    answer = json.loads(own_answer())
    answer["output"].insert(0, {"type": "web_search_call", "id": "ws_1", "status": "completed"})
    theirs = kept(body("one"), json.dumps(answer).encode(), OWN)
    call = following(theirs, body("two", previous_response_id=theirs.id)).call()
    assert len(call.messages) == 3
    assert call.extra == {"previous_response_id: web_search_call": True}


def test_an_item_can_be_referred_to_by_its_id() -> None:
    first = kept(body("one"), chat_answer("1"))
    item = json.loads(document_of(first.data))["output"][0]["id"]
    again = [
        {"role": "user", "content": "one"},
        {"type": "item_reference", "id": item},
        {"role": "user", "content": "two"},
    ]
    request = following(first, body(again))
    assert request.wanted == (first.id,)
    assert [message.parts for message in request.call().messages] == [
        (Text(text=text),) for text in ("one", "1", "two")
    ]
    assert b"item_reference" not in request.encode_as_is("m", OWN.quirks)
    assert [json.loads(bytes(raw)).get("type") for raw in request.items_to_keep()] == [None, "message", None]
    with pytest.raises(RequestError) as caught:
        ResponsesVoice().parse(body(again)).call()
    assert (caught.value.http_status, caught.value.param) == (404, "input[1].id")


def test_nothing_is_kept_where_the_client_forbids_it_or_there_is_no_answer() -> None:
    assert answered(body(store=False), chat_answer())[1] is None
    assert answered(body(store=False), own_answer(), OWN)[1] is None
    voice = ResponsesVoice()
    assert voice.to_keep(voice.parse(body())) is None


def test_a_kept_response_can_be_retrieved_as_the_client_got_it() -> None:
    document, to_keep = answered(body(metadata={"a": "b"}), chat_answer())
    assert to_keep is not None
    assert json.loads(document_of(to_keep.data)) == document
    assert deleted_document("resp_1") == {"id": "resp_1", "object": "response", "deleted": True}


def translated(voice: ResponsesVoice, sent: bytes) -> tuple[ResponsesRequest, bytes]:
    request = voice.parse(sent)
    asking = voice.prepare(request, CHAT, "theirs", keep=True)
    assert asking.stream is not None
    assert asking.stream.feed((GOLDEN / "openai_text.sse").read_bytes()) == b""
    return request, asking.stream.first() + asking.stream.end(Usage(prompt_tokens=1, estimated=True))


def test_a_translated_stream_is_valid_and_its_response_is_kept() -> None:
    voice = ResponsesVoice()
    request, stream = translated(voice, body(stream=True))
    told = [OFFICIAL.validate_python(event) for event in events(stream)]
    assert (told[0].type, told[-1].type) == ("response.created", "response.completed")
    to_keep = voice.to_keep(request)
    assert to_keep is not None
    assert to_keep.id == told[-1].response.id == told[0].response.id
    assert json.loads(document_of(to_keep.data)) == events(stream)[-1]["response"]
    again = following(to_keep, body("more", previous_response_id=to_keep.id)).call()
    assert again.messages[1].parts == (Text(text=told[-1].response.output_text),)


def test_of_streams_that_raced_the_one_that_was_chosen_is_kept() -> None:
    voice, stream = ResponsesVoice(), (GOLDEN / "responses_text.sse").read_bytes()
    request = voice.parse(body(stream=True))
    lost, won = (voice.prepare(request, OWN, "theirs", keep=False).stream for _ in range(2))
    assert lost is not None
    assert won is not None
    lost.feed(stream)
    won.feed(stream.replace(b"resp_golden_text", b"resp_golden_won_"))
    won.first()
    to_keep = voice.to_keep(request)
    assert to_keep is not None
    assert to_keep.id == "resp_golden_won_"


BROKEN = StreamBroken("upstream_reset", "the answer broke off")


def test_a_stream_that_breaks_off_ends_in_an_error_and_a_failed_response() -> None:
    voice = ResponsesVoice()
    request = voice.parse(body(stream=True))
    asking = voice.prepare(request, CHAT, "theirs", keep=False)
    assert asking.stream is not None
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Once"}, "finish_reason": None}]}
    asking.stream.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    told = events(asking.stream.first() + voice.breaks(BROKEN))
    for event in told:
        OFFICIAL.validate_python(event)
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert (told[-2]["code"], told[-2]["message"]) == ("upstream_reset", "the answer broke off")
    assert told[-1]["response"]["status"] == "failed"
    assert told[-1]["response"]["id"] == told[0]["response"]["id"]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert voice.to_keep(request) is None


def test_a_passed_stream_that_breaks_off_goes_on_counting_where_it_was() -> None:
    voice, stream = ResponsesVoice(), (GOLDEN / "responses_failed.sse").read_bytes()
    request = voice.parse(body(stream=True))
    asking = voice.prepare(request, OWN, "theirs", keep=False)
    assert asking.stream is not None
    asking.stream.feed(stream[: stream.index(b"event: response.failed")])
    told = events(asking.stream.first() + voice.breaks(BROKEN))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["response"]["id"] == "resp_golden_failed"
    assert voice.to_keep(request) is None


def own_event(kind: str, **fields: Any) -> bytes:
    return f"event: response.{kind}\ndata: {json.dumps({'type': f'response.{kind}', **fields})}\n\n".encode()


REASONING: dict[str, Any] = {"id": "rs_theirs", "type": "reasoning", "summary": []}
MESSAGE = {"id": "msg_theirs", "type": "message", "role": "assistant", "status": "in_progress", "content": []}


@pytest.mark.parametrize("summary", ["", "A lookup."])
def test_a_passed_stream_that_another_provider_ends_keeps_its_items_in_their_places(summary: str) -> None:
    """Models that think tell of a reasoning item first, as a rule with nothing in it that could be said again."""
    thought: Any = {**REASONING, "summary": [{"type": "summary_text", "text": summary}] if summary else []}
    at = {"item_id": "msg_theirs", "output_index": 1, "content_index": 0}
    summed = own_event(
        "reasoning_summary_text.delta", item_id="rs_theirs", output_index=0, summary_index=0, delta=summary
    )
    stream = b"".join(
        [
            own_event("created", response={"id": "resp_theirs", "model": "m", "created_at": 5}, sequence_number=0),
            own_event("output_item.added", output_index=0, item=REASONING, sequence_number=1),
            summed if summary else b"",
            own_event("output_item.done", output_index=0, item=thought, sequence_number=2),
            own_event("output_item.added", output_index=1, item=MESSAGE, sequence_number=3),
            own_event("content_part.added", **at, part={"type": "output_text", "text": ""}, sequence_number=4),
            own_event("output_text.delta", **at, delta="Once", sequence_number=5),
        ]
    )
    voice = ResponsesVoice()
    request = voice.parse(body(stream=True))
    asking = voice.prepare(request, OWN, "theirs", keep=True)
    assert asking.stream is not None
    asking.stream.feed(stream)
    asking.stream.first()
    so_far = asking.stream.so_far()
    assert so_far is not None
    rest = ResumedStream(CHAT.reader(), voice.writer(request), so_far, repeats=False, tokens_before=1)
    rest.feed((GOLDEN / "openai_text.sse").read_bytes())
    told = events(rest.first() + rest.end(Usage(prompt_tokens=1)))
    for event in told:
        OFFICIAL.validate_python(event)
    assert told[0]["type"] == "response.output_text.delta"
    assert {event["item_id"] for event in told if "item_id" in event} == {"msg_theirs"}
    assert {event["output_index"] for event in told if "output_index" in event} == {1}
    output = told[-1]["response"]["output"]
    assert output[0] == thought
    assert (output[1]["id"], output[1]["content"][0]["text"][:4]) == ("msg_theirs", "Once")
    assert len(output) == 2


def test_errors_have_openais_shape() -> None:
    error = RequestError("model_not_found", 404, "no such model", param="model")
    assert ResponsesVoice().error(error)["error"]["code"] == "model_not_found"
