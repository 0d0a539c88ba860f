"""``python -m benchmarks``: run contestants through scenarios and write what it cost them.

Everything that measures is in :mod:`benchmarks.scenarios` and the processes it drives; here are the options, the
progress display and the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import machine, plots, procs, report, runner
from benchmarks.contestants import all_contestants
from benchmarks.contestants.base import Contestant
from benchmarks.scenarios import Scenario, all_scenarios

RESULTS = Path(__file__).parent / "results"


@click.command()
@click.option("--quick", is_flag=True, help="One short round of the main scenarios, about a minute.")
@click.option("--scenario", "scenario_names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--contestant", "contestant_names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often each pair is run (5; quick: 1).")
@click.option("--window", "window_s", type=click.FloatRange(0.1, 600), help="Seconds counted per round (3; quick: 1).")
@click.option("--name", default="latest", show_default=True, help="Name of the files written.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Folder for them.")
@click.option("--list", "list_only", is_flag=True, help="Show scenarios and contestants, run nothing.")
def main(
    quick: bool,
    scenario_names: tuple[str, ...],
    contestant_names: tuple[str, ...],
    rounds: int | None,
    window_s: float | None,
    name: str,
    output: Path,
    list_only: bool,
) -> None:
    """Measure what Sluice costs next to Go, raw Trio, the plain stack and other gateways."""
    console = Console()
    scenarios, contestants = all_scenarios(), all_contestants()
    skipped = {key: reason for key, item in contestants.items() if (reason := item.absent())}
    if list_only:
        show(console, scenarios, contestants, skipped)
        return
    chosen = chosen_of(scenarios, scenario_names, "scenario")
    if quick and not scenario_names:
        chosen = tuple(scenario for scenario in chosen if scenario.quick)
    taking_part = chosen_of(contestants, contestant_names, "contestant")
    missing = {item.name: skipped[item.name] for item in taking_part if item.name in skipped}
    for key, reason in missing.items():
        console.print(f"[yellow]{key} is left out:[/] {reason}", highlight=False)
    plan = runner.Plan(
        scenarios=chosen,
        contestants=tuple(item for item in taking_part if item.name not in missing),
        rounds=rounds or (1 if quick else 5),
        warmup_s=0.5 if quick else 1.0,
        window_s=window_s or (1.0 if quick else 3.0),
    )
    procs.raise_descriptor_limit()
    cores = procs.Cores.choose()
    if cores.contestant == cores.instrument:
        console.print("[yellow]One core only: the instrument disturbs what it measures; trust nothing but orders.[/]")
    meta = machine.describe() | {"rounds": plan.rounds, "warmup_s": plan.warmup_s, "window_s": plan.window_s}
    with procs.pinned(cores.instrument):
        cells = run_with_progress(plan, cores, console)
    result = report.document(cells, scenarios=scenarios, contestants=contestants, skipped=missing, meta=meta)
    paths = report.write(result, output, name)
    try:
        paths += plots.draw(result, output, name)
    except ImportError:
        console.print("[yellow]No plots: matplotlib is not installed (pip install 'sluice\\[bench]').[/]")
    summarise(console, result)
    console.print("written: " + ", ".join(str(path) for path in paths), highlight=False, soft_wrap=True)


def chosen_of(known: dict[str, Any], names: tuple[str, ...], what: str) -> tuple[Any, ...]:
    """The named ones in the order of ``known``; all without names.

    Raises:
        click.BadParameter: A name is not known.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"no {what} is called {unknown[0]!r}; there are: {', '.join(known)}")
    return tuple(item for name, item in known.items() if not names or name in names)


def run_with_progress(plan: runner.Plan, cores: procs.Cores, console: Console) -> runner.Cells:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # The display runs on the instrument's core; twice a second is cheap enough not to show in what is measured there.
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("", total=plan.cells())

        def before(scenario: Scenario, contestant: Contestant, number: int) -> None:
            progress.update(task, description=f"{scenario.name} · {contestant.name} · round {number + 1}")

        def after(scenario: Scenario, contestant: Contestant, number: int) -> None:
            progress.advance(task)

        return runner.run(plan, cores, before, after)


def summarise(console: Console, result: dict[str, Any]) -> None:
    """The first figure of every scenario, one row each."""
    names = list(result["contestants"])
    table = Table(title="medians; × is the ratio to Go in the same rounds")
    table.add_column("scenario")
    table.add_column("figure")
    for name in names:
        table.add_column(name, justify="right")
    for name, scenario in result["scenarios"].items():
        metric, cells = scenario["metrics"][0], []
        for contestant in names:
            entry = scenario["results"].get(contestant, {"median": {}, "ratio": {}})
            value, ratio = entry["median"].get(metric["name"]), entry["ratio"].get(metric["name"])
            text = "–" if value is None else report.number(value)
            cells.append(f"{text} · {report.times(ratio)}" if ratio is not None and metric["ratio"] else text)
        table.add_row(name, f"{metric['title']} [{metric['unit']}]".replace("[", "\\["), *cells)
    console.print(table)
    for name, scenario in result["scenarios"].items():
        for contestant, entry in scenario["results"].items():
            for remark in report.remarks(entry):
                console.print(f"[red]{name} · {contestant}:[/] {escape(remark)}", highlight=False)


def show(
    console: Console, scenarios: dict[str, Scenario], contestants: dict[str, Contestant], skipped: dict[str, str]
) -> None:
    table = Table("scenario", "what", "quick", title="Scenarios")
    for scenario in scenarios.values():
        table.add_row(scenario.name, scenario.text, "yes" if scenario.quick else "")
    console.print(table)
    table = Table("contestant", "what", "", title="Contestants")
    for contestant in contestants.values():
        table.add_row(contestant.name, contestant.title, skipped.get(contestant.name, "ready"))
    console.print(table)


if __name__ == "__main__":
    main()
