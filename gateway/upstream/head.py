"""The head of a request: checked so that no value can end its line, joined once and sent many times.

Headers of a provider do not change from request to request, so they are checked and joined when the provider is set up
(:class:`HeaderBlock`); what is left per request is the request line and the length. Framing is the transport's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from gateway.upstream.errors import TransportError

_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+")  # method SP target: a token and visible ASCII
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


@frozen(slots=True)
class HeaderBlock:
    """Request headers, checked and written out once, to be sent many times.

    Attributes:
        block: Header lines with their ends, without the empty line.
        has_host: There is a ``host`` among them; otherwise the origin's is sent.
    """

    block: bytes
    has_host: bool

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> HeaderBlock:
        """Check and join ``headers``. A ``content-length`` is left out: the transport sends the body's own.

        Raises:
            TransportError: (``request``) A name or value that HTTP forbids, or a ``transfer-encoding``.
        """
        lines = []
        has_host = False
        for name, value in headers:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise TransportError("request", f"header {name!r}: HTTP forbids a character in its name or value")
            lowered = name.lower()
            if lowered == b"content-length":
                continue
            if lowered == b"transfer-encoding":
                raise TransportError("request", f"header {name!r}: the framing is the transport's own; leave it out")
            has_host = has_host or lowered == b"host"
            lines.append(b"%b: %b\r\n" % (name, value))
        return cls(b"".join(lines), has_host)

    def plus(self, headers: Iterable[tuple[bytes, bytes]]) -> HeaderBlock:
        """This block and some headers of one request, which replace those of the same name here."""
        given = list(headers)
        more = HeaderBlock.of(given)
        names = tuple(name.lower() + b":" for name, _ in given)
        lines = self.block.splitlines(keepends=True)
        kept = b"".join([line for line in lines if not line.lower().startswith(names)])
        return HeaderBlock(kept + more.block, self.has_host or more.has_host)


def request_head(method: bytes, target: bytes, host: bytes, headers: HeaderBlock, body: bytes) -> bytes:
    """The request up to and with the empty line.

    Raises:
        TransportError: (``request``) The method is no token or the target holds anything but visible ASCII.
    """
    if body or method in (b"POST", b"PUT", b"PATCH"):
        return _head(method, target, host, headers, b"content-length: %d\r\n" % len(body))
    return _head(method, target, host, headers, b"")


def upload_head(method: bytes, target: bytes, host: bytes, headers: HeaderBlock, length: int | None) -> bytes:
    """The same for a body that comes in parts: of ``length`` bytes, or in chunks when nobody knows that yet."""
    framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length
    return _head(method, target, host, headers, framing)


def _head(method: bytes, target: bytes, host: bytes, headers: HeaderBlock, framing: bytes) -> bytes:
    line = b"%b %b" % (method, target)
    if not _LINE.fullmatch(line):
        raise TransportError("request", "method or target: only a token and visible ASCII can be sent; percent-encode")
    host_line = b"" if headers.has_host else b"host: %b\r\n" % host
    return b"%b HTTP/1.1\r\n%b%b%b\r\n" % (line, host_line, headers.block, framing)
