"""Requests to providers without ceremony: headers prepared once, one write, one read, body bytes as they come.

:meth:`RawTransport.send` is the hot path; :mod:`gateway.upstream.transport` puts httpx's transport interface on top.
Only opening a connection and waiting for one have time limits here, since only then is a scope cheap by comparison. For
the rest the caller has a ``LineGuard``, which closes the connection at its deadline, or one cancel scope whose deadline
it moves, for instance when ``on_phase`` says what comes next.

Cancelling at any point resets the connection in the same step, without an await, so that a provider stops generating at
once. Ending early is the same: leave the ``with`` block of the response.

*Resending.* A request is sent again, once and on a new connection, only when a connection that had been kept alive
turns out to be dead before it gave one byte of an answer, and only if no byte of the request was written, or the method
is idempotent (RFC 9110 §9.2.2, RFC 9112 §9.3.1). A POST that may have arrived is never sent again here: providers bill.
The ``TransportError`` says what had been sent, so that the retry policy above can decide; ``RawResponse.resent`` and
the statistics show what was done.

:meth:`RawTransport.upload` is for bodies that are not to be held whole. What was read of such a body is gone, so it is
never sent again.

Limits: HTTP/1.1 only, no proxies. Names are resolved in Trio's default thread limiter.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from math import inf
from types import TracebackType
from typing import Literal

import trio

from gateway.flow.guard import LineGuard
from gateway.upstream.errors import TransportError
from gateway.upstream.head import HeaderBlock, request_head, upload_head
from gateway.upstream.http1 import Connection, Headers, Limits, OnPhase, Upload, find
from gateway.upstream.pool import Origin, OriginPool, OriginStatistics
from gateway.upstream.wire import Dialler

_IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE")


class RawResponse:
    """An answer whose head has arrived. Leave its ``with`` block, or call :meth:`close`, on every path.

    Attributes:
        status: 200 … 999.
        headers: As they came, names in lower case.
        trailers: Of a chunked body; filled once ``complete``.
        complete: The last byte of the body has arrived (though :meth:`receive` may still have to hand it out). The
            connection is then back in the pool already.
        reused: It came on a connection that was kept alive.
        resent: The request was sent twice, see the module.
    """

    __slots__ = ("_conn", "_data", "_pool", "complete", "headers", "resent", "reused", "status", "trailers")

    def __init__(self, conn: Connection, pool: OriginPool, resent: bool) -> None:
        self.status = conn.status
        self.headers: Headers = conn.headers
        self.trailers: Headers = conn.trailers
        self.reused = conn.reused
        self.resent = resent
        self._data = conn.take_body()
        self._pool = pool
        self._conn: Connection | None = conn
        self.complete = conn.complete
        if conn.complete:
            self._conn = None
            pool.give_back(conn)

    def header(self, name: bytes) -> bytes | None:
        """The first value of ``name`` (lower case)."""
        return find(self.headers, name)

    async def receive(self) -> bytes:
        """The body bytes of one network read, without their framing; b"" at the end.

        Raises:
            TransportError: (``read``, ``protocol``) The body is not complete and never will be.
            trio.ClosedResourceError: The response was closed before its end.

        *Cancellation*: the connection is reset.
        *Cost*: one wait and one system call; a checkpoint whenever it reads the network.
        """
        data = self._data
        if data:
            self._data = b""
            return data
        conn = self._conn
        if conn is None:
            if self.complete:
                return b""
            raise trio.ClosedResourceError("the response was closed before its end")
        try:
            data = await conn.read_body()
        except BaseException as exc:
            self._end("dead" if isinstance(exc, TransportError) else "aborted")
            raise
        if conn.complete and self._conn is conn:  # otherwise it was handed over, and is the other's to give back
            self.complete = True
            self._conn = None
            self._pool.give_back(conn)
        return data

    def close(self) -> None:
        """Done with it: what has not arrived by now is not wanted. Resets the connection at once. Idempotent."""
        self._data = b""
        self._end("aborted")

    def hand_over(self) -> RawResponse:
        """The rest of this answer as a response of its own; this one is closed, but the connection stays. Sync.

        For who reads on when the task that reads now is about to be cancelled. Not to be read before that task is gone.
        """
        rest = object.__new__(RawResponse)
        for name in self.__slots__:
            setattr(rest, name, getattr(self, name))
        self._conn, self._data, self.complete = None, b"", False
        return rest

    def _end(self, why: Literal["dead", "aborted"]) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            self._pool.give_up(conn, why)

    def __enter__(self) -> RawResponse:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()


class RawTransport:
    """Pools for any number of origins, made as they are asked for. One per process, closed by who made it.

    Args:
        max_connections: Per origin, see :meth:`set_limit`.
        idle_timeout_s: A connection idle for longer is not used again. Below what providers allow themselves.
        limits: What an answer's head and framing may cost.
        tls: Called once, when the first TLS connection is opened (reading the CA certificates takes 20 ms).
        clock: Seconds, for idle times.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1_000,
        idle_timeout_s: float = 30.0,
        limits: Limits | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._idle_timeout_s = idle_timeout_s
        self._limits = limits or Limits()
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._clock = clock
        self._pools: dict[Origin, OriginPool] = {}
        self._closed = False

    async def send(
        self,
        method: bytes,
        origin: Origin,
        target: bytes,
        headers: HeaderBlock | Iterable[tuple[bytes, bytes]],
        body: bytes = b"",
        *,
        connect_timeout_s: float = inf,
        pool_timeout_s: float = inf,
        on_phase: OnPhase | None = None,
        guard: LineGuard | None = None,
    ) -> RawResponse:
        """Send a request and wait for the head of its answer.

        Args:
            method: In capitals.
            target: Path and query, percent-encoded.
            headers: A prepared :class:`HeaderBlock` on the hot path. ``host`` is added unless given; ``content-length``
                always is the transport's.
            connect_timeout_s: For the name, TCP and TLS together.
            pool_timeout_s: For a connection to come free when the origin's limit is reached.
            on_phase: Called with ``pool``, ``connect``, ``write``, ``read`` when that begins; must not block or raise.
            guard: Entered; holds the connection until this returns.

        Raises:
            TransportError: Every kind. A deadline of the caller is the caller's cancellation, or its guard's to tell.

        *Cancellation*: the connection is reset, its slot free. If cancelled already, nothing is sent.
        *Cost*: with :meth:`RawResponse.receive` 35 µs of CPU for a small answer, 17 µs with 32 in flight
        (``benchmarks/micro_transport.py``, CPython 3.11; httpx's own transport in the same run: 307 and 1,309 µs).
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not isinstance(headers, HeaderBlock):
            headers = HeaderBlock.of(headers)
        pool = self._pools.get(origin) or self._add_pool(origin)
        head = request_head(method, target, pool.host, headers, body)
        conn = pool.take_idle()
        if conn is None:
            with guard.waiting() if guard is not None else nullcontext():
                conn = await pool.take(connect_timeout_s, pool_timeout_s, on_phase)
        if guard is not None:
            guard.hold(conn.close)
        bodyless = method == b"HEAD"
        try:
            await conn.exchange(head, body, bodyless=bodyless, on_phase=on_phase)
        except TransportError as exc:
            resend = _may_resend(exc, method) and not (guard is not None and guard.late)
            pool.give_up(conn, "aborted" if guard is not None and guard.late else "dead", keep_slot=resend)
            if not resend:
                raise
        except BaseException:
            pool.give_up(conn, "aborted")
            raise
        else:
            return RawResponse(conn, pool, False)
        pool.count_resend()
        with guard.waiting() if guard is not None else nullcontext():
            conn = await pool.open(connect_timeout_s, on_phase)
        if guard is not None:
            guard.hold(conn.close)
        try:
            await conn.exchange(head, body, bodyless=bodyless, on_phase=on_phase)
        except BaseException as exc:
            late = guard is not None and guard.late
            pool.give_up(conn, "dead" if isinstance(exc, TransportError) and not late else "aborted")
            raise
        return RawResponse(conn, pool, True)

    async def upload(
        self,
        method: bytes,
        origin: Origin,
        target: bytes,
        headers: HeaderBlock | Iterable[tuple[bytes, bytes]],
        body: Upload,
        *,
        connect_timeout_s: float = inf,
        pool_timeout_s: float = inf,
        on_phase: OnPhase | None = None,
    ) -> RawResponse:
        """Send a request whose body comes in parts; as :meth:`send`, but never sent again.

        An answer that is complete before the body is ends the upload; its connection is not used again.

        Raises:
            TransportError: Every kind; ``request`` also for a body of another length than it announced.
            Exception: What the body's source raises.

        *Cancellation*: the connection is reset. *Memory*: one part at a time, and 64 KiB of an early answer.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not isinstance(headers, HeaderBlock):
            headers = HeaderBlock.of(headers)
        pool = self._pools.get(origin) or self._add_pool(origin)
        head = upload_head(method, target, pool.host, headers, body.length)
        conn = pool.take_idle() or await pool.take(connect_timeout_s, pool_timeout_s, on_phase)
        try:
            await conn.upload(head, body, on_phase=on_phase)
        except BaseException as exc:
            pool.give_up(conn, "dead" if isinstance(exc, TransportError) and exc.kind != "request" else "aborted")
            raise
        return RawResponse(conn, pool, False)

    def set_limit(self, origin: Origin, max_connections: int) -> None:
        """Let at most ``max_connections`` be open to ``origin``."""
        (self._pools.get(origin) or self._add_pool(origin)).limit = max_connections

    def prune(self) -> None:
        """Close idle connections that are expired or dead; for a timer of the caller's."""
        for pool in self._pools.values():
            pool.prune()

    def close(self) -> None:
        """Close every connection at once, those in use too; later calls fail. Idempotent. Within Trio only."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()

    async def aclose(self) -> None:
        """The same, with a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> Mapping[Origin, OriginStatistics]:
        """Per origin; a value of its own that does not change."""
        return {origin: pool.statistics() for origin, pool in self._pools.items()}

    def _add_pool(self, origin: Origin) -> OriginPool:
        if self._closed:
            raise TransportError("pool", "the transport is closed")
        dialler = Dialler(origin.host, origin.port, self._shared_tls if origin.scheme == "https" else None)
        pool = self._pools[origin] = OriginPool(
            origin,
            dialler,
            limit=self._max_connections,
            idle_timeout_s=self._idle_timeout_s,
            response_limits=self._limits,
            clock=self._clock,
        )
        return pool

    def _shared_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


def _may_resend(exc: TransportError, method: bytes) -> bool:
    """See the module: only a kept-alive connection that had died unnoticed."""
    if not exc.reused or exc.bytes_received or exc.kind not in ("write", "read"):
        return False
    return not exc.bytes_sent or method in _IDEMPOTENT
