"""What the simulated provider has done so far: the far end's view that tests and the demo compare with the gateway's.

Every request for an answer that passes validation is counted as started and ends as exactly one of finished and
cancelled, so ``started == active + finished + cancelled`` at any moment. An answer that breaks off because a fault
says so is finished: the client got what was meant for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from attrs import asdict, frozen


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
        refused: Requests answered with a 4xx of the simulator's own (validation, key, path).
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
    refused: int
    errors: int
    connections: int
    peak_connections: int
    blocked: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
        self.finished = self.cancelled = self.tokens_sent = self.refused = self.errors = 0
        self.by_fault: Counter[str] = Counter()
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

    @contextmanager
    def request(self, fault: str | None) -> Iterator[None]:
        """Count one request: finished if the block ends, cancelled if an exception leaves it."""
        self.started += 1
        self.active += 1
        self.peak_active = max(self.peak_active, self.active)
        if fault is not None:
            self.by_fault[fault] += 1
        self._changed()
        try:
            yield
        except BaseException:
            self.cancelled += 1
            raise
        else:
            self.finished += 1
        finally:
            self.active -= 1
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
            refused=self.refused,
            errors=self.errors,
            connections=self.connections,
            peak_connections=self.peak_connections,
            blocked=self.blocked,
        )

    def _changed(self) -> None:
        if self._watchers:
            self._watchers.unpark_all()
