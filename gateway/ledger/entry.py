"""One request in the ledger, made of its closed record; and its row in the database.

Cost and loss: ``cost`` is what the answer cost that the client got, or began to get; ``lost`` is what all else cost
that was asked for it: attempts that failed, broke off, or lost a race. Both together are what the provider charges. A
cost is None where a price is unknown; a request that reached no provider costs nothing.

Making an entry reads attributes and multiplies, *cost* 12 µs; text is cleaned and JSON made with the row, in the
writer's thread.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson
from attrs import frozen

from gateway.core.facts import AttemptFact, LoaderFact, Outcome, Record, Usage
from gateway.ledger.prices import UNKNOWN, Prices
from gateway.ledger.unread import Lengths, generated_tokens
from gateway.store.ledger import COLUMNS
from gateway.store.sql import Value

Source = Literal["reported", "estimated", "none"]

MAX_TEXT_CHARS: Final = 500
_DAY_S = 86_400
_LOST = ("failed", "broken")
_NO_USAGE = Usage()


@frozen(kw_only=True, slots=True)
class Entry:
    """One row.

    Attributes:
        id: Unique over all processes; the row's identity when it is written again.
        at_s: When the request began, in seconds since the epoch.
        key_name: The principal.
        model: What the client asked for.
        target: ``provider/model`` that answered or was asked last.
        attempts: Everybody who was asked, and what each attempt cost.
        usage: Of the answer; None if there was none.
        price_version: Of the prices of the answer; "" if there was none, or no price is known.
        cost_micro_usd, lost_micro_usd: See the module.
        tokens_delivered, tokens_generated, tokens_saved, saved_micro_usd: Of a cancelled answer, else 0; see
            :mod:`gateway.ledger.unread`.
    """

    id: str
    request_id: str
    at_s: float
    key_name: str
    key_id: str
    team: str
    org: str
    endpoint: str
    model: str
    assistant: str
    target: str
    attempts: tuple[tuple[AttemptFact, int | None], ...]
    usage: Usage | None
    price_version: str
    cost_micro_usd: int | None
    lost_micro_usd: int | None
    queue_s: float
    context_s: float
    loaders: tuple[LoaderFact, ...]
    ttft_s: float
    total_s: float
    status: int
    outcome: str
    phase: str
    code: str
    finish: str
    tokens_delivered: int = 0
    tokens_generated: int = 0
    tokens_saved: int = 0
    saved_micro_usd: int = 0

    @property
    def source(self) -> Source:
        """Who counted the answer's tokens."""
        if self.usage is None:
            return "none"
        return "estimated" if self.usage.estimated else "reported"

    @property
    def spent_micro_usd(self) -> int:
        """Cost and loss together, as far as prices are known: what a reservation is settled with."""
        return (self.cost_micro_usd or 0) + (self.lost_micro_usd or 0)

    def row(self) -> list[Value]:
        """The values for :data:`gateway.store.ledger.COLUMNS`, with text that every database takes."""
        usage = self.usage or _NO_USAGE
        return [
            self.id,
            _text(self.request_id),
            self.at_s,
            int(self.at_s // _DAY_S),
            _text(self.key_name),
            _text(self.key_id),
            _text(self.team),
            _text(self.org),
            _text(self.endpoint),
            _text(self.model),
            _text(self.assistant),
            _text(self.target),
            _json([_attempt_document(fact, cost) for fact, cost in self.attempts]),
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
            self.source,
            self.price_version,
            self.cost_micro_usd,
            self.lost_micro_usd,
            round(self.queue_s * 1000, 3),
            round(self.context_s * 1000, 3),
            _json([{"loader": _text(one.loader), "outcome": one.outcome, "ms": one.ms} for one in self.loaders]),
            round(self.ttft_s * 1000, 3),
            round(self.total_s * 1000, 3),
            self.status,
            self.outcome,
            self.phase,
            _text(self.code),
            _text(self.finish),
            self.tokens_delivered,
            self.tokens_generated,
            self.tokens_saved,
            self.saved_micro_usd,
        ]


def make_entry(record: Record, *, id: str, now_s: float, prices: Prices, lengths: Lengths) -> Entry:
    """The entry of a closed record. Sync.

    Args:
        now_s: Seconds since the epoch at ``record.ended_at``.
    """
    outcome = record.outcome or Outcome.FAILED
    attempts = tuple([(fact, _cost(fact, prices)) for fact in record.attempts])
    served = _served(record)
    cost: int | None = 0
    lost: int | None = 0
    for fact, micro_usd in attempts:
        if fact is served:
            cost = micro_usd
        elif lost is not None:
            lost = None if micro_usd is None else lost + micro_usd
    provider, _, model = record.target.partition("/")
    known = prices.of(provider, model) if model and served is not None else UNKNOWN
    if record.path and record.attempts:  # passed through: nobody says what that costs
        cost = None
    delivered = generated = saved = saved_micro_usd = 0
    if served is not None:
        if outcome is Outcome.OK and served.usage is not None:
            lengths.learn(record.target, served.usage.completion_tokens)
        elif outcome is Outcome.CANCELLED and record.first_token_at:
            delivered, generated = record.tokens, generated_tokens(record, served)
            if served.outcome != "drained":
                saved = lengths.expected(record.target, generated, record.max_tokens) - generated
                saved_micro_usd = known.more_micro_usd(served.usage or _NO_USAGE, saved)
    return Entry(
        id=id,
        request_id=record.request_id,
        at_s=now_s - (record.ended_at - record.received_at),
        key_name=record.principal,
        key_id=record.key_id,
        team=record.team,
        org=record.org,
        endpoint=record.endpoint,
        model=record.model,
        assistant=record.assistant,
        target=record.target,
        attempts=attempts,
        usage=record.usage,
        price_version=known.version,
        cost_micro_usd=cost,
        lost_micro_usd=lost,
        queue_s=record.queue_s,
        context_s=record.context_s,
        loaders=tuple(record.loaders),
        ttft_s=record.ttft_s,
        total_s=record.total_s,
        status=record.status,
        outcome=outcome._value_,
        phase=record.phase._value_,
        code=record.code,
        finish=record.finish_reason,
        tokens_delivered=delivered,
        tokens_generated=generated,
        tokens_saved=saved,
        saved_micro_usd=saved_micro_usd,
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


def _cost(fact: AttemptFact, prices: Prices) -> int | None:
    if fact.usage is None:
        return 0
    provider, _, model = fact.target.partition("/")
    return prices.of(provider, model).micro_usd(fact.usage)


def _attempt_document(fact: AttemptFact, cost: int | None) -> dict[str, Any]:
    usage = fact.usage or _NO_USAGE
    return {
        "target": _text(fact.target),
        "kind": fact.kind.value,
        "outcome": fact.outcome,
        "status": fact.status,
        "code": fact.code,
        "ttft_ms": round(fact.ttft_s * 1000, 3),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "long_cache_write_tokens": usage.long_cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
        "cost_micro_usd": cost,
    }


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _text(text: str) -> str:
    """What clients may have written, so that every database takes it: cut, without NUL and half characters."""
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS]
    return text if text.isascii() and "\0" not in text else text.replace("\0", "").encode("utf-8", "replace").decode()
