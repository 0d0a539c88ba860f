"""What a connection remembers of its last head changes nothing of how the next one is read."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import astuple
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import http1_head
from gateway.edge.http1_head import Heads, Refusal, parse_head

FIRST = b"POST /p HTTP/1.1\r\nHost: h\r\nA: b\r\nContent-Length: 12\r\nZ: 12\r\n\r\n"
PIECES = (
    b"Content-Length: 12\r\n",
    b"content-length:\t7 \r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"A: b\r\n",
    b"\r\n",
    b"12",
)


def read(parse: Any, block: bytes) -> tuple[Any, ...]:
    try:
        return tuple(astuple(parse(block)))
    except Refusal as refusal:
        return refusal.status, refusal.code


def same(blocks: list[bytes]) -> None:
    heads = Heads()
    for block in blocks:
        assert read(heads.parse, block) == read(parse_head, block), block


@pytest.mark.parametrize(
    "digits",
    [
        *(
            b"12",
            b"0",
            b"007",
            b"999999999999999",
            b"1000000000000000",
            b"99999999999999999999",
            b"",
            b"-1",
            b"+1",
            b"1 2",
        ),
        *(b"1_2", b"0x1", b"1, 2", b" 12", b"12 ", b"1\r\n", "١".encode(), b"1\r\nContent-Length: 2", b"1\r\nA: b"),
    ],
)
def test_another_length_is_read_as_alone(digits: bytes) -> None:
    same([FIRST, FIRST.replace(b": 12\r\nZ", b": " + digits + b"\r\nZ"), FIRST])


@given(
    st.lists(
        st.tuples(st.integers(0, len(FIRST)), st.integers(0, 12), st.sampled_from(PIECES) | st.binary()), max_size=4
    )
)
def test_any_change_is_read_as_alone(changes: list[tuple[int, int, bytes]]) -> None:
    blocks = [FIRST]
    for at, taken, put in changes:
        blocks.append(FIRST[:at] + put + FIRST[at + taken :])
    same(blocks)


@given(st.lists(st.sampled_from([b"POST", b"GET", b"PUT", b"HEAD"]), max_size=20), st.data())
def test_any_order_of_methods_and_headers_is_read_as_alone(methods: list[bytes], data: st.DataObject) -> None:
    lines = st.lists(st.sampled_from([*PIECES[:4], b"Connection: close\r\n", b"Expect: 100-continue\r\n"]), max_size=3)
    same([method + b" / HTTP/1.1\r\nHost: h\r\n" + b"".join(data.draw(lines)) + b"\r\n" for method in methods])


def test_the_same_head_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    monkeypatch.setattr(http1_head, "parse_head", lambda block: parsed.append(block) or parse_head(block))
    heads = Heads()
    for length in (12, 5, 123_456):
        head = heads.parse(FIRST.replace(b": 12\r\nZ", b": %d\r\nZ" % length))
        assert (head.body_bytes, dict(head.headers)[b"content-length"]) == (length, b"%d" % length)
    assert len(parsed) == 1


def test_a_head_that_was_given_out_stays_as_it_is() -> None:
    heads = Heads()
    first = heads.parse(FIRST)
    second = heads.parse(FIRST)
    second.headers.clear()
    assert first.headers == heads.parse(FIRST).headers


def test_heads_that_always_differ_are_not_compared_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Heads()
    for number in range(20):
        heads.parse(FIRST.replace(b"A: b", b"A: %d" % number))
    parsed = []
    monkeypatch.setattr(http1_head, "parse_head", lambda block: parsed.append(block) or parse_head(block))
    for _ in range(2):
        heads.parse(FIRST)
    assert len(parsed) == 2
