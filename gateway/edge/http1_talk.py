"""A conversation in HTTP/1.1: requests off one pipe, one after the other, answers back onto it.

Tasks: the **reader** is the connection's own and reads all the time, so that the client's leaving is seen at once; each
request that the gate lets in is a :class:`Turn` of the **worker**, a task in the connection's nursery that begins with
the first request and waits for the next (a task for each would cost a tenth of a short answer). One turn at a time:
pipelined bytes wait. When pipelined bytes that nobody has taken reach :data:`BUFFER_BYTES`, or the part of an
incomplete body :data:`BODY_AHEAD_BYTES` (much, so that a client that waits for a permit is seen to leave), the reader
pauses until the app has read some: that is the backpressure, and for so long a leaving client is noticed by the next
write, by ``client_stall_s`` or by the app's own deadlines only.

A client that closes its sending side after a complete request counts as having left: HTTP/1.1 clients that want an
answer keep it open, and a closed socket cannot be told from a half-closed one. The app's task is cancelled; this is
announced as ``scope["extensions"]["sluice.cancel"]``, so an app needs no watcher of its own here.

Deadlines are one cancel scope round the reader. Only an earlier deadline touches it; a later one is just remembered,
and the scope is made anew when it fires too early (once per ``keep_alive_s``): no timer work for each request.

- ``keep_alive_s`` without a byte: closed. ``header_timeout_s`` from a request's first byte: 408. ``body_timeout_s`` for
  the body, or for each part of it where the gate says so, time paused not counted: 408, the app cancelled.
- ``client_stall_s`` without progress of a write: the connection is reset, the app cancelled. For an answer of the
  server's or the gate's own: for the whole of it, and no deadline of the reader's interrupts it.
- Refusals of the server itself close the connection, lingering so that the client can read the answer.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Any, Final
from urllib.parse import unquote

import trio

from gateway.edge.gate import Reply
from gateway.edge.http1_body import Body, body_of
from gateway.edge.http1_head import Head, Heads, Refusal, check_start, headers_too_large
from gateway.edge.http1_reply import ResponseError, error_reply, failed, whole
from gateway.edge.http1_turn import SPILL_BYTES, Turn
from gateway.edge.pipes import ClientGone, Pipe
from gateway.edge.service import Service

BUFFER_BYTES: Final = 65_536
BODY_AHEAD_BYTES: Final = 1_048_576
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"

_log = logging.getLogger(__name__)


class Conversation:
    """One connection's HTTP/1.1.

    Attributes:
        pipe: The connection; closing it after :meth:`run` is the caller's.
        linger: Whether to read on for a moment before closing: the client is still sending.
        handover: The bytes another protocol is to start with, if the client wants one.
    """

    __slots__ = (
        "_answering", "_base", "_clock", "_closing", "_deadline", "_fresh", "_heads", "_idle", "_nursery", "_part_s",
        "_rest", "_room", "_searched", "_service", "_spill", "_turn", "_work", "handover", "linger", "pipe",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        pipe: Pipe,
        *,
        scheme: str,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        self._service = service
        self.pipe = pipe
        self._base = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "scheme": scheme,
            "root_path": "",
            "client": client,
            "server": server,
        }
        self._nursery: trio.Nursery
        self._work: trio.CancelScope | None = None  # the worker's, if it has begun; to cancel it ends the connection
        self._idle: trio.lowlevel.Task | None = None  # the worker, while it waits for a turn
        self._clock = trio.CancelScope()
        self._deadline = inf
        self._heads = Heads()
        self._rest = b""  # bytes beyond the current request
        self._part_s = 0.0  # what each part of the current body may take; 0: the deadline is for the whole
        self._searched = 0  # how far they have been searched for the end of a head
        self._turn: Turn | None = None
        self._spill: Body | None = None  # the unread rest of a finished request's body
        self._room: trio.Event | None = None  # what a paused reader waits for
        self._answering = False  # an answer without an app waits for the client to read
        self._closing = False
        self._fresh = True  # no request yet
        self.linger = False
        self.handover: bytes | None = None

    async def run(self) -> None:
        """Serve requests until the connection has to be closed, or ``handover`` is set.

        *Cancellation*: cancels the app; the pipe must be aborted.
        """
        self._deadline = trio.current_time() + self._service.config.keep_alive_s
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while not self._closing:
                    with trio.CancelScope(deadline=self._deadline) as self._clock:
                        await self._read()
                    if not self._closing and trio.current_time() >= self._deadline:
                        await self._expired()
            finally:
                self._wake_worker()
        self._turn = None  # it knows this conversation: in a cycle both would wait for the garbage collector

    def shut(self, *, patient: bool) -> None:
        """End an idle conversation; one with a request on goes on to its end.

        Args:
            patient: Spare one whose first request, or the rest of a begun one, is probably on its way.
        """
        if self._answering:
            self._closing = True  # after the answer that is on its way
        elif self._turn is None and not (patient and (self._fresh or self._rest)):
            self._finish(linger=False)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._closing:
            if self._turn is not None and self._holds_enough(self._turn.body):
                await self._pause()
                continue
            data = await self.pipe.read()
            if not data:
                self._client_left()
            elif self._turn is not None:
                self._during(self._turn, data)
            else:
                await self._between(data)
            del data  # which may be 64 KiB, and the next may be long in coming

    def _holds_enough(self, body: Body) -> bool:
        return len(self._rest) >= BUFFER_BYTES or (not body.complete and body.size >= BODY_AHEAD_BYTES)

    async def _pause(self) -> None:
        left_s = self._deadline - trio.current_time()
        self._deadline = inf
        self._room = trio.Event()
        try:
            await self._room.wait()
        finally:
            self._room = None
            if left_s < inf:  # otherwise a deadline of the next request's may stand by now
                self._due_in(left_s)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    def _client_left(self) -> None:
        self._closing = True
        if self._turn is not None:
            self._turn.leave()

    def _during(self, turn: Turn, data: bytes) -> None:
        """Bytes while a request is worked on: its body's, then the next request's."""
        if turn.body.complete:
            self._rest += data
            return
        try:
            self._rest += turn.body.feed(data)
        except Refusal as refusal:
            self._closing = True
            turn.refuse(refusal)
            return
        turn.arrived()
        if not turn.body.remaining_bytes():
            self._deadline = inf
        elif self._part_s:
            self._deadline = trio.current_time() + self._part_s

    async def _between(self, data: bytes) -> None:
        """Bytes while no request is worked on: the unread rest of a body, a head or a part of one."""
        if self._spill is not None:
            try:
                data = self._spill.feed(data)
            except Refusal:
                self._finish(linger=True)
                return
            self._spill.take()
            if not self._spill.complete:
                return
            self._spill = None
            self._due_in(self._service.config.keep_alive_s)
        begun = not self._rest
        self._rest += data
        await self._next()
        if begun and self._rest and self._turn is None and not self._closing:
            self._due_in(self._service.config.header_timeout_s)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _next(self) -> None:
        """Take up the requests whose heads are there: refuse them, or start the turn of one."""
        while self._rest and not self._closing:
            scope: dict[str, Any] | None = None
            try:
                block = self._take_head()
                if block is None:
                    return
                head = self._heads.parse(block)
                if head.websocket:
                    self._hand_over(block + self._rest)
                    return
                scope = self._scope(head)
                body, each_part = self._body(head, scope)
                self._rest = body.feed(self._rest)
            except Refusal as refusal:
                await self._refuse(refusal, scope)
                return
            reply = self._service.knock(scope)
            if reply is None:
                self._start(head, body, scope, each_part=each_part)
                return
            await self._answer(head, body, reply)
            if self._rest:  # pipelined: others, too
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _take_head(self) -> bytes | None:
        """The next head's bytes, without what follows; None while it is not complete."""
        rest = self._rest
        if rest[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines before a request are ignored
            rest = self._rest = rest.lstrip(b"\r\n")
            self._searched = 0
            if not rest:
                return None
        end = rest.find(b"\r\n\r\n", max(0, self._searched - 3))
        limit = self._service.config.max_header_bytes
        if end < 0:
            self._searched = len(rest)
            check_start(rest, limit)
            return None
        self._searched = 0
        if rest.startswith(_PREFACE):
            self._hand_over(rest)
            return None
        end += 4
        if end > limit:
            raise headers_too_large(limit)
        self._fresh = False
        self._rest = rest[end:]
        return rest[:end]

    def _body(self, head: Head, scope: dict[str, Any]) -> tuple[Body, bool]:
        """The body that is announced, and whether each part of it has ``body_timeout_s`` rather than the whole."""
        rules = self._service.body_rules(scope) if head.body_bytes else None
        if rules is None:
            return body_of(head, self._service.config.max_body_bytes), False
        return body_of(head, rules.max_bytes, rules.max_field), not rules.whole_in_time

    def _scope(self, head: Head) -> dict[str, Any]:
        raw_path, _, query = head.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            **self._base,
            "http_version": head.version,
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
            "state": self._service.state.copy(),
            "extensions": {"sluice.cancel": {}},
        }

    # -- turns -------------------------------------------------------------------------------------------------------

    def _start(self, head: Head, body: Body, scope: dict[str, Any], *, each_part: bool) -> None:
        """Give a turn to the worker; the app's first lines run even if all is cancelled: what the gate gave arrives."""
        if self._work is None:
            self._work = trio.CancelScope()
            self._nursery.start_soon(self._serve, self._work)
        self._turn = Turn(
            head, body, self.pipe, request=scope, scope=self._work, service=self._service, make_room=self._make_room
        )
        self._part_s = self._service.config.body_timeout_s if each_part else 0.0
        if body.complete:
            self._deadline = inf
        else:
            self._due_in(self._service.config.body_timeout_s)
        self._service.begin()
        self._wake_worker()

    async def _serve(self, work: trio.CancelScope) -> None:
        """The worker: one turn after the other, as long as the connection can go on."""
        with work:
            while (turn := self._turn) is not None:
                await turn.call()
                if not turn.reusable():
                    break
                self._service.app_failed += turn.failed
                await self._reuse(turn)
                del turn  # with all that the request knew
                if self._turn is None and not self._closing:
                    await self._wait_for_turn()
        if self._turn is not None:
            await self._settle(self._turn)

    async def _wait_for_turn(self) -> None:
        """Until there is one, or the reader has ended. *Cancellation*: it ends the reader, too."""
        self._idle = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    def _wake_worker(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            trio.lowlevel.reschedule(idle)

    async def _settle(self, turn: Turn) -> None:
        """The app has ended and with it the connection: what the client sees of it."""
        service = self._service
        response = turn.response
        service.client_left += turn.left
        service.client_stalled += turn.stalled
        service.refused_by_server += turn.refusal is not None
        service.app_failed += turn.failed or not (turn.whole or turn.left or turn.refusal)
        if turn.left or turn.whole:
            self._finish(linger=not turn.left and (bool(self._rest) or not turn.body.complete))
        elif response.committed:
            self.pipe.abort()  # a truncated answer must not look complete
            self._finish(linger=False)
        else:
            await self._write_whole(failed() if turn.refusal is None else service.wording(turn.request, turn.refusal))
            self._finish(linger=True)

    async def _reuse(self, turn: Turn) -> None:
        if not turn.body.complete:
            turn.body.take()
            self._spill = turn.body  # its deadline goes on
            self._turn = None
        else:
            if self._rest:
                await self._next()  # the reader keeps off while the old turn stands
            if self._turn is turn:
                self._turn = None
                config = self._service.config
                if self._spill is None:
                    self._due_in(config.header_timeout_s if self._rest else config.keep_alive_s)
        self._make_room()

    # -- answers without an app, and the end -------------------------------------------------------------------------

    async def _answer(self, head: Head, body: Body, reply: Reply) -> None:
        """The gate's answer; the connection stays if the body is there or a small rest of it is on its way."""
        spill = not body.complete
        small = not head.expects_continue and body.remaining_bytes() <= SPILL_BYTES
        keep_alive = head.keep_alive and not self._service.draining and (not spill or small)
        unsent = self._write_now(
            reply, head_only=head.method == "HEAD", http10=head.version == "1.0", keep_alive=keep_alive
        )
        if unsent:
            await self._write_rest(unsent)
        if not keep_alive:
            self._finish(linger=spill)
            return
        config = self._service.config
        if spill:
            body.take()
            self._spill = body
            self._due_in(config.body_timeout_s)
        else:
            self._due_in(config.header_timeout_s if self._rest else config.keep_alive_s)

    async def _refuse(self, refusal: Refusal, scope: dict[str, Any] | None = None) -> None:
        """Answer what is no acceptable request, and close: what follows it cannot be trusted."""
        self._service.refused_by_server += 1
        await self._write_whole(error_reply(refusal) if scope is None else self._service.wording(scope, refusal))
        self._finish(linger=True)

    async def _write_whole(self, reply: Reply) -> None:
        unsent = self._write_now(reply)
        if unsent:
            await self._write_rest(unsent)

    def _write_now(
        self, reply: Reply, *, head_only: bool = False, http10: bool = False, keep_alive: bool = False
    ) -> bytes:
        """Write what the client's window takes, which nearly always is all; what is left."""
        line = self._service.date_line()
        try:
            data = whole(reply, line, head_only=head_only, http10=http10, keep_alive=keep_alive)
        except ResponseError:
            _log.exception("the gate's reply is no HTTP response")
            data = whole(failed(), line, head_only=head_only, http10=http10, keep_alive=keep_alive)
        try:
            return data[self.pipe.write_now(data) :]
        except ClientGone:
            self._finish(linger=False)
            return b""

    async def _write_rest(self, data: bytes) -> None:
        """Wait for the client to read. *Cancellation*: none but ``client_stall_s`` and :meth:`Pipe.abort`.

        The reader's scope may have fired already, for a deadline that was put off since.
        """
        self._answering = True
        stall_s = self._service.config.client_stall_s
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + stall_s) as scope:
                await self.pipe.write(data)
            if not scope.cancelled_caught:
                return
            self._service.client_stalled += 1
        except ClientGone as gone:
            self._service.client_stalled += gone.stalled
        finally:
            self._answering = False
        self.pipe.abort()
        self._finish(linger=False)

    async def _expired(self) -> None:
        config = self._service.config
        if self._turn is not None:
            message = f"The request body did not arrive within {config.body_timeout_s:g} s (server.body_timeout_s)."
            self._turn.refuse(Refusal(408, "body_timeout", message))
        elif self._spill is None and self._rest:
            message = f"The headers did not arrive within {config.header_timeout_s:g} s (server.header_timeout_s)."
            await self._refuse(Refusal(408, "header_timeout", message))
        self._closing = True

    def _due_in(self, seconds: float) -> None:
        self._deadline = deadline = trio.current_time() + seconds
        if deadline < self._clock.deadline:
            self._clock.deadline = deadline

    def _finish(self, *, linger: bool) -> None:
        """Get the reader out; the connection ends once the turn's task has ended, too."""
        self._closing = True
        self.linger = linger
        self._clock.cancel()

    def _hand_over(self, data: bytes) -> None:
        self.handover = data
        self._rest = b""
        self._finish(linger=False)
