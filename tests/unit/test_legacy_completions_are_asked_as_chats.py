"""``/v1/completions``: the old questions reach chat providers, and the answers come back in the old form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion

from gateway.core.errors import RequestError, StreamBroken
from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.azure import AzureOpenAI
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.completions import CompletionRequest, CompletionsVoice
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
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.sse import event_data, split_events
from gateway.dialects.voice import Voice

GOLDEN = Path(__file__).parents[1] / "golden"
VOICE: Voice = CompletionsVoice("cmpl-1")  # the type is the test: mypy and readers see that it is a voice


def parsed(**fields: Any) -> CompletionRequest:
    return CompletionsVoice().parse(json.dumps({"model": "chat", "prompt": "Say hi", **fields}).encode())


def documents(data: bytes) -> list[Any]:
    found = [event_data(event) for event in split_events(data)]
    return [json.loads(one) for one in found if one and one != b"[DONE]"]


def told(events: list[Event], **fields: Any) -> list[Any]:
    writer = VOICE.writer(parsed(**fields))
    return documents(writer.write(events) + writer.end())


@pytest.mark.parametrize("dialect", [OpenAIChat(), AzureOpenAI()])
def test_a_prompt_is_a_user_message_at_the_chat_endpoint(dialect: ProviderDialect) -> None:
    request = parsed(max_tokens=5, stop="\n", n=2, temperature=0, logprobs=3, logit_bias={"5": 1}, user="u")
    asking = CompletionsVoice().prepare(request, dialect, "m", keep=False)
    assert asking.path.endswith(b"/chat/completions")
    assert not asking.passes
    assert json.loads(asking.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say hi"}],
        "max_completion_tokens": 5,
        "stop": ["\n"],
        "n": 2,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"5": 1},
        "user": "u",
    }


def test_context_goes_before_the_prompt() -> None:
    request = parsed(prompt=["Say hi"])
    assert request.last_user_text == "Say hi"
    fed = request.with_messages([{"role": "system", "content": "Be kind."}, *request.messages()])
    assert fed.call().system[0].text == "Be kind."
    assert fed.last_user_text == "Say hi"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"n": 0}, "n"),
        ({"model": ""}, "model"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(**fields)
    assert (refused.value.http_status, refused.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":"a","prompt":"\xff"}'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        CompletionsVoice().parse(body)
    assert refused.value.code == "invalid_json"


def test_a_streamed_answer_is_told_in_the_old_form() -> None:
    events: list[Event] = [
        Started("chatcmpl-1", "m", 7),
        ReasoningDelta("Hm."),
        TextDelta("Hi"),
        Finished("stop"),
        Finished("stop"),
        Used(Usage(prompt_tokens=2, completion_tokens=1)),
    ]
    first, last, usage = told(events, stream_options={"include_usage": True})
    assert first == {
        "id": "chatcmpl-1",
        "object": "text_completion",
        "created": 7,
        "model": "m",
        "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": None}],
        "usage": None,
    }
    assert last["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 3)
    assert [one["choices"][0]["text"] for one in told(events)] == ["Hi", ""]


def test_an_echo_comes_once_before_each_answer() -> None:
    events: list[Event] = [Started("x", "m", 7), TextDelta("a"), TextDelta("b", 1), TextDelta("c")]
    assert [one["choices"][0]["text"] for one in told(events, echo=True)] == ["Say hia", "Say hib", "c"]
    whole = json.loads(VOICE.write_whole(Answer.of(events), parsed(echo=True)))
    assert [choice["text"] for choice in whole["choices"]] == ["Say hiac", "Say hib"]


def test_log_probabilities_are_told_in_the_old_form() -> None:
    events = OpenAIChat().reader().feed((GOLDEN / "openai_logprobs.sse").read_bytes())
    whole = json.loads(VOICE.write_whole(Answer.of(events), parsed(logprobs=2)))["choices"][0]
    assert whole["logprobs"] == {
        "tokens": ["Yes", " é"],
        "token_logprobs": [-0.25, -0.5],
        "top_logprobs": [{"Yes": -0.25, "No": -1.5}, {" é": -0.5, ".": -2.0}],
        "text_offset": [0, 3],
    }
    streamed = [one["choices"][0]["logprobs"] for one in told(events)]
    assert [one and one["text_offset"] for one in streamed] == [[0], [3], None]


def test_odd_log_probabilities_cost_no_text() -> None:
    (one,) = told([Started("x", "m", 7), TextDelta("a", 0, [{"token": 3}])])
    assert one["choices"][0]["text"] == "a"
    assert one["choices"][0]["logprobs"]["tokens"] == []


@pytest.mark.parametrize(
    ("events", "text", "finish"),
    [
        ([RefusalDelta("No."), Finished("refusal")], "No.", "stop"),
        ([TextDelta("a"), ToolCallStarted(0, "i", "f"), ArgumentsDelta(0, "{}"), Finished("tool_calls")], "a", "stop"),
        ([TextDelta("a"), Finished("length")], "a", "length"),
        ([Finished("content_filter")], "", "content_filter"),
    ],
)
def test_refusals_are_text_and_calls_are_left_out(events: list[Event], text: str, finish: str) -> None:
    streamed = told([Started("x", "m", 7), *events])
    assert "".join(one["choices"][0]["text"] for one in streamed) == text
    assert streamed[-1]["choices"][0]["finish_reason"] == finish
    whole = VOICE.write_whole(Answer.of([Started("x", "m", 7), *events]), parsed())
    Completion.model_validate_json(whole, strict=True)
    (choice,) = json.loads(whole)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, finish)


def test_a_repair_keeps_the_id_that_was_made_up() -> None:
    voice = CompletionsVoice()
    first, second = voice.writer(parsed()), voice.writer(parsed())
    (before,) = documents(first.write([Started(model="m"), TextDelta("a")]))
    second.write([Started(model="m"), TextDelta("a")])
    (after,) = documents(second.write([Started("other", "n", 9), TextDelta("b")]))
    assert before["id"] == after["id"]
    assert before["created"] == after["created"]
    assert (before["model"], after["model"]) == ("m", "n")


def test_a_whole_answer_of_a_provider_is_rewritten() -> None:
    message = {"role": "assistant", "content": "Hi"}
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    body = {"id": "x", "created": 7, "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    whole = VOICE.read_whole(parsed(), OpenAIChat(), json.dumps({**body, "usage": usage}).encode())
    assert json.loads(whole.body)["choices"][0]["text"] == "Hi"
    assert (whole.usage, whole.finish_reason) == (Usage(prompt_tokens=2, completion_tokens=1), "stop")


def test_errors_have_openais_shape() -> None:
    error = RequestError("bad", 400, "no", param="prompt")
    assert VOICE.error(error)["error"]["param"] == "prompt"
    (broken,) = documents(VOICE.breaks(StreamBroken("cut", "it ended")))
    assert broken["error"]["code"] == "cut"


def test_what_all_its_answers_may_take_is_counted_before_it_is_asked() -> None:
    assert CompletionsVoice().parse(b'{"model":"m","prompt":"p","n":3,"max_tokens":100}').max_tokens == 300
    assert CompletionsVoice().parse(b'{"model":"m","prompt":"p","max_completion_tokens":100}').max_tokens == 100
    assert CompletionsVoice().parse(b'{"model":"m","prompt":"p"}').max_tokens == 0


def test_the_prompt_is_what_the_user_said_whatever_else_is_asked_for() -> None:
    assert CompletionsVoice().parse(b'{"model":"m","prompt":"p","temperature":1e999}').last_user_text == "p"
