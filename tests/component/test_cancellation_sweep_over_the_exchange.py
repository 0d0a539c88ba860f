"""Promise: at whatever point a request is cancelled, nothing of it is left, and it has exactly one record.

A trio instrument counts the steps of the request's own tasks and cancels at the n-th, for n = 0, 1, 2, … until a
request comes through: once just before a step (the task was woken, a permit may have been granted, a connection
handed over, and it finds itself cancelled), once just after it (the task has begun to wait). The app is called as the
server calls it, with a ``receive`` and a ``send`` that are checkpoints; the provider, the store and the loaders' API
are real ones.
"""

from __future__ import annotations

import contextvars
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from attrs import define, evolve, field, frozen

from gateway.app import make_app
from gateway.core.facts import Kind, Outcome, Phase, Record
from gateway.edge.door import STATE_KEY
from gateway.edge.http import GatewayApp
from gateway.flow.admission import Place
from gateway.store.conversations import Turn
from tests.component.stage import KEY, Stage, chat, staged

ASSISTANT = """
[[model]]
name = "second-works"
targets = [{{ provider = "sim", model = "sim-status=503" }}, {{ provider = "sim", model = "sim-tokens=5-tps=250" }}]
[[provider]]
name = "fails"
base_url = "${{SIM}}"
breaker = {{ enabled = false }}
retry_budget = {{ floor = 1000 }}
[[provider]]
name = "other"
base_url = "${{SIM}}"
retry_budget = {{ floor = 1000 }}
[[provider]]
name = "bills"
base_url = "${{SIM}}"
on_disconnect = "drain"
[[model]]
name = "hedged"
targets = [{{ provider = "fails", model = "sim-ttft=0.02" }}, {{ provider = "other", model = "sim-tokens=3-tps=250" }}]
hedge = {{ delay_s = 0.003 }}
[[model]]
name = "retried"
targets = [{{ provider = "fails", model = "sim-flap=1-tokens=3-tps=250" }}]
retry = {{ max = 2, base_s = 0.001 }}
[[model]]
name = "failed-over"
targets = [{{ provider = "fails", model = "sim-status=500" }}, {{ provider = "other", model = "sim-tokens=3-tps=250" }}]
[[model]]
name = "repaired"
targets = [{{ provider = "fails", model = "sim-cut=2-tps=250" }}, {{ provider = "other", model = "sim-tps=250" }}]
midstream = "restart"
[[model]]
name = "billed"
targets = [{{ provider = "bills", model = "sim-ttft=0.002-tokens=5-tps=250" }}]
[context]
allowed_hosts = ["127.0.0.1:{api}"]
[[assistant]]
name = "support"
model = "second-works"
system = "{{docs}} {{profile}} {{orders}}"
context_budget_s = 20
[[assistant.loader]]
name = "docs"
kind = "retrieval"
timeout_s = 10
[[assistant.loader]]
name = "profile"
kind = "profile"
timeout_s = 10
[[assistant.loader]]
name = "turns"
kind = "context"
timeout_s = 10
[[assistant.loader]]
name = "orders"
kind = "http"
url = "http://127.0.0.1:{api}/orders"
timeout_s = 10
"""

When = Literal["before", "after"]
Message = dict[str, Any]


class CancelAtStep(trio.abc.Instrument):
    """Counts the steps of all tasks that were started in ``mark``'s context, and cancels at one of them."""

    def __init__(self, mark: contextvars.ContextVar[bool], n: int, when: When, cancel: Callable[[], object]) -> None:
        self._mark = mark
        self._n = n
        self._when = when
        self._cancel = cancel
        self.steps = 0
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._mark in task.context and self._when == "before":
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._mark in task.context and self._when == "after":
            self._count()

    def _count(self) -> None:
        if self.steps == self._n:
            self.fired = True
            self._cancel()
        self.steps += 1


@frozen(kw_only=True)
class Case:
    """What is asked, and how."""

    path: str = "/v1/chat/completions"
    document: dict[str, Any]
    queued: bool = False
    yields: bool = True  # the server's send does; ours does not while the client keeps up
    rounds: int = 1  # more where it matters which of two tasks trio lets run first
    foreign: bool = False  # a server that tells of the client's leaving by a message only
    goes_on: bool = False  # from a response that is kept
    phases: frozenset[Phase]
    kind: Kind = Kind.PRIMARY  # of an attempt that requests which were cancelled had made


@define
class Client:
    """The server's side of one request: a body in two pieces, and whatever is sent."""

    body: bytes
    yields: bool
    sent: list[Message] = field(factory=list)
    gone: trio.Event = field(factory=trio.Event)
    _pieces: list[bytes] | None = None

    async def receive(self) -> Message:
        if self._pieces is None:
            half = len(self.body) // 2
            self._pieces = [self.body[half:], self.body[:half]]
        if not self._pieces:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        await trio.lowlevel.checkpoint()
        piece = self._pieces.pop()
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        if self.yields:
            await trio.lowlevel.checkpoint()
        elif message["type"] != "http.response.start":
            await trio.lowlevel.checkpoint_if_cancelled()
        self.sent.append(message)

    @property
    def heard(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


CASES = {
    "whole": Case(document=chat("sim/sim-tokens=4"), phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.DONE})),
    "stream": Case(
        document=chat("sim/sim-ttft=0.002-tokens=5-tps=250", stream=True),
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "stream at a server that writes without yielding": Case(
        document=chat("sim/sim-ttft=0.002-tokens=5-tps=250", stream=True),
        yields=False,
        rounds=4,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "stream under another server": Case(
        document=chat("sim/sim-ttft=0.002-tokens=5-tps=250", stream=True),
        foreign=True,
        phases=frozenset({Phase.UPSTREAM, Phase.STREAM}),
    ),
    "waiting in line, then a second target": Case(
        document=chat("second-works", stream=True),
        queued=True,
        phases=frozenset({Phase.QUEUE, Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "a stream that breaks off": Case(
        document=chat("sim/sim-tokens=4-cut=3-tps=250", stream=True),
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "orchestrate": Case(
        path="/v1/orchestrate",
        document={"assistant": "support", "input": "hello", "user": "anna", "conversation": "c1", "stream": True},
        phases=frozenset({Phase.BODY, Phase.CONTEXT, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "an assistant, whole, from the line": Case(
        document=chat("support", user="anna"),
        queued=True,
        phases=frozenset({Phase.QUEUE, Phase.BODY, Phase.CONTEXT, Phase.UPSTREAM}),
    ),
    "two targets side by side": Case(
        document=chat("hedged", stream=True),
        kind=Kind.HEDGE,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "two targets side by side, whole": Case(
        document=chat("hedged"),
        kind=Kind.HEDGE,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM}),
    ),
    "the same target again after a pause": Case(
        document=chat("retried", stream=True),
        kind=Kind.RETRY,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "the next target, after one that failed": Case(
        document=chat("failed-over", stream=True),
        kind=Kind.FAILOVER,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "a stream that another target goes on with": Case(
        document=chat("repaired", stream=True, max_tokens=5),
        kind=Kind.CONTINUATION,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "a stream that is read on": Case(
        document=chat("billed", stream=True),
        phases=frozenset({Phase.BODY, Phase.UPSTREAM, Phase.STREAM}),
    ),
    "a stream that is read on, under another server": Case(
        document=chat("billed", stream=True),
        foreign=True,
        phases=frozenset({Phase.UPSTREAM, Phase.STREAM}),
    ),
    "going on from a kept response": Case(
        path="/v1/responses",
        document={"model": "sim/sim-tokens=4", "input": "and then?"},
        goes_on=True,
        phases=frozenset({Phase.BODY, Phase.UPSTREAM}),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_cancellation_at_any_step_leaves_nothing(case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    log = tmp_path / "log"
    with log.open("wb") as file:
        async with sweeping(file.fileno()) as (stage, app):
            _, client, _ = await _run(stage, app, case, n=-1, when="after")  # what is made once is made
            if case.goes_on:
                case = evolve(case, document={**case.document, "previous_response_id": json.loads(client.heard)["id"]})
                await _run(stage, app, case, n=-1, when="after")
            first = stage.records[-1]
            assert first.outcome in (Outcome.OK, Outcome.BROKEN)
            await stage.settle()
            stage.remember_baseline()
            phases: set[Phase] = set()
            for _ in range(case.rounds):
                phases |= await _sweep(stage, app, case, "before", first)
                phases |= await _sweep(stage, app, case, "after", first)
            assert case.phases <= phases, "the sweep left a phase out"
            cancelled = [record for record in stage.records if record.outcome is Outcome.CANCELLED]
            assert any(fact.kind is case.kind for record in cancelled for fact in record.attempts)
            await stage.settle()
            stage.assert_nothing_left()
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request"]
    assert len(lines) == len(stage.records)
    for line in lines:
        assert line["level"] == ("error" if line["outcome"] == "broken" else "info")
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


async def _sweep(stage: Stage, app: GatewayApp, case: Case, when: When, like: Record) -> set[Phase]:
    """Cancel at every step; the phases in which that was. Threads make the number of steps vary by a few."""
    n, came_through, phases = 0, 0, set()
    while came_through < 2:
        record, client, fired = await _run(stage, app, case, n=n, when=when)
        _check(case, record, client, fired=fired, like=like)
        if record.outcome is Outcome.CANCELLED:
            phases.add(record.phase)
        came_through += not fired
        n += 1
    return phases


@asynccontextmanager
async def sweeping(log_fd: int) -> AsyncIterator[tuple[Stage, GatewayApp]]:
    """A gateway with one permit, an assistant with four loaders, and the app to be called directly."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, _orders, 0, host="127.0.0.1"))
        api = listener.socket.getsockname()[1]
        log = 'requests = true\nlevel = "debug"'
        async with staged(workers=1, queue=1, more=ASSISTANT.format(api=api), log=log, log_fd=log_fd) as stage:
            assert stage.gateway.store is not None
            await stage.gateway.store.profiles.put({"anna": {"name": "Anna"}})
            turns = [Turn(role="user", text="hi"), Turn(role="assistant", text="hello")]
            await stage.gateway.store.conversations.append("dev", "c1", turns)
            yield stage, make_app(stage.gateway)
        nursery.cancel_scope.cancel()


async def _orders(stream: trio.SocketStream) -> None:
    """The loaders' API: one answer per connection."""
    async with stream:
        try:
            await stream.receive_some()
            body = b'["a cup"]'
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            )
            await stream.send_all(head % len(body) + body)
        except trio.BrokenResourceError:
            pass


async def _run(stage: Stage, app: GatewayApp, case: Case, *, n: int, when: When) -> tuple[Record, Client, bool]:
    """One request, cancelled at its n-th step; what it left is looked at before anything else can run."""
    client = Client(json.dumps(case.document).encode(), case.yields)
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": case.path,
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {KEY}".encode())],
        "state": {},
        "extensions": {} if case.foreign else {"sluice.cancel": {}},
    }
    admission, told = stage.gateway.admission, len(stage.records)
    holder = admission.try_enter() if case.queued else None
    assert not case.queued or isinstance(holder, Place)
    mark: contextvars.ContextVar[bool] = contextvars.ContextVar("mark")
    cancelling = trio.CancelScope()
    instrument = CancelAtStep(mark, n, when, client.gone.set if case.foreign else cancelling.cancel)

    async def serve() -> None:
        mark.set(True)
        trio.lowlevel.add_instrument(instrument)
        try:
            with cancelling:
                await app(scope, client.receive, client.send)
        finally:
            trio.lowlevel.remove_instrument(instrument)

    async def let_in() -> None:
        while record.phase is not Phase.QUEUE:
            await trio.lowlevel.checkpoint()
        assert isinstance(holder, Place)
        holder.release()

    assert app.door.knock(scope) is None
    record: Record = scope["state"][STATE_KEY].record
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            if case.queued:
                nursery.start_soon(let_in)
            await _joined(serve)
            now = admission.statistics()
            assert now.waiting == 0
            assert now.in_flight == (holder is not None and holder.holds_permit)
            assert len(stage.gateway.guards) == 0
            while stage.gateway.drains.active:
                await trio.sleep(0.001)
            assert not any(pool.in_use for pool in stage.gateway.transport.statistics().values())
            assert not any(state["in_flight"] for state in stage.gateway.health.states())
            assert not any(stage.gateway.health.gauges()["sluice_streams_draining"].values())
            assert len(stage.records) == told + 1
            assert all(fact.outcome for fact in record.attempts)
            nursery.cancel_scope.cancel()
    if isinstance(holder, Place):
        holder.release()
    with trio.fail_after(5):
        await stage.sim.until(lambda now: now.active == 0)
    return stage.records[-1], client, instrument.fired


async def _joined(run: Callable[[], Any]) -> None:
    """Run it in a task of its own, so that what marks its context marks nothing else."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)


def _check(case: Case, record: Record, client: Client, *, fired: bool, like: Record) -> None:
    """One request's record, and what its client heard."""
    if not fired:
        assert record.outcome is like.outcome
        assert client.complete
    if record.outcome is Outcome.CANCELLED:
        assert record.code == "client_left"
        assert record.usage is not None or record.phase not in (Phase.STREAM, Phase.DONE)
    else:
        # Cancelled after its end was decided; only a foreign server's watcher makes no difference between the two.
        assert record.outcome is like.outcome
        assert client.complete or case.foreign or record.outcome is Outcome.BROKEN
    if client.complete and record.stream:
        assert any(end in client.heard[-400:] for end in (b"data: [DONE]", b"event: done", b'"error"'))
    if client.complete and not record.stream:
        document = json.loads(client.heard)
        assert document.get("choices") or document["output"]
