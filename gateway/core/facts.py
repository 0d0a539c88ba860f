"""The facts of one request, gathered while it runs and told exactly once at its end.

A :class:`Record` is the only mutable value in ``core``: each step of the exchange writes down what it alone knows
(who, which model, how long the queue took), and the connection that owns the request closes the record in a sync
``finally``. Metrics, the request log and later the ledger read the closed record; nobody else counts anything, so the
three cannot disagree.

All instants are seconds on ``trio.current_time()``'s clock.
"""

from __future__ import annotations

import enum

from attrs import define, field, frozen

from gateway.core.values import value


class Phase(enum.Enum):
    """How far the request has come; with an outcome it says where it ended."""

    ENTRY = "entry"
    QUEUE = "queue"
    BODY = "body"
    CONTEXT = "context"
    UPSTREAM = "upstream"  # asked, nothing committed yet
    STREAM = "stream"  # committed: the client is receiving
    DONE = "done"


class Outcome(enum.Enum):
    """How the request ended. CANCELLED is the client's leaving: neither a success nor an error."""

    OK = "ok"
    REFUSED = "refused"  # never started, safe to resend
    INVALID = "invalid"  # the caller's mistake
    FAILED = "failed"  # ours or the provider's
    BROKEN = "broken"  # failed after the commit point
    CANCELLED = "cancelled"


@value(kw_only=True, slots=True)
class Usage:
    """Tokens of one answer, as the provider reports them, or estimated and marked so."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, read from the provider's cache
    reasoning_tokens: int = 0  # of the completion's
    cache_write_tokens: int = 0  # of the prompt's, written to it
    long_cache_write_tokens: int = 0  # of those, to be kept for an hour
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@frozen(kw_only=True, slots=True)
class LoaderFact:
    """One loader's share of a request."""

    loader: str
    outcome: str
    ms: float


class Kind(enum.Enum):
    """Why a target was asked."""

    PRIMARY = "primary"
    RETRY = "retry"
    HEDGE = "hedge"
    FAILOVER = "failover"
    CONTINUATION = "continuation"  # another target went on with a broken answer


@define(kw_only=True, slots=True)
class AttemptFact:
    """One attempt: who was asked, why, and what came of it.

    Attributes:
        label: The configured target, from a bounded set.
        outcome: ``ok`` · ``failed`` (before its first content) · ``broken`` (after it) · ``cancelled`` (the client
            left, or another attempt was faster) · ``drained`` (it left, and the rest was read) · "" while it runs.
        status: The provider's, 0 if it gave none.
        code: Of the error, "" without one.
        began_at: When it was asked, on ``trio.current_time()``'s clock.
        ttft_s: To its first content, 0 if there was none.
        usage: What it cost: as reported, else estimated from what was asked and read; None if it refused, or could
            not be asked.
        priced: The usage whose price was looked up, the price in micro-dollars, None if it is unknown, and its version.
    """

    target: str
    label: str
    kind: Kind
    began_at: float
    outcome: str = ""
    status: int = 0
    code: str = ""
    ttft_s: float = 0.0
    usage: Usage | None = None
    priced: tuple[Usage, int | None, str] | None = None


@define(kw_only=True, slots=True)
class Record:
    """What is known of one request so far.

    Attributes:
        request_id: Ours, or the client's own if it was a sane one.
        key_id, team, org: Of the key that was used, "" without one; ``principal`` is its name.
        max_tokens: The most that the client lets the answer have; 0 if it does not say.
        endpoint: Path of the endpoint, a bounded set.
        received_at: When its headers were complete.
        model: What the client asked for; "" until the body was read.
        target: ``provider/model`` that answers.
        target_label: The configured target behind it, from a bounded set; differs where a wildcard was used.
        attempts: Every target that was asked, in order; see :class:`AttemptFact`.
        dropped: Fields of the client's that the provider has no counterpart for.
        first_token_at: The commit point.
        tokens: Of the answer, as far as it was relayed, about: by its events; what it cost is in ``usage``.
        path: What was asked of the provider, for what is passed through; its bodies' bytes are ``bytes_in`` (the
            client's) and ``bytes_out`` (the provider's).
        cost_micro_usd: Of all attempts together, once the answer is whole; None before, and where a price is unknown.
        status: What the client was sent, 0 if nothing.
        code: The error's code, "" without one.
        detail: For the log only: what lies behind ``code``.
    """

    request_id: str
    endpoint: str
    received_at: float
    principal: str = "anonymous"
    key_id: str = ""
    team: str = ""
    org: str = ""
    priority: str = "normal"
    phase: Phase = Phase.ENTRY
    model: str = ""
    assistant: str = ""
    stream: bool = False
    max_tokens: int = 0
    target: str = ""
    target_label: str = ""
    attempts: list[AttemptFact] = field(factory=list)
    dropped: tuple[str, ...] = ()
    queue_s: float = 0.0
    context_s: float = 0.0
    loaders: list[LoaderFact] = field(factory=list)
    asked_at: float = 0.0
    first_token_at: float = 0.0
    ended_at: float = 0.0
    tokens: int = 0
    path: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    usage: Usage | None = None
    finish_reason: str = ""
    cost_micro_usd: int | None = None
    status: int = 0
    outcome: Outcome | None = None
    code: str = ""
    detail: str = ""

    @property
    def upstream_status(self) -> int:
        """The last attempt's status, 0 if there is none."""
        return self.attempts[-1].status if self.attempts else 0

    @property
    def cost_usd(self) -> str:
        """The cost in exact dollars, ``0.000123``; "" where it is not known."""
        cost = self.cost_micro_usd
        return "" if cost is None else f"{cost // 1_000_000}.{cost % 1_000_000:06d}"

    @property
    def total_s(self) -> float:
        return self.ended_at - self.received_at

    @property
    def ttft_s(self) -> float:
        """From asking the provider to the commit point; 0 if it was never reached."""
        return self.first_token_at - self.asked_at if self.first_token_at else 0.0
