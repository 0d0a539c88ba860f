"""From rounds to a document: medians, spreads, ratios to the control, JSON and a Markdown table.

A ratio is the median of the ratios of each round, not the ratio of two medians: on a machine that others use, what
one minute does to one contestant it does to its neighbour in the same round.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks.contestants.base import Contestant
from benchmarks.measures import Figures
from benchmarks.runner import Cell, Cells
from benchmarks.scenarios import Scenario

CONTROL = "go"
SCHEMA = 1
FOREIGN_PERCENT = 5.0  # of the contestant's core, used by others: more is worth a remark


def document(
    cells: Cells,
    *,
    scenarios: Mapping[str, Scenario],
    contestants: Mapping[str, Contestant],
    skipped: Mapping[str, str],
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """The result as it is written to JSON; see README.md for its shape."""
    taking_part = {name for row in cells.values() for name in row}
    return {
        "schema": SCHEMA,
        "meta": dict(meta),
        "contestants": {
            name: {"title": contestant.title, "version": contestant.version()}
            for name, contestant in contestants.items()
            if name in taking_part
        },
        "skipped": dict(skipped),
        "scenarios": {name: _scenario(scenarios[name], row, list(contestants)) for name, row in cells.items()},
    }


def _scenario(scenario: Scenario, row: Mapping[str, Cell], order: list[str]) -> dict[str, Any]:
    control = row.get(CONTROL)
    results = {}
    for name in (name for name in order if name in row):
        cell = row[name]
        results[name] = {
            "median": {key: value for key, (value, _, _) in spreads(cell.rounds).items()},
            "spread": {key: [low, high] for key, (_, low, high) in spreads(cell.rounds).items()},
            "ratio": ratios(cell, control) if control is not None and name != CONTROL else {},
            "rounds": cell.rounds,
            "problems": cell.problems,
        }
    return {"text": scenario.text, "metrics": [asdict(metric) for metric in scenario.metrics], "results": results}


def spreads(rounds: list[Figures | None]) -> dict[str, tuple[float, float, float]]:
    """Median, least and greatest of each figure over the rounds that have it."""
    gathered: dict[str, list[float]] = {}
    for figures in rounds:
        for key, value in (figures or {}).items():
            if value is not None:
                gathered.setdefault(key, []).append(value)
    return {key: (statistics.median(values), min(values), max(values)) for key, values in gathered.items()}


def ratios(cell: Cell, control: Cell) -> dict[str, float]:
    """Each figure in relation to the control's of the same round; the median of the rounds."""
    gathered: dict[str, list[float]] = {}
    for mine, its in zip(cell.rounds, control.rounds, strict=False):
        for key, value in (mine or {}).items():
            reference = (its or {}).get(key)
            if value is not None and reference:
                gathered.setdefault(key, []).append(value / reference)
    return {key: statistics.median(values) for key, values in gathered.items()}


def write(result: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write ``name.json`` and ``name.md``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    paths[0].write_text(json.dumps(result, indent=1) + "\n")
    paths[1].write_text(markdown(result))
    return paths


def markdown(result: Mapping[str, Any]) -> str:
    """One table per scenario: medians, in brackets the ratio to the control of the same run."""
    meta = result["meta"]
    lines = [
        "# Benchmark",
        "",
        f"{meta['date']} · {meta['cpu']}, {meta['cores']} cores, {meta['memory_gb']} GB · Linux {meta['kernel']} · "
        f"CPython {meta['python']} · revision {meta['revision']} · {meta['rounds']} rounds of {meta['window_s']:g} s",
        "",
        *(f"- **{name}**: {item['title']} ({item['version']})" for name, item in result["contestants"].items()),
        *(f"- {name} did not run: {reason}" for name, reason in result["skipped"].items()),
        "",
        f"Medians; in brackets the least and greatest; × is the ratio to `{CONTROL}` in the same rounds.",
    ]
    for name, scenario in result["scenarios"].items():
        lines += ["", f"## {name}", "", scenario["text"], "", *_table(scenario, list(result["contestants"]))]
    return "\n".join(lines) + "\n"


def _table(scenario: Mapping[str, Any], order: list[str]) -> list[str]:
    metrics, results = scenario["metrics"], scenario["results"]
    lines = [
        "| | " + " | ".join(f"{metric['title']} [{metric['unit']}]" for metric in metrics) + " |",
        "|---|" + "---:|" * len(metrics),
    ]
    for name in order:
        entry = results.get(name)
        shown = [_figure(entry, metric, first=i == 0) for i, metric in enumerate(metrics)] if entry else ["–"]
        lines.append(f"| {name} | " + " | ".join(shown + ["–"] * (len(metrics) - len(shown))) + " |")
    notes = [f"- {name}: {problem}" for name, entry in results.items() for problem in remarks(entry)]
    return [*lines, *(["", *notes] if notes else [])]


def _figure(entry: Mapping[str, Any], metric: Mapping[str, Any], *, first: bool) -> str:
    key = metric["name"]
    value = entry["median"].get(key)
    if value is None:
        return "–"
    text = number(value)
    if first:
        low, high = entry["spread"][key]
        text = f"**{text}** ({number(low)}–{number(high)})" if low < high else f"**{text}**"
    ratio = entry["ratio"].get(key)
    return f"{text} · {times(ratio)}" if ratio is not None and metric["ratio"] else text


def times(ratio: float) -> str:
    """A ratio with two significant digits, no exponent."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing a contestant's figures: failed rounds, and who else used its core."""
    foreign = entry["median"].get("foreign_percent", 0.0)
    disturbed = [f"other programs used {foreign:.0f} % of its core"] if foreign > FOREIGN_PERCENT else []
    return [*entry["problems"], *disturbed]


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
