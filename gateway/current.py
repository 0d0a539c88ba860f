"""What a reload of the configuration replaces: the configuration itself, and all that is made out of it.

A request takes ``gateway.current`` once, at its beginning, and uses that to its end, so it never sees half of one
configuration and half of another. A value, never changed: a reload makes a new one and puts it in the old one's place.

Some of a configuration cannot change while a process runs (:data:`NEEDS_RESTART`): listening sockets and the limits
they were opened with, the store that is open, who keeps the limits, the ledger, the log; nor the pepper that the
virtual keys in memory were made with. :func:`kept` finds what of it a new file wants changed, and the
tables of the old one stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve, fields_dict, frozen

from gateway.config import Config
from gateway.context.load import Loader
from gateway.upstream.targets import Routes

NEEDS_RESTART: Final = ("server", "store", "limits", "ledger", "log")  # tables


@frozen(kw_only=True)
class Current:
    """One configuration and what follows from it.

    Attributes:
        config: With ``[admission]`` as this process's share.
        loaders: Of each assistant; empty until the store is open.
    """

    config: Config
    routes: Routes
    loaders: Mapping[str, tuple[Loader, ...]]


def make_current(config: Config, loaders: Mapping[str, tuple[Loader, ...]] | None = None) -> Current:
    """What follows from ``config``; imports the dialects that it names, so the first time is best had in a thread."""
    return Current(
        config=config,
        routes=Routes(config.provider, config.model, config.assistant, config.timeouts),
        loaders=loaders or {},
    )


def kept(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """``new`` with the tables of ``old`` that cannot change now, and the paths of the fields that would have."""
    paths = [
        f"{table}.{name}"
        for table in NEEDS_RESTART
        for name in fields_dict(type(getattr(old, table)))
        if getattr(getattr(old, table), name) != getattr(getattr(new, table), name)
    ]
    pepper, identity = old.identity.pepper, new.identity
    if pepper is not None and pepper != identity.pepper:  # the first one may come while the process runs
        paths.append("identity.pepper")
        identity = evolve(identity, pepper=pepper)
    tables = {table: getattr(old, table) for table in NEEDS_RESTART}
    return evolve(new, identity=identity, **tables), tuple(paths)


def share_of(config: Config, index: int, count: int) -> Config:
    """The configuration of process ``index`` of ``count``: ``[admission]`` speaks of the whole instance."""

    def part(total: int) -> int:
        return total // count + (index < total % count)

    admission = config.admission
    return evolve(config, admission=evolve(admission, workers=part(admission.workers), queue=part(admission.queue)))
