"""A body ends at the byte its framing says, whatever pieces it arrives in; what follows is not touched."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.http1_body import MAX_CHUNK_LINE_BYTES, Body, Chunked, Sized, body_of
from gateway.edge.http1_head import CHUNKED, Head, Refusal

NEXT = b"GET /next HTTP/1.1\r\n"


def feed(body: Body, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Body bytes and surplus of ``data`` cut at ``cuts``."""
    points = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    taken, surplus = b"", b""
    for start, end in itertools.pairwise(points):
        if body.complete:
            surplus += data[start:end]
        else:
            surplus += body.feed(data[start:end])
        taken += body.take()
    return taken, surplus


def feed_often(body: Body, data: bytes, times: int) -> None:
    for _ in range(times):
        body.feed(data)


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=8))
def test_a_sized_body_in_any_pieces(content: bytes, cuts: list[int]) -> None:
    body = Sized(len(content))
    assert feed(body, content + NEXT, cuts) == (content, NEXT)
    assert body.complete
    assert body.size == 0
    assert body.remaining_bytes() == 0


@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=5), st.lists(st.integers(0, 400), max_size=12), st.booleans()
)
def test_a_chunked_body_in_any_pieces(chunks: list[bytes], cuts: list[int], extras: bool) -> None:
    extension, trailer = (b' ; a="b"', b"X-T: 1\r\n") if extras else (b"", b"")
    wire = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    wire += b"000%b\r\n%b\r\n" % (extension, trailer)
    body = Chunked(1_000)
    assert feed(body, wire + NEXT, cuts) == (b"".join(chunks), NEXT)
    assert body.complete


@pytest.mark.parametrize(
    "wire",
    [
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\naX",
        b"ffffffffffffffff\r\n",
        b"1;\x00\r\na\r\n",
        b"1;\r\r\na\r\n",
        b"1" * (MAX_CHUNK_LINE_BYTES + 1),
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\nA : 1\r\n\r\n",
        b"0\r\nA: 1\rB: 2\r\n\r\n",
        b"1;" + b"a" * 200 + b"\r\na\r\n",
    ],
)
def test_malformed_chunks_are_refused(wire: bytes) -> None:
    body = Chunked(10**18)
    with pytest.raises(Refusal) as caught:
        feed_often(body, wire, 100)  # the last one is refused for its hundredth extension, the others at once
    assert caught.value.status == 400


def test_a_trailer_flood_is_refused() -> None:
    body = Chunked(100)
    body.feed(b"0\r\n")
    with pytest.raises(Refusal, match="trailers"):
        feed_often(body, b"x-t: " + b"a" * 100 + b"\r\n", 1_000)


def test_a_body_beyond_the_limit_is_refused_by_its_announcement() -> None:
    head = Head("POST", b"/", "1.1", [], body_bytes=11)
    with pytest.raises(Refusal, match=r"server\.max_body_bytes") as caught:
        body_of(head, 10)
    assert caught.value.status == 413
    assert body_of(head, 11).remaining_bytes() == 11


def test_a_chunked_body_beyond_the_limit_is_refused_by_its_size_line() -> None:
    body = body_of(Head("POST", b"/", "1.1", [], body_bytes=CHUNKED), 10)
    body.feed(b"6\r\nabcdef\r\n")
    with pytest.raises(Refusal) as caught:
        body.feed(b"5\r\n")
    assert caught.value.status == 413
