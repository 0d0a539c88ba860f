"""Runs scenarios: rounds of contestants in alternation, each started fresh and pinned.

A round runs every contestant once, so that whatever else the machine does in that minute touches all of them alike;
ratios are later drawn inside a round. The order turns by one each round, so that nobody is always first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import Factory, define, frozen

from benchmarks import procs
from benchmarks.contestants.base import Contestant, Running, Setup
from benchmarks.driver import Instrument, InstrumentFailed
from benchmarks.measures import Bench, Figures, Unfit
from benchmarks.scenarios import Scenario

_PROBLEM_CHARS = 500


@frozen(kw_only=True, slots=True)
class Plan:
    """What to run and for how long."""

    scenarios: tuple[Scenario, ...]
    contestants: tuple[Contestant, ...]
    rounds: int
    warmup_s: float
    window_s: float

    def cells(self) -> int:
        return self.rounds * sum(
            1 for scenario in self.scenarios for contestant in self.contestants if fits(scenario, contestant)
        )


@define(kw_only=True)
class Cell:
    """One contestant in one scenario: a figure set per round (None where it failed), and what went wrong."""

    rounds: list[Figures | None] = Factory(list)
    problems: list[str] = Factory(list)


Cells = dict[str, dict[str, Cell]]  # scenario → contestant → cell
Tell = Callable[[Scenario, Contestant, int], None]


def fits(scenario: Scenario, contestant: Contestant) -> bool:
    """Whether the contestant has what the scenario is about."""
    return scenario.needs <= contestant.features


def run(plan: Plan, cores: procs.Cores, before: Tell, after: Tell) -> Cells:
    """Run everything; a cell that fails is noted and the rest goes on.

    Args:
        before: Told the scenario, contestant and round (from 0) about to run.
        after: Told the same when it is done.
    """
    cells: Cells = {}
    for scenario in plan.scenarios:
        able = [contestant for contestant in plan.contestants if fits(scenario, contestant)]
        row = cells[scenario.name] = {contestant.name: Cell() for contestant in able}
        for number in range(plan.rounds):
            for contestant in _turned(able, number):
                before(scenario, contestant, number)
                cell = row[contestant.name]
                try:
                    cell.rounds.append(once(plan, scenario, contestant, cores))
                except (Unfit, InstrumentFailed, procs.NotReady) as error:
                    cell.rounds.append(None)
                    cell.problems.append(f"round {number + 1}: {_brief(str(error))}")
                after(scenario, contestant, number)
    return cells


def _brief(text: str) -> str:
    """One line; of a long text the end, where a log says what happened."""
    line = " ".join(text.split())
    return line if len(line) <= _PROBLEM_CHARS else f"{line[:100]} … {line[-_PROBLEM_CHARS + 100 :]}"


def _turned(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    cut = number % len(contestants) if contestants else 0
    return [*contestants[cut:], *contestants[:cut]]


def once(plan: Plan, scenario: Scenario, contestant: Contestant, cores: procs.Cores) -> Figures:
    """Start the contestant, run the scenario once, end everything.

    Raises:
        Unfit, InstrumentFailed, procs.NotReady: See there.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, Instrument(cores) as instrument:
        setup = Setup(
            port=procs.free_port(),
            provider_port=instrument.provider_port,
            limits=scenario.limits,
            scratch=Path(folder),
            models=scenario.models,
        )
        with Running(contestant, setup, cores.contestant) as running:
            return scenario.run(
                Bench(instrument=instrument, running=running, warmup_s=plan.warmup_s, window_s=plan.window_s)
            )
