"""Codec law: however the network cuts a stream, the same events come out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.sse import EventSplitter, EventTooLong, encode_event, event_data, split_events


def decode(pieces):
    splitter = EventSplitter()
    events = [event for piece in pieces for event in split_events(splitter.feed(piece))]
    return events, splitter.rest


def cut(data, places):
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
fields = st.sampled_from([b"data: {}", b"data:x", b": ping", b"id: 7", b"event: done", "data: né€".encode()])


@given(st.lists(st.lists(fields, min_size=1, max_size=3), max_size=6), line_ends, st.integers(2, 6), st.data())
def test_any_split_gives_the_same_events(events, end, ends, data):
    stream = b"".join(end.join(lines) + end * ends for lines in events) + b"data: unfinished"
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    whole = decode([stream])
    assert decode(cut(stream, places)) == whole
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert whole == ([b"\n".join(lines) for lines in events], b"data: unfinished")


def test_a_byte_order_mark_is_skipped_even_when_it_comes_in_pieces():
    assert decode([b"\xef", b"\xbb", b"\xbfdata: 1\n\n"]) == ([b"data: 1"], b"")


def test_an_event_that_never_ends_is_refused():
    splitter = EventSplitter(max_event_bytes=100)
    for _ in range(6):
        splitter.feed(b"data: 0123456789")
    with pytest.raises(EventTooLong, match="longer than 100 bytes"):
        splitter.feed(b"data: 0123456789")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}", b"{}"),
        (b"data:{}", b"{}"),
        (b"data:  {}", b" {}"),
        (b"event: x\ndata: a\ndata: b", b"a\nb"),
        (b": comment", None),
        (b"data", b""),
    ],
)
def test_data_lines_are_joined_and_lose_one_leading_space(event, data):
    assert event_data(event) == data


@given(st.binary().map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")))
def test_what_we_write_we_read(data):
    [event] = split_events(encode_event(data, event=b"text.delta", id=b"3"))
    assert event_data(event) == data
