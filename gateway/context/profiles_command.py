"""``sluice profiles``: load user profiles from a CSV or JSON-lines file, all of them or none.

Rows replace what the store has for the same user; users that the file does not name keep theirs.
"""

from __future__ import annotations

from pathlib import Path

import click
import trio

from gateway.config import Config
from gateway.config import Store as StoreTable
from gateway.context.profile_files import ProfileFaults, parse_profiles
from gateway.store.profiles import Profile
from gateway.store.sqlite import Store, StoreError

_JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})


def run(config: Config, path: Path) -> None:
    """Load ``path`` into the configured store and say how many profiles it had.

    Raises: click.ClickException with every fault of the file, or the store's.
    """
    try:
        profiles = read_profiles(path)
        trio.run(_put, config.store, profiles)
    except ProfileFaults as error:
        count = len(error.faults)
        title = f"{path}: {count} fault{'s' if count != 1 else ''}, nothing was loaded"
        raise click.ClickException("\n".join([title, *(f"  {fault}" for fault in error.faults)])) from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; give a CSV or JSON-lines file") from error
    click.echo(f"{path}: {len(profiles)} profile{'s' if len(profiles) != 1 else ''} loaded")


def read_profiles(path: Path) -> dict[str, Profile]:
    """The profiles of a file; JSON lines by its name (.jsonl, .ndjson, .json), CSV otherwise.

    Raises: ProfileFaults, OSError.
    """
    return parse_profiles(path.read_bytes(), json_lines=path.suffix.lower() in _JSON_LINES)


async def _put(where: StoreTable, profiles: dict[str, Profile]) -> None:
    async with Store.open(where.url, local_url=where.local_url) as store:
        await store.profiles.put(profiles)
