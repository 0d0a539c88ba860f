"""The client's body on its way to the app: read whole, or part after part, within its limits.

Our own server keeps the limits by itself and cancels the app when the client leaves. For any other server the two
classes here do both: :class:`GatheredBody` for bodies that are held, :class:`PassedBody` for those that are handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio

from gateway.core.errors import RequestError
from gateway.edge.door import MAX_UPLOAD, too_large

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]


async def read_body(receive: Receive, max_bytes: int, timeout_s: float) -> bytes:
    """The whole request body.

    Raises:
        RequestError: 413 when it is longer than ``max_bytes``, 408 when it is not there within ``timeout_s``.
    """
    message = await next_message(receive)
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return first
    pieces, size = [first], len(first)
    with trio.move_on_after(timeout_s):
        while True:
            message = await next_message(receive)
            piece = cast("bytes", message.get("body", b""))
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise too_large(max_bytes)
            if not message.get("more_body", False):
                return b"".join(pieces)
    raise _too_slow(timeout_s)


async def next_message(receive: Receive) -> Message:
    """The next message of a body. Never returns once the client has left."""
    message = await receive()
    if message["type"] == "http.disconnect":
        await trio.sleep_forever()  # whoever noticed that the client left cancels us soon
    return message


def _too_slow(timeout_s: float) -> RequestError:
    message = f"the body was not complete within {timeout_s:g} s (server.body_timeout_s)"
    return RequestError("body_timeout", 408, message)


class GatheredBody:
    """Reads ahead of the app, because a server that has the body waiting does not say that the client left."""

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._data = bytearray()
        self._complete = trio.Event()

    async def gather_then_watch(self, receive: Receive, hang_up: Callable[[], None], scope: trio.CancelScope) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                hang_up()
                scope.cancel()
                return
            if not self._complete.is_set():
                self._data += message.get("body", b"")
                if not message.get("more_body", False) or len(self._data) > self._max_bytes:
                    self._complete.set()

    async def receive(self) -> Message:
        with trio.move_on_after(self._timeout_s):
            await self._complete.wait()
        if not self._complete.is_set():
            raise _too_slow(self._timeout_s)
        if len(self._data) > self._max_bytes:
            raise too_large(self._max_bytes)
        return {"type": "http.request", "body": bytes(self._data), "more_body": False}


class PassedBody:
    """Hands on what the server brings, one message at a time, and watches for the client's leaving meanwhile.

    While the app takes nothing, nothing is read, and a client's leaving is seen by the app's own deadlines only.
    """

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._left_bytes = self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._tx, self._rx = trio.open_memory_channel[Message](0)

    async def gather_then_watch(self, receive: Receive, hang_up: Callable[[], None], scope: trio.CancelScope) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                hang_up()
                scope.cancel()
                return
            await self._tx.send(message)

    async def receive(self) -> Message:
        with trio.move_on_after(self._timeout_s):
            message = await self._rx.receive()
            self._left_bytes -= len(message.get("body", b""))
            if self._left_bytes < 0:
                raise too_large(self._max_bytes, MAX_UPLOAD)
            return message
        raise _too_slow(self._timeout_s)
