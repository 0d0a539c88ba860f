"""A response's bytes: the head goes with the first body bytes, the framing fits, and nothing can be injected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.gate import Reply
from gateway.edge.http1_head import Refusal
from gateway.edge.http1_reply import Response, ResponseError, date_line, error_reply, whole

DATE = b"date: D\r\n"


def response(*, head_only: bool = False, http10: bool = False, keep_alive: bool = True) -> Response:
    return Response(head_only=head_only, http10=http10, keep_alive=keep_alive)


def test_the_head_waits_for_the_first_body_bytes() -> None:
    made = response()
    made.start(200, [(b"content-type", b"text/plain")])
    assert not made.committed
    assert made.body(b"abc", True, DATE) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: D\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    assert made.body(b"", True, DATE) == b""
    assert made.body(b"d" * 16, True, DATE) == b"10\r\n" + b"d" * 16 + b"\r\n"
    assert made.body(b"e", False, DATE) == b"1\r\ne\r\n0\r\n\r\n"
    assert made.complete


def test_a_stream_that_ends_empty_ends_with_the_last_chunk() -> None:
    made = response()
    made.start(200, [])
    assert made.body(b"", True, DATE).endswith(b"\r\n\r\n"), "an empty first message sends the head"
    assert made.body(b"", False, DATE) == b"0\r\n\r\n"


def test_a_whole_answer_gets_its_length() -> None:
    made = response()
    made.start(200, [])
    assert made.body(b"abc", False, DATE) == b"HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 3\r\n\r\nabc"


def test_the_apps_content_length_is_kept_and_watched() -> None:
    made = response()
    made.start(200, [(b"Content-Length", b"3")])
    assert made.body(b"a", True, DATE) == b"HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 3\r\n\r\na"
    assert made.body(b"bc", False, DATE) == b"bc"
    for first, more in ((b"abcd", True), (b"ab", False)):
        made = response()
        made.start(200, [(b"content-length", b"3")])
        with pytest.raises(ResponseError, match="content-length"):
            made.body(first, more, DATE)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_sends_none(status: int) -> None:
    made = response()
    made.start(status, [])
    written = made.body(b"abc", False, DATE)
    assert written.endswith(b"date: D\r\n\r\n")
    assert b"content-length" not in written


def test_head_says_the_length_and_sends_no_body() -> None:
    made = response(head_only=True)
    made.start(200, [(b"content-length", b"5")])
    assert made.body(b"hello", False, DATE).endswith(b"content-length: 5\r\n\r\n")
    made = response(head_only=True)
    made.start(200, [])
    assert made.body(b"he", True, DATE).endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert made.body(b"llo", False, DATE) == b""
    assert made.keep_alive


def test_http_1_0_gets_no_chunks() -> None:
    made = response(http10=True)
    made.start(200, [])
    assert made.body(b"abc", True, DATE).endswith(b"connection: close\r\n\r\nabc")
    assert made.body(b"d", False, DATE) == b"d"
    assert not made.keep_alive
    made = response(http10=True)
    made.start(200, [])
    assert made.body(b"abc", False, DATE).endswith(b"content-length: 3\r\nconnection: keep-alive\r\n\r\nabc")


def test_the_server_writes_connection_date_and_coding_itself() -> None:
    made = response()
    made.start(200, [(b"Transfer-Encoding", b"gzip"), (b"Date", b"never"), (b"Connection", b"Close")])
    assert made.body(b"", False, DATE) == (
        b"HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    assert not made.keep_alive


@pytest.mark.parametrize(
    "header",
    [
        (b"a", b"b\r\nset-cookie: c"),
        (b"a", b"b\nc"),
        (b"a", b"b\rc"),
        (b"a", b"b\0"),
        (b"a\r\nb", b"c"),
        (b"a b", b"c"),
        (b"a:", b"c"),
        (b"", b"c"),
        (b":status", b"c"),
        (b"content-length", b"-1"),
        (b"content-length", b"1\r\n"),
    ],
)
def test_a_header_cannot_inject(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ResponseError):
        response().start(200, [(b"x", b"y"), header])


def test_messages_out_of_order_are_refused() -> None:
    made = response()
    with pytest.raises(ResponseError, match="before the start"):
        made.body(b"", False, DATE)
    made.start(200, [])
    with pytest.raises(ResponseError, match="twice"):
        made.start(200, [])
    made.body(b"", False, DATE)
    with pytest.raises(ResponseError, match="after the end"):
        made.body(b"", False, DATE)
    with pytest.raises(ResponseError, match="101"):
        response().start(101, [])


def test_an_unassigned_status_still_has_a_line() -> None:
    assert whole(Reply(499, [], b""), DATE, head_only=False, http10=False, keep_alive=True).startswith(b"HTTP/1.1 499 ")


def test_an_error_has_openais_shape() -> None:
    reply = error_reply(Refusal(413, "body_too_large", "Too large."))
    assert reply.status == 413
    assert json.loads(reply.body) == {
        "error": {"message": "Too large.", "type": "invalid_request_error", "param": None, "code": "body_too_large"}
    }


def test_the_date_is_http_s() -> None:
    assert date_line(784_111_777) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.mark.parametrize("keep_alive", [True, False])
def test_the_short_way_of_a_refusal_writes_what_the_general_way_writes(*, keep_alive: bool) -> None:
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"2")]
    short = whole(Reply(429, headers, b"{}"), DATE, head_only=False, http10=False, keep_alive=keep_alive)
    made = response(keep_alive=keep_alive)
    made.start(429, headers)
    assert sorted(short.split(b"\r\n")) == sorted(made.body(b"{}", False, DATE).split(b"\r\n"))
    assert short.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\r", b"\0"])
def test_nothing_is_injected_on_the_short_way_either(value: bytes) -> None:
    with pytest.raises(ResponseError, match="CR, LF or NUL"):
        whole(Reply(429, [(b"x-request-id", value)], b""), DATE, head_only=False, http10=False, keep_alive=True)


OURS = [(b"content-type", b"application/json"), (b"x-request-id", b"r"), (b"x-sluice-target", b"p/m")]
THEIRS = [(b"x", b"y"), (b"Content-Length", b"3"), (b"connection", b"close"), (b"x-request-id", b"a\r\nb: c")]


@given(
    status=st.sampled_from([200, 201, 204, 304, 404, 429, 503, 599, 999, 199]),
    headers=st.lists(st.sampled_from(OURS + THEIRS), max_size=4),
    body=st.sampled_from([b"", b"abc"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_all_at_once_is_the_same_as_in_two_steps(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes, flags: tuple[bool, bool, bool]
) -> None:
    head_only, http10, keep_alive = flags
    at_once = response(head_only=head_only, http10=http10, keep_alive=keep_alive)
    in_steps = response(head_only=head_only, http10=http10, keep_alive=keep_alive)

    def steps() -> bytes:
        in_steps.start(status, headers)
        return in_steps.body(body, False, DATE)

    try:
        expected = steps()
    except ResponseError:
        with pytest.raises(ResponseError):
            at_once.whole(Reply(status, headers, body), DATE)
        return
    assert at_once.whole(Reply(status, headers, body), DATE) == expected
    assert (at_once.complete, at_once.committed, at_once.keep_alive) == (True, True, in_steps.keep_alive)
    with pytest.raises(ResponseError):
        at_once.whole(Reply(status, headers, body), DATE)


@pytest.mark.parametrize("http10", [False, True])
@pytest.mark.parametrize("headers", [OURS, [*OURS, (b"x", b"y")]])
def test_lines_that_are_written_out_are_sent_with_the_headers(headers: list[tuple[bytes, bytes]], http10: bool) -> None:
    sent = response(http10=http10).whole(Reply(200, headers, b"abc", b"ratelimit: r\r\nx-sluice-cost-usd: 1\r\n"), DATE)
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[len(headers) + 1 : len(headers) + 4] == [
        b"ratelimit: r",
        b"x-sluice-cost-usd: 1",
        b"date: D",
    ]
    assert body == b"abc"
