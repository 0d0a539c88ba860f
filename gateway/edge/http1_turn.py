"""One request's turn on its connection: the ``receive`` and ``send`` of the ASGI app, and how the turn ended.

The cancel scope around the app is the connection's: what cancels an app ends its connection, too. The connection's
reader enters the turn from outside: :meth:`Turn.arrived` when body bytes came, :meth:`Turn.leave` when the client left,
:meth:`Turn.refuse` when the body turned out to be malformed, too large or too slow. The last two cancel the app; what
the client then sees is decided by the connection once the app has unwound: the refusal's answer if no byte of a
response was sent, a broken-off connection otherwise. An app that keeps records finds the refusal in
``scope["extensions"]["sluice.cancel"]["refusal"]``: nobody left then; and ``["stalled"]``, which is true if the client
was dropped because it had stopped reading. ``["turn"]`` is the turn itself, whose :meth:`Turn.take_whole`,
:meth:`Turn.reply` and :meth:`Turn.offer` are shorter ways for an app that knows them than ASGI's messages.

``receive()`` answers ``100 Continue`` when it is first asked for a body that the client holds back, and
``http.disconnect`` once the client has left or the response is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from gateway.edge.gate import Reply
from gateway.edge.http1_body import Body
from gateway.edge.http1_head import Head, Refusal
from gateway.edge.http1_reply import CONTINUE, Response
from gateway.edge.pipes import ClientGone, Pipe
from gateway.edge.service import Service
from gateway.flow.relay import Offer

_log = logging.getLogger(__name__)

SPILL_BYTES: Final = 65_536  # an unread rest of a body up to this size is read and dropped to keep the connection


class Turn:
    """One request and its response.

    Attributes:
        request: The ASGI scope.
        body: The request body on its way in; the reader feeds it.
        response: The response on its way out.
        scope: Cancels the app.
        failed: The app raised.
        left: The client has gone; nothing can be sent any more.
        stalled: It was dropped because it had stopped reading.
        cut: A write was cancelled, so what the client has is not what the response says of itself.
        refusal: Why the server itself ended the turn, if it did.
    """

    __slots__ = (
        "_asked", "_holds_back", "_make_room", "_news", "_pipe", "_service", "_unsent", "_why",
        "body", "cut", "failed", "left", "refusal", "request", "response", "scope", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        head: Head,
        body: Body,
        pipe: Pipe,
        *,
        request: dict[str, Any],
        scope: trio.CancelScope,
        service: Service,
        make_room: Callable[[], None],
    ) -> None:
        self._pipe = pipe
        self._why = why = request["extensions"]["sluice.cancel"]
        self._service = service
        self._make_room = make_room
        self._holds_back = head.expects_continue and not body.complete and not body.size
        self._unsent = b""  # of what was offered
        self._asked = False  # the end of the body has been handed to the app
        self._news: trio.Event | None = None
        self.request = request
        self.body = body
        self.response = Response(
            head_only=head.method == "HEAD", http10=head.version == "1.0", keep_alive=head.keep_alive
        )
        self.scope = scope
        self.failed = self.left = self.stalled = self.cut = False
        self.refusal: Refusal | None = None
        why["turn"] = self

    async def call(self) -> None:
        """Call the app; ``failed`` tells whether it raised. Raises nothing but cancellation.

        What it and the turn had of each other is let go of at the end, and so freed at once: in a cycle it would wait
        for the garbage collector, with all that the request knew.
        """
        error: BaseException | None = None
        try:
            await self._service.app(self.request, self.receive, self.send)
        except BaseExceptionGroup as group:
            cancelled, error = group.split((trio.Cancelled, KeyboardInterrupt, SystemExit))
            if cancelled is not None:
                raise cancelled from None
        except Exception as caught:
            error = caught
        finally:
            self._service.end()
            for name in ("turn", "on_cancel"):
                self._why.pop(name, None)
            if error is not None:
                self.failed = True
                request = self.request
                _log.error("the app failed on %s %s", request["method"], request["path"], exc_info=error)

    async def receive(self) -> dict[str, Any]:
        """ASGI ``receive``. *Cancellation*: no byte of the body is lost."""
        body = self.body
        while True:
            if self.left or self.refusal or self.response.complete:
                await trio.lowlevel.checkpoint()
                return {"type": "http.disconnect"}
            if body.size or (body.complete and not self._asked):
                data = body.take()
                self._asked = body.complete
                self._make_room()
                return {"type": "http.request", "body": data, "more_body": not body.complete}
            if self._holds_back:
                self._holds_back = False
                if not self.response.committed:
                    await self._write(CONTINUE)
                continue
            self._news = trio.Event()
            await self._news.wait()

    def take_whole(self) -> bytes | None:
        """The body, if all of it is here, and the client, too: the rule when an app begins. Else :meth:`receive` it."""
        if not self.body.complete or self._asked or self.left or self.refusal or self.response.complete:
            return None
        self._asked = True
        self._make_room()
        return self.body.take()

    async def reply(self, reply: Reply) -> None:
        """The whole response at once, as two messages to :meth:`send` would make it; for half of what they cost."""
        response = self.response
        if self._service.draining or not self._may_keep_alive():
            response.keep_alive = False
        await self._write(response.whole(reply, self._service.date_line()))
        self._wake()

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI ``send``; after the client has left it does nothing.

        Raises:
            ResponseError: The message is no part of a valid response.

        *Cancellation*: a cancelled send may leave a broken-off response; the connection is then closed.
        *Cost*: one system call for each body message, about 4 µs.
        """
        kind = message["type"]
        response = self.response
        if kind == "http.response.start":
            response.start(message["status"], message.get("headers", ()))
            return
        if kind != "http.response.body":
            raise ValueError(f"unexpected ASGI message {kind!r} for an HTTP/1.1 request")
        data = self._unsent + self._frame(message.get("body", b""), message.get("more_body", False))
        self._unsent = b""
        if data:
            await self._write(data)
        if response.complete:
            self._wake()

    def offer(self, data: bytes) -> Offer:
        """Write a part of the body if the socket takes it now; for apps that would otherwise wake a task for it.

        The app must not offer while it sends. Whatever goes wrong is dealt with as in :meth:`send`.

        *Cost*: one system call; no checkpoint.
        """
        if self.left or self.refusal or self._unsent or not self.response.started or self.response.complete:
            return Offer.NOTHING
        framed = self._frame(data, True)
        try:
            sent = self._pipe.write_now(framed)
        except ClientGone:
            self._gone(stalled=False)
            return Offer.ALL
        self._unsent = framed[sent:]
        return Offer.PART if self._unsent else Offer.ALL

    def _frame(self, data: bytes, more: bool) -> bytes:
        response = self.response
        if not response.committed and (self._service.draining or not self._may_keep_alive()):
            response.keep_alive = False
        return response.body(data, more, self._service.date_line())

    def arrived(self) -> None:
        """Body bytes were fed."""
        self._holds_back = False
        self._wake()

    def leave(self) -> None:
        """The client has gone: cancel the app, unless its answer is complete already."""
        if self.response.complete:
            return
        self.left = True
        self._on_cancel()
        self._service.cancel_soon(self.scope)
        self._wake()

    def refuse(self, refusal: Refusal) -> None:
        """The request turned out to be unacceptable: cancel the app, unless its answer is complete already."""
        if self.response.complete:
            return
        self.refusal = self._why["refusal"] = refusal
        self._on_cancel()
        self.scope.cancel()
        self._wake()

    def reusable(self) -> bool:
        """Whether the connection can go on after this turn."""
        return self.whole and self.response.keep_alive and not self.left and not self.refusal

    @property
    def whole(self) -> bool:
        """Whether the response was written to its end."""
        return self.response.complete and not self.cut

    async def _write(self, data: bytes) -> None:
        if self.left:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._pipe.write(data)
        except ClientGone as gone:
            self._gone(stalled=gone.stalled)
            await trio.lowlevel.checkpoint()
        except BaseException:
            self.cut = True
            raise

    def _gone(self, *, stalled: bool) -> None:
        self.left = True
        self.stalled = self._why["stalled"] = stalled
        self._on_cancel()
        self.scope.cancel()

    def _on_cancel(self) -> None:
        """Do at once what the app asked for (``on_cancel`` of the extension): what costs money ends before the app."""
        on_cancel = self._why.get("on_cancel")
        if on_cancel is not None:
            on_cancel()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    def _may_keep_alive(self) -> bool:
        """False if the client still has more to send than is worth waiting for, or may never send it."""
        return self.body.complete or (not self._holds_back and self.body.remaining_bytes() <= SPILL_BYTES)
