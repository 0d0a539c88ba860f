"""A connection at Hypercorn's TCP server seam: HTTP/1.1 is ours, everything else stays Hypercorn's.

Hypercorn's own HTTP/1.1 costs 470 µs per request, shields its writes without a deadline and does not notice a client
that leaves behind pipelined bytes; :class:`Conversation` does better. What TLS negotiates as ``h2``, cleartext HTTP/2
with prior knowledge and WebSocket upgrades go on in Hypercorn's protocols, with the bytes read so far, with the gate
asked for each request, and with a send deadline put on them (:meth:`Connection.protocol_send`).

There, the app is not cancelled when a client leaves: it has to listen for ``http.disconnect``. And an HTTP/2 client
that reads its socket but opens no window for a stream is for the app's own deadlines to notice.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import trio
from hypercorn.events import Event, RawData
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.utils import parse_socket_addr

from gateway.edge.http1_talk import Conversation
from gateway.edge.pipes import open_pipe, reset
from gateway.edge.service import Service

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_log = logging.getLogger(__name__)


class Connection(TCPServer):
    """One accepted connection; :meth:`run` serves it to its end."""

    def __init__(self, service: Service, stream: Stream) -> None:
        super().__init__(service.guarded, service.hypercorn, service.context, service.state, stream)  # type: ignore[arg-type]
        self._service = service
        self._socket = stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket
        self._talk: Conversation | None = None

    async def run(self) -> None:
        """Serve it. Raises nothing but cancellation. *Cancellation*: the app is cancelled, the connection reset."""
        try:
            await self._run()
        except Exception:
            _log.exception("a connection failed")
        finally:
            self.abort()
            self._service.closed(self)

    def abort(self) -> None:
        """Reset the connection at once, whoever serves it. Idempotent."""
        if self._talk is not None:
            self._talk.pipe.abort()
        else:
            reset(self._socket)

    def shut(self, *, patient: bool) -> None:
        """Close it in an orderly way if it is idle; see :meth:`Conversation.shut`."""
        if self._talk is not None:
            self._talk.shut(patient=patient)

    async def protocol_send(self, event: Event) -> None:
        """What Hypercorn's protocols send: as its own, but a client that does not read is dropped.

        A cut-off write would break every stream of an HTTP/2 connection, so it stays shielded from the cancellation of
        a single request, for ``client_stall_s`` at most; the end of the process resets the connection.
        """
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            deadline = trio.current_time() + self._service.config.client_stall_s
            with (
                trio.CancelScope(shield=True, deadline=deadline) as scope,
                suppress(trio.BrokenResourceError, trio.ClosedResourceError),  # the reader sees it, too
            ):
                await self.stream.send_all(event.data)
        if scope.cancelled_caught:
            self._service.client_stalled += 1
            self.abort()

    async def _run(self) -> None:
        stream: Stream = self.stream
        is_tls = isinstance(stream, trio.SSLStream)
        try:
            if isinstance(stream, trio.SSLStream):
                with trio.fail_after(self.config.ssl_handshake_timeout):
                    await stream.do_handshake()
                if stream.selected_alpn_protocol() == "h2":
                    await self._delegate(b"")
                    return
            client = parse_socket_addr(self._socket.family, self._socket.getpeername())
            server = parse_socket_addr(self._socket.family, self._socket.getsockname())
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return
        pipe = open_pipe(stream, self._service.config.client_stall_s)
        talk = self._talk = Conversation(
            self._service, pipe, scheme="https" if is_tls else "http", client=client, server=server
        )
        await talk.run()
        if talk.handover is None:
            await pipe.close(linger=talk.linger)
        else:
            self._talk = None
            await self._delegate(talk.handover)

    async def _delegate(self, data: bytes) -> None:
        self._service.delegated += 1
        self.stream = _Replayed(self.stream, data)  # type: ignore[assignment]
        await super().run()


class _Replayed:
    """A stream some of whose bytes were read before: they are read again."""

    def __init__(self, stream: Any, data: bytes) -> None:
        self._stream = stream
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._data:
            await trio.lowlevel.checkpoint()
            data, self._data = self._data, b""
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
