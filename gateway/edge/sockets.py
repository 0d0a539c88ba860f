"""Listening sockets: bound from ``server.bind``, with every option that accepted connections inherit.

``TCP_USER_TIMEOUT`` makes the kernel drop a client whose window stays closed, or that acknowledges nothing, for
``client_stall_s``: the second line behind the send deadline in ``pipes``. Keep-alive probes find clients that vanished
while nothing is sent to them. ``TCP_NODELAY``: a token does not wait for the next one.

Worker processes share these sockets rather than binding their own with ``SO_REUSEPORT``: connections go to whoever is
free, and none is lost in the queue of a worker that crashed.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import suppress
from typing import Final

from gateway.config import Server

_FILES_PER_CONNECTION: Final = 2  # the client's and the provider's
_SPARE_FILES: Final = 256
_PROBE_AFTER_S: Final = 30
_PROBE_EVERY_S: Final = 10
_PROBES: Final = 3


class BindError(Exception):
    """``[server]`` cannot be listened with; the message names the field, the reason and the fix."""


def bind(config: Server) -> list[socket.socket]:
    """Bind and listen on every address ``server.bind`` stands for (``localhost`` has two).

    Raises:
        BindError: It names the field, the reason and the fix.
    """
    host, port = split_bind(config.bind)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BindError(f"server.bind: {host!r} is no address of this machine ({error.strerror})") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    if port == 0:
        addresses = addresses[:1]  # one free port is asked for, not one per address
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            sockets.append(_listen(family, address, config))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise BindError(f"server.bind: {_why(error, config.bind)}") from error
    return sockets


def split_bind(bind: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[v6]:PORT`` as its two parts. Raises :class:`BindError`."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise BindError(f"server.bind: {bind!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def url_of(sock: socket.socket, *, tls: bool) -> str:
    """Where a listening socket is reached, e.g. ``http://127.0.0.1:8080``."""
    host, port = sock.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def allow_files(config: Server) -> int:
    """Raise the soft limit of open files as far as ``server.max_connections`` needs it and the hard limit lets it.

    Returns:
        The soft limit now; it is the whole process's.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.max_connections * _FILES_PER_CONNECTION + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _listen(family: int, address: tuple[object, ...], config: Server) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune(sock, config)
        sock.bind(address)
        sock.listen(config.backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def tune(sock: socket.socket, config: Server) -> None:
    """Set what accepted connections inherit (Linux: all of these)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (
        ("TCP_NODELAY", 1),
        ("TCP_USER_TIMEOUT", max(1, int(config.client_stall_s * 1000))),
        ("TCP_KEEPIDLE", _PROBE_AFTER_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", _PROBES),
    )
    for name, value in options:
        if hasattr(socket, name):  # macOS has not all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _why(error: OSError, bind: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{bind} is in use by another process; stop it, or choose another port (--bind HOST:PORT)"
    if error.errno == errno.EACCES:
        return f"{bind}: ports below 1024 need a privilege; choose a higher one (--bind HOST:PORT)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{bind} is no address of this machine"
    return f"{bind}: {os.strerror(error.errno or 0)}"
