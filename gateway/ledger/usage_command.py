"""``sluice usage``: what was used and what it cost, as a table for people or as data.

``json`` is one array of objects, ``csv`` one line per row under a head, both with the columns of
:func:`gateway.ledger.report.usage_report`: money in whole micro-dollars. ``parquet`` has the same columns, wants a file
or a pipe to go to, and needs pyarrow (``pip install sluice[parquet]``), which is imported for it only. The table shows
dollars, and leaves out columns that are nothing but zeros.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
import trio

from gateway.config import Config
from gateway.ledger.report import Row, moment_s, parse_by, usage_report
from gateway.store.database import MEMORY
from gateway.store.ledger import MEASURES
from gateway.store.sqlite import Store, StoreError, database_path, is_postgresql

_MICRO: Final = 1_000_000
_HEADS: Final = {
    "prompt_tokens": "in",
    "completion_tokens": "out",
    "cached_tokens": "cached",
    "cache_write_tokens": "cache write",
    "reasoning_tokens": "reasoning",
    "cost_micro_usd": "USD",
    "lost_micro_usd": "lost USD",
    "tokens_delivered": "left: delivered",
    "tokens_generated": "left: generated",
    "tokens_saved": "left: saved",
    "saved_micro_usd": "saved USD",
}


def run(config: Config, *, by: str, since: str, until: str | None, format: str) -> None:
    """Print a report. Raises: click.ClickException."""
    now_s = time.time()
    try:
        names = parse_by(by)
    except ValueError as error:
        raise click.ClickException(f"--by: {error}") from error
    since_s = _moment("--since", since, now_s)
    until_s = now_s + 1 if until is None else _moment("--until", until, now_s)
    write = _writer(format)
    rows = _rows(config, names, since_s, until_s)
    write(names, rows)


def _moment(option: str, text: str, now_s: float) -> float:
    try:
        return moment_s(text, now_s)
    except ValueError as error:
        raise click.ClickException(f"{option}: {error}") from error


def _rows(config: Config, by: Sequence[str], since_s: float, until_s: float) -> list[Row]:
    async def report() -> list[Row]:
        async with Store.open(config.store.url, local_url=config.store.local_url) as store:
            return await usage_report(store.sql, by, since_s, until_s)

    try:
        _check_there_is_one(config)
        return trio.run(report)
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def _check_there_is_one(config: Config) -> None:
    """A report of a database that is made for it would say that nothing was used. Raises: click.ClickException."""
    if is_postgresql(config.store.url):
        return
    path = database_path(config.store.url)
    if path == MEMORY:
        raise click.ClickException("the ledger is in memory (store.url); ask the gateway: GET /admin/api/usage")
    if not Path(path).exists():
        raise click.ClickException(f"there is no ledger at {path} (store.url); the gateway makes it when it serves")


def _writer(format: str) -> Callable[[Sequence[str], list[Row]], None]:
    """What prints the format; whatever it needs is there. Raises: click.ClickException."""
    if format != "parquet":
        return {"table": _table, "csv": _csv, "json": _json}[format]
    try:
        pyarrow, parquet_files = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise click.ClickException(
            f"--format parquet needs pyarrow: pip install 'sluice[parquet]', or use csv or json ({error})"
        ) from error
    if sys.stdout.isatty():
        raise click.ClickException("--format parquet is not for a terminal: write … > usage.parquet")

    def parquet(by: Sequence[str], rows: list[Row]) -> None:
        fields = [(name, pyarrow.string()) for name in by] + [(name, pyarrow.int64()) for name in MEASURES]
        file = io.BytesIO()
        parquet_files.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields)), file)
        click.echo(file.getvalue(), nl=False)

    return parquet


def _csv(by: Sequence[str], rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *MEASURES], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _not_a_formula(value) for name, value in row.items()} for row in rows)
    click.echo(text.getvalue(), nl=False)


def _not_a_formula(value: Any) -> Any:
    """Names that clients chose, so that no spreadsheet calculates them."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _json(by: Sequence[str], rows: list[Row]) -> None:
    click.echo(json.dumps(rows, indent=2))


def _table(by: Sequence[str], rows: list[Row]) -> None:
    if not any(row["requests"] for row in rows):
        click.echo("no requests in this time")
        return
    from rich.console import Console
    from rich.table import Table

    measures = [name for name in MEASURES if name in ("requests", "cost_micro_usd") or any(row[name] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in by:
        table.add_column(name, overflow="fold")
    for name in measures:
        table.add_column(_HEADS.get(name, name), justify="right")
    for row in rows:
        names = [_printable(row[name]) for name in by]
        table.add_row(*names, *(_shown(name, row[name]) for name in measures))
    wide = None if sys.stdout.isatty() else 1_000
    Console(width=wide, highlight=False, markup=False).print(table)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text) or "–"


def _shown(name: str, value: int) -> str:
    return f"{value // _MICRO:,}.{value % _MICRO:06}" if name.endswith("micro_usd") else f"{value:,}"
