"""How a call to a provider fails below HTTP semantics, told so that the caller knows what a resend would risk.

One class instead of a tree: callers branch on ``kind`` and on what had crossed the wire, never on a type. The tree of
:mod:`gateway.core.errors` is made from it in one place above; httpx's exceptions in :mod:`gateway.upstream.transport`.
A deadline of the caller is no ``TransportError``: it stays the caller's cancellation.

::

    kind       when                                            a resend …
    request    the call itself cannot be written as HTTP       … fails the same way
    pool       no free connection within pool_timeout_s        … is safe, and adds load
    dns        the name did not resolve                        … is safe
    connect    nobody answered the TCP handshake               … is safe
    tls        the handshake or the certificate failed         … is safe, and seldom helps
    write      the request could not be written whole          … is safe if not fully_sent
    read       the connection ended before the answer did      … may make the provider work, and bill, twice
    protocol   the answer is not HTTP/1.1 within our limits    … may make the provider work, and bill, twice
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["request", "pool", "dns", "connect", "tls", "write", "read", "protocol"]


class TransportError(Exception):
    """A call failed; the connection it used is closed.

    Attributes:
        kind: Where it failed, see the table above.
        timed_out: A limit given to the transport passed (``pool`` and ``connect``, ``dns``, ``tls`` only).
        eof: The provider closed in an orderly way, only too early; otherwise a reset or an error of the socket.
        bytes_sent: At least one byte of this request was handed to the kernel.
        fully_sent: All of them were.
        bytes_received: At least one byte of the answer arrived.
        reused: The connection had carried an earlier request, so its end may have nothing to do with this one.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        timed_out: bool = False,
        eof: bool = False,
        bytes_sent: bool = False,
        fully_sent: bool = False,
        bytes_received: bool = False,
        reused: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.timed_out = timed_out
        self.eof = eof
        self.bytes_sent = bytes_sent
        self.fully_sent = fully_sent
        self.bytes_received = bytes_received
        self.reused = reused

    @property
    def safe_to_resend(self) -> bool:
        """Whether the provider cannot have begun to work: it never got the whole request, and answered nothing."""
        return self.kind != "request" and not self.fully_sent and not self.bytes_received

    @property
    def was_stale(self) -> bool:
        """A kept-alive connection ended without one byte of an answer.

        As a rule its provider had closed it as idle while the request was on its way: no work was done. Nobody can know
        that for certain, so it is not resent unseen, but asking again is as safe as after a refusal.
        """
        return self.reused and self.kind in ("write", "read") and not self.bytes_received
