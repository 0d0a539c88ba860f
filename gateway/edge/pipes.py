"""A client's connection as three verbs: read, write with a stall deadline, close in the right manner.

Plain TCP goes to the file descriptor directly: Trio's socket methods try, fail, wait and try again on every read, and
yield to the scheduler on every write (3.7 µs); here a read waits first, and a write that fits the kernel's buffer costs
one system call and a look at the cancellation status. Every :data:`_BURST` such writes yield for fairness.

A write that makes no progress for ``stall_s`` means that the client has stopped reading: the connection is reset and
:class:`ClientGone` raised. It is never shielded, so a cancellation ends it as well. After a cancelled or failed write
the byte stream is broken off in the middle: only :meth:`Pipe.abort` makes sense then.

Trio keeps ``TCP_NOTSENT_LOWAT`` at 16 KiB, so "fits the kernel's buffer" is what the client's window takes plus 16 KiB.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Final, Protocol

import trio

READ_BYTES: Final = 65_536
_BURST: Final = 32
_TLS_PIECE_BYTES: Final = 16_384
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 134_217_728
_CLOSE_S: Final = 1.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ClientGone(OSError):
    """The client has closed the connection, or was dropped because it had stopped reading (``stalled``)."""

    def __init__(self, *, stalled: bool = False) -> None:
        super().__init__("the client stopped reading" if stalled else "the client closed the connection")
        self.stalled = stalled


class Pipe(Protocol):
    """One connection; one task may read and one may write at the same time."""

    async def read(self) -> bytes:
        """The next bytes, b"" once the client is gone in whatever manner. *Cancellation*: nothing is lost."""
        ...

    def write_now(self, data: bytes) -> int:
        """Send what can be sent without waiting, possibly nothing; how many bytes. Raises :class:`ClientGone`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send it all. Raises :class:`ClientGone`. *Cancellation*: a part may be sent; abort then."""
        ...

    async def close(self, *, linger: bool) -> None:
        """Close after the last write.

        Args:
            linger: Discard what the client still sends for at most 2 s and 128 MiB, so that it gets to read the answer
                rather than a reset.
        """
        ...

    def abort(self) -> None:
        """Close at once with a reset; unsent bytes are dropped, blocked reads and writes end. Idempotent."""
        ...


def open_pipe(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream], stall_s: float) -> Pipe:
    """The pipe for an accepted stream whose handshake, if any, is done."""
    return TlsPipe(stream, stall_s) if isinstance(stream, trio.SSLStream) else PlainPipe(stream, stall_s)


class PlainPipe:
    """TCP (or a Unix socket) without TLS."""

    __slots__ = ("_burst", "_fd", "_socket", "_stall_s")

    def __init__(self, stream: trio.SocketStream, stall_s: float) -> None:
        self._socket = stream.socket
        self._fd = stream.socket.fileno()
        self._stall_s = stall_s
        self._burst = 0

    async def read(self) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._fd)
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue  # woken for nothing
            except (OSError, ValueError, trio.ClosedResourceError):
                return b""

    def write_now(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone from error

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.write_now(data)
        if sent != len(data):
            await self._write_slowly(memoryview(data)[sent:])
            return
        self._burst += 1
        if self._burst >= _BURST:
            self._burst = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _write_slowly(self, data: memoryview) -> None:
        with trio.move_on_after(self._stall_s) as scope:
            while data:
                try:
                    await trio.lowlevel.wait_writable(self._fd)
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    continue
                except (OSError, ValueError, trio.ClosedResourceError) as error:
                    raise ClientGone from error
                scope.deadline = trio.current_time() + self._stall_s
        if scope.cancelled_caught:
            self.abort()
            raise ClientGone(stalled=True)

    async def close(self, *, linger: bool) -> None:
        if linger and self._fd >= 0:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # gone already
            else:
                await _discard(self)
        self._fd = -1
        self._socket.close()

    def abort(self) -> None:
        if self._fd >= 0:
            self._fd = -1
            reset(self._socket)


class TlsPipe:
    """TLS over TCP; costs Trio's SSLStream and one scope per write."""

    __slots__ = ("_aborted", "_stall_s", "_stream")

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], stall_s: float) -> None:
        self._stream = stream
        self._stall_s = stall_s
        self._aborted = False

    async def read(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def write_now(self, data: bytes) -> int:
        return 0

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        with trio.move_on_after(self._stall_s) as scope:
            try:
                for at in range(0, len(data), _TLS_PIECE_BYTES):
                    await self._stream.send_all(view[at : at + _TLS_PIECE_BYTES])
                    scope.deadline = trio.current_time() + self._stall_s
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ClientGone from error
        if scope.cancelled_caught:
            self.abort()
            raise ClientGone(stalled=True)

    async def close(self, *, linger: bool) -> None:
        if self._aborted:
            return
        if linger:  # TLS cannot close one direction: the client closes on seeing the end of the answer
            await _discard(self)
        with trio.move_on_after(_CLOSE_S), suppress(OSError, trio.BrokenResourceError, trio.BusyResourceError):
            await self._stream.aclose()
        self._aborted = True

    def abort(self) -> None:
        if not self._aborted:
            self._aborted = True
            reset(self._stream.transport_stream.socket)


async def _discard(pipe: Pipe) -> None:
    left = _LINGER_BYTES
    with trio.move_on_after(_LINGER_S):
        while left > 0 and (data := await pipe.read()):
            left -= len(data)


def reset(sock: trio.socket.SocketType) -> None:
    """Close a socket with a reset instead of an orderly end. Idempotent."""
    with suppress(OSError):  # not a TCP socket, or closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()
