"""Promise: where two parts of an answer meet, the client gets neither a word nor a blank twice, and loses none."""

from __future__ import annotations

import pytest

from gateway.dialects.answer import Answer
from gateway.dialects.chat_reader import ChatReader
from gateway.dialects.chat_writer import ChatWriter
from gateway.dialects.events import Event, TextDelta
from gateway.dialects.openai_chat import parse_request
from gateway.dialects.resumed import Diverged, ResumedStream
from gateway.upstream.repair import can_be_joined


def resumed(before: str, *, repeats: bool) -> ResumedStream:
    so_far = Answer.of([TextDelta(before)])
    return ResumedStream(ChatReader(), ChatWriter(id="x"), so_far, repeats=repeats, tokens_before=3)


def given(stream: ResumedStream, *parts: str) -> str:
    events: list[Event] = [TextDelta(part) for part in parts]
    return "".join(event.text for event in stream.fresh(events) if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("before", "parts", "fresh"),
    [
        ("Hello", [" world"], " world"),
        ("Hello ", [" world"], "world"),
        ("Hello ", ["world"], "world"),
        ("Hello ", [" ", "world"], "world"),
        ("Hello\n\n", ["\n", "\n", "world"], "world"),
        ("Hello\n\n", ["\nworld"], "world"),
        ("Hello\n", ["\n\nworld"], "\nworld"),
        ("Hello \n", [" world"], "world"),
        ("Hello ", ["\n- one"], "\n- one"),
        ("Hello\n\n", ["\n", "world\n\n"], "world\n\n"),
    ],
)
def test_blanks_that_the_client_has_are_left_out(before: str, parts: list[str], fresh: str) -> None:
    assert given(resumed(before, repeats=False), *parts) == fresh


@pytest.mark.parametrize("parts", [["Hello world"], ["Hel", "lo ", "world"], ["Hello ", "world"]])
def test_a_second_telling_goes_on_behind_the_first(parts: list[str]) -> None:
    assert given(resumed("Hello ", repeats=True), *parts) == "world"


@pytest.mark.parametrize("parts", [["Hallo"], ["Hello", "\n"], ["Hel", "p"]])
def test_a_second_telling_that_differs_cannot_be_joined(parts: list[str]) -> None:
    with pytest.raises(Diverged):
        given(resumed("Hello ", repeats=True), *parts)


def chunk(delta: str) -> bytes:
    return b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % delta.encode()


def test_only_what_comes_nearer_to_the_client_is_catching_up() -> None:
    stream = resumed("Hello ", repeats=True)
    assert not stream.catching_up
    stream.feed(chunk("Hel"))
    assert stream.catching_up
    stream.feed(b": keep-alive\n\n")
    assert not stream.catching_up
    stream.feed(chunk("lo wor"))
    assert not stream.catching_up
    assert stream.committed


@pytest.mark.parametrize(("n", "joined"), [(1, True), (2, False)])
def test_one_of_two_answers_is_not_gone_on_with(n: int, joined: bool) -> None:
    request = parse_request(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"n":%d}' % n)
    assert can_be_joined(Answer.of([TextDelta("Hello")]), request) is joined
