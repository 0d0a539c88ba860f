"""``sluice index``: index a folder from the command line, with a progress bar where there is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trio

from gateway.config import Config
from gateway.config import Store as StoreTable
from gateway.context.index import IndexProgress, IndexReport, ignore, index_folder
from gateway.store.sqlite import Store, StoreError

_SHOWN_SKIPPED = 20


def run(config: Config, path: Path, collection: str) -> None:
    """Index ``path`` into ``collection`` of the configured store and say what was done.

    Raises: click.ClickException with the reason if it cannot be done.
    """
    try:
        with _progress_bar(path) as progress:
            report = trio.run(_index, config.store, path, collection, progress)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; give a folder of text or Markdown files") from error
    click.echo(summary(report, path, collection))


async def _index(
    where: StoreTable, path: Path, collection: str, progress: Callable[[IndexProgress], None]
) -> IndexReport:
    async with Store.open(where.url, local_url=where.local_url) as store:
        return await index_folder(store, collection, path, progress)


def summary(report: IndexReport, path: Path, collection: str) -> str:
    """What was done, in a line, and a line for each file that was left out."""
    lines = [
        f"{path} → collection '{collection}': {report.added} added, {report.changed} changed,"
        f" {report.unchanged} unchanged, {report.removed} removed; {report.passages} passages"
    ]
    lines += [f"  left out {name}: {reason}" for name, reason in report.skipped[:_SHOWN_SKIPPED]]
    more = len(report.skipped) - _SHOWN_SKIPPED
    if more > 0:
        lines.append(f"  left out {more} more")
    return "\n".join(lines)


@contextmanager
def _progress_bar(path: Path) -> Iterator[Callable[[IndexProgress], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ignore
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"indexing {path.name or path}", total=None)
        yield lambda progress: bar.update(task, completed=progress.done, total=progress.total)
