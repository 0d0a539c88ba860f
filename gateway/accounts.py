"""One request's money and tokens: reserved before a provider is asked, settled when all is known, written down once.

::

    door       enter      requests and concurrency of key, team, organisation              quota/
    exchange   reserve    tokens and money, estimated; the model's limits                  quota/, ledger/prices.py
               exhausted  a stream that has used up what was set aside for it              quota/
    close      close      one entry in the ledger; settled with what it really cost        ledger/, quota/

Everything but ``reserve`` is synchronous, and that waits only where this process has no slice of a limit in hand yet.
A request whose key has no limits, for a model without any, has no ticket and pays for nothing here but the ledger.

Estimates: a prompt has about as many tokens as :mod:`gateway.core.estimate` says; an answer as many as the client lets
it have, or, where the client does not say, as the target's answers have as a rule (:data:`USUAL_TOKENS` if none is
known yet). Where nothing can be estimated (an unknown price, what is passed through), the least there is of money is
set aside, so that a budget that is spent refuses all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import trio

from gateway.config import Config
from gateway.core.errors import Rejected
from gateway.core.estimate import tokens_of
from gateway.core.facts import Record
from gateway.core.limits import LimitRule
from gateway.core.principal import Principal
from gateway.identity.belonging import rules
from gateway.ledger.entry import Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.losses import ARRIVAL_S, EVERY_S, recover
from gateway.ledger.prices import Prices
from gateway.ledger.spill import name_of
from gateway.ledger.unread import MAX_TOKENS
from gateway.quota.backend import LaterLimits
from gateway.quota.quota import Quota
from gateway.quota.ticket import Ticket
from gateway.store.database import StoreError
from gateway.store.limits_redis import RedisLimits
from gateway.store.limits_sql import SqlLimits
from gateway.store.sql import SqlStore
from gateway.store.sqlite import Store
from gateway.upstream.targets import Route

USUAL_TOKENS = 1_000  # of an answer, before any was seen
ANSWERLESS = frozenset({"/v1/embeddings", "/v1/messages/count_tokens"})  # endpoints whose answers have no tokens
Headers = list[tuple[bytes, bytes]]


class Account:
    """What one request has reserved. Made at the door, closed exactly once.

    Attributes:
        stops: Whether its stream may be ended when the reservation is used up and there is no more.
    """

    __slots__ = (
        "_accounts",
        "_micro_usd_per_token",
        "_prompt_micro_usd",
        "_prompt_tokens",
        "_ticket",
        "stops",
    )

    def __init__(self, accounts: Accounts, ticket: Ticket | None) -> None:
        self._accounts = accounts
        self._ticket = ticket
        self._prompt_tokens = 0
        self._prompt_micro_usd = 0
        self._micro_usd_per_token = 0.0
        self.stops = False

    async def reserve(self, route: Route, record: Record, asked: bytes) -> None:
        """Set aside what the request may use, before anything is sent to a provider.

        Args:
            asked: The client's document; its tokens are only looked for where there are limits.

        Raises:
            Rejected: ``rate_limited``, ``budget_exhausted`` or ``limits_away``; names the limit and its owner.

        Cancellation: nothing is set aside.
        """
        of_model = self._accounts.rules_of(route.model.name)
        if self._ticket is None:
            if not of_model:
                return
            entered = self._accounts.quota.enter((), trio.current_time())
            if isinstance(entered, Rejected):
                raise entered
            self._ticket = entered
        answer_tokens = 0
        if record.endpoint not in ANSWERLESS:
            answer_tokens = min(record.max_tokens or self._accounts.usual_tokens(route), MAX_TOKENS)
        self._prompt_tokens = tokens_of(asked)
        micro_usd = self._estimate(route, answer_tokens)
        tokens = self._prompt_tokens + answer_tokens
        refused = self._ticket.reserve(of_model, tokens, micro_usd, trio.current_time())
        if refused is not None and refused.may_wait:
            refused = await self._ticket.reserve_soon(of_model, tokens, micro_usd, refused=refused)
        if refused is not None:
            raise refused
        self.stops = self._accounts.stop_streams or self._ticket.stops

    async def pass_through(self) -> None:
        """The same for what is passed through, whose tokens and cost nobody knows beforehand.

        Raises:
            Rejected: As :meth:`reserve`.
        """
        if self._ticket is not None:
            refused = await self._ticket.reserve_soon((), 1, 1)
            if refused is not None:
                raise refused

    def _estimate(self, route: Route, answer_tokens: int) -> int:
        """The dearest of the targets, for any of them may answer; one whose price is unknown has no say."""
        dearest = self._accounts.prices.dearest_micro_usd(route.names, self._prompt_tokens, answer_tokens)
        if dearest is None:
            self._prompt_micro_usd = 1
            return 1
        self._prompt_micro_usd, whole = dearest
        if answer_tokens:
            self._micro_usd_per_token = (whole - self._prompt_micro_usd) / answer_tokens
        return whole

    def exhausted(self, tokens: int) -> bool:
        """Whether a stream of so many tokens has used up what there was for it. Cost: 0.5 µs."""
        if self._ticket is None:
            return False
        spent = self._prompt_micro_usd + round(self._micro_usd_per_token * tokens)
        return self._ticket.exhausted(self._prompt_tokens + tokens, spent)

    def price(self, record: Record) -> None:
        """Note in the record what all attempts cost; it stays None where a price is unknown. Sync."""
        total = 0
        for fact in record.attempts:
            cost = self._accounts.prices.cost_of(fact)
            if cost is None:
                return
            total += cost
        record.cost_micro_usd = total

    def headers(self, record: Record) -> Headers:
        """For the answer's head: what is left of the limits, soft ones that are exceeded, a whole answer's cost."""
        headers = [] if self._ticket is None else self._ticket.headers(record.ended_at or trio.current_time())
        cost_usd = record.cost_usd
        return [*headers, (b"x-sluice-cost-usd", cost_usd.encode())] if cost_usd else headers

    def header_lines(self, record: Record) -> bytes:
        """The same of a whole answer, written out."""
        lines = b"" if self._ticket is None else self._ticket.header_lines(record.ended_at)
        cost_usd = record.cost_usd
        return b"%bx-sluice-cost-usd: %b\r\n" % (lines, cost_usd.encode()) if cost_usd else lines

    def give_up(self) -> None:
        """There is no room for the request after all. Sync."""
        if self._ticket is not None:
            self._ticket.abandon(counted=False)

    def close(self, record: Record) -> None:
        """Write a closed record down, and settle with what it says. Sync; called exactly once."""
        spent = 0
        try:
            entry = self._accounts.ledger.write(record)
            self._accounts.spent(entry)
            spent = entry.spent_micro_usd
        finally:  # whatever a record holds, its ticket comes back
            self._settle(record, spent)

    def _settle(self, record: Record, spent_micro_usd: int) -> None:
        if self._ticket is None:
            return
        if record.attempts:
            tokens = 0
            for fact in record.attempts:
                if fact.usage is not None:
                    tokens += fact.usage.total_tokens
            self._ticket.settle(tokens, spent_micro_usd, record.ended_at)  # of a drained stream, when its client left
        else:
            self._ticket.abandon()


class Accounts:
    """All requests' accounts; owns limits, prices and the ledger.

    Args:
        config: ``[limits]`` and ``[ledger]`` hold as long as the process; models' limits and prices may be replaced.
        say: The log: level, event, fields.
        spent: Told what each request cost; sync.
    """

    def __init__(self, config: Config, say: Callable[..., None], spent: Callable[[Entry], None]) -> None:
        self._say = say
        self.spent = spent
        self.stop_streams = config.limits.stop_streams
        self._url = config.limits.url
        self._rates, self._budgets = LaterLimits(), LaterLimits()
        self._sql: SqlStore | None = None
        self._sql_limits: SqlLimits | None = None
        self.quota = Quota(
            self._rates,
            budgets=None if self._url is None else self._budgets,
            lease_s=config.limits.lease_s,
            on_failure=config.limits.on_failure,
            stop_streams=config.limits.stop_streams,
            say=say,
        )
        self.prices = Prices(config, self._price_unknown)
        self.ledger = Ledger(config.ledger, self.prices, self._opened, say, database=name_of(config.store.url))
        self._of_models: Mapping[str, tuple[LimitRule, ...]] = {}
        self.configure(config)

    # ── the request path ─────────────────────────────────────────────────────────────────────────────────────────

    def enter(self, principal: Principal, now: float) -> Account | Rejected:
        """Count a request at the door; the refusal is returned, for it comes often where it comes at all."""
        if not principal.limits:
            return Account(self, None)
        entered = self.quota.enter(principal.limits, now)
        return entered if isinstance(entered, Rejected) else Account(self, entered)

    def rules_of(self, model: str) -> tuple[LimitRule, ...]:
        """The limits of a configured model."""
        return self._of_models.get(model, ())

    def usual_tokens(self, route: Route) -> int:
        """How long an answer of the first target is as a rule."""
        return self.ledger.usual_tokens(route.names[0]) or USUAL_TOKENS

    # ── the lifetime ─────────────────────────────────────────────────────────────────────────────────────────────

    def configure(self, config: Config) -> None:
        """Work with another configuration's prices and models' limits from now on. Sync."""
        self.prices = self.ledger.prices = Prices(config, self._price_unknown)
        found = {model.name: rules("model", model.name, model) for model in config.model}
        self._of_models = {name: limits for name, limits in found.items() if limits}
        longest_s = (config.timeouts.total_s, *(model.timeouts.total_s or 0.0 for model in config.model))
        self._rest_s = max(longest_s) + ARRIVAL_S
        self.quota.know(rule for limits in self._of_models.values() for rule in limits)

    @asynccontextmanager
    async def keeping(self, store: Store) -> AsyncIterator[None]:
        """Keep limits and ledger in this store for the length of the block; rates in Redis, if ``[limits] url`` says.

        Raises:
            StoreError: What Redis needs is not installed.
        """
        self._sql = store.sql
        self._budgets.keeper = self._sql_limits = SqlLimits(store.sql)
        async with AsyncExitStack() as stack:
            self._rates.keeper = self._budgets.keeper
            if self._url is not None:
                self._rates.keeper = await stack.enter_async_context(RedisLimits.open(self._url))
            try:
                yield
            finally:
                self.ledger.close()

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        """What has to run: slices are refilled, entries are written, what crashes lost of budgets is set right."""
        return [self._keep_limits, self._keep_ledger, self._recover_losses]

    async def _keep_limits(self) -> None:
        await self.quota.run()

    async def _keep_ledger(self) -> None:
        await self.ledger.run()

    async def _recover_losses(self) -> None:
        while True:
            await trio.sleep(EVERY_S)
            if self._sql_limits is not None:
                with suppress(StoreError):  # the ledger's writer says that the store is away
                    for name, micro_usd in (await recover(self._sql_limits, self._opened(), self._rest_s)).items():
                        self._say("warning", "budget_set_right_after_a_crash", budget=name, back_micro_usd=micro_usd)

    async def finish(self, timeout_s: float) -> None:
        """Write what waits; what the store does not take in time goes to the disk."""
        await self.ledger.finish(timeout_s)

    def _opened(self) -> SqlStore:
        if self._sql is None:
            raise StoreError("the store is not open yet")
        return self._sql

    def _price_unknown(self, target: str) -> None:
        fix = f'[prices."{target}"] input_usd_per_mtok = …, output_usd_per_mtok = …'
        self._say("warning", "price_unknown", target=target, counts_as="unknown", fix=fix)

    # ── for people ───────────────────────────────────────────────────────────────────────────────────────────────

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """For the metrics."""
        return {**self.quota.gauges(), **self.ledger.gauges()}
