"""The server in one process: Hypercorn's lifespan and TLS round our own accept loop, and the drain.

The drain, once ``shutdown`` is set:

1. ``on_drain()`` is called: readiness goes down and the gate refuses new work.
2. The listeners **stay open** while requests are in flight, so that a balancer sees 503 and not a refused connection;
   every response now says ``connection: close``.
3. When no request is in flight, connections are closed in order; one accepted in the last moment still gets its first
   request answered. The last ``drain_grace_s`` of ``drain_timeout_s`` are for ending: the app ends its streams by
   itself in the first half, then every request is cancelled and every connection reset.
4. The lifespan is shut down. :func:`serve` returns.

Nothing here waits for a client: writes have a deadline and end with the cancellation.

Limits: ``server.max_connections`` by not accepting (they wait in the backlog); what a connection may do is in
``http1_talk``. Hypercorn's limits are all set in :func:`hypercorn_config`, also where its defaults would do.
"""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from socket import socket
from ssl import SSLContext
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext

from gateway.config import Server
from gateway.edge.gate import Gate
from gateway.edge.http1 import Connection
from gateway.edge.service import App, Service
from gateway.edge.sockets import BindError, allow_files, bind, url_of
from gateway.edge.workers import AT_ONCE, run_workers
from gateway.flow.groups import unwrapped

__all__ = ["BindError", "hypercorn_config", "run_workers", "serve", "until_signal"]

_FRESH_S: Final = 0.5  # for the first request of a connection accepted in the last moment
_CLOSING_S: Final = 3.0  # for the orderly end of idle connections, lingering ones included
_LIFESPAN_S: Final = 10.0
_HANDSHAKE_S: Final = 10.0
_FULL: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_FULL_PAUSE_S: Final = 0.1
_ACCEPTED_PER_PASS: Final = 32  # about 2 ms of the loop's time

_log = logging.getLogger(__name__)


def hypercorn_config(config: Server) -> HypercornConfig:
    """Hypercorn's settings for what it serves here: lifespan, TLS, HTTP/2, WebSocket."""
    theirs = HypercornConfig()
    theirs.certfile = config.tls_cert
    theirs.keyfile = config.tls_key
    theirs.alpn_protocols = ["h2", "http/1.1"]
    theirs.accesslog = None
    theirs.errorlog = logging.getLogger("gateway.edge.hypercorn")
    theirs.backlog = config.backlog
    theirs.graceful_timeout = config.drain_timeout_s
    theirs.read_timeout = None  # it would cut healthy streams
    theirs.keep_alive_timeout = config.keep_alive_s
    theirs.keep_alive_max_requests = 1_000_000_000
    theirs.max_requests = None
    theirs.include_server_header = False
    theirs.include_date_header = True
    theirs.h11_max_incomplete_size = config.max_header_bytes
    theirs.h2_max_concurrent_streams = 100
    theirs.h2_max_header_list_size = config.max_header_bytes
    theirs.h2_max_inbound_frame_size = 16_384
    theirs.max_app_queue_size = 8
    theirs.websocket_max_message_size = config.max_body_bytes
    theirs.websocket_ping_interval = None
    theirs.ssl_handshake_timeout = _HANDSHAKE_S
    theirs.startup_timeout = _LIFESPAN_S
    theirs.shutdown_timeout = _LIFESPAN_S
    return theirs


def _nothing() -> None:
    pass


async def serve(
    app: App,
    config: Server,
    *,
    gate: Gate | None = None,
    sockets: Sequence[socket] | None = None,
    shutdown: trio.Event | None = None,
    on_drain: Callable[[], None] = _nothing,
    observe: Callable[[Service], None] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``shutdown`` is set and the drain is over.

    Args:
        app: ASGI 3 application, run under Trio.
        config: ``[server]``.
        gate: Asked at the end of each request's headers.
        sockets: Already bound and listening; None binds ``config.bind``. Closed at the end in both cases.
        shutdown: Set it to drain. None: only cancellation ends the server.
        on_drain: Called once, synchronously, when the drain begins.
        observe: Called once with the service before the first connection, for its ``statistics()``.
        task_status: Started with the URLs listened on, after the app's own start-up.

    Raises:
        BindError: ``server.bind`` cannot be had, or the TLS files cannot be used.

    *Cancellation*: ends at once; requests are cancelled, connections reset, the lifespan cancelled without a shutdown.
    """
    _check_files(config)
    theirs = hypercorn_config(config)
    listening = list(sockets) if sockets is not None else bind(config)
    ends = shutdown if shutdown is not None else trio.Event()
    try:
        state: dict[str, Any] = {}
        lifespan = Lifespan(ASGIWrapper(app), theirs, state)
        context = WorkerContext(None)
        service = Service(app, config, gate=gate, hypercorn=theirs, context=context, state=state)
        if observe is not None:
            observe(service)
        ssl_context = _tls(theirs)
        with unwrapped():
            async with trio.open_nursery() as nursery:
                over = trio.Event()
                await nursery.start(_live, lifespan, over)
                await lifespan.wait_for_startup()
                if lifespan.shutdown.is_set():
                    await over.wait()  # a start-up that failed is raised here; an app without a lifespan is fine
                task_status.started([url_of(sock, tls=ssl_context is not None) for sock in listening])
                await _accept_until_drained(service, listening, ssl_context, ends, on_drain)
                await lifespan.wait_for_shutdown()
                nursery.cancel_scope.cancel()
    finally:
        for sock in listening:
            sock.close()


def _tls(theirs: HypercornConfig) -> SSLContext | None:
    try:
        return theirs.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        raise BindError(f"server.tls_cert, server.tls_key: cannot be used ({error})") from error


def _check_files(config: Server) -> None:
    files = allow_files(config)
    if files < config.max_connections:
        _log.warning(
            "this process may open %d files: server.max_connections = %d cannot be reached (raise ulimit -n)",
            files,
            config.max_connections,
        )


async def _live(lifespan: Lifespan, over: trio.Event, task_status: trio.TaskStatus[None]) -> None:
    await lifespan.handle_lifespan(task_status=task_status)
    over.set()


async def _accept_until_drained(
    service: Service,
    sockets: Sequence[socket],
    ssl_context: SSLContext | None,
    shutdown: trio.Event,
    on_drain: Callable[[], None],
) -> None:
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(service.bury)
                for sock in sockets:
                    accepting.start_soon(_accept, service, sock, ssl_context, connections)
                await shutdown.wait()
                service.draining = True
                on_drain()
                with trio.move_on_after(service.config.drain_timeout_s - service.config.drain_grace_s / 2) as drain:
                    await service.quiet()
                accepting.cancel_scope.cancel()
            if not drain.cancelled_caught:
                await _close_idle(service)
        finally:
            connections.cancel_scope.cancel()
            for connection in list(service.connections):
                connection.abort()  # Hypercorn shields its writes from a cancellation, not from this


async def _close_idle(service: Service) -> None:
    await service.context.terminated.set()  # Hypercorn's
    for patient, wait_s in ((True, _FRESH_S), (False, _CLOSING_S)):
        for connection in list(service.connections):
            connection.shut(patient=patient)
        with trio.move_on_after(wait_s):
            await service.empty()


async def _accept(service: Service, sock: socket, ssl_context: SSLContext | None, connections: trio.Nursery) -> None:
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    # Workers share the socket and the admission limits: who took many would refuse what others have room for.
    most = _ACCEPTED_PER_PASS if service.config.workers == 1 else 1
    while True:
        await service.room()
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _log.error("cannot accept a connection: %s; trying again in %g s", error.strerror, _FULL_PAUSE_S)
            await trio.sleep(_FULL_PAUSE_S)
            continue
        _take_up(service, stream, ssl_context, connections)
        free = service.config.max_connections - len(service.connections)
        for more in _waiting(sock, min(free, most - 1)):
            _take_up(service, more, ssl_context, connections)


def _waiting(sock: socket, most: int) -> Iterator[trio.SocketStream]:
    """Connections that can be accepted at once. Trio's listener takes one in each pass of the loop."""
    for _ in range(most):
        try:
            connection, _address = sock.accept()
        except OSError:  # none is there; what else is wrong, the next wait will tell
            return
        yield trio.SocketStream(trio.socket.from_stdlib_socket(connection))


def _take_up(
    service: Service, stream: trio.SocketStream, ssl_context: SSLContext | None, connections: trio.Nursery
) -> None:
    if ssl_context is None:
        connection = Connection(service, stream)
    else:
        tls = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True)
        connection = Connection(service, tls)
    service.opened(connection)  # counted before room() is asked again; run() takes it off
    connections.start_soon(connection.run)


async def until_signal(
    shutdown: trio.Event, force: trio.CancelScope, on_hangup: Callable[[], object] = _nothing
) -> None:
    """Set ``shutdown`` on the first SIGTERM or SIGINT and cancel ``force`` on the second; runs until cancelled.

    SIGHUP calls ``on_hangup``, each time. It ends nothing, so it is taken where it was ignored, too (under ``nohup``),
    and from now on in a worker, which was started with it blocked. SIGINT is left alone where it is ignored: in
    workers, to whom a terminal sends it although their supervisor tells them. A worker's second signal is
    :data:`~gateway.edge.workers.AT_ONCE`; one whose supervisor dies drains.
    """
    signals = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signals.append(signal.SIGINT)
    parent = parent_process()
    if parent is not None:
        signals.append(AT_ONCE)
    with trio.open_signal_receiver(*signals) as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        async with trio.open_nursery() as nursery:
            if parent is not None:
                nursery.start_soon(_orphaned, parent.sentinel, shutdown)
            async for number in received:
                if number == signal.SIGHUP:
                    on_hangup()
                    continue
                if shutdown.is_set() or number == AT_ONCE:
                    force.cancel()
                shutdown.set()


async def _orphaned(sentinel: int, shutdown: trio.Event) -> None:
    await trio.lowlevel.wait_readable(sentinel)
    shutdown.set()
