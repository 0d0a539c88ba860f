"""Codec law for OpenAI's streams: however the network cuts one, the client gets the same bytes and we notice the same.

The streams in ``tests/golden`` are written from the documented format: what a provider sends, line end by line end.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.facts import Usage
from gateway.dialects.chat_stream import ChatStream, read_answer
from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import event_data, split_events

GOLDEN = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "golden").glob("*.sse"))}
DONE = b"data: [DONE]\n\n"
USAGE = Usage(prompt_tokens=19, completion_tokens=10, cached_tokens=4, reasoning_tokens=3)


@frozen
class Heard:
    """What came of a stream."""

    out: bytes
    usage: Usage | None
    finish: str
    done: bool
    error: Any
    malformed: int
    finished: bool

    @property
    def chunks(self) -> list[Any]:
        found = (event_data(event) for event in split_events(self.out))
        return [json.loads(data) for data in found if data is not None and data != b"[DONE]"]

    @property
    def text(self) -> str:
        return "".join(c["delta"].get("content") or "" for chunk in self.chunks for c in chunk["choices"])


def hear(*reads: bytes, want_usage: bool = False) -> Heard:
    """Feed a stream as the relay does: until it is done or has failed."""
    stream = ChatStream(want_usage=want_usage)
    out = []
    for read in reads:
        out += [stream.feed(read), stream.first() if stream.committed else b""]
        if stream.done or stream.error is not None:
            break
    return Heard(
        b"".join(out), stream.usage, stream.finish_reason, stream.done, stream.error, stream.malformed, stream.finished
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


@given(st.sampled_from(sorted(GOLDEN)), st.booleans(), st.data())
def test_any_split_gives_the_same_bytes_usage_and_finish(name: str, want_usage: bool, data: st.DataObject) -> None:
    stream = GOLDEN[name]
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert hear(*cut(stream, places), want_usage=want_usage) == hear(stream, want_usage=want_usage)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_byte_by_byte_gives_the_same_bytes_usage_and_finish(name: str) -> None:
    stream = GOLDEN[name]
    assert hear(*(stream[i : i + 1] for i in range(len(stream)))) == hear(stream)


@pytest.mark.parametrize("name", ["openai_text", "openai_tools", "deepseek_reasoning"])
def test_a_stream_without_a_usage_chunk_passes_byte_for_byte(name: str) -> None:
    heard = hear(GOLDEN[name])
    assert heard.out == GOLDEN[name]
    assert (heard.done, heard.finished, heard.error, heard.malformed) == (True, True, None, 0)


def test_crlf_comes_out_as_the_same_events_with_line_feeds() -> None:
    assert hear(GOLDEN["openai_text_crlf"]) == hear(GOLDEN["openai_text"])


@pytest.mark.parametrize("name", ["openai_usage", "openai_two_choices"])
def test_the_usage_chunk_is_noted_and_passes_only_if_it_was_asked_for(name: str) -> None:
    asked, not_asked = hear(GOLDEN[name], want_usage=True), hear(GOLDEN[name])
    assert asked.usage == not_asked.usage == USAGE
    assert asked.out == GOLDEN[name]
    assert asked.chunks[-1]["choices"] == []
    assert not_asked.chunks == asked.chunks[:-1]
    assert not_asked.out.endswith(DONE)


def test_usage_on_a_chunk_with_choices_is_noted_and_never_taken_out() -> None:
    heard = hear(GOLDEN["deepseek_reasoning"])
    assert heard.usage == Usage(prompt_tokens=15, completion_tokens=12, reasoning_tokens=8)
    assert heard.chunks[-1]["usage"]["prompt_cache_miss_tokens"] == 15


@pytest.mark.parametrize(
    ("name", "finish"),
    [("openai_text", "stop"), ("openai_tools", "tool_calls"), ("openai_two_choices", "length")],
)
def test_the_finish_reason_is_noted(name: str, finish: str) -> None:
    assert hear(GOLDEN[name]).finish == finish


def test_words_that_look_like_protocol_inside_a_text_are_text() -> None:
    heard = hear(GOLDEN["openai_text"])
    assert '"usage":{}' in heard.text
    assert heard.usage is None


def test_an_error_event_is_kept_back_with_what_follows_and_what_came_before_is_passed() -> None:
    heard = hear(GOLDEN["openai_error"] + chunk({"content": "never"}) + DONE)
    assert heard.error["type"] == "server_error"
    assert heard.text == "Half an"
    assert (heard.done, heard.finished) == (False, False)


def test_an_error_event_before_any_content_gives_nothing_out() -> None:
    error = GOLDEN["openai_error"].rpartition(b"data: ")[2]
    heard = hear(chunk({"role": "assistant", "content": ""}), b"data: " + error)
    assert (heard.out, heard.finished) == (b"", False)
    assert heard.error is not None


def test_a_malformed_event_is_left_out_and_counted() -> None:
    good, bad = chunk({"content": "a"}), chunk({"content": "b"})
    broken = bad[: len(bad) // 2] + b"\n\n"
    for reads in ([good, broken, good], [good + broken + good], [broken + good, good]):
        heard = hear(*reads, chunk({}, "stop") + DONE)
        assert heard.malformed == 1
        assert heard.text == "aa"
        assert heard.finished


def test_nothing_is_given_out_before_the_first_content_and_then_all_of_it() -> None:
    stream = ChatStream(want_usage=False)
    comment, role, word = b": wait\n\n", chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"})
    assert stream.feed(comment) == b""
    assert stream.feed(role) == b""
    assert not stream.committed
    assert stream.feed(word) == b""
    assert stream.committed
    assert stream.feed(comment) == b""  # it has not been chosen yet
    assert stream.first() == comment + role + word + comment
    assert stream.feed(comment) == comment


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"tool_calls": [{"index": 0}]},
        {"refusal": "no"},
        {"audio": {"id": "1"}},
    ],
)
def test_every_kind_of_content_commits(delta: dict[str, Any]) -> None:
    stream = ChatStream(want_usage=False)
    stream.feed(chunk(delta))
    assert stream.committed


def test_what_follows_done_is_not_passed() -> None:
    whole = chunk({"content": "a"}) + chunk({}, "stop") + DONE
    assert hear(whole + chunk({"content": "late"})).out == whole
    stream = ChatStream(want_usage=False)
    stream.feed(whole)
    assert stream.feed(chunk({"content": "late"})) == b""


def test_an_answer_is_whole_by_its_finish_reason_even_without_done() -> None:
    heard = hear(chunk({"content": "a"}) + chunk({}, "stop"))
    assert (heard.done, heard.finished) == (False, True)
    assert not hear(chunk({"content": "a"})).finished


@pytest.mark.parametrize("index", [None, "0"])
def test_an_event_whose_fields_have_unusual_types_is_the_clients_all_the_same(index: Any) -> None:
    odd = b"data: " + json.dumps({"choices": [{"index": index, "delta": {"content": "x"}}]}).encode() + b"\n\n"
    assert odd in hear(chunk({"content": "a"}) + odd + chunk({}, "stop") + DONE).out


def test_usage_of_unusual_types_does_not_take_the_finish_reason_with_it() -> None:
    last = json.loads(chunk({}, "stop").removeprefix(b"data: ")) | {"usage": {"completion_tokens": 1.5}}
    heard = hear(chunk({"content": "a"}), b"data: " + json.dumps(last).encode() + b"\n\n")
    assert (heard.finish, heard.finished, heard.usage) == ("stop", True, None)


def test_a_whole_answer_with_fields_of_unusual_types_is_an_answer() -> None:
    document = {"choices": [{"finish_reason": 1}], "usage": {"prompt_tokens": "many"}}
    assert read_answer(json.dumps(document).encode()) == (None, "1")


def test_usage_that_the_provider_leaves_out_is_told_and_marked() -> None:
    estimate = Usage(prompt_tokens=7, completion_tokens=2, estimated=True)
    stream = ChatStream(want_usage=True)
    stream.feed(chunk({"content": "a"}) + chunk({}, "stop") + DONE)
    assert DONE not in stream.first()
    told, done = split_events(stream.end(estimate))
    usage = json.loads(event_data(told) or b"")["usage"]
    assert usage == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "estimated": True}
    assert event_data(done) == b"[DONE]"
    assert stream.end(estimate) == b""


def test_usage_that_nobody_asked_for_is_not_told() -> None:
    stream = ChatStream(want_usage=False)
    stream.feed(chunk({"content": "a"}) + chunk({}, "stop"))
    stream.first()
    assert stream.end(Usage(prompt_tokens=7)) == DONE


@pytest.mark.parametrize("reason", ["error", "network_error", "aborted", "insufficient_system_resource"])
def test_a_finish_reason_that_says_it_failed_is_no_finish(reason: str) -> None:
    heard = hear(chunk({"content": "Half an"}), chunk({"content": " ans"}, reason) + DONE)
    assert (heard.text, heard.error, heard.finished, heard.finish) == ("Half an", reason, False, "")
    with pytest.raises(BadAnswer):
        read_answer(json.dumps({"choices": [{"finish_reason": "stop"}, {"finish_reason": reason}]}).encode())


def test_an_error_in_the_form_of_older_servers_is_one_though_done_follows() -> None:
    error = b'data: {"object":"error","message":"engine died","type":"internal_error","code":500}\n\n'
    heard = hear(chunk({"content": "Half an"}) + error + DONE)
    assert (heard.text, heard.error, heard.finished) == ("Half an", "error", False)


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64},  # DeepSeek
            Usage(prompt_tokens=100, completion_tokens=5, cached_tokens=64),
        ),
        (
            {  # xAI counts what it thought apart
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(prompt_tokens=10, completion_tokens=35, reasoning_tokens=30),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 8}},
            Usage(prompt_tokens=9, completion_tokens=1, cache_write_tokens=8),
        ),
    ],
)
def test_usage_is_read_in_all_its_forms_from_what_passes(said: dict[str, Any], usage: Usage) -> None:
    last = json.loads(chunk({}, "stop").removeprefix(b"data: ")) | {"usage": said}
    assert hear(chunk({"content": "a"}), b"data: " + json.dumps(last).encode() + b"\n\n").usage == usage
    document = {"choices": [{"finish_reason": "stop"}], "usage": said}
    assert read_answer(json.dumps(document).encode()) == (usage, "stop")


@pytest.mark.parametrize("name", GOLDEN)
def test_further_blank_lines_between_events_change_nothing(name: str) -> None:
    spaced, plain = hear(GOLDEN[name].replace(b"\n\n", b"\n\n\n"), want_usage=True), hear(GOLDEN[name], want_usage=True)
    assert (spaced.chunks, spaced.usage, spaced.done) == (plain.chunks, plain.usage, plain.done)


def test_a_stream_whose_identity_cannot_be_read_ends_with_its_usage_all_the_same() -> None:
    stream = ChatStream(want_usage=True)
    stream.feed(b'data: {"model":1e999,"choices":[{"delta":{"content":"a"}}]}\n\n' + chunk({}, "stop"))
    stream.first()
    told = json.loads(event_data(split_events(stream.end(Usage(prompt_tokens=7, estimated=True)))[0]) or b"")
    assert (told["model"], told["usage"]["prompt_tokens"]) == ("", 7)
