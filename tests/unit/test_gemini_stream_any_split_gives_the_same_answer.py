"""Codec law for Gemini's streams: however the network cuts one, the answer is the same; and it is the right one.

The streams in ``tests/golden`` are written from the documented format.
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
from gateway.dialects.answer import Answer, ReasoningBlock, TextBlock, ToolBlock
from gateway.dialects.events import Event, Failed, Finished, Started
from gateway.dialects.gemini import Gemini
from gateway.dialects.gemini_reader import GeminiReader
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.signatures import googles, mark_googles

GOLDEN = {
    path.stem.removeprefix("gemini_"): path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "golden").glob("gemini_*.sse"))
}
CALL_SIGNATURE = "CiQB0e2Kb3mVhF1yT0p6c2lnbmF0dXJlLW9uZS1jYWxsAA=="
TEXT_SIGNATURE = "EvQBCvEBAb4+9vtG3fNlcXVhdGlvbnMtYXJlLXNvbHZlZA=="


def read(*reads: bytes) -> tuple[list[Event], GeminiReader]:
    reader = GeminiReader()
    events = [event for data in reads for event in reader.feed(data)]
    return events + reader.end(), reader


def answer_of(name: str) -> Answer:
    return Answer.of(read(GOLDEN[name])[0])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


def whole(**candidate: Any) -> bytes:
    return json.dumps({"candidates": [candidate], "responseId": "r"}).encode()


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


def test_the_start_comes_first_and_once() -> None:
    for name, stream in GOLDEN.items():
        events, _ = read(stream)
        assert isinstance(events[0], Started), name
        assert sum(isinstance(event, Started) for event in events) == 1, name


def test_text_and_usage_with_what_came_from_the_cache() -> None:
    answer = answer_of("text")
    assert answer.first.text == 'The kettle boils at 100 °C — at sea level. "Quoted" 🫖\n'
    assert (answer.id, answer.model) == ("kX9gaN2sLZ-Ovr0P6NqRwAE", "gemini-2.5-flash")
    assert answer.first.finished == Finished("stop", "STOP")
    assert answer.usage == Usage(prompt_tokens=12, completion_tokens=20, cached_tokens=8)


def test_a_stop_after_calls_means_that_tools_were_called() -> None:
    choice = answer_of("tools").first
    assert choice.finished == Finished("tool_calls", "STOP")
    assert [(call.id, call.name, json.loads(call.arguments)) for call in choice.tools] == [
        ("fc-1", "get_weather", {"place": "Zürich", "days": 2}),
        ("call_R3sp-0ns_eId_0_1", "get_weather", {"place": "Genève"}),
        ("call_R3sp-0ns_eId_0_2", "now", {}),
    ]
    assert [call.signature for call in choice.tools] == [CALL_SIGNATURE, "", ""]


def test_thoughts_are_counted_and_a_texts_signature_stands_behind_it() -> None:
    answer = answer_of("thinking")
    thought, text, signed = answer.first.blocks
    assert isinstance(thought, ReasoningBlock)
    assert thought.text == "**Counting**\n\nFirst the legs, then the heads."
    assert (thought.signature, isinstance(text, TextBlock)) == ("", True)
    assert isinstance(signed, ReasoningBlock)
    assert (signed.text, googles(signed.signature)) == ("", TEXT_SIGNATURE)
    assert answer.first.text == "There are 23 chickens."
    assert answer.usage == Usage(prompt_tokens=20, completion_tokens=58, reasoning_tokens=52)


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("safety", Finished("content_filter", "SAFETY")),
        ("max_tokens", Finished("length", "MAX_TOKENS")),
        ("blocked_prompt", Finished("content_filter", "PROHIBITED_CONTENT")),
    ],
)
def test_what_ends_an_answer_early_is_said(name: str, finished: Finished) -> None:
    answer = answer_of(name)
    assert answer.first.finished == finished
    assert answer.usage is not None


def test_an_error_event_ends_the_answer() -> None:
    events, _ = read(GOLDEN["error"] + GOLDEN["text"])
    assert events[-1] == Failed("unavailable", "The model is overloaded. Please try again later.")
    assert Answer.of(events).first.text == "Half an ans"


def test_an_error_that_comes_as_bare_json_is_one() -> None:
    error = {"error": {"code": 500, "message": "Internal", "status": "INTERNAL"}}
    assert read(json.dumps(error, indent=1).encode())[0] == [Failed("internal", "Internal")]


def test_a_call_that_came_out_wrong_is_no_answer() -> None:
    events, _ = read(GOLDEN["malformed_call"])
    assert events[-1] == Failed("malformed_function_call")
    assert not any(isinstance(event, Finished) for event in events)


def test_candidates_stay_apart_each_with_its_log_probabilities() -> None:
    answer = answer_of("candidates")
    assert [answer.choices[index].text for index in (0, 1)] == ["Heads.", "Tails!"]
    [block] = answer.choices[1].blocks
    assert isinstance(block, TextBlock)
    assert [(entry["token"], entry["logprob"]) for entry in block.logprobs] == [("Tails", -1.5), ("!", -2.0)]
    assert block.logprobs[0]["top_logprobs"][1] == {"token": "?", "logprob": -4.5, "bytes": [63]}


def test_what_cannot_be_read_is_counted_and_left_out() -> None:
    events, reader = read(b"data: {not json\n\ndata: [1]\n\n: keep-alive\n\n" + GOLDEN["text"])
    assert reader.malformed == 2
    assert events == read(GOLDEN["text"])[0]


def test_numbers_that_cannot_be_counts_are_no_usage() -> None:
    for wrong in ({"promptTokenCount": -1}, {"promptTokenCount": 1.5}, {"trafficType": "ON_DEMAND"}):
        stream = b"data: " + json.dumps({"candidates": [{"finishReason": "STOP"}], "usageMetadata": wrong}).encode()
        assert read(stream + b"\n\n")[0] == [Finished("stop", "STOP")]


def test_a_whole_answer_is_the_same_events() -> None:
    dialect: ProviderDialect = Gemini()
    signed = {"text": "Hi", "thoughtSignature": "QUJD"}
    body = whole(content={"parts": [{"text": "Hm", "thought": True}, signed], "role": "model"}, finishReason="STOP")
    answer = Answer.of(dialect.read_whole(body))
    assert (answer.first.reasoning, answer.first.text) == ("Hm", "Hi")
    assert answer.first.blocks[-1] == ReasoningBlock(signature=mark_googles("QUJD"))
    blocked = b'{"promptFeedback": {"blockReason": "SAFETY"}}'
    assert dialect.read_whole(blocked) == [Finished("content_filter", "SAFETY")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"candidates": []}',
        b'{"error": {"code": 500}}',
        whole(finishReason="MALFORMED_FUNCTION_CALL"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        Gemini().read_whole(body)


def test_a_call_keeps_its_place_among_the_blocks() -> None:
    parts = [{"text": "a"}, {"functionCall": {"name": "f", "args": {"x": 12345678901234567890}}}, {"text": "b"}]
    blocks = Answer.of(Gemini().read_whole(whole(content={"parts": parts}, finishReason="STOP"))).first.blocks
    assert [type(block) for block in blocks] == [TextBlock, ToolBlock, TextBlock]
    assert isinstance(blocks[1], ToolBlock)
    assert blocks[1].arguments == '{"x":12345678901234567890}'


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (
            "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
            "context_length_exceeded",
        ),
        (
            "Requests ending with a model turn are not supported unless the last part is a function response.",
            "prefill_unsupported",
        ),
        ("Please ensure that multiturn requests ends with a user role or a function response.", "prefill_unsupported"),
        ("API key not valid. Please pass a valid API key.", "upstream_auth"),
        ("Invalid JSON payload received.", ""),
    ],
)
def test_errors_that_change_what_happens_next_are_known(message: str, code: str) -> None:
    document = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    assert Gemini().error_code(json.dumps(document).encode()) == code
    assert Gemini().error_code(json.dumps([document]).encode()) == code


def test_errors_that_are_none_say_nothing() -> None:
    assert [Gemini().error_code(body) for body in (b"", b"[]", b'{"error": 3}', b"<html>")] == [""] * 4


def test_the_model_is_one_segment_of_the_path() -> None:
    dialect = Gemini()
    assert dialect.path("gemini-2.5-flash", stream=False) == b"/models/gemini-2.5-flash:generateContent"
    assert dialect.path("models/gemini-2.5-pro", stream=True) == b"/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert dialect.path("tunedModels/mine", stream=False) == b"/tunedModels/mine:generateContent"
    assert dialect.path("../../files/x?y#z", stream=False) == b"/models/..%2F..%2Ffiles%2Fx%3Fy%23z:generateContent"
    assert dialect.headers("k") == {b"x-goog-api-key": b"k"}
    assert dialect.headers("") == {}
