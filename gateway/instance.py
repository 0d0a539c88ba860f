"""Everything that outlives a request, made once and ended once.

:class:`Gateway` owns admission, keys, routes, the transport's connections, the store, metrics and log.
:meth:`Gateway.running` is its lifetime; background work is in one nursery there and ends with it. The exchange and the
edge are given it; it knows neither. Nothing is made at import. What a reload replaces is in ``gateway/current.py``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import trio
from attrs import evolve

from gateway.accounts import Accounts
from gateway.config import Config, Source
from gateway.context.build import build_loaders
from gateway.context.load import Loader
from gateway.core.facts import Record
from gateway.core.telling import chain_of
from gateway.current import Current, kept, make_current
from gateway.flow.admission import Admission
from gateway.flow.guard import GuardBook
from gateway.flow.pace import Pace
from gateway.flow.supervise import supervised
from gateway.identity.directory import Directory
from gateway.identity.tokens import Tokens
from gateway.memory import Memory
from gateway.observe.log import LogSink
from gateway.observe.metrics import Gauges, Metrics
from gateway.observe.peers import Peers
from gateway.reload import Reloads
from gateway.store.keys import Keys
from gateway.store.sqlite import Store
from gateway.upstream.drain import Drains
from gateway.upstream.health import HealthBook
from gateway.upstream.targets import Routes, Target
from gateway.upstream.transport import Client, Transport, make_client

PRUNE_EVERY_S = 10.0
LAST_TURNS_S = 1.0
LAST_ENTRIES_S = 2.0


class Demo(Protocol):
    """What the playground shows of an embedded provider."""

    users: Sequence[str]
    questions: Sequence[str]

    def provider_statistics(self) -> dict[str, Any]: ...


class Gateway:
    """Everything that outlives a request.

    Args:
        config: With ``[admission]`` as this process's share (see :func:`gateway.current.share_of`).
        source: Where ``config`` was read, to be read again; None if it was made.
        share: Which process this is, and of how many.
        demo: The embedded provider of ``sluice demo``.
        peers: Sibling processes whose metrics are added to ours.
        log_fd: Where the log goes.
    """

    def __init__(
        self,
        config: Config,
        *,
        source: Source | None = None,
        share: tuple[int, int] = (0, 1),
        demo: Demo | None = None,
        peers: Peers | None = None,
        log_fd: int = 2,
    ) -> None:
        self.current: Current = make_current(config)
        self.demo = demo
        self.started_at = int(time.time())
        self.draining = False
        self.guards = GuardBook()
        self.pace = Pace()
        self.admission = Admission(
            permits=config.admission.workers, queue=config.admission.queue, max_wait_s=config.admission.max_wait_s
        )
        self.health = HealthBook(self._key_refused)
        self.drains = Drains(self.health)
        self.transport = Transport()
        self.tokens = Tokens(config, say=self._say)
        self.directory = Directory(config, tokens=self.tokens, say=self._say)
        self.metrics = Metrics([name for name, _, _ in self.routes.names()], self._gauges)
        self.accounts = Accounts(config, say=self._say, spent=self.metrics.spend)
        self.log = LogSink(config.log, fd=log_fd)
        self.server_statistics: Callable[[], Any] | None = None
        self.store: Store | None = None
        self._client: Client | None = None
        self._peers = peers
        self.memory = Memory(self._not_kept)
        self._limit_connections()
        self._reloads: Reloads | None = None
        if source is not None and source.path is not None:
            self._reloads = Reloads(source, config, share=share, apply=self.reload, tell=self._tell_of_reload)

    # ── what a reload replaces ───────────────────────────────────────────────────────────────────────────────────

    @property
    def config(self) -> Config:
        """The configuration now; a request's own is that of the :class:`Current` it began with."""
        return self.current.config

    @property
    def routes(self) -> Routes:
        """The routes now."""
        return self.current.routes

    @property
    def loaders(self) -> Mapping[str, tuple[Loader, ...]]:
        """The assistants' loaders now."""
        return self.current.loaders

    def reload(self, config: Config) -> tuple[str, ...]:
        """Work with another configuration from the next request on; those that run keep the one they began with.

        What was learnt of providers stays where their settings did. Sync: it happened altogether, or, when it raises,
        not at all.

        Args:
            config: As for the class: with ``[admission]`` as this process's share.

        Returns:
            The paths of changed fields that need a restart, e.g. ``server.bind``; they keep their values.

        Raises:
            ValueError: An ``http`` loader cannot work as it is configured.
        """
        config, restart = kept(self.config, config)
        self.current = make_current(config, self._build_loaders(config))
        admission = config.admission
        self.admission.resize(permits=admission.workers, queue=admission.queue, max_wait_s=admission.max_wait_s)
        self.health.keep(self.routes.providers)
        self.directory.configure(config)
        self.accounts.configure(config)
        self.metrics.know(name for name, _, _ in self.routes.names())
        self._limit_connections()
        return restart

    def ask_reload(self) -> None:
        """Have the configuration's file read again, soon. Sync."""
        if self._reloads is None:
            self.log.say("info", "nothing_to_reload", why="the configuration did not come from a file")
        else:
            self._reloads.ask()

    def catch_up(self) -> None:
        """Work with the file as it is now, if it changed since it was read. Blocks; for before :meth:`running`."""
        if self._reloads is not None:
            self._reloads.catch_up()

    def _tell_of_reload(self, outcome: str, level: str, event: str, about: dict[str, Any]) -> None:
        if outcome:
            self.metrics.reloaded(outcome)
        self.log.say(level, event, **about)

    def _say(self, level: str, event: str, /, **about: Any) -> None:
        self.log.say(level, event, **about)

    def _build_loaders(self, config: Config) -> dict[str, tuple[Loader, ...]]:
        if self.store is None:
            return {}
        return {
            assistant.name: build_loaders(assistant, store=self.store, client=self._client, rules=config.context)
            for assistant in config.assistant
        }

    def _limit_connections(self) -> None:
        for provider in self.routes.providers:
            self.transport.set_limit(provider.origin, provider.max_connections)

    # ── the lifetime ─────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """The gateway's lifetime: store open, background work running, until the block is left.

        At its end, turns and responses that wait have ``LAST_TURNS_S`` each to be written.

        Cancellation: background work ends at once; the log's last lines have a second to be written.
        """
        try:
            async with (
                self._open_store() as store,
                make_client(self.transport) as client,
                self.accounts.keeping(store),
            ):
                self.store, self._client = store, client
                self.memory.open(store)
                self.directory.attach(Keys(store.sql))
                await self.directory.refresh()
                self.current = evolve(self.current, loaders=self._build_loaders(self.config))
                async with trio.open_nursery() as nursery:
                    for run in self._background():
                        nursery.start_soon(self._supervise, run)
                    yield self
                    await self.memory.finish(LAST_TURNS_S)
                    await self.accounts.finish(LAST_ENTRIES_S)
                    nursery.cancel_scope.cancel()
        finally:
            self.transport.close()
            await self.log.drain()  # shields itself, for a second at most

    def _open_store(self) -> AbstractAsyncContextManager[Store]:
        return Store.open(self.config.store.url, local_url=self.config.store.local_url)

    def _background(self) -> list[Callable[[], Any]]:
        work: list[Callable[[], Any]] = [self.guards.run, self.log.run, self._prune, self.pace.run, self.drains.run]
        work += self.memory.background()
        work += self.accounts.background()
        work += [self.directory.run, self._keep_issuers]
        if self._reloads is not None:
            work.append(self._reloads.run)
        if self._peers is not None:
            work.append(self._publish)
        return work

    async def _supervise(self, run: Callable[[], Any]) -> None:
        await supervised(run, name=run.__name__, on_failure=self._background_failed)

    def _background_failed(self, name: str, error: Exception) -> None:
        self.log.say("error", "background_task_failed", task=name, error=chain_of(error))

    def _key_refused(self, target: Target, key: int, for_s: float) -> None:
        self.log.say(
            "error",
            "provider_refuses_our_key",
            target=target.name,
            key=key + 1,
            left_alone_s=for_s,
            fix="check provider.api_key",
        )

    async def _prune(self) -> None:
        while True:
            await trio.sleep(PRUNE_EVERY_S)
            self.transport.prune()

    async def _keep_issuers(self) -> None:
        assert self._client is not None
        await self.tokens.run(self._client)

    async def _publish(self) -> None:
        assert self._peers is not None
        await self._peers.publish(self.metrics.snapshot)

    def _not_kept(self, event: str, why: str, lost: int) -> None:
        self.log.say("error", event, error=why, lost=lost)

    def observe(self, record: Record) -> None:
        """Take in a closed record; the only way from a request to metrics and log."""
        self.metrics.observe(record)
        self.log.request(record)

    def begin_drain(self) -> None:
        """From now on: not ready, no new work, and what runs ends a grace before ``drain_timeout_s``. Idempotent."""
        if self.draining:
            return
        self.draining = True
        timeout_s = self.config.server.drain_timeout_s - self.config.server.drain_grace_s
        self.guards.cut_all(
            trio.current_time() + timeout_s, "the gateway is shutting down (server.drain_timeout_s is over)"
        )
        self.log.say("info", "draining", timeout_s=timeout_s, in_flight=self.admission.statistics().in_flight)

    def why_not_ready(self) -> str | None:
        """Why a load balancer should look elsewhere; None when it need not."""
        if self.draining:
            return "draining"
        return "full" if self.admission.is_full else None

    async def peer_snapshots(self) -> list[dict[str, Any]]:
        return await self._peers.snapshots() if self._peers is not None else []

    def _gauges(self) -> Gauges:
        admission = self.admission.statistics()
        gauges: Gauges = {
            "sluice_requests_in_flight": {(): float(admission.in_flight)},
            "sluice_requests_waiting": {(name,): float(n) for name, n in admission.waiting_by_priority.items()},
            "sluice_log_lines_dropped": {(): float(self.log.dropped)},
            **self.memory.gauges(),
            **self.accounts.gauges(),
            **self.directory.gauges(),
            **self.tokens.gauges(),
        }
        if self.server_statistics is not None:
            server = self.server_statistics()
            active = server.requests_active
            gauges["sluice_connections"] = {
                ("active",): float(active),
                ("idle",): float(max(server.connections_open - active, 0)),
            }
        gauges.update(self.health.gauges())
        upstream: dict[tuple[str, ...], float] = {}
        for provider in self.routes.providers:
            pool = self.transport.statistics().get(provider.origin)
            if pool is not None:
                upstream[provider.name, "idle"] = float(pool.idle)
                upstream[provider.name, "in_use"] = float(pool.in_use)
        gauges["sluice_upstream_connections"] = upstream
        return gauges
