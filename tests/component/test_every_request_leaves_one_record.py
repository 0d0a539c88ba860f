"""Visible: every request is one record, seen as metrics with bounded labels and as one log line without secrets.

A log that cannot be written costs its lines, which are counted, and never a request.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.facts import Outcome
from gateway.observe.metrics import COUNTERS, GAUGES, HISTOGRAMS
from gateway.sim import Behaviour
from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, request_bytes, staged

PROMPT = "a prompt that nobody but the provider may read"
EVERY_LINE = "requests = true\nlevel = 'info'"
ASSISTANT = """
[[assistant]]
name = "support"
model = "chat"
system = "Answer from {docs}, for {profile}."
[[assistant.loader]]
name = "docs"
kind = "retrieval"
[[assistant.loader]]
name = "profile"
kind = "profile"
"""

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(stage: Stage) -> Samples:
    """What ``/metrics`` says: (sample, labels) → value."""
    async with await stage.connect() as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
        heard = await hear(stream)
    assert heard.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(heard.body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


async def leave(stage: Stage, document: Any, when: Callable[[Any], bool]) -> None:
    """Ask, and leave when the provider's statistics say so."""
    async with await stage.connect() as stream:
        await stream.send_all(request_bytes(document))
        with trio.fail_after(5):
            await stage.sim.until(when)
    await stage.settle()


async def closed(stage: Stage, requests: int) -> None:
    """Wait until that many records are closed."""
    with trio.fail_after(5):
        while len(stage.records) < requests:
            await trio.sleep(0.001)


async def test_every_outcome_is_counted_once_under_its_labels() -> None:
    async with staged(more=ASSISTANT) as stage:
        await ask(stage, chat("chat"))
        await ask(stage, chat("chat", stream=True))
        await ask(stage, chat("nobody"))
        await ask(stage, chat("chat"), key="wrong")
        await ask(stage, chat("sim/sim-status=503"))
        await ask(stage, chat("sim/sim-cut=5-tps=50", stream=True))
        await leave(stage, chat("sim/sim-tps=20", stream=True), lambda now: now.tokens_sent > 48)  # 40 + 5 + some
        await closed(stage, 7)
        samples = await scrape(stage)
    path = "/v1/chat/completions"
    counted = {
        (labels["model"], labels["outcome"], labels["code"]): count
        for (name, pairs), count in samples.items()
        if name == "sluice_requests_total" and (labels := dict(pairs))["endpoint"] == path
    }
    assert counted == {
        ("chat", "ok", ""): 2,
        ("other", "invalid", "model_not_found"): 1,
        ("", "invalid", "invalid_api_key"): 1,
        ("other", "failed", "upstream_unavailable"): 1,
        ("other", "broken", "upstream_read"): 1,
        ("other", "cancelled", "client_left"): 1,
    }
    assert value(samples, "sluice_cancelled_total", phase="stream") == 1
    assert value(samples, "sluice_upstream_responses_total", target="sim/sim", status="200") == 2
    assert value(samples, "sluice_upstream_responses_total", target="sim/*", status="503") == 1
    assert value(samples, "sluice_tokens_total", model="chat", direction="out", source="reported") == 40
    assert value(samples, "sluice_tokens_total", model="chat", direction="in", source="reported") > 0
    assert value(samples, "sluice_tokens_total", model="other", direction="out", source="estimated") >= 5
    assert value(samples, "sluice_time_to_first_token_seconds_count", target="sim/sim") == 2
    assert value(samples, "sluice_inter_token_seconds_count", target="sim/sim") == 1
    assert value(samples, "sluice_inter_token_seconds_bucket", target="sim/*", le="0.005") == 0
    assert value(samples, "sluice_inter_token_seconds_count", target="sim/*") == 2
    assert value(samples, "sluice_request_duration_seconds_count", endpoint=path, outcome="ok") == 2
    assert value(samples, "sluice_requests_in_flight") == 0


async def test_clients_that_leave_in_the_middle_are_cancelled_and_never_a_providers_failure() -> None:
    async with staged(behaviour=Behaviour(tokens=1_000, tokens_per_s=20)) as stage:
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(ask, stage, chat(stream=n % 2 == 0))
            with trio.fail_after(10):
                await stage.sim.until(lambda now: now.active == 20 and now.tokens_sent > 20)
            nursery.cancel_scope.cancel()
        await stage.settle()
        await closed(stage, 20)
        assert Counter(record.code for record in stage.records) == {"client_left": 20}
        assert {record.outcome for record in stage.records} == {Outcome.CANCELLED}


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("utf-8", PROMPT, 0, 1, "surrogates not allowed"), ValueError(f"bad: {PROMPT}")]
)
async def test_a_fault_of_ours_is_recorded_with_its_status_and_without_the_prompt(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    async with staged() as stage:
        monkeypatch.setattr(stage.gateway.routes, "resolve", fails)
        assert (await ask(stage, chat(content=PROMPT))).status == 500
        await stage.settle()
        [record] = stage.records
        assert (record.outcome, record.status, record.code) == (Outcome.FAILED, 500, "internal_error")
        assert type(error).__name__ in record.detail
        assert PROMPT not in record.detail


async def test_refusals_are_counted_by_reason_and_waiting_by_priority() -> None:
    async with staged(workers=1, queue=1) as stage:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, stage, chat("sim/sim-ttft=60"))
            with trio.fail_after(5):
                await stage.sim.until(lambda now: now.active == 1)
            nursery.start_soon(ask, stage, chat())
            with trio.fail_after(5):
                while not stage.gateway.admission.statistics().waiting:
                    await trio.sleep(0.001)
            assert (await ask(stage, chat())).status == 429
            samples = await scrape(stage)
            nursery.cancel_scope.cancel()
        await stage.settle()
        await closed(stage, 3)
        stage.shutdown.set()
        after = stage.gateway.metrics.counters["sluice_cancelled"]
        assert Counter(after) == {("upstream",): 1, ("queue",): 1}
    assert value(samples, "sluice_shed_total", reason="queue_full") == 1
    assert value(samples, "sluice_requests_in_flight") == 1
    assert value(samples, "sluice_requests_waiting", priority="normal") == 1
    assert value(samples, "sluice_requests_waiting", priority="high") == 0
    assert value(samples, "sluice_connections", state="active") >= 2
    assert value(samples, "sluice_upstream_connections", provider="sim", state="in_use") == 1


async def test_context_is_timed_by_loader_and_outcome() -> None:
    async with staged(more=ASSISTANT) as stage:
        heard = await ask(stage, chat("support", content="anything"))
        assert heard.status == 200
        await closed(stage, 1)
        [record] = stage.records
        outcomes = {fact.loader: fact.outcome for fact in record.loaders}
        assert set(outcomes) == {"docs", "profile"}
        samples = await scrape(stage)
    for loader, outcome in outcomes.items():
        assert value(samples, "sluice_context_seconds_count", loader=loader, outcome=outcome) == 1
    assert value(
        samples, "sluice_requests_total", endpoint="/v1/chat/completions", model="support", outcome="ok", code=""
    )


async def test_what_clients_invent_makes_no_new_series() -> None:
    async with staged() as stage:

        async def invent(round_: int) -> Samples:
            for n in range(5):
                await ask(stage, chat(f"invented-{round_}-{n}"))
                await ask(
                    stage, chat(f"sim/sim-invented{round_}{n}", user=f"u{round_}{n}"), headers={"x-request-id": f"{n}"}
                )
            await ask(stage, chat(), key=f"invented-{round_}")
            await ask(stage, chat(), path=f"/v1/invented/{round_}")
            await stage.settle()
            return await scrape(stage)

        first = await invent(1)
        second = await invent(2)
    assert set(second) == set(first)
    assert "invented" not in repr(first)
    known = {*(f"{name}_total" for name in COUNTERS), *GAUGES}
    known |= {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")}
    assert {name for name, _ in first} <= known


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text_of(file: Path) -> str:
    return file.read_text()


async def lines_of(file: Path, requests: int) -> list[dict[str, Any]]:
    """The request lines, once there are that many."""
    with trio.fail_after(5):
        while True:
            lines = [json.loads(line) for line in _text_of(file).splitlines()]
            found = [line for line in lines if line["event"] == "request"]
            if len(found) >= requests:
                return found
            await trio.sleep(0.01)


async def test_every_request_is_one_line_with_its_facts_and_no_prompt_or_key(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as log:
        async with staged(log=EVERY_LINE, log_fd=log.fileno(), more=ASSISTANT) as stage:
            whole = await ask(stage, chat("chat", content=PROMPT))
            await ask(stage, chat("support", stream=True, content=PROMPT))
            await ask(stage, chat("sim/sim-status=503-retry_after=3", content=PROMPT))
            await ask(stage, chat("chat", content=PROMPT), key="sk-a-stranger's-key")
            await ask(stage, chat("sim/sim-error=3-tps=50", stream=True, content=PROMPT))
            await leave(stage, chat("sim/sim-silence", content=PROMPT), lambda now: now.active == 1)
            await closed(stage, 6)
            found = await lines_of(file, 6)
    lines = {(line["outcome"], line.get("code", ""), line.get("assistant", "")): line for line in found}
    assert len(found) == len(lines) == 6
    ok = lines["ok", "", ""]
    assert ok["request_id"] == whole.headers["x-request-id"]
    for name in ("timestamp", "ttft_ms", "total_ms", "tokens_in", "tokens_out"):
        assert ok[name], name
    expected = {"level": "info", "endpoint": "/v1/chat/completions", "key": "dev", "phase": "done", "status": 200}
    expected |= {"model": "chat", "target": "sim/sim", "attempts": 1, "upstream_status": 200, "finish_reason": "stop"}
    assert {name: ok.get(name) for name in expected} == expected
    assert set(lines["ok", "", "support"]["loaders"]) == {"docs", "profile"}
    failed = lines["failed", "upstream_unavailable", ""]
    assert (failed["level"], failed["status"], failed["upstream_status"]) == ("error", 503, 503)
    assert lines["invalid", "invalid_api_key", ""]["status"] == 401
    assert lines["broken", "upstream_error", ""]["level"] == "error"
    assert lines["cancelled", "client_left", ""]["phase"] == "upstream"
    text = file.read_text()
    for secret in (PROMPT, KEY, "stranger", "Bearer"):
        assert secret not in text


async def test_the_console_format_is_for_people(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as log:
        async with staged(log=EVERY_LINE + "\nformat = 'console'", log_fd=log.fileno()) as stage:
            await ask(stage, chat("chat", content=PROMPT))
            with trio.fail_after(5):
                while "request_id" not in file.read_text():
                    await trio.sleep(0.01)
    [line] = [line for line in file.read_text().splitlines() if "request_id" in line]
    assert "info" in line
    assert "outcome" in line
    assert not line.startswith("{")
    assert PROMPT not in line


def fill(pipe: int) -> None:
    """Write until the next write would block."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe, b"x" * 4_096):
            pass
    os.set_blocking(pipe, True)


async def ask_many(stage: Stage, count: int) -> list[Heard]:
    return [await ask(stage, chat("chat")) for _ in range(count)]


async def test_a_full_disk_costs_log_lines_and_no_request() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with staged(log=EVERY_LINE, log_fd=full) as stage:
            assert [heard.status for heard in await ask_many(stage, 5)] == [200] * 5
            with trio.fail_after(5):
                while value(await scrape(stage), "sluice_log_lines_dropped") < 5:
                    await trio.sleep(0.01)
            assert (await ask(stage, chat("chat"))).status == 200
    finally:
        os.close(full)


async def test_a_pipe_that_nobody_reads_costs_log_lines_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.observe.log.MAX_LINES", 10)
    reading, writing = os.pipe()
    fill(writing)
    try:
        async with staged(log=EVERY_LINE, log_fd=writing) as stage:
            await ask_many(stage, 3)
            with trio.fail_after(5):
                while stage.gateway.log._waiting:  # until the writing thread has taken them, and is stuck
                    await trio.sleep(0.01)
            assert [heard.status for heard in await ask_many(stage, 15)] == [200] * 15
            await closed(stage, 18)
            samples = await scrape(stage)
            assert value(samples, "sluice_log_lines_dropped") == 5
            assert {record.outcome for record in stage.records} == {Outcome.OK}
    finally:
        os.close(reading)  # the stuck thread's write ends with it
        os.close(writing)
