"""Promise: any provider's answer reaches a Gemini client in Gemini's form: pieces, documents, arrays and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import GatewayError, Rejected, RequestError, StreamBroken
from gateway.core.facts import Usage
from gateway.dialects import gemini_writer
from gateway.dialects.answer import Answer, ReasoningBlock, TextBlock, ToolBlock
from gateway.dialects.chat_provider import OpenAIChat
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
from gateway.dialects.gemini import Gemini
from gateway.dialects.gemini_frame import Frame
from gateway.dialects.gemini_reader import GeminiReader
from gateway.dialects.gemini_voice import GeminiVoice, split_path, stream_type
from gateway.dialects.gemini_writer import GeminiWriter, write_gemini
from gateway.dialects.provider import Quirks
from gateway.dialects.signatures import mark_googles
from gateway.dialects.sse import EventTooLong, event_data, split_events
from gateway.dialects.voice import Opening, Voice

GOLDEN = Path(__file__).parents[1] / "golden"
WHOLE_STREAMS = ("text", "tools", "thinking", "safety", "max_tokens", "candidates")
START = Started("r1", "some-model")
USAGE = Usage(prompt_tokens=9, completion_tokens=7, reasoning_tokens=3, cached_tokens=2)
HELLO = b'{"contents":[{"parts":[{"text":"Hello"}]}]}'


def voice(query: bytes = b"alt=sse", method: str = "streamGenerateContent", model: str = "m") -> GeminiVoice:
    return GeminiVoice(Opening(path=f"/v1beta/models/{model}:{method}", query=query))


def written(*events: Event, model: str = "") -> list[dict[str, Any]]:
    writer = GeminiWriter(Frame(events=True), model=model)
    out = b"".join(writer.write([event]) for event in events) + writer.end()
    return [json.loads(event_data(event) or b"") for event in split_events(out)]


def parts(pieces: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [
        part
        for piece in pieces
        for candidate in piece["candidates"]
        for part in candidate["content"]["parts"]
        if candidate["index"] == index
    ]


def finish_of(*events: Event) -> str:
    reason: str = written(START, *events)[-1]["candidates"][0]["finishReason"]
    return reason


def golden(name: str) -> list[Event]:
    reader = GeminiReader()
    return reader.feed((GOLDEN / f"gemini_{name}.sse").read_bytes()) + reader.end()


def said(answer: Answer) -> Any:
    """What an answer says, whatever pieces it came in and however its JSON is spaced."""
    choices = {}
    for index, choice in answer.choices.items():
        blocks: list[Any] = []
        for block in choice.blocks:
            match block:
                case ToolBlock():
                    blocks.append((block.id, block.name, json.loads(block.arguments), block.signature))
                case ReasoningBlock():
                    blocks.append((block.text, block.signature))
                case TextBlock():
                    blocks.append((block.text, block.logprobs))
        choices[index] = (blocks, choice.finished)
    return answer.id, answer.model, choices, answer.usage


def test_a_voice_is_one() -> None:
    spoken: Voice = voice()
    assert (spoken.dialect, spoken.speaks_early, spoken.conversation) == ("gemini", False, None)


def test_text_ends_with_its_reason_and_usage_in_one_piece() -> None:
    first, last = written(START, TextDelta("Hi"), Finished("stop"), Used(USAGE))
    assert first == {
        "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}],
        "modelVersion": "some-model",
        "responseId": "r1",
    }
    assert last == {
        "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 4,
            "totalTokenCount": 16,
            "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 2,
        },
        "modelVersion": "some-model",
        "responseId": "r1",
    }


def test_a_provider_that_names_nothing_gets_an_id_and_the_models_name() -> None:
    first, last = written(TextDelta("Hi"), Finished("stop"), model="asked")
    assert first["responseId"] == last["responseId"] != ""
    assert {first["modelVersion"], last["modelVersion"]} == {"asked"}


def test_a_repaired_answer_keeps_its_id_and_names_who_goes_on() -> None:
    pieces = written(START, TextDelta("a"), Started("r2", "other"), TextDelta("b"), Finished("stop"))
    assert [piece["responseId"] for piece in pieces] == ["r1"] * 3
    assert [piece["modelVersion"] for piece in pieces] == ["some-model", "other", "other"]


def test_calls_are_gathered_and_come_whole() -> None:
    pieces = written(
        START,
        TextDelta("I look."),
        ToolCallStarted(0, "c1", "weather", 0, "QUJD"),
        ToolCallStarted(1, "c2", "now"),
        ArgumentsDelta(0, '{"place": "Be'),
        ArgumentsDelta(0, 'rn", "n": 1.50}'),
        Finished("tool_calls"),
    )
    assert parts(pieces)[1:3] == [
        {
            "functionCall": {"name": "weather", "args": {"place": "Bern", "n": 1.5}, "id": "c1"},
            "thoughtSignature": "QUJD",
        },
        {"functionCall": {"name": "now", "args": {}, "id": "c2"}},
    ]
    assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"


def test_the_digits_of_arguments_stay() -> None:
    writer = GeminiWriter(Frame(events=True))
    call: list[Event] = [
        ToolCallStarted(0, "", "f"),
        ArgumentsDelta(0, '{"x": 1.50, "y": 123456789012345678901234567890}'),
    ]
    assert b'"args":{"x": 1.50, "y": 123456789012345678901234567890}' in writer.write([*call, TextDelta("so")])


def test_arguments_that_are_no_object_are_no_call() -> None:
    broken: list[Event] = [ToolCallStarted(0, "c1", "f"), ArgumentsDelta(0, '{"a": ')]
    pieces = written(START, *broken, Finished("tool_calls"))
    assert not any("functionCall" in part for part in parts(pieces))
    assert pieces[-1]["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert finish_of(*broken, Finished("length")) == "MAX_TOKENS"
    whole = json.loads(write_gemini(Answer.of([START, *broken, Finished("tool_calls")])))
    assert whole["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"


def test_arguments_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini_writer, "MAX_HELD_CHARS", 10)
    writer = GeminiWriter(Frame(events=True))
    writer.write([ToolCallStarted(0, "", "f"), ArgumentsDelta(0, "x" * 10)])
    with pytest.raises(EventTooLong):
        writer.write([ArgumentsDelta(0, "x")])


def test_thoughts_are_marked_and_signatures_close_them() -> None:
    pieces = written(
        START,
        ReasoningDelta("Let me "),
        ReasoningDelta("see."),
        ReasoningDelta(signature=mark_googles("QUJD")),
        TextDelta("Yes."),
        ReasoningDelta(signature=mark_googles("REVG")),
        ReasoningDelta(signature=mark_googles("not base64!")),
        Finished("stop"),
    )
    assert parts(pieces) == [
        {"text": "Let me ", "thought": True},
        {"text": "see.", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": "QUJD"},
        {"text": "Yes."},
        {"text": "", "thoughtSignature": "REVG"},
        {"text": ""},
    ]


@pytest.mark.parametrize(
    ("reason", "theirs"),
    [
        ("stop", "STOP"),
        ("length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("refusal", "SAFETY"),
        ("pause", "OTHER"),
    ],
)
def test_reasons_have_googles_names(reason: FinishReason, theirs: str) -> None:
    assert finish_of(TextDelta("x"), Finished(reason)) == theirs


def test_a_refusal_in_words_is_text() -> None:
    pieces = written(START, RefusalDelta("I will not."), Finished("refusal"))
    assert parts(pieces)[0] == {"text": "I will not."}
    assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("name", WHOLE_STREAMS)
def test_what_is_written_is_read_as_the_same_answer(name: str) -> None:
    events = golden(name)
    writer = GeminiWriter(Frame(events=True))
    streamed = b"".join(writer.write([event]) for event in events) + writer.end()
    reader = GeminiReader()
    heard = Answer.of(reader.feed(streamed) + reader.end())
    meant = Answer.of(events)
    assert said(heard) == said(_with_gemini_names(meant))
    assert said(Answer.of(Gemini().read_whole(write_gemini(meant)))) == said(_with_gemini_names(meant))


def _with_gemini_names(answer: Answer) -> Answer:
    """The reasons are written in the names that the writer has for them."""
    names = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
    for index, choice in answer.choices.items():
        assert choice.finished is not None
        choice.finished = Finished(choice.finished.reason, names[choice.finished.reason], choice=index)
    return answer


@given(st.data())
def test_a_chat_providers_stream_comes_out_the_same_however_it_is_fed(data: st.DataObject) -> None:
    names = ("openai_text", "openai_tools", "openai_usage", "openai_logprobs", "openai_two_choices_tools")
    name = data.draw(st.sampled_from(names))
    stream = (GOLDEN / f"{name}.sse").read_bytes()
    place = data.draw(st.integers(0, len(stream)))

    def through(*reads: bytes) -> bytes:
        reader = OpenAIChat(quirks=Quirks()).reader()
        writer = GeminiWriter(Frame(events=True), model="m")
        return b"".join(writer.write(reader.feed(each)) for each in reads) + writer.end()

    assert through(stream[:place], stream[place:]) == through(stream)
    reader = OpenAIChat(quirks=Quirks()).reader()
    meant, heard = Answer.of(reader.feed(stream)), Answer.of(GeminiReader().feed(through(stream)))
    assert [choice.text for choice in heard.choices.values()] == [choice.text for choice in meant.choices.values()]
    for index, choice in meant.choices.items():
        calls = [(call.id, call.name, json.loads(call.arguments)) for call in choice.tools]
        assert [(c.id, c.name, json.loads(c.arguments)) for c in heard.choices[index].tools] == calls


# ── the forms of a stream ────────────────────────────────────────────────────────────────────────────────────────


def test_without_alt_sse_the_pieces_are_one_array() -> None:
    spoken = voice(b"")
    request = spoken.parse(HELLO)
    writer = spoken.writer(request)
    out = writer.write([START, TextDelta("a")]) + writer.write([TextDelta("b"), Finished("stop")]) + writer.end()
    assert [piece["candidates"][0]["content"]["parts"][0]["text"] for piece in json.loads(out)] == ["a", "b", ""]


def test_an_array_that_breaks_off_ends_with_the_error() -> None:
    broken = StreamBroken("upstream_cut", "it broke off")
    spoken = voice(b"")
    out = spoken.writer(spoken.parse(HELLO)).write([START, TextDelta("a")]) + spoken.breaks(broken)
    assert json.loads(out)[-1]["error"]["status"] == "UNAVAILABLE"
    assert json.loads(voice(b"").breaks(broken))[0]["error"]["code"] == 502
    events = split_events(voice().breaks(broken))
    assert [json.loads(event_data(event) or b"")["error"]["message"] for event in events] == ["it broke off"]


@given(st.data())
def test_a_provider_of_the_same_dialect_passes_in_either_form(data: st.DataObject) -> None:
    stream = (GOLDEN / "gemini_thinking.sse").read_bytes()
    place = data.draw(st.integers(0, len(stream)))
    outs = []
    for query in (b"alt=sse", b""):
        spoken = voice(query)
        asking = spoken.prepare(spoken.parse(HELLO), Gemini(), "gemini-2.5-flash", keep=False)
        assert (asking.body, asking.passes) == (HELLO, True)
        assert asking.path == b"/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        assert asking.stream is not None
        out = asking.stream.feed(stream[:place])
        out += asking.stream.first() + asking.stream.feed(stream[place:])
        asking.stream.eof()
        assert asking.stream.finished
        outs.append(out + asking.stream.end(None))
    assert outs[0] == stream.replace(b"\r\n", b"\n")
    assert json.loads(outs[1]) == [json.loads(event_data(event) or b"") for event in split_events(outs[0])]


def test_all_candidates_are_waited_for() -> None:
    spoken = voice()
    request = spoken.parse(b'{"contents":[{"parts":[]}],"generation_config":{"candidate_count":2}}')
    stream = spoken.prepare(request, Gemini(), "m", keep=False).stream
    assert stream is not None
    events = (GOLDEN / "gemini_candidates.sse").read_bytes().split(b"\r\n\r\n")
    stream.feed(b"\n\n".join(events[:3]) + b"\n\n")
    assert not stream.finished
    stream.feed(events[3] + b"\n\n")
    assert stream.finished


def test_another_dialects_provider_is_asked_by_way_of_a_call() -> None:
    spoken = voice(method="generateContent")
    asking = spoken.prepare(spoken.parse(HELLO), OpenAIChat(), "gpt", keep=False)
    assert (asking.passes, asking.stream) == (False, None)
    assert json.loads(asking.body) == {"model": "gpt", "messages": [{"role": "user", "content": "Hello"}]}
    answer = {"id": "x", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    whole = spoken.read_whole(spoken.parse(HELLO), OpenAIChat(), json.dumps(answer).encode())
    assert json.loads(whole.body)["candidates"][0]["content"] == {"parts": [{"text": "Hi"}], "role": "model"}


# ── the path, and errors ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1beta/models/chat:generateContent", ("chat", "generateContent")),
        ("/v1/models/a/b:streamGenerateContent", ("a/b", "streamGenerateContent")),
        ("/v1beta/models/llama3:8b:generateContent", ("llama3:8b", "generateContent")),
    ],
)
def test_model_and_method_stand_in_the_path(path: str, found: tuple[str, str]) -> None:
    assert split_path(path) == found


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1beta/models/chat:embedContent", 404),
        ("/v1beta/models/chat", 404),
        ("/v1beta/models/:generateContent", 400),
        (f"/v1beta/models/{'m' * 257}:generateContent", 400),
    ],
)
def test_other_methods_and_odd_names_are_refused_when_the_request_is_read(path: str, status: int) -> None:
    spoken = GeminiVoice(Opening(path=path))
    with pytest.raises(RequestError) as refused:
        spoken.parse(HELLO)
    assert refused.value.http_status == status


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (b"alt=sse", b"text/event-stream; charset=utf-8"),
        (b"key=x&%24alt=sse", b"text/event-stream; charset=utf-8"),
        (b"alt=json", b"application/json; charset=utf-8"),
        (b"", b"application/json; charset=utf-8"),
    ],
)
def test_the_query_says_the_form(query: bytes, kind: bytes) -> None:
    assert stream_type(Opening(path="", query=query)) == kind


def test_errors_have_googles_shape() -> None:
    late = Rejected("queue_full", 429, "come back later", retry_after_s=2)
    assert voice().error(late) == {
        "error": {
            "code": 429,
            "message": "come back later",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "QUEUE_FULL", "domain": "sluice"},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.000s"},
            ],
        }
    }
    wrong = voice().error(RequestError("invalid_request", 422, "no", param="contents"))["error"]
    assert (wrong["status"], wrong["details"][1]["fieldViolations"][0]["field"]) == ("INVALID_ARGUMENT", "contents")
    assert voice().error(GatewayError("internal_error", 599, "x"))["error"]["status"] == "INTERNAL"
