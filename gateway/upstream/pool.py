"""The connections to one origin: taken and given back in O(1), bounded, with a FIFO line for who finds none.

The last returned connection is taken first, so that few stay warm and the rest expire. A connection is checked when it
is taken (one system call); expired ones are dropped from the cold end whenever one is given back, so no task is needed.
Without traffic, idle connections stay until :meth:`OriginPool.prune` is called.

``_slots`` counts what is in use or being opened and never exceeds the limit; idle connections and waiters exclude each
other. A freed slot, or the connection in it, goes to the first waiter directly, so nobody barges in. The line has no
length of its own: who waits is bounded by admission.

Every connection that was opened ends as exactly one of dead, expired, aborted or closed.
"""

from __future__ import annotations

import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Literal

import trio
from attrs import define, field, frozen

from gateway.upstream.errors import TransportError
from gateway.upstream.http1 import Connection, Limits, OnPhase
from gateway.upstream.wire import Dialler, Wire


@frozen(cache_hash=True)
class Origin:
    """Where a provider listens. Compare and keep: its hash is computed once.

    Attributes:
        scheme: ``http`` or ``https``.
        host: A name (ASCII, IDNA-encoded), an IPv4 address, or an IPv6 address without brackets.
        port: TCP port.
    """

    scheme: str = field()
    host: str
    port: int

    @scheme.validator
    def _check_scheme(self, _: object, value: str) -> None:
        if value not in ("http", "https"):
            raise ValueError(f"scheme {value!r}: only http and https can be spoken")

    @property
    def authority(self) -> str:
        """``host:port`` as in the ``host`` header: brackets round IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


@frozen(kw_only=True, slots=True)
class OriginStatistics:
    """One origin, now and since the start.

    Attributes:
        open: Connections that are idle or in use.
        idle: Ready for the next request.
        in_use: Carrying a request or an answer.
        connecting: Being opened.
        waiting: Tasks in line for a connection.
        limit: ``in_use + connecting`` stay within it.
        opened: Connections ever opened.
        reused: Requests sent on a connection that had carried one before.
        resent: Requests sent again because a reused connection had died.
        dead: Found dead, or ended by the provider or by an error.
        expired: Idle for too long.
        aborted: Closed by us in the middle of an exchange.
        closed: Not kept after a whole answer, or closed with the pool.
    """

    open: int
    idle: int
    in_use: int
    connecting: int
    waiting: int
    limit: int
    opened: int
    reused: int
    resent: int
    dead: int
    expired: int
    aborted: int
    closed: int


class OriginPool:
    """See the module. The decisions are synchronous; only :meth:`take` waits.

    Attributes:
        host: The ``host`` header's value.
        limit: May be changed at any time; a lower one takes effect as connections come back.
    """

    def __init__(
        self,
        origin: Origin,
        dialler: Dialler,
        *,
        limit: int,
        idle_timeout_s: float,
        response_limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self.host = origin.authority.encode("ascii")
        self.limit = limit
        self._label = f"{origin.scheme}://{origin.authority}"
        self._dialler = dialler
        self._idle_timeout_s = idle_timeout_s
        self._response_limits = response_limits
        self._clock = clock
        self._closed = False
        self._slots = 0
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._waiters: OrderedDict[trio.lowlevel.Task, _Place] = OrderedDict()
        self._counts = {"opened": 0, "reused": 0, "resent": 0, "dead": 0, "expired": 0, "aborted": 0, "closed": 0}

    def take_idle(self) -> Connection | None:
        """The warmest connection that is alive. Cost: O(1) and one system call each for it and the dead before it."""
        while self._idle:
            conn = self._idle.pop()
            if self._fit(conn):
                self._slots += 1
                return self._lend(conn)
        return None

    async def take(self, connect_timeout_s: float, pool_timeout_s: float, on_phase: OnPhase | None) -> Connection:
        """An idle connection, a new one while the limit allows, or the first that comes free.

        Raises:
            TransportError: ``pool``, ``dns``, ``connect`` or ``tls``.

        *Cancellation*: the place in line is given up, or the half-open connection closed; nothing is kept.
        """
        conn = self.take_idle()
        if conn is not None:
            return conn
        if self._closed:
            raise TransportError("pool", f"{self._label}: the transport is closed")
        if self._slots < self.limit:
            self._slots += 1
        else:
            if on_phase is not None:
                on_phase("pool")
            conn = await self._wait(pool_timeout_s)
            if conn is not None and self._fit(conn):
                return await self._unless_cancelled(self._lend(conn))
        return await self.open(connect_timeout_s, on_phase)

    async def _unless_cancelled(self, conn: Connection) -> Connection:
        """Who is cancelled between being served and waking must not send anything."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            self.give_back(conn)
            raise
        return conn

    async def open(self, connect_timeout_s: float, on_phase: OnPhase | None) -> Connection:
        """A new connection in a slot that is held already; the slot is given back when that fails."""
        if on_phase is not None:
            on_phase("connect")
        try:
            wire = await self._dial(connect_timeout_s)
        except BaseException:
            self._free_slot()
            raise
        conn = Connection(wire, self._label, self._response_limits)
        self._counts["opened"] += 1
        self._busy.add(conn)
        if self._closed:
            self.give_up(conn, "closed")
            raise TransportError("pool", f"{self._label}: the transport was closed while connecting")
        return conn

    async def _dial(self, timeout_s: float) -> Wire:
        try:
            with trio.move_on_after(timeout_s):
                return await self._dialler.open()
        except socket.gaierror as exc:
            raise TransportError("dns", f"{self._label}: the name does not resolve: {exc}") from exc
        except ssl.SSLError as exc:
            raise TransportError("tls", f"{self._label}: TLS failed: {exc}") from exc
        except OSError as exc:
            raise TransportError("connect", f"{self._label}: {exc}") from exc
        raise TransportError("connect", f"{self._label}: no connection within {timeout_s} s", timed_out=True)

    async def _wait(self, timeout_s: float) -> Connection | None:
        """Stand in line; a connection, or None for a free slot. The slot is held from then on."""
        task = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
            del self._waiters[task]
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(timeout_s):
            place = self._waiters[task] = _Place()
            await trio.lowlevel.wait_task_rescheduled(give_up)
            if place.turned_away:
                raise TransportError("pool", f"{self._label}: the transport was closed")
            return place.conn
        raise TransportError(
            "pool",
            f"{self._label}: all {self.limit} connections in use for {timeout_s} s; raise the provider's "
            "max_connections or lower admission.workers",
            timed_out=True,
        )

    def give_back(self, conn: Connection) -> None:
        """Take back a connection whose answer is complete; keep it if it can be used again."""
        if not conn.reused:
            self._dialler.remember(conn.wire)
        if not conn.reusable or self._closed or self._slots > self.limit:
            self.give_up(conn, "closed")
            return
        self._busy.discard(conn)
        now = conn.idle_since = self._clock()
        if self._waiters:
            self._grant(conn)
            return
        self._slots -= 1
        self._idle.append(conn)
        if self._idle[0].idle_since + self._idle_timeout_s < now:
            self._drop_expired(now)

    def give_up(self, conn: Connection, why: Literal["dead", "aborted", "closed"], *, keep_slot: bool = False) -> None:
        """Close a connection that was lent, at once. *Cost*: O(1), no checkpoint. Idempotent."""
        conn.close()
        if conn in self._busy:
            self._busy.remove(conn)
            self._counts[why] += 1
            if not keep_slot:
                self._free_slot()

    def count_resend(self) -> None:
        self._counts["resent"] += 1

    def prune(self) -> None:
        """Close what is expired or dead among the idle. For a caller with a timer; O(idle)."""
        self._drop_expired(self._clock())
        for conn in [conn for conn in self._idle if conn.wire.stale()]:
            self._idle.remove(conn)
            self._discard(conn, "dead")

    def close(self) -> None:
        """Close every connection, those in use too, and turn away who waits."""
        self._closed = True
        while self._waiters:
            task, place = self._waiters.popitem(last=False)
            place.turned_away = True
            trio.lowlevel.reschedule(task)
        while self._idle:
            self._discard(self._idle.pop(), "closed")
        for conn in list(self._busy):
            self.give_up(conn, "aborted")

    def statistics(self) -> OriginStatistics:
        return OriginStatistics(
            open=len(self._idle) + len(self._busy),
            idle=len(self._idle),
            in_use=len(self._busy),
            connecting=self._slots - len(self._busy),
            waiting=len(self._waiters),
            limit=self.limit,
            **self._counts,
        )

    def _fit(self, conn: Connection) -> bool:
        """Whether an idle connection can be lent; it is closed otherwise."""
        if conn.idle_since + self._idle_timeout_s < self._clock():
            self._discard(conn, "expired")
            return False
        if conn.wire.stale():
            self._discard(conn, "dead")
            return False
        return True

    def _lend(self, conn: Connection) -> Connection:
        conn.reused = True
        self._counts["reused"] += 1
        self._busy.add(conn)
        return conn

    def _discard(self, conn: Connection, why: Literal["dead", "expired", "closed"]) -> None:
        conn.close()
        self._counts[why] += 1

    def _drop_expired(self, now: float) -> None:
        while self._idle and self._idle[0].idle_since + self._idle_timeout_s < now:
            self._discard(self._idle.popleft(), "expired")

    def _free_slot(self) -> None:
        if self._waiters and self._slots <= self.limit:
            self._grant(None)
        else:
            self._slots -= 1

    def _grant(self, conn: Connection | None) -> None:
        task, place = self._waiters.popitem(last=False)
        place.conn = conn
        trio.lowlevel.reschedule(task)


@define(slots=True)
class _Place:
    """In the line: what its holder finds when woken."""

    conn: Connection | None = None
    turned_away: bool = False
