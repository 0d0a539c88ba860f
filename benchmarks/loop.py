"""Client connections on one epoll loop: send bytes, notice the first byte and the end of the answer.

Only what the benchmark needs of HTTP/1.1 is read: the status, how the body ends, whether the connection stays. Events
are counted by their blank lines at C speed. An answer costs one ``recv`` per packet and about two microseconds of
Python besides; nothing is re-registered between the requests of a connection.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import re
import select
import socket
import struct
import time
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_STREAM = re.compile(rb"\r\ncontent-type: *text/event-stream", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_UNTIL_CLOSE = -1
_CHUNKS = -2
_READ_BYTES, _LONG_READ_BYTES = 65_536, 1_048_576
_SMALL_WINDOW_BYTES = 4_096
_INTERNET_SEGMENT_BYTES = 1_400
_ABORT = struct.pack("ii", 1, 0)


class Outcome(enum.Enum):
    """What a client's owner is told."""

    FIRST = enum.auto()  # the first byte of an answer
    DONE = enum.auto()  # the answer is complete
    FAILED = enum.auto()  # it never will be; ``client.problem`` says why


class Client:
    """One connection and the answer under way on it."""

    __slots__ = (
        "busy", "closes", "connecting", "due", "fd", "first", "head", "left_bytes", "on", "out", "problem",
        "small_window", "sock", "status", "streams", "tag", "tail", "then",
    )  # fmt: skip

    def __init__(self, on: Callable[[Client, Outcome], None], small_window: bool) -> None:
        self.on = on
        self.small_window = small_window
        self.sock: socket.socket | None = None
        self.fd = -1
        self.connecting = False
        self.busy = False  # an answer is awaited or under way
        self.out: memoryview | None = None  # what of the request the socket has not taken
        self.due = 0.0  # when the request was to leave
        self.first = False
        self.head: bytes | None = b""  # an incomplete head; None in the body
        self.left_bytes = 0
        self.status = 0
        self.streams = False
        self.closes = False
        self.tail = b""
        self.then = 0.0  # when the last piece came
        self.problem = ""
        self.tag = ""


class Loop:
    """All clients of the load generator.

    Attributes:
        events: Server-sent events received so far, over all clients.
        bytes: Bytes received so far.
        gap_sink: Where the time between two pieces of a stream is noted; None while nobody asks.
    """

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.address = ("127.0.0.1", 0)
        self.events = 0
        self.bytes = 0
        self.gap_sink: list[float] | None = None

    def client(self, on: Callable[[Client, Outcome], None], *, small_window: bool = False) -> Client:
        """A client that is not connected yet; ``small_window`` makes its socket hold next to nothing unread."""
        return Client(on, small_window)

    def send(self, client: Client, payload: bytes, due: float) -> None:
        """Send a request, over a new connection if there is none; its times count from ``due``."""
        client.due = client.then = due
        client.first = False
        client.busy = True
        client.head = b""
        client.problem = ""
        client.out = None
        if client.sock is None:
            self._connect(client)
        sock = client.sock
        assert sock is not None
        try:
            sent = 0 if client.connecting else sock.send(payload)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(client, f"send: {error!r}")
            return
        if sent < len(payload):
            client.out = memoryview(payload)[sent:]
            self.epoll.modify(client.fd, select.EPOLLIN | select.EPOLLOUT)

    def _connect(self, client: Client) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client.small_window:
            # Loopback segments are 64 KB and socket buffers grow with them; an internet client's are not.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_WINDOW_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _INTERNET_SEGMENT_BYTES)
        code = sock.connect_ex(self.address)
        client.connecting = code == errno.EINPROGRESS
        client.sock, client.fd = sock, sock.fileno()
        self.clients[client.fd] = client
        self.epoll.register(client.fd, select.EPOLLIN | (select.EPOLLOUT if client.connecting else 0))

    def poll(self, timeout_s: float) -> None:
        """Wait at most so long, then handle whatever is ready."""
        if 0 < timeout_s < 0.01:
            # epoll's own timeout has a resolution of a millisecond, select's of a microsecond.
            select.select([self.epoll], [], [], timeout_s)
            timeout_s = 0
        clients, incoming = self.clients, self._incoming
        for fd, event in self.epoll.poll(timeout_s, 1024):
            client = clients.get(fd)
            if client is None:
                continue
            if event & select.EPOLLOUT:
                self._outgoing(client)
            if event & ~select.EPOLLOUT and client.fd == fd:
                incoming(client)

    def _outgoing(self, client: Client) -> None:
        assert client.sock is not None
        if client.connecting:
            code = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail(client, f"connect: {errno.errorcode.get(code, str(code))}")
                return
            client.connecting = False
        if client.out:
            try:
                client.out = client.out[client.sock.send(client.out) :]
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(client, f"send: {error!r}")
                return
        if not client.out:
            client.out = None
            self.epoll.modify(client.fd, select.EPOLLIN)

    def _incoming(self, client: Client) -> None:
        assert client.sock is not None
        try:
            data = client.sock.recv(_READ_BYTES if client.left_bytes < _READ_BYTES else _LONG_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(client, f"recv: {error!r}")
            return
        if not data:
            self._ended(client)
            return
        self.bytes += len(data)
        if client.head is None:
            self._body(client, data)
        else:
            self._head(client, data)

    def _head(self, client: Client, data: bytes) -> None:
        if client.head:
            data = client.head + data
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            client.head = data
            return
        client.head = None
        client.status = int(data[9:12])
        client.closes = _CLOSE.search(data, 0, end) is not None
        client.tail = b""
        length = _LENGTH.search(data, 0, end)
        if length:
            client.streams = False
            client.left_bytes = int(length[1])
        else:
            client.streams = _STREAM.search(data, 0, end) is not None
            client.left_bytes = _CHUNKS if _CHUNKED.search(data, 0, end) else _UNTIL_CLOSE
        if len(data) > end or not client.left_bytes:
            self._body(client, data[end:])

    def _body(self, client: Client, data: bytes) -> None:
        if not client.first:
            client.first = True
            client.on(client, Outcome.FIRST)
            if client.fd < 0:
                return
        elif self.gap_sink is not None and client.streams:
            now = time.monotonic()
            self.gap_sink.append(now - client.then)
            client.then = now
        if client.streams:
            # A blank line torn between two reads is counted in neither; the tail tells.
            self.events += data.count(b"\n\n") + (data[:1] == b"\n" and client.tail[-1:] == b"\n")
        if len(data) < 64:
            client.tail = (client.tail + data)[-256:]
        else:
            client.tail = data[-256:]
        if client.left_bytes >= 0:
            client.left_bytes -= len(data)
            if client.left_bytes <= 0:
                self._done(client)
        elif client.left_bytes == _CHUNKS and client.tail.endswith(_LAST_CHUNK):
            self._done(client)

    def _done(self, client: Client) -> None:
        client.busy = False
        if client.closes:
            self._forget(client)
        if client.streams and client.status == 200 and b"[DONE]" not in client.tail:
            client.problem = f"stream without [DONE]: {client.tail!r}"
            client.on(client, Outcome.FAILED)
            return
        client.on(client, Outcome.DONE)

    def _ended(self, client: Client) -> None:
        if not client.busy:
            self._forget(client)
        elif client.head is None and client.left_bytes == _UNTIL_CLOSE:
            client.closes = True
            self._done(client)
        else:
            self._fail(client, f"closed in the middle of an answer: {client.tail!r}")

    def _fail(self, client: Client, problem: str) -> None:
        self._forget(client)
        client.busy = False
        client.problem = problem
        client.on(client, Outcome.FAILED)

    def _forget(self, client: Client) -> None:
        if client.sock is not None:
            self.clients.pop(client.fd, None)
            with contextlib.suppress(OSError):
                client.sock.close()
        client.sock, client.fd, client.connecting, client.out = None, -1, False, None

    def ignore(self, client: Client) -> None:
        """Read nothing more from this client, and leave it connected."""
        if client.fd >= 0:
            self.epoll.unregister(client.fd)
            del self.clients[client.fd]

    def drop(self, client: Client) -> None:
        """Close a client as a browser does: no warning, no reset of its own."""
        self._forget(client)

    def drop_all(self) -> None:
        """Reset every connection, so that a later run finds no port in TIME_WAIT."""
        for client in list(self.clients.values()):
            if client.sock is not None:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._forget(client)

    def close(self) -> None:
        """Reset every connection and end the loop."""
        self.drop_all()
        self.epoll.close()
