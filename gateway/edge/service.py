"""What all connections of one process share: the app, the gate, the limits, the counters, and whether it drains.

The counters are plain integers moved by the connections, the waiting is thin: :meth:`Service.quiet` for the end of the
last request, :meth:`Service.room` for a free place under ``server.max_connections``.

What is handed to Hypercorn (HTTP/2, WebSocket) calls the app through :meth:`Service.guarded`, so that the gate is
asked and the drain counts it there too.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from attrs import frozen
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from gateway.config import Server
from gateway.edge.gate import BodyRules, Gate, KnowingGate, Reply
from gateway.edge.http1_head import Refusal
from gateway.edge.http1_reply import date_line, error_reply, failed

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

UNWOUND_PER_PASS = 16

_log = logging.getLogger(__name__)


@frozen(kw_only=True, slots=True)
class ServerStatistics:
    """A moment of the server.

    Attributes:
        connections_open: Accepted and not closed.
        connections_idle: Of these, without a request being worked on.
        requests_active: Calls of the app that run.
        requests: Calls of the app ever begun.
        refused_by_gate: Answered by the gate; the app never heard of them.
        refused_by_server: Answered 4xx or 5xx by the server itself: malformed, too large, too slow.
        client_left: Requests cancelled because their client had gone.
        client_stalled: Connections reset because their client had stopped reading for ``server.client_stall_s``.
        app_failed: Requests whose app raised, or ended without a complete response.
        delegated: Connections handed to Hypercorn's HTTP/2 and WebSocket.
        draining: No new work is taken.
    """

    connections_open: int
    connections_idle: int
    requests_active: int
    requests: int
    refused_by_gate: int
    refused_by_server: int
    client_left: int
    client_stalled: int
    app_failed: int
    delegated: int
    draining: bool


class Connected(Protocol):
    """A connection, as far as the service needs it."""

    def abort(self) -> None:
        """Reset it at once."""
        ...

    def shut(self, *, patient: bool) -> None:
        """Close it in an orderly way if it is idle; ``patient``: and not just opened, either."""
        ...


class Service:
    """See the module. Lives as long as :func:`gateway.edge.serve.serve`."""

    def __init__(
        self,
        app: App,
        config: Server,
        *,
        gate: Gate | None,
        hypercorn: HypercornConfig,
        context: WorkerContext,
        state: dict[str, Any],
    ) -> None:
        self.app = app
        self.config = config
        self.gate = gate
        self._knowing = gate if isinstance(gate, KnowingGate) else None
        self.hypercorn = hypercorn
        self.context = context
        self.state = state
        self.draining = False
        self.connections: set[Connected] = set()
        self.requests_active = 0
        self.requests = 0
        self.refused_by_gate = 0
        self.refused_by_server = 0
        self.client_left = 0
        self.client_stalled = 0
        self.app_failed = 0
        self.delegated = 0
        self._date_s = 0
        self._date_line = b""
        self._left: deque[trio.CancelScope] = deque()
        self._someone_left = trio.Event()
        self._quiet = trio.Event()
        self._room = trio.Event()

    def statistics(self) -> ServerStatistics:
        """A frozen copy of the counters."""
        return ServerStatistics(
            connections_open=len(self.connections),
            connections_idle=max(0, len(self.connections) - self.requests_active),
            requests_active=self.requests_active,
            requests=self.requests,
            refused_by_gate=self.refused_by_gate,
            refused_by_server=self.refused_by_server,
            client_left=self.client_left,
            client_stalled=self.client_stalled,
            app_failed=self.app_failed,
            delegated=self.delegated,
            draining=self.draining,
        )

    def date_line(self) -> bytes:
        """The ``date`` header line, made anew each second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date_line = date_line(now_s)
        return self._date_line

    def knock(self, scope: Scope) -> Reply | None:
        """Ask the gate, if there is one. A gate that raises is a fault of ours: 500, logged."""
        if self.gate is None:
            return None
        try:
            reply = self.gate.knock(scope)
        except Exception:
            _log.exception("the gate failed")
            self.app_failed += 1
            return failed()
        if reply is not None:
            self.refused_by_gate += 1
        return reply

    def body_rules(self, scope: Scope) -> BodyRules | None:
        """What the gate says of a request's body."""
        return None if self._knowing is None else self._knowing.body_rules(scope)

    def wording(self, scope: Scope, refusal: Refusal) -> Reply:
        """A refusal of the server's own, in the words of the endpoint it happened at."""
        reply = None if self._knowing is None else self._knowing.wording(scope, refusal)
        return reply or error_reply(refusal)

    def begin(self) -> None:
        """A call of the app begins."""
        self.requests_active += 1
        self.requests += 1

    def end(self) -> None:
        """A call of the app has ended, in whatever manner."""
        self.requests_active -= 1
        if not self.requests_active:
            self._quiet.set()

    def cancel_soon(self, scope: trio.CancelScope) -> None:
        """Cancel an app whose client has left, in its turn; see :meth:`bury`."""
        self._left.append(scope)
        self._someone_left.set()

    async def bury(self) -> None:
        """Cancel the apps whose clients have left, a few in each pass of the loop, until cancelled itself.

        To unwind an app costs ten times what it costs to notice that its client has left. A thousand clients that leave
        together would otherwise hold up everybody else, and the notice of the last of them, for as long as it takes to
        unwind the first.
        """
        while True:
            await self._someone_left.wait()
            self._someone_left = trio.Event()
            while self._left:
                for _ in range(min(UNWOUND_PER_PASS, len(self._left))):
                    self._left.popleft().cancel()
                await trio.lowlevel.checkpoint()

    async def quiet(self) -> None:
        """Wait until no call of the app runs. *Cancellation*: changes nothing."""
        while self.requests_active:
            if self._quiet.is_set():
                self._quiet = trio.Event()
            await self._quiet.wait()

    def opened(self, connection: Connected) -> None:
        """A connection was accepted."""
        self.connections.add(connection)

    def closed(self, connection: Connected) -> None:
        """A connection has ended."""
        self.connections.discard(connection)
        self._room.set()

    async def empty(self) -> None:
        """Wait until no connection is open. *Cancellation*: changes nothing."""
        while self.connections:
            await self._next_end()

    async def room(self) -> None:
        """Wait until ``server.max_connections`` allows one more. *Cancellation*: changes nothing."""
        while len(self.connections) >= self.config.max_connections:
            await self._next_end()

    async def _next_end(self) -> None:
        if self._room.is_set():
            self._room = trio.Event()
        await self._room.wait()

    async def guarded(self, scope: Scope, receive: Receive, send: Send, *_: Any) -> None:
        """The app as Hypercorn calls it, behind the gate and counted."""
        reply = self.knock(scope) if scope["type"] == "http" else None
        if reply is not None:
            headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body, "more_body": False})
            return
        self.begin()
        try:
            await self.app(scope, receive, send)
        finally:
            self.end()
