"""Pictures of a result: cost in relation to Go, and each scenario's first figure. Needs the extra ``bench``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import times

COLOURS = {
    "sluice": "#0b7285",
    "go": "#868e96",
    "floor": "#94d82d",
    "plain": "#f59f00",
    "litellm": "#e8590c",
    "portkey": "#9c36b5",
}


def draw(result: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write PNG and SVG files; returns their paths.

    Raises:
        ImportError: Without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    # The same figures give the same file: no date, ids from a fixed salt.
    matplotlib.rcParams.update({"svg.hashsalt": "sluice", "font.size": 9, "axes.axisbelow": True})
    paths: list[Path] = []
    for suffix, figure in (("ratios", _ratios(result)), ("figures", _figures(result))):
        if figure is None:
            continue
        for kind in ("png", "svg"):
            path = folder / f"{name}-{suffix}.{kind}"
            figure.savefig(path, dpi=144, metadata={"Date": None} if kind == "svg" else None)
            paths.append(path)
    return paths


def _ratios(result: Mapping[str, Any]) -> Any:
    """One bar per contestant and scenario, on a logarithmic axis with the control at 1; None without a control."""
    from matplotlib.figure import Figure

    bars: list[tuple[str, str, float]] = []
    for name, scenario in reversed(result["scenarios"].items()):
        metric = scenario["metrics"][0]
        if not metric["ratio"]:
            continue
        for contestant, entry in reversed(scenario["results"].items()):
            ratio = entry["ratio"].get(metric["name"])
            if ratio:
                bars.append((f"{name}: {metric['title']}", contestant, ratio))
    if not bars:
        return None
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for row, (_, contestant, ratio) in enumerate(bars):
        axes.barh(row, ratio - 1, left=1, color=COLOURS.get(contestant, "#495057"), height=0.8)
        axes.annotate(f" {times(ratio)}", (max(ratio, 1), row), va="center", fontsize=7)
    axes.set_xscale("log")
    axes.set_yticks(range(len(bars)), [f"{label} · {contestant}" for label, contestant, _ in bars], fontsize=7)
    axes.axvline(1, color=COLOURS["go"], linewidth=1)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("in relation to Go in the same rounds (1 = as Go)")
    axes.set_title(f"Ratio to Go · {result['meta']['cpu']} · {result['meta']['date'][:10]}", fontsize=9)
    return figure


def _figures(result: Mapping[str, Any]) -> Any:
    """A small chart per scenario with the medians of its first metric and their spread."""
    from matplotlib.figure import Figure

    scenarios = result["scenarios"]
    columns = min(3, len(scenarios)) or 1
    rows = max(1, math.ceil(len(scenarios) / columns))
    figure = Figure(figsize=(4 * columns, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, scenario) in zip(grid, scenarios.items(), strict=False):
        metric = scenario["metrics"][0]
        found = {
            contestant: (entry["median"][metric["name"]], entry["spread"][metric["name"]])
            for contestant, entry in reversed(scenario["results"].items())
            if entry["median"].get(metric["name"]) is not None
        }
        values = [median for median, _ in found.values()]
        errors = [[m - s[0] for m, s in found.values()], [s[1] - m for m, s in found.values()]]
        axes.barh(list(found), values, xerr=errors, color=[COLOURS.get(name, "#495057") for name in found])
        axes.set_title(f"{name}: {metric['title']} [{metric['unit']}]", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    for axes in list(figure.axes)[len(scenarios) :]:
        axes.remove()
    return figure
