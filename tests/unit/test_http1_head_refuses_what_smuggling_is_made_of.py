"""A head that two parsers could read differently is refused, and a good one is read exactly."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.http1_head import CHUNKED, MAX_HEADERS, MAX_LINE_BYTES, Head, Refusal, check_start, parse_head

HOST = b"Host: h\r\n"


def head_of(*lines: bytes, line: bytes = b"POST /p HTTP/1.1", host: bytes = HOST) -> Head:
    return parse_head(line + b"\r\n" + host + b"".join(each + b"\r\n" for each in lines) + b"\r\n")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((b"Content-Length: 3", b"Transfer-Encoding: chunked"), "both lengths"),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 3"), "both lengths, other order"),
        ((b"Content-Length: 3", b"Content-Length: 4"), "differing lengths"),
        ((b"Content-Length: 3", b"Content-Length: 3"), "equal lengths"),
        ((b"Content-Length: 3, 3",), "list of lengths"),
        ((b"Content-Length: +3",), "signed length"),
        ((b"Content-Length: -3",), "negative length"),
        ((b"Content-Length: 0x3",), "hexadecimal length"),
        ((b"Content-Length: 1_0",), "underscore"),
        ((b"Content-Length:",), "empty length"),
        ((b"Content-Length: 99999999999999999999",), "overflow"),
        ((b"Transfer-Encoding: gzip",), "other coding"),
        ((b"Transfer-Encoding: gzip, chunked",), "two codings"),
        ((b"Transfer-Encoding: chunked, chunked",), "chunked twice"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "chunked on two lines"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), "identity after chunked"),
        ((b"Transfer-Encoding: xchunked",), "no such coding"),
        ((b"Transfer-Encoding:\x0bchunked",), "vertical tab"),
        ((b"Transfer-Encoding : chunked",), "space before colon"),
        ((b" Folded: first",), "space before the first name"),
        ((b"A: b", b" folded"), "obs-fold"),
        ((b"A: b", b"\tfolded"), "obs-fold with tab"),
        ((b"A: b\rB: c",), "bare CR"),
        ((b"A: b\nB: c",), "bare LF"),
        ((b"A: b\r\r",), "CR CR LF"),
        ((b"A: b\0c",), "NUL"),
        ((b"A: b\x01",), "control character"),
        ((b"A: \x7f",), "DEL"),
        ((b"A(: b",), "name is no token"),
        (("Ä: b".encode(),), "name beyond ASCII"),
        ((b": b",), "no name"),
        ((b"no colon",), "no colon"),
        ((b"Host: other",), "two hosts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_ambiguous_header_is_refused(lines: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        head_of(*lines)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\x00 HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET ftp://h/ HTTP/1.1", 400),
        (b"GET http://u@h/ HTTP/1.1", 400),
        (b"GET http:///p HTTP/1.1", 400),
        (b"GET /", 400),
        (b"GET", 400),
        (b"get / HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1x", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/11.1", 505),
        (b"DESCRIBE / RTSP/1.0", 400),
        (b"FROB / HTTP/1.1", 501),
        (b"CONNECT h:1 HTTP/1.1", 501),
        (b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1", 414),
    ],
)
def test_a_bad_request_line_is_refused(line: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        head_of(line=line)
    assert caught.value.status == status


@pytest.mark.parametrize("host", [b"", b"Host: a b\r\n", b"Host: a/b\r\n", b"Host: u@h\r\n", b"Host: a,b c\r\n"])
def test_a_missing_or_impossible_host_is_refused(host: bytes) -> None:
    with pytest.raises(Refusal, match="Host") as caught:
        head_of(host=host)
    assert caught.value.status == 400


def test_http_1_0_needs_no_host_and_has_no_chunks() -> None:
    assert head_of(line=b"GET / HTTP/1.0", host=b"").keep_alive is False
    with pytest.raises(Refusal):
        head_of(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")


def test_too_many_headers_are_refused() -> None:
    lines = [b"x-%d: 1" % number for number in range(MAX_HEADERS)]
    assert len(head_of(*lines[:-1]).headers) == MAX_HEADERS
    with pytest.raises(Refusal) as caught:
        head_of(*lines)
    assert caught.value.status == 431


def test_an_unknown_expectation_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        head_of(b"Expect: the-unexpected")
    assert caught.value.status == 417


def test_a_good_head_is_read_exactly() -> None:
    head = head_of(b"X-A:\t 1 \t", b"x-empty:", b"X-High: \xe9", b"Content-Length: 12", b"Expect: 100-Continue")
    assert head.method == "POST"
    assert head.target == b"/p"
    assert head.version == "1.1"
    assert head.headers == [
        (b"host", b"h"),
        (b"x-a", b"1"),
        (b"x-empty", b""),
        (b"x-high", b"\xe9"),
        (b"content-length", b"12"),
        (b"expect", b"100-Continue"),
    ]
    assert head.body_bytes == 12
    assert head.keep_alive
    assert head.expects_continue
    assert not head.websocket


def test_chunked_is_taken_in_any_case_of_letters() -> None:
    assert head_of(b"Transfer-Encoding: Chunked").body_bytes == CHUNKED


@pytest.mark.parametrize(
    ("line", "connection", "keep_alive"),
    [
        (b"GET / HTTP/1.1", b"close", False),
        (b"GET / HTTP/1.1", b"Keep-Alive, Close", False),
        (b"GET / HTTP/1.1", b"keep-alive", True),
        (b"GET / HTTP/1.1", b"closed", True),
        (b"GET / HTTP/1.0", b"Keep-Alive", True),
        (b"GET / HTTP/1.0", b"x", False),
    ],
)
def test_the_connection_header_decides_over_keep_alive(line: bytes, connection: bytes, keep_alive: bool) -> None:
    assert head_of(b"Connection: " + connection, line=line).keep_alive is keep_alive


def test_an_absolute_target_becomes_a_path_and_its_authority_the_host() -> None:
    head = head_of(line=b"GET HTTP://other:81/a?b HTTP/1.1")
    assert head.target == b"/a?b"
    assert head.headers == [(b"host", b"other:81")]
    assert head_of(line=b"GET http://other?b HTTP/1.1").target == b"/?b"
    assert head_of(line=b"GET http://other HTTP/1.1").target == b"/"


def test_options_may_ask_for_the_whole_server() -> None:
    assert head_of(line=b"OPTIONS * HTTP/1.1").target == b"*"


def test_only_a_complete_websocket_upgrade_is_one() -> None:
    upgrade = (b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket")
    assert head_of(*upgrade, line=b"GET / HTTP/1.1").websocket
    assert not head_of(*upgrade).websocket, "POST"
    assert not head_of(upgrade[1], line=b"GET / HTTP/1.1").websocket
    assert not head_of(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", line=b"GET / HTTP/1.1").websocket


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"get", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET /" + b"a" * MAX_LINE_BYTES, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000, 431),
    ],
)
def test_a_hopeless_start_is_refused_before_its_end(start: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        check_start(start, 16_384)
    assert caught.value.status == status


def test_a_hopeful_start_is_waited_for() -> None:
    block = b"GET /p HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"
    for end in range(1, len(block)):
        if block[end - 1 : end] != b"\r":  # its LF may be on the way, the counts differ only after a LF
            check_start(block[:end], 16_384)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert parse_head(data + b"\r\n\r\n").target[:1] == b"/"


@given(st.lists(st.sampled_from([b"\r", b"\n", b" ", b"\t", b":", b"a", b"Host: h", b"\r\n", b"Content-Length: 3"])))
def test_any_jumble_of_the_syntax_never_yields_a_line_break_or_two_lengths(pieces: list[bytes]) -> None:
    try:
        head = parse_head(b"POST / HTTP/1.1\r\nHost: h\r\n" + b"".join(pieces) + b"\r\n\r\n")
    except Refusal:
        return
    names = [name for name, _ in head.headers]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") <= 1
    assert not any(b"\r" in value or b"\n" in value for _, value in head.headers)
