"""``sluice import litellm``: reads the file, writes ours, and says on stderr what it could not carry over.

PyYAML is the extra ``litellm``. The result may hold the secrets that the file holds: it is readable by its owner only,
and no existing file is written over. Exit codes: 0 written, and nothing is wrong with it; 2 the file cannot be read or
written, or `sluice check` has faults to find in the result, which are listed too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gateway.config import ConfigFaults, load
from gateway.migrate.litellm import Imported, import_litellm

FAULTY = 2


def run(source: Path, output: Path | None, environ: Mapping[str, str]) -> int:
    """Convert ``source``; to stdout if ``output`` is None. Returns the exit code."""
    imported = import_litellm(_read(source))
    head = f"# Made of {source.name} by `sluice import litellm`. What it could not carry over was listed by it.\n\n"
    if output is None:
        click.echo(head + imported.text, nl=False)
    else:
        _write(output, head + imported.text)
    for left in imported.left:
        click.echo(f"not carried over: {left}", err=True)
    unset = [name for name in imported.variables if name not in environ]
    if unset:
        click.echo(f"set these variables, which it reads: {', '.join(unset)}", err=True)
    faults = faults_of(imported, environ)
    for fault in faults:
        click.echo(f"to mend before it can be served: {fault}", err=True)
    return FAULTY if faults else 0


def faults_of(imported: Imported, environ: Mapping[str, str]) -> list[str]:
    """What ``sluice check`` would say once the variables that are not set are."""
    samples = {name: _sample(name) for name in imported.variables}
    try:
        load(None, environ={**samples, **environ}, text=imported.text)
    except ConfigFaults as found:
        return [str(fault) for fault in found.faults]
    return []


def _sample(name: str) -> str:
    if any(word in name for word in ("BASE", "URL", "ENDPOINT")):
        return "https://example.com"
    return "us-east-1" if "REGION" in name else f"sample-of-{name}"


def _read(source: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise click.ClickException("reading YAML takes PyYAML: pip install 'sluice[litellm]'") from None
    try:
        return yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{source}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise click.ClickException(f"{source} is no YAML: {error}") from None


def _write(output: Path, text: str) -> None:
    try:
        with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{output} is there already; name another file, or move it away") from None
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror}") from None
