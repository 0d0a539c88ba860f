"""One request in the ledger, made of its closed record; and its row in the database.

Cost and loss: ``cost`` is what the answer cost that the client got, or began to get; ``lost`` is what all else cost
that was asked for it: attempts that failed, broke off, or lost a race. Both together are what the provider charges. A
cost is None where a price is unknown; a request that reached no provider costs nothing.

An entry keeps the record, which nothing changes any more, and adds what the record does not say. *Cost* 3 µs; the row
is made, text cleaned and JSON written in the writer's thread, 4 µs.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson

from gateway.core.facts import AttemptFact, LoaderFact, Outcome, Record, Usage
from gateway.core.values import value
from gateway.ledger.prices import UNKNOWN, Prices
from gateway.ledger.unread import ALL_READ, Lengths, Unread, what_nobody_read
from gateway.store.ledger import COLUMNS
from gateway.store.sql import Value

Source = Literal["reported", "estimated", "none"]

MAX_TEXT_CHARS: Final = 500
_DAY_S = 86_400
_LOST = ("failed", "broken")
_NO_USAGE = Usage()
_NONE = "[]"


@value(kw_only=True, slots=True)
class Entry:
    """One row.

    Attributes:
        id: Unique over all processes; the row's identity when it is written again.
        record: The closed record.
        at_s: When the request began, in seconds since the epoch.
        costs: Of each of the record's attempts.
        price_version: Of the prices of the answer; "" if there was none, or no price is known.
        cost_micro_usd, lost_micro_usd: See the module.
        unread: Of a cancelled answer.
    """

    id: str
    record: Record
    at_s: float
    costs: list[int | None]
    price_version: str
    cost_micro_usd: int | None
    lost_micro_usd: int | None
    unread: Unread = ALL_READ

    @property
    def model(self) -> str:
        """What the client asked for."""
        return self.record.model

    @property
    def tokens_delivered(self) -> int:
        """What a client that left had got."""
        return self.unread.delivered

    @property
    def tokens_generated(self) -> int:
        """What had been made for it."""
        return self.unread.generated

    @property
    def tokens_saved(self) -> int:
        """What was not generated because the client left."""
        return self.unread.saved

    @property
    def saved_micro_usd(self) -> int:
        """What those tokens would have cost."""
        return self.unread.saved_micro_usd

    @property
    def source(self) -> Source:
        """Who counted the answer's tokens."""
        usage = self.record.usage
        if usage is None:
            return "none"
        return "estimated" if usage.estimated else "reported"

    @property
    def spent_micro_usd(self) -> int:
        """Cost and loss together, as far as prices are known: what a reservation is settled with."""
        return (self.cost_micro_usd or 0) + (self.lost_micro_usd or 0)

    def row(self) -> list[Value]:
        """The values for :data:`gateway.store.ledger.COLUMNS`, with text that every database takes."""
        record, unread = self.record, self.unread
        usage = record.usage or _NO_USAGE
        outcome = record.outcome or Outcome.FAILED
        request_id, key_name, key_id, team, org, endpoint, model, assistant, target, code, finish = _clean(
            record.request_id,
            record.principal,
            record.key_id,
            record.team,
            record.org,
            record.endpoint,
            record.model,
            record.assistant,
            record.target,
            record.code,
            record.finish_reason,
        )
        return [
            self.id,
            request_id,
            self.at_s,
            int(self.at_s // _DAY_S),
            key_name,
            key_id,
            team,
            org,
            endpoint,
            model,
            assistant,
            target,
            _attempts(record.attempts, self.costs) if record.attempts else _NONE,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            self.source,
            self.price_version,
            self.cost_micro_usd,
            self.lost_micro_usd,
            _ms(record.queue_s),
            _ms(record.context_s),
            _loaders(record.loaders) if record.loaders else _NONE,
            _ms(record.ttft_s),
            _ms(record.total_s),
            record.status,
            outcome._value_,
            record.phase._value_,
            code,
            finish,
            unread.delivered,
            unread.generated,
            unread.saved,
            unread.saved_micro_usd,
        ]


def make_entry(record: Record, *, id: str, now_s: float, prices: Prices, lengths: Lengths) -> Entry:
    """The entry of a closed record. Sync.

    Args:
        now_s: Seconds since the epoch at ``record.ended_at``.
    """
    served = _served(record)
    cost: int | None = 0
    lost: int | None = 0
    costs = []
    has_model = record.target.partition("/")[2]  # none where a path was passed through, or nothing was asked for
    known = prices.of(record.target) if has_model and served is not None else UNKNOWN
    for fact in record.attempts:
        micro_usd = prices.cost_of(fact)
        costs.append(micro_usd)
        if fact is served:
            cost = micro_usd
        elif lost is not None:
            lost = None if micro_usd is None else lost + micro_usd
    if record.path and record.attempts:  # passed through: nobody says what that costs
        cost = None
    unread = ALL_READ
    if served is not None:
        if record.outcome is Outcome.OK and served.usage is not None:
            lengths.learn(record.target, served.usage.completion_tokens)
        elif record.outcome is Outcome.CANCELLED and record.first_token_at:
            unread = what_nobody_read(record, served, lengths, known)
    return Entry(
        id=id,
        record=record,
        at_s=now_s - record.total_s,
        costs=costs,
        price_version=served.priced[2] if served is not None and served.priced is not None else known.version,
        cost_micro_usd=cost,
        lost_micro_usd=lost,
        unread=unread,
    )


def document_of(row: list[Value]) -> dict[str, Value]:
    """The row with its columns' names."""
    return dict(zip(COLUMNS, row, strict=True))


def row_of(document: dict[str, Any]) -> list[Value]:
    """The row of such a document. Whoever adds a column says here what stands for it in older documents."""
    return [document[name] for name in COLUMNS]


def _served(record: Record) -> AttemptFact | None:
    """The attempt whose answer the client got or began to get; None if none began, or it came to nothing."""
    for fact in reversed(record.attempts):
        if fact.target == record.target and fact.outcome not in _LOST:
            return fact
    return None


def _attempts(facts: list[AttemptFact], costs: list[int | None]) -> str:
    """The attempts as JSON; numbers that are 0 and texts that are "" are left out, but for the cost."""
    documents = []
    for fact, cost in zip(facts, costs, strict=True):
        target, code = _clean(fact.target, fact.code)
        document: dict[str, Any] = {
            "target": target,
            "kind": fact.kind._value_,
            "outcome": fact.outcome,
            "cost_micro_usd": cost,
        }
        if fact.status:
            document["status"] = fact.status
        if code:
            document["code"] = code
        if fact.ttft_s:
            document["ttft_ms"] = _ms(fact.ttft_s)
        if fact.usage is not None:
            _add_usage(document, fact.usage)
        documents.append(document)
    return orjson.dumps(documents).decode()


def _add_usage(document: dict[str, Any], usage: Usage) -> None:
    document["prompt_tokens"] = usage.prompt_tokens
    document["completion_tokens"] = usage.completion_tokens
    if usage.cached_tokens:
        document["cached_tokens"] = usage.cached_tokens
    if usage.cache_write_tokens:
        document["cache_write_tokens"] = usage.cache_write_tokens
        document["long_cache_write_tokens"] = usage.long_cache_write_tokens
    if usage.reasoning_tokens:
        document["reasoning_tokens"] = usage.reasoning_tokens
    if usage.estimated:
        document["estimated"] = True


def _loaders(facts: list[LoaderFact]) -> str:
    return orjson.dumps(
        [{"loader": _clean(one.loader)[0], "outcome": one.outcome, "ms": one.ms} for one in facts]
    ).decode()


def _ms(seconds: float) -> float:
    """Milliseconds to the microsecond. Rounding to a whole number first takes a tenth of what three decimals do."""
    return round(seconds * 1_000_000) / 1_000 if seconds else 0.0


def _clean(*texts: str) -> tuple[str, ...]:
    """What clients may have written, so that every database takes it: cut, without NUL and half characters.

    One look at all of them: as a rule nothing is to be done.
    """
    together = "".join(texts)
    if len(together) <= MAX_TEXT_CHARS and together.isascii() and "\0" not in together:
        return texts
    return tuple([text[:MAX_TEXT_CHARS].replace("\0", "").encode("utf-8", "replace").decode() for text in texts])
