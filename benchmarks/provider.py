"""The provider every contestant calls: chat completions and messages from precomputed bytes on one epoll loop.

It is no framework's server on purpose: a provider that costs as much as the gateway measures itself. One request
costs it a ``recv``, a dictionary look-up and a ``send``. Waiting uses ``select`` on the epoll descriptor, because
epoll's own timeout counts whole milliseconds and would send paced chunks in bursts no provider sends.

Besides ``POST`` (any path; see :mod:`benchmarks.wire` for what a model's name asks for) it answers ``GET /context/…``
(a small JSON document, the fan-out's loader), ``GET /stats`` and ``GET /reset``. A close by the other side in the
middle of an answer is noted with its time on CLOCK_MONOTONIC, which all processes of a machine share.

Limits: HTTP/1.1 only, no pipelining, request bodies with a length or chunked without trailers.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import re
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import wire

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_READ = select.EPOLLIN | select.EPOLLRDHUP
_CACHED_PLANS = 16_384
_READ_BYTES, _LONG_READ_BYTES = 65_536, 1_048_576
_SMALL_SEND_BUFFER_BYTES = 65_536


class Connection:
    """One socket from the contestant and the answer under way on it."""

    __slots__ = ("buffer", "due", "fd", "index", "plan", "rest", "sock", "tag", "turn", "wanted_bytes")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.buffer = bytearray()
        self.wanted_bytes = 0  # whole request, 0 while unknown
        self.plan: wire.Plan | None = None
        self.index = 0  # next piece
        self.due = 0.0  # when it is to be sent, if it is timed
        self.rest: memoryview | None = None  # of a piece the socket did not take whole
        self.tag = ""
        self.turn = 0  # counts answers, so that a timer of an earlier one is recognised


class Provider:
    """The loop and everything it counts."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.epoll = select.epoll()
        self.epoll.register(listener, select.EPOLLIN)
        self.connections: dict[int, Connection] = {}
        self.timers: list[tuple[float, int, int, Connection]] = []  # due, order, turn
        self.order = 0
        self.plans: dict[bytes, tuple[wire.Plan, str]] = {}
        self.dice = random.Random(1)  # for heavy tails
        self.context = wire.json_response(json.dumps({"text": "Bounded queues refuse early. " * 12}).encode())
        self.reset()

    def reset(self) -> None:
        self.started = 0
        self.finished = 0
        self.active = 0
        self.peak_active = 0
        self.left: list[tuple[str, float]] = []  # tag and time of each early close

    def run(self) -> None:
        """Serve until killed."""
        # Every answer of a running benchmark is acyclic; a collection would only add noise.
        gc.disable()
        listener_fd, connections = self.listener.fileno(), self.connections
        while True:
            for fd, event in self._wait():
                if fd == listener_fd:
                    self._accept()
                    continue
                connection = connections.get(fd)
                if connection is None:
                    continue
                if event & ~select.EPOLLOUT:
                    self._read(connection)
                elif event & select.EPOLLOUT:
                    self._writable(connection)
            if self.timers:
                self._fire()

    def _wait(self) -> list[tuple[int, int]]:
        if not self.timers:
            return self.epoll.poll(-1, 1024)
        timeout_s = self.timers[0][0] - time.monotonic()
        if timeout_s > 0:
            select.select([self.epoll], [], [], timeout_s)
        return self.epoll.poll(0, 1024)

    def _accept(self) -> None:
        for _ in range(256):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            connection = Connection(sock)
            self.connections[connection.fd] = connection
            self.epoll.register(connection.fd, _READ)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_LONG_READ_BYTES if connection.wanted_bytes else _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.buffer:
            connection.buffer += data
            if connection.wanted_bytes > len(connection.buffer):
                return
            data = bytes(connection.buffer)
            connection.buffer.clear()
        head = data.find(b"\r\n\r\n") + 4
        if head > 3 and self._whole(connection, data, head):
            connection.wanted_bytes = 0
            self._request(connection, data, head)
        else:
            connection.buffer += data

    @staticmethod
    def _whole(connection: Connection, data: bytes, head: int) -> bool:
        if data.startswith(b"GET"):
            return True
        length = _LENGTH.search(data, 0, head)
        if length:
            connection.wanted_bytes = head + int(length[1])
            return len(data) >= connection.wanted_bytes
        return not _CHUNKED.search(data, 0, head) or data.endswith(b"\r\n0\r\n\r\n")

    def _request(self, connection: Connection, data: bytes, head: int) -> None:
        if data.startswith(b"GET"):
            self._get(connection, data)
            return
        content = data[head:]
        known = self.plans.get(content) if len(content) < _READ_BYTES else None
        plan, connection.tag = known or self._learn(content)
        connection.plan = plan
        connection.index = 0
        connection.turn += 1
        self.started += 1
        self.active += 1
        self.peak_active = max(self.peak_active, self.active)
        if plan.delay_s:
            self._schedule(connection, time.monotonic() + plan.silence_s(self.dice))
        elif plan.interval_s:
            connection.due = time.monotonic()
            self._send_due(connection, plan, connection.due)
        else:
            self._send_all(connection, plan)

    def _learn(self, content: bytes) -> tuple[wire.Plan, str]:
        if len(self.plans) >= _CACHED_PLANS:
            self.plans.clear()
        wanted = wire.Wanted.read(content)
        # Tagged bodies differ only in their tag: they share the plan of the untagged request.
        key = repr((wanted.model, wanted.stream, wanted.usage)).encode()
        plan, _ = self.plans.get(key) or (wire.plan(wanted), "")
        self.plans[key] = (plan, "")
        if len(content) < _READ_BYTES:
            self.plans[content] = (plan, wanted.tag)
        return plan, wanted.tag

    def _get(self, connection: Connection, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        if path.startswith(b"/context"):
            answer = self.context
        elif path == b"/reset":
            self.reset()
            answer = wire.json_response(b"{}")
        else:
            answer = wire.json_response(json.dumps(self.statistics()).encode())
        connection.sock.setblocking(True)  # the answer to /stats may be longer than the socket's buffer
        connection.sock.sendall(answer)
        connection.sock.setblocking(False)

    def statistics(self) -> dict[str, Any]:
        names = ("started", "finished", "active", "peak_active", "left")
        return {name: getattr(self, name) for name in names}

    def _schedule(self, connection: Connection, due: float) -> None:
        self.order += 1
        heapq.heappush(self.timers, (due, self.order, connection.turn, connection))

    def _fire(self) -> None:
        now, timers = time.monotonic(), self.timers
        while timers and timers[0][0] <= now:
            _, _, turn, connection = heapq.heappop(timers)
            plan = connection.plan
            if plan is None or turn != connection.turn:
                continue
            if not plan.interval_s:
                self._send_all(connection, plan)
            elif connection.rest is None:
                self._send_due(connection, plan, now)

    def _send_all(self, connection: Connection, plan: wire.Plan) -> None:
        if plan.hangs and len(plan.pieces) > 1:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_SEND_BUFFER_BYTES)
        # Bound once: with 64 pieces an attribute look-up per piece is a tenth of the provider's cost.
        send, pieces = connection.sock.send, plan.pieces
        index, end = connection.index, len(pieces)
        try:
            while index < end:
                piece = pieces[index]
                sent = send(piece)
                index += 1
                if sent < len(piece):
                    self._hold(connection, memoryview(piece)[sent:])
                    break
        except BlockingIOError:
            self._hold(connection, None)
        except OSError:
            self._close(connection)
            return
        connection.index = index
        if index == end and connection.rest is None:
            self._finish(connection, plan)

    def _send_due(self, connection: Connection, plan: wire.Plan, now: float) -> None:
        """Send the next piece of a paced answer, and with it those that are overdue: pacing is an open loop."""
        count = 1 + int((now - connection.due) / plan.interval_s)
        pieces = plan.pieces[connection.index : connection.index + count]
        piece = pieces[0] if count == 1 else b"".join(pieces)
        connection.index += len(pieces)
        connection.due += count * plan.interval_s
        try:
            sent = connection.sock.send(piece)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(piece):
            self._hold(connection, memoryview(piece)[sent:])
        elif connection.index == len(plan.pieces):
            self._finish(connection, plan)
        else:
            self._schedule(connection, connection.due)

    def _hold(self, connection: Connection, rest: memoryview | None) -> None:
        connection.rest = rest
        self.epoll.modify(connection.fd, _READ | select.EPOLLOUT)

    def _writable(self, connection: Connection) -> None:
        plan = connection.plan
        if connection.rest is not None:
            try:
                sent = connection.sock.send(connection.rest)
            except BlockingIOError:
                return
            except OSError:
                self._close(connection)
                return
            if sent < len(connection.rest):
                connection.rest = connection.rest[sent:]
                return
            connection.rest = None
        self.epoll.modify(connection.fd, _READ)
        if plan is None:
            return
        if connection.index == len(plan.pieces):
            self._finish(connection, plan)
        elif plan.interval_s:
            self._schedule(connection, connection.due)
        else:
            self._send_all(connection, plan)

    def _finish(self, connection: Connection, plan: wire.Plan) -> None:
        if plan.hangs:
            return
        connection.plan = None
        self.active -= 1
        self.finished += 1

    def _close(self, connection: Connection) -> None:
        if connection.plan is not None:
            connection.plan = None
            self.active -= 1
            self.left.append((connection.tag, time.monotonic()))
        self.connections.pop(connection.fd, None)
        connection.sock.close()


def listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def main(say: Callable[[str], object] = sys.stdout.write) -> None:
    """``python -m benchmarks.provider [--port N]``: print the port, then serve."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    listener = listen(parser.parse_args().port)
    say(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    Provider(listener).run()


if __name__ == "__main__":
    main()
