"""The one place where httpx meets the network: its transport interface over :class:`RawTransport`, and its clients.

httpx is the client interface for what is not hot (the http loader, key sets); the hot path calls
:meth:`RawTransport.send`, which this class inherits, so that both share the pools. The adapter maps ``TransportError``
to httpx's exceptions and httpx's four timeouts to one cancel scope whose deadline moves with the phase.

Limits: request bodies are read whole before they are sent. Of the extensions, ``timeout`` is understood; ``trace``,
``sni_hostname`` and ``network_stream`` are not. Header names of answers are in lower case. A connection to a proxy is
never made, whatever the environment says.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from math import inf
from types import TracebackType

import httpx
import trio

from gateway.upstream.errors import Kind, TransportError
from gateway.upstream.head import HeaderBlock
from gateway.upstream.http1 import Headers, Limits, OnPhase, Phase, Upload
from gateway.upstream.pool import Origin, OriginStatistics
from gateway.upstream.raw import RawResponse, RawTransport

__all__ = [
    "Client",
    "HeaderBlock",
    "Headers",
    "Limits",
    "OnPhase",
    "Origin",
    "OriginStatistics",
    "Phase",
    "RawResponse",
    "Transport",
    "TransportError",
    "Upload",
    "make_client",
    "make_tls_context",
]

Client = httpx.AsyncClient
_ERRORS: dict[Kind, type[httpx.TransportError]] = {
    "request": httpx.LocalProtocolError,
    "pool": httpx.PoolTimeout,
    "dns": httpx.ConnectError,
    "connect": httpx.ConnectError,
    "tls": httpx.ConnectError,
    "write": httpx.WriteError,
    "read": httpx.ReadError,
    "protocol": httpx.RemoteProtocolError,
}
_TIMEOUTS: dict[Phase, type[httpx.TransportError]] = {"write": httpx.WriteTimeout, "read": httpx.ReadTimeout}
_NOT_SENT = (b"content-length", b"transfer-encoding")  # the transport's own


def make_tls_context() -> ssl.SSLContext:
    """Certificates checked against certifi's list, or ``SSL_CERT_FILE`` / ``SSL_CERT_DIR``; ALPN says HTTP/1.1."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Some Pythons (Debian 12's 3.11.2) set this by default, and a body cut short would pass for a whole one.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context


class Transport(RawTransport, httpx.AsyncBaseTransport):
    """:class:`RawTransport` that httpx can use as well."""

    def __init__(
        self,
        *,
        max_connections: int = 1_000,
        idle_timeout_s: float = 30.0,
        limits: Limits | None = None,
        tls: Callable[[], ssl.SSLContext] = make_tls_context,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            max_connections=max_connections, idle_timeout_s=idle_timeout_s, limits=limits, tls=tls, clock=clock
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the response is a stream that must be closed.

        Raises:
            httpx.TransportError: The subclass httpx's own transport would raise, ``request`` set.
        """
        timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}
        clock = _PhaseClock(timeouts)
        body = await request.aread()
        try:
            with clock.scope:
                raw = await self.send(
                    request.method.encode("ascii"),
                    _origin(request.url),
                    request.url.raw_path,
                    [item for item in request.headers.raw if item[0].lower() not in _NOT_SENT],
                    body,
                    connect_timeout_s=_seconds(timeouts.get("connect")),
                    pool_timeout_s=_seconds(timeouts.get("pool")),
                    on_phase=clock.enter,
                )
                return httpx.Response(
                    raw.status,
                    headers=raw.headers,
                    stream=_Body(raw, request, _seconds(timeouts.get("read"))),
                    extensions={"http_version": b"HTTP/1.1"},
                )
        except TransportError as exc:
            raise _translated(exc, request) from exc
        raise _TIMEOUTS[clock.phase](f"{request.url.host}: the {clock.phase} timeout passed", request=request)


class _PhaseClock:
    """One scope for a request; its deadline is the current phase's."""

    def __init__(self, timeouts: dict[str, float | None]) -> None:
        self.scope = trio.CancelScope()
        self.phase: Phase = "write"
        self._timeouts = timeouts

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        timed = phase in _TIMEOUTS  # the transport keeps the other two itself
        self.scope.deadline = trio.current_time() + _seconds(self._timeouts.get(phase)) if timed else inf


class _Body(httpx.AsyncByteStream):
    """Its own iterator, not a generator: there is nothing to finalize when a reader stops early."""

    def __init__(self, raw: RawResponse, request: httpx.Request, read_timeout_s: float) -> None:
        self._raw = raw
        self._request = request
        self._read_timeout_s = read_timeout_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await (self._raw.receive() if self._raw.complete else self._timed())
        if not data:
            raise StopAsyncIteration
        return data

    async def _timed(self) -> bytes:
        try:
            with trio.move_on_after(self._read_timeout_s):
                return await self._raw.receive()
        except TransportError as exc:
            raise _translated(exc, self._request) from exc
        raise httpx.ReadTimeout(
            f"{self._request.url.host}: no data for {self._read_timeout_s} s", request=self._request
        )

    async def aclose(self) -> None:
        self._raw.close()


class _Lent(httpx.AsyncBaseTransport):
    """A transport that a client may use but not close."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        return None


def make_client(transport: Transport, *, timeout_s: float = 5.0) -> httpx.AsyncClient:
    """A client over ``transport``: no redirects, nothing from the environment. Closing it leaves the transport open."""
    return httpx.AsyncClient(
        transport=_Lent(transport), trust_env=False, follow_redirects=False, timeout=httpx.Timeout(timeout_s)
    )


def _origin(url: httpx.URL) -> Origin:
    if url.scheme not in ("http", "https"):
        raise TransportError("request", f"scheme {url.scheme!r}: only http and https can be spoken")
    port = url.port or (443 if url.scheme == "https" else 80)
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)


def _seconds(value: float | None) -> float:
    return inf if value is None else value


def _translated(exc: TransportError, request: httpx.Request) -> httpx.TransportError:
    """httpx's name for it: an orderly end that comes too early is a breach of protocol there."""
    kind: type[httpx.TransportError] = _ERRORS[exc.kind]
    if exc.timed_out and exc.kind == "connect":
        kind = httpx.ConnectTimeout
    elif exc.eof:
        kind = httpx.RemoteProtocolError
    return kind(str(exc), request=request)
