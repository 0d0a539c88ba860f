"""What the simulated provider has done so far: the far end's view that tests and the demo compare with the gateway's.

Every request for an answer that passes validation is counted as started and ends as exactly one of finished and
cancelled, so ``started == active + finished + cancelled`` at any moment. An answer that breaks off because a fault
says so is finished: the client got what was meant for it.

Beside the sums, the last :data:`KEPT` requests are kept one by one (:class:`Served`), so that a test can compare what a
ledger says of a request with what this provider sent for it. Sums per model count :data:`MODELS` names, further ones
as ``(other)``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from attrs import asdict, frozen

KEPT = 10_000
MODELS = 1_000


@frozen(kw_only=True, slots=True)
class Statistics:
    """A snapshot.

    Attributes:
        started: Requests for an answer taken on.
        active: Of them, being answered now.
        finished: Answered to the last byte, planned faults included.
        cancelled: Given up because the client left (or the simulator was stopped) before the answer was complete.
        tokens_sent: Tokens handed to the network. A write that fails counts none of its tokens (64 at most).
        peak_active: Largest ``active``.
        by_fault: Requests per fault they were shown.
        by_dialect: Requests per dialect: ``openai``, ``openai-responses``, ``anthropic``, ``gemini``.
        by_path: Requests per kind of path, the model's name left out.
        by_model: Requests per model name.
        refused: Requests answered with a 4xx of the simulator's own (validation, key, path, too long, prefill).
        refused_for: The same per reason: invalid, key, path, too_long, prefill, policy.
        received_bytes: Bytes of request bodies that have arrived, unfinished ones included.
        errors: Requests that failed because of a defect of the simulator.
        connections: Open now.
        peak_connections: Largest ``connections``.
        blocked: Writes that wait for their client to read now.
    """

    started: int
    active: int
    finished: int
    cancelled: int
    tokens_sent: int
    peak_active: int
    by_fault: dict[str, int]
    by_dialect: dict[str, int]
    by_path: dict[str, int]
    by_model: dict[str, int]
    refused: int
    refused_for: dict[str, int]
    received_bytes: int
    errors: int
    connections: int
    peak_connections: int
    blocked: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@frozen(kw_only=True, slots=True)
class Served:
    """One request that was taken on and is over.

    Attributes:
        id: What stands in the ids of the answer, and in the dialect's request id header.
        asked_as: ``x-request-id`` of the request, "" if it had none.
        prompt_tokens: As usage says it.
        tokens_sent: Tokens handed to the network; after a failed write, without those in it.
        finished: Answered to the last byte, planned faults included; otherwise the client left.
    """

    id: str
    asked_as: str
    dialect: str
    path: str
    model: str
    fault: str | None
    prompt_tokens: int
    tokens_sent: int
    finished: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Tally:
    """What one request counts while it is answered; :meth:`Counters.request` takes it on."""

    __slots__ = (
        "_counters",
        "asked_as",
        "dialect",
        "fault",
        "finished",
        "id",
        "model",
        "path",
        "prompt_tokens",
        "tokens_sent",
    )

    def __init__(self, counters: Counters, request_id: str) -> None:
        self._counters = counters
        self.id = request_id
        self.asked_as = self.dialect = self.path = self.model = ""
        self.fault: str | None = None
        self.prompt_tokens = self.tokens_sent = 0
        self.finished = False

    def sent(self, tokens: int) -> None:
        """Count tokens that were handed to the network."""
        self.tokens_sent += tokens
        self._counters.sent(tokens)

    def served(self) -> Served:
        """What it counted, once the request is over."""
        return Served(
            id=self.id,
            asked_as=self.asked_as,
            dialect=self.dialect,
            path=self.path,
            model=self.model,
            fault=self.fault,
            prompt_tokens=self.prompt_tokens,
            tokens_sent=self.tokens_sent,
            finished=self.finished,
        )


class Counters:
    """The counters behind :class:`Statistics`; each request and connection counts itself in and out."""

    def __init__(self) -> None:
        self.active = 0
        self.connections = 0
        self.blocked = 0
        self._watchers = trio.lowlevel.ParkingLot()
        self.reset()

    def reset(self) -> None:
        """Begin anew; what is active now counts as started."""
        self.started = self.peak_active = self.active
        self.peak_connections = self.connections
        self.finished = self.cancelled = self.tokens_sent = self.errors = self.received_bytes = 0
        self.by_fault: Counter[str] = Counter()
        self.by_dialect: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self.by_model: Counter[str] = Counter()
        self.refused_for: Counter[str] = Counter()
        self.over: deque[Tally] = deque(maxlen=KEPT)
        self._changed()

    async def until(self, holds: Callable[[Statistics], bool]) -> Statistics:
        """Wait until a snapshot satisfies ``holds``; it is asked again after every change."""
        while not holds(snapshot := self.snapshot()):
            await self._watchers.park()
        return snapshot

    def sent(self, tokens: int) -> None:
        """Count tokens that were handed to the network."""
        self.tokens_sent += tokens
        self._changed()

    def received(self, amount: int) -> None:
        """Count bytes of request bodies."""
        self.received_bytes += amount
        self._changed()

    def refuse(self, reason: str) -> None:
        """Count a request that is not taken on."""
        self.refused_for[reason] += 1
        self._changed()

    @contextmanager
    def request(self, tally: Tally) -> Iterator[None]:
        """Count one request: finished if the block ends, cancelled if an exception leaves it."""
        self.started += 1
        self.active += 1
        self.peak_active = max(self.peak_active, self.active)
        if tally.fault is not None:
            self.by_fault[tally.fault] += 1
        self.by_dialect[tally.dialect] += 1
        self.by_path[tally.path] += 1
        self.by_model[tally.model if tally.model in self.by_model or len(self.by_model) < MODELS else "(other)"] += 1
        self._changed()
        try:
            yield
            tally.finished = True
        finally:
            self.active -= 1
            if tally.finished:
                self.finished += 1
            else:
                self.cancelled += 1
            self.over.append(tally)
            self._changed()

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Count one write that waits for its client."""
        self.blocked += 1
        self._changed()
        try:
            yield
        finally:
            self.blocked -= 1
            self._changed()

    @contextmanager
    def connection(self) -> Iterator[None]:
        self.connections += 1
        self.peak_connections = max(self.peak_connections, self.connections)
        self._changed()
        try:
            yield
        finally:
            self.connections -= 1
            self._changed()

    def snapshot(self) -> Statistics:
        return Statistics(
            started=self.started,
            active=self.active,
            finished=self.finished,
            cancelled=self.cancelled,
            tokens_sent=self.tokens_sent,
            peak_active=self.peak_active,
            by_fault=dict(self.by_fault),
            by_dialect=dict(self.by_dialect),
            by_path=dict(self.by_path),
            by_model=dict(self.by_model),
            refused=self.refused_for.total(),
            refused_for=dict(self.refused_for),
            received_bytes=self.received_bytes,
            errors=self.errors,
            connections=self.connections,
            peak_connections=self.peak_connections,
            blocked=self.blocked,
        )

    def _changed(self) -> None:
        if self._watchers:
            self._watchers.unpark_all()
