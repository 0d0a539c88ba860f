"""Pools of limits in Redis (6.2 or newer) or Valkey: one round of claims is one Lua script, so one round trip.

The script (``limits_redis.lua``) does the arithmetic of :mod:`gateway.policy.lease`; a test compares the two. Its clock
is the server's. Names of keys begin with ``sluice:limit:``.

Limits: a single server or its replica that took over, no cluster (a round touches many keys). What Redis has not saved
when it dies is forgotten: after a restart without persistence every rate begins anew. Budgets do not belong here; a
database keeps them. Units are exact up to 2^53.

Needs coredis (``pip install sluice[redis]``), imported in a thread when the limits are opened: it takes long.

*Cost*, measured on loopback: a round of nine limits 0.6 ms, of a hundred 8 ms, most of it in the server, which does
nothing else meanwhile.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from gateway.core.limits import Claim, Grant, Granted
from gateway.store.database import StoreError

if TYPE_CHECKING:
    from coredis.commands import Script

PREFIX = "sluice:limit:"
CONNECT_S = 1.0
ANSWER_S = 1.0


class RedisLimits:
    """A :class:`gateway.quota.backend.LimitBackend` in Redis. All methods raise ``StoreError``."""

    def __init__(self, script: Script[bytes], error: type[Exception], where: str) -> None:
        self._script = script
        self._error = error
        self._where = where

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[RedisLimits]:
        """Have it for the length of the block. A server that is away shows in the methods.

        Args:
            url: ``redis://user:password@host:port/database``, or ``rediss://`` with TLS.

        Raises:
            StoreError: coredis is not installed.
        """
        try:
            coredis: Any = await trio.to_thread.run_sync(importlib.import_module, "coredis")
        except ImportError as error:
            raise StoreError(
                "the limits cannot be opened",
                f"limits.url: Redis needs coredis; pip install 'sluice[redis]' ({error})",
            ) from error
        client = coredis.Redis.from_url(url, connect_timeout=CONNECT_S, stream_timeout=ANSWER_S, max_connections=2)
        text = resources.files("gateway.store").joinpath("limits_redis.lua").read_text(encoding="utf-8")
        async with client:
            yield cls(client.register_script(text), coredis.exceptions.RedisError, where(url))

    async def settle(self, holder: str, lease_s: float, claims: Sequence[Claim], *, new: bool) -> Granted | None:
        answer = await self._run("settle", holder, repr(lease_s), str(int(new)), *_flat(claims))
        if not answer:
            return None
        holders, *grants = answer
        return Granted(
            holders=int(holders),
            grants=tuple(_grant(claim.name, *numbers) for claim, numbers in zip(claims, grants, strict=True)),
        )

    async def leave(self, holder: str, claims: Sequence[Claim]) -> None:
        await self._run("leave", holder, *_flat(claims))

    async def reconcile(self, name: str, spent: int) -> int:
        return int(await self._run("reconcile", name, str(spent)))

    async def _run(self, *arguments: str) -> Any:
        try:
            return await self._script(keys=[PREFIX], args=list(arguments))
        except (self._error, OSError, TimeoutError) as error:
            text = " ".join(str(error).split())
            raise StoreError(
                "the limits cannot be reached", f"{self._where}: {type(error).__name__}: {text}"
            ) from error


def where(url: str) -> str:
    """The URL without what may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _flat(claims: Sequence[Claim]) -> list[str]:
    return [
        part
        for one in claims
        for part in (one.name, *map(repr, (one.amount, one.window_s, one.used, one.returned, one.target, one.need)))
    ]


def _grant(name: str, granted: bytes, remaining: bytes, held: bytes, *back: bytes) -> Grant:
    points = tuple((float(back[at]), int(back[at + 1])) for at in range(0, len(back), 2))
    return Grant(name=name, granted=int(granted), remaining=int(remaining), held=int(held), back=points)
