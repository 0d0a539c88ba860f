"""What would break out of a request's head is refused, and origins say where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import TransportError
from gateway.upstream.head import HeaderBlock, request_head
from gateway.upstream.pool import Origin

EMPTY = HeaderBlock.of([])


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\ny: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"\xc3\xa4", b"a"),
    ],
)
def test_a_header_that_http_forbids_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(TransportError) as caught:
        HeaderBlock.of([header])
    assert caught.value.kind == "request"
    assert not caught.value.safe_to_resend


def test_a_refused_header_does_not_show_its_value() -> None:
    with pytest.raises(TransportError) as caught:
        HeaderBlock.of([(b"authorization", b"Bearer sk-secret\n")])
    assert "sk-secret" not in str(caught.value)


def test_framing_is_the_transports_own() -> None:
    assert HeaderBlock.of([(b"Content-Length", b"7")]) == EMPTY
    with pytest.raises(TransportError, match="transfer-encoding"):
        HeaderBlock.of([(b"transfer-encoding", b"chunked")])


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nx: y", b"/\xc3\xa4", b"/\x7f", b"/a HTTP/1.1\r\n"])
def test_a_target_that_would_end_the_line_is_refused(target: bytes) -> None:
    with pytest.raises(TransportError, match="percent-encode"):
        request_head(b"GET", target, b"h", EMPTY, b"")


@pytest.mark.parametrize("method", [b"", b"GE T", b"GET\r\n", b"G:T"])
def test_a_method_that_is_no_token_is_refused(method: bytes) -> None:
    with pytest.raises(TransportError):
        request_head(method, b"/", b"h", EMPTY, b"")


@given(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30))
def test_no_bytes_add_a_line_to_the_head(target: bytes, name: bytes, value: bytes) -> None:
    try:
        head = request_head(b"GET", target, b"h", HeaderBlock.of([(name, value)]), b"")
    except TransportError:
        return
    expected = 4 if name.lower() not in (b"host", b"content-length") else 3
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") == expected
    assert head.endswith(b"\r\n\r\n")


def test_a_block_can_be_extended_for_one_request() -> None:
    block = HeaderBlock.of([(b"a", b"1")])
    assert block.plus([(b"Host", b"h"), (b"b", b"2")]) == HeaderBlock.of([(b"a", b"1"), (b"Host", b"h"), (b"b", b"2")])


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("https", "api.example", 443), "api.example"),
        (Origin("http", "api.example", 443), "api.example:443"),
        (Origin("http", "127.0.0.1", 80), "127.0.0.1"),
        (Origin("http", "::1", 8080), "[::1]:8080"),
    ],
)
def test_the_authority_leaves_out_the_default_port_and_brackets_addresses(origin: Origin, authority: str) -> None:
    assert origin.authority == authority


def test_a_scheme_that_cannot_be_spoken_is_refused() -> None:
    with pytest.raises(ValueError, match="only http and https"):
        Origin("ftp", "h", 21)


@pytest.mark.parametrize(
    ("error", "safe"),
    [
        (TransportError("connect", "m"), True),
        (TransportError("pool", "m", timed_out=True), True),
        (TransportError("write", "m", bytes_sent=True), True),
        (TransportError("read", "m", bytes_sent=True, fully_sent=True), False),
        (TransportError("write", "m", bytes_sent=True, bytes_received=True), False),
        (TransportError("request", "m"), False),
    ],
)
def test_only_what_cannot_have_begun_is_safe_to_send_again(error: TransportError, safe: bool) -> None:
    assert error.safe_to_resend is safe
