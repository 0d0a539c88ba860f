"""What a stream says of itself when it breaks off is what the client has: a repair goes on exactly behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.anthropic_reader import AnthropicReader
from gateway.dialects.anthropic_writer import AnthropicWriter
from gateway.dialects.gemini_reader import GeminiReader
from gateway.dialects.pairing import PassedStream, TranslatedStream
from gateway.dialects.responses_reader import ResponsesReader


def event(document: dict[str, Any]) -> bytes:
    named = b"event: %b\n" % document["type"].encode() if "type" in document else b""
    return named + b"data: " + json.dumps(document).encode() + b"\n\n"


def anthropics(text: str) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


BEGIN = event(
    {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3}}}
) + event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
ERROR = event({"type": "error", "error": {"type": "overloaded_error", "message": "too much"}})


def geminis(text: str, finish: str | None = None) -> bytes:
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    return event({"responseId": "r", "candidates": [candidate | ({"finishReason": finish} if finish else {})]})


@pytest.mark.parametrize("translated", [True, False])
def test_what_came_in_one_read_with_an_error_is_given_out_and_said_to_be(translated: bool) -> None:
    reader = AnthropicReader()
    stream = (
        TranslatedStream(reader, AnthropicWriter(model="m"), keep=True)
        if translated
        else PassedStream(reader, keep=True)
    )
    stream.feed(BEGIN + anthropics("One"))
    given = stream.first() + stream.feed(anthropics(" two") + ERROR + anthropics(" never"))
    assert stream.error is not None
    assert b" two" in given
    assert b"overloaded" not in given
    assert b"never" not in given
    so_far = stream.so_far()
    assert so_far is not None
    assert so_far.first.text == "One two"


@pytest.mark.parametrize("translated", [True, False])
def test_a_last_event_that_nobody_gets_is_nothing_to_go_on_behind(translated: bool) -> None:
    """Its blank line is missing, and so is the end of the answer."""
    reader = GeminiReader()
    stream = (
        TranslatedStream(reader, AnthropicWriter(model="m"), keep=True)
        if translated
        else PassedStream(reader, keep=True)
    )
    stream.feed(geminis("One") + geminis(" two").rstrip())
    stream.first()
    stream.eof()
    assert not stream.finished
    so_far = stream.so_far()
    assert so_far is not None
    assert so_far.first.text == "One"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_last_event_without_its_blank_line_is_passed_on_if_it_ends_the_answer(end: bytes) -> None:
    stream = PassedStream(GeminiReader(), keep=True)
    stream.feed(geminis("One") + geminis(" two", "STOP").rstrip() + end)
    stream.first()
    stream.eof()
    assert stream.finished
    assert stream.end(None) == geminis(" two", "STOP")
    so_far = stream.so_far()
    assert so_far is not None
    assert so_far.first.text == "One two"


def test_half_a_last_event_is_not_passed_on() -> None:
    stream = PassedStream(GeminiReader())
    stream.feed(geminis("One", "STOP") + geminis(" two")[:20])
    stream.first()
    stream.eof()
    assert stream.end(None) == b""


def test_the_error_that_takes_the_place_of_anothers_takes_its_number() -> None:
    reader = ResponsesReader(passed=True)
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1"}}
    reader.feed(event(created))
    reader.feed(event({"type": "error", "sequence_number": 1, "code": "server_error", "message": "no"}))
    assert reader.sequence_number == 0
