"""The head of a request: one block of bytes in, a checked :class:`Head` or a :class:`Refusal` out.

httptools (llhttp) does the parsing in C and is strict by itself about what request smuggling is made of: bare CR or LF,
folded lines, a space before the colon, names that are no tokens, control characters, two lengths, ``Content-Length``
beside ``Transfer-Encoding``. Where it is lenient (measured on 0.9.0: two spaces in the request line, HTTP/0.9 and 2.0,
RTSP, ``gzip, chunked``, chunked on HTTP/1.0, fragments, no or several Host) this module refuses.

A parser sees exactly one head and is thrown away (0.3 µs): what follows the head is framed by ``http1_body``, so a
parser can never disagree with us about where a request ends, and nothing is parsed before its turn. A head that is,
but for its length, byte by byte the one before it on the connection is not parsed again (:class:`Heads`).

Limits: :data:`MAX_LINE_BYTES` for the request line (414), :data:`MAX_HEADERS` header lines (431); the size of the whole
head is the caller's ``server.max_header_bytes`` (431).
Cost: about 5 µs for nine headers; 1.2 µs for those of the request before.
"""

from __future__ import annotations

import re
from typing import Final

import httptools
from attrs import define

MAX_LINE_BYTES: Final = 8_192
MAX_HEADERS: Final = 100
CHUNKED: Final = -1  # Head.body_bytes of a body whose length nobody announced

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_HOST_BYTES: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%:[]"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_MAX_DIGITS: Final = 15  # of a length that needs no look at what its number may be at most
_MAX_REMEMBERED_BYTES: Final = 4_096  # for as long as a connection is open
_PATIENCE: Final = 8  # heads in a row that may differ before a connection's are not compared any more
_SPECIAL: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))


class Refusal(Exception):
    """A request the server answers by itself, and then closes the connection.

    Attributes:
        status: 4xx or 5xx.
        code: Stable machine name for ``error.code``.
        message: Says what is wrong, the limit where there is one, and the fix.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@define(eq=False)
class Head:
    """What the server needs to know of a request before its body.

    Attributes:
        method: As sent, e.g. ``POST``.
        target: Origin form (``/path?query``), or ``*``.
        version: ``1.0`` or ``1.1``.
        headers: In order, names in lower case, values without surrounding space.
        body_bytes: ``Content-Length``, 0 without a body, :data:`CHUNKED` if the chunks say it.
        keep_alive: Whether the client lets the connection live on.
        expects_continue: Whether the client waits for ``100 Continue`` before it sends the body.
        websocket: Whether it asks to speak WebSocket from here on.
    """

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body_bytes: int = 0
    keep_alive: bool = True
    expects_continue: bool = False
    websocket: bool = False


def check_start(data: bytes, max_header_bytes: int) -> None:
    """Look at a head that is not complete yet and refuse what can only get worse.

    Raises:
        Refusal: It cannot become a request any more, or is larger than allowed.
    """
    if not b"A" <= data[:1] <= b"Z":
        raise _malformed("a request starts with its method in capital letters (is this TLS to a plain port?)")
    line_bytes = data.find(b"\r\n")
    if (line_bytes if line_bytes >= 0 else len(data)) > MAX_LINE_BYTES:
        raise Refusal(
            414, "uri_too_long", f"The request line is longer than {MAX_LINE_BYTES} bytes; send less in the URL."
        )
    if len(data) > max_header_bytes:
        raise headers_too_large(max_header_bytes)
    if data.count(b"\n") != data.count(b"\r\n"):
        raise _malformed("lines end with CR LF, not with a bare LF")


def headers_too_large(max_header_bytes: int) -> Refusal:
    """The refusal of a head beyond ``server.max_header_bytes``."""
    return Refusal(
        431, "headers_too_large", f"The headers are larger than {max_header_bytes} bytes (server.max_header_bytes)."
    )


def parse_head(block: bytes) -> Head:
    """Parse one head and check everything in it.

    Args:
        block: From the first byte of the method to the empty line, the empty line included.

    Raises:
        Refusal: With the status to answer; the connection must be closed after it, its framing is not to be trusted.
    """
    line, _, _ = block.partition(b"\r\n")
    version = _check_line(line)
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(block)
    except httptools.HttpParserUpgrade:
        pass  # the head is complete; what the upgrade means is decided below
    except httptools.HttpParserInvalidMethodError as error:
        method = line.partition(b" ")[0]
        if method.isalpha() and method.isupper() and b" " in line:
            raise Refusal(501, "unknown_method", "The method is not known here.") from error
        raise _malformed("the request line has no valid method") from error
    except httptools.HttpParserError as error:
        raise _malformed(str(error)) from error
    if not parts.complete:
        raise _malformed("the headers do not end where the empty line is")
    head = Head(parser.get_method().decode("ascii"), parts.target, version, parts.headers)
    if head.method == "CONNECT":
        raise Refusal(501, "unknown_method", "CONNECT is not served here: this is no forward proxy.")
    _apply_headers(head)
    if parts.target[:1] != b"/" or b"#" in parts.target:
        _apply_unusual_target(head)
    return head


class Heads:
    """The heads of one connection: a client says the same with each request, but for the length of the body.

    Bytes that were found to be a head are one with other digits in the place of its ``Content-Length``, too, and mean
    the same with another length. Only a ``POST`` is remembered, and no large one.
    """

    __slots__ = ("_after", "_before", "_last", "_patience", "_place")

    def __init__(self) -> None:
        self._last: Head | None = None
        self._before = self._after = b""  # the length's digits
        self._place = 0  # of the length among the headers
        self._patience = _PATIENCE

    def parse(self, block: bytes) -> Head:
        """As :func:`parse_head`."""
        last = self._last
        if last is not None and block.startswith(self._before) and block.endswith(self._after):
            length = block[len(self._before) : len(block) - len(self._after)]
            if length.isdigit() and len(length) <= _MAX_DIGITS:
                self._patience = _PATIENCE
                headers = last.headers.copy()
                headers[self._place] = (b"content-length", length)
                return Head(
                    last.method,
                    last.target,
                    last.version,
                    headers,
                    int(length),
                    last.keep_alive,
                    last.expects_continue,
                )
        head = parse_head(block)
        if self._patience:
            self._remember(block, head)
        return head

    def _remember(self, block: bytes, head: Head) -> None:
        self._patience -= 1
        small = self._patience and head.method == "POST" and len(block) <= _MAX_REMEMBERED_BYTES
        length = _LENGTH.search(block) if small else None
        if length is None:
            self._last = None
            return
        self._last = head
        self._before, self._after = block[: length.start(1)], block[length.end(1) :]
        self._place = [name for name, _ in head.headers].index(b"content-length")


class _Parts:
    """What httptools calls back."""

    __slots__ = ("complete", "headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _check_line(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise Refusal(
            414, "uri_too_long", f"The request line is longer than {MAX_LINE_BYTES} bytes; send less in the URL."
        )
    if line.count(b" ") != 2:
        raise _malformed("the request line is METHOD, TARGET and HTTP-VERSION with one space between")
    if line.endswith(b" HTTP/1.1"):
        return "1.1"
    if line.endswith(b" HTTP/1.0"):
        return "1.0"
    if b" HTTP/" in line:
        raise Refusal(505, "http_version_not_supported", "Only HTTP/1.1 and HTTP/1.0 are spoken on this connection.")
    raise _malformed("the request line does not end with HTTP/1.1")


def _apply_headers(head: Head) -> None:
    headers = head.headers
    if len(headers) > MAX_HEADERS:
        raise Refusal(431, "too_many_headers", f"The request has {len(headers)} headers; the limit is {MAX_HEADERS}.")
    hosts = 0
    connection: bytes = b""
    upgrade: bytes = b""
    for name, value in headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            hosts += 1
            if value.translate(None, _HOST_BYTES):
                raise _malformed("the Host header holds characters that no host has")
        elif name == b"content-length":
            head.body_bytes = int(value)  # llhttp: digits only, no overflow, not twice
        elif name == b"transfer-encoding":
            _check_coding(head, value)
        elif name == b"connection":
            connection = connection + b"," + value.lower()
        elif name == b"upgrade":
            upgrade = value.lower()
        elif value.lower() == b"100-continue":
            head.expects_continue = head.version == "1.1"
        else:
            raise Refusal(417, "expectation_failed", "The only expectation met here is 100-continue.")
    if hosts > 1 or (not hosts and head.version == "1.1"):
        raise _malformed("an HTTP/1.1 request has exactly one Host header")
    _apply_connection(head, connection, upgrade)


def _apply_connection(head: Head, connection: bytes, upgrade: bytes) -> None:
    if head.version == "1.0":
        head.keep_alive = False
    if not connection:
        return
    options = {option.strip() for option in connection.split(b",")}
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    head.websocket = upgrade == b"websocket" and b"upgrade" in options and head.method == "GET" and not head.body_bytes


def _check_coding(head: Head, value: bytes) -> None:
    if value.lower() != b"chunked" or head.body_bytes == CHUNKED:
        raise _malformed("the only Transfer-Encoding taken is chunked, once")
    if head.version == "1.0":
        raise _malformed("HTTP/1.0 has no Transfer-Encoding")
    head.body_bytes = CHUNKED


def _apply_unusual_target(head: Head) -> None:
    """Absolute form (a proxy's) becomes origin form with its authority as Host (RFC 9112 §3.2.2)."""
    if head.target == b"*" and head.method == "OPTIONS":
        return
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None or b"#" in head.target or match[1].translate(None, _HOST_BYTES):
        raise _malformed("the request target must be a path that starts with '/', without a fragment")
    rest = match[2] or b"/"
    head.target = rest if rest[:1] == b"/" else b"/" + rest
    head.headers = [(b"host", match[1])] + [header for header in head.headers if header[0] != b"host"]


def _malformed(what: str) -> Refusal:
    return Refusal(400, "malformed_request", f"This is not a well-formed HTTP/1.1 request: {what}.")
