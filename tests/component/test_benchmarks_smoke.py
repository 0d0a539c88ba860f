"""The benchmark instrument runs end to end and counts right; no test here times anything.

Only contestants that need nothing beyond the test environment take part, with a handful of clients and windows of a
tenth of a second.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from benchmarks import measures, procs, report, runner, wire
from benchmarks.contestants import all_contestants
from benchmarks.contestants.base import Limits, Setup
from benchmarks.contestants.sluice import config
from benchmarks.loop import Loop, Outcome
from benchmarks.runner import Cell
from benchmarks.scenarios import CPU_REQUEST, RATE, Scenario, all_scenarios
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.events import TextDelta
from gateway.dialects.provider import ProviderDialect

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and uses epoll")


def run(scenario: Scenario, *names: str, rounds: int = 1) -> runner.Cells:
    contestants = all_contestants()
    plan = runner.Plan(
        scenarios=(scenario,),
        contestants=tuple(contestants[name] for name in names),
        rounds=rounds,
        warmup_s=0.1,
        window_s=0.1,
    )
    told: list[tuple[str, str, int]] = []
    cells = runner.run(
        plan,
        procs.Cores.choose(),
        lambda *_: None,
        lambda scenario, contestant, number: told.append((scenario.name, contestant.name, number)),
    )
    assert len(told) == plan.cells()
    return cells


def small(text: str, **arguments: Any) -> Scenario:
    return Scenario(
        name="small",
        text=text,
        run=lambda bench: measures.cost(bench, **arguments),
        metrics=(CPU_REQUEST, RATE),
        models=(arguments.get("model", "unary"),),
        limits=Limits(workers=20),
    )


def test_a_tiny_run_gives_a_document_of_the_described_shape(tmp_path: Path) -> None:
    scenario = small("four clients", per="requests", model="unary", clients=4)
    cells = run(scenario, "plain", rounds=2)
    known = all_contestants()
    meta = {"rounds": 2, "window_s": 0.1, "date": "", "cpu": "", "cores": 2, "memory_gb": 1, "kernel": ""}
    meta |= {"python": "", "revision": ""}
    result = report.document(
        cells, scenarios={"small": scenario}, contestants=known, skipped={"go": "not there"}, meta=meta
    )
    json_path, table_path = report.write(result, tmp_path, "latest")
    read = json.loads(json_path.read_text())

    assert set(read) == {"schema", "meta", "contestants", "skipped", "scenarios"}
    entry = read["scenarios"]["small"]["results"]["plain"]
    assert entry["problems"] == []
    assert len(entry["rounds"]) == 2
    assert entry["median"]["errors"] == 0
    assert entry["median"]["per_s"] > 0
    low, high = entry["spread"]["per_s"]
    assert low <= entry["median"]["per_s"] <= high
    assert "| plain |" in table_path.read_text()
    assert "go did not run: not there" in table_path.read_text()


@pytest.mark.parametrize("size_bytes", [1, 7, 100_000])
def test_every_event_of_a_stream_is_counted_once_however_it_is_torn(size_bytes: int) -> None:
    answer = b"".join(wire.plan(wire.Wanted(model="stream-64", stream=True, usage=False, tag="")).pieces)
    outcomes: list[Outcome] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.closing(Loop()) as loop:
        loop.address = listener.getsockname()
        client = loop.client(lambda client, outcome: outcomes.append(outcome))
        loop.send(client, b"GET / HTTP/1.1\r\n\r\n", 0.0)
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(answer), size_bytes):
                piece = answer[start : start + size_bytes]
                peer.sendall(piece)
                wanted = loop.bytes + len(piece)
                while loop.bytes < wanted:
                    loop.poll(1.0)
    assert outcomes == [Outcome.FIRST, Outcome.DONE]
    assert loop.events == 64 + 3  # role, finish and [DONE] besides the content
    assert client.status == 200


def test_hedged_and_unhedged_requests_are_measured_side_by_side() -> None:
    whole = all_scenarios()["hedge"]
    scenario = evolve(whole, run=lambda bench: measures.hedge(bench, model="tail-20-5", clients=4))
    cell = run(scenario, "sluice")["hedge"]["sluice"]
    assert cell.problems == []
    (figures,) = cell.rounds
    assert figures is not None
    assert {metric.name for metric in whole.metrics} <= set(figures)
    assert figures["alone_p99_ms"]
    assert figures["hedged_p99_ms"]
    assert figures["alone_extra_percent"] == pytest.approx(0, abs=0.01)


def test_a_tail_is_as_heavy_as_its_name_says() -> None:
    plan = wire.plan(wire.Wanted(model="tail-20-5", stream=True, usage=False, tag=""))
    dice = random.Random(7)
    drawn = [plan.silence_s(dice) for _ in range(10_000)]
    slow = [silence_s for silence_s in drawn if silence_s > 0.025]
    assert 400 < len(slow) < 600
    assert min(drawn) >= 0.015
    assert min(slow) >= 0.15
    assert max(slow) <= 0.5


@pytest.mark.parametrize("name", ["translate-unary", "translate-stream"])
def test_translated_answers_are_measured_beside_the_same_passed_through(name: str) -> None:
    whole = all_scenarios()[name]
    asked = {"model": whole.models[0], "like": whole.models[1], "stream": name.endswith("stream")}
    cell = run(evolve(whole, run=lambda bench: measures.translated(bench, clients=2, **asked)), "sluice")[name][
        "sluice"
    ]
    assert cell.problems == []
    (figures,) = cell.rounds
    assert figures is not None
    assert {metric.name for metric in whole.metrics} <= set(figures)
    assert figures["errors"] == 0


@pytest.mark.parametrize("split", [1, 50, 100_000])
def test_anthropic_answers_say_what_the_chat_completions_say(split: int) -> None:
    def said(dialect: ProviderDialect, model: str) -> str:
        pieces = wire.plan(wire.Wanted(model=model, stream=True, usage=False, tag="")).pieces
        head, _, chunked = b"".join(pieces).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        body = b"".join(chunked.split(b"\r\n")[1::2])
        reader = dialect.reader()
        events = [event for at in range(0, len(body), split) for event in reader.feed(body[at : at + split])]
        return "".join(event.text for event in events if isinstance(event, TextDelta))

    text = said(OpenAIChat(), "stream-64")
    assert len(text) > 64
    assert said(Anthropic(), "claude-64") == text


def test_streams_are_relayed_whole() -> None:
    cell = run(small("", per="requests", model="stream-64", stream=True, clients=2), "floor")["small"]["floor"]
    assert cell.problems == []


def test_the_time_until_the_provider_sees_each_client_leave_is_measured() -> None:
    scenario = Scenario(
        name="leave",
        text="",
        run=lambda bench: measures.disconnect(bench, clients=10),
        metrics=all_scenarios()["disconnect-1000"].metrics,
        models=("idle",),
    )
    cell = run(scenario, "plain")["leave"]["plain"]
    assert cell.problems == []
    (figures,) = cell.rounds
    assert figures is not None
    assert figures["never_percent"] == 0
    assert 0 < (figures["p50_ms"] or 0) <= (figures["p99_ms"] or 0) <= (figures["max_ms"] or 0)


def test_a_contestant_that_answers_wrongly_gets_no_figure_but_a_reason() -> None:
    cell = run(small("", per="requests", model="unary", clients=2, expect=429), "floor")["small"]["floor"]
    assert cell.rounds == [None]
    assert "status 200" in cell.problems[0]


def test_scenarios_leave_out_contestants_without_the_feature() -> None:
    scenarios, contestants = all_scenarios(), all_contestants()
    assert not runner.fits(scenarios["refusal"], contestants["plain"])
    assert runner.fits(scenarios["refusal"], contestants["sluice"])


def test_ratios_pair_each_round_with_the_control_of_the_same_round() -> None:
    # The machine was three times as slow in the second round: the ratio of medians would be off, this one is not.
    control = Cell(rounds=[{"cpu_us": 10.0}, {"cpu_us": 30.0}, {"cpu_us": 10.0}])
    cell = Cell(rounds=[{"cpu_us": 20.0}, {"cpu_us": 60.0}, None])
    assert report.ratios(cell, control) == {"cpu_us": 2.0}


def test_sluice_gets_a_configuration_for_every_scenario(tmp_path: Path) -> None:
    for scenario in all_scenarios().values():
        setup = Setup(port=1, provider_port=2, limits=scenario.limits, scratch=tmp_path, models=scenario.models)
        document = tomllib.loads(config(setup))
        names = {entry["name"] for entry in document["model"] + document.get("assistant", [])}
        assert names >= set(scenario.models)
        assert document["admission"]["workers"] == scenario.limits.workers
