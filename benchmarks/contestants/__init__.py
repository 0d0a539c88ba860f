"""The gateways under test, in the order of the tables."""

from __future__ import annotations

from benchmarks.contestants import floor, go, litellm, plain, portkey, sluice
from benchmarks.contestants.base import Contestant


def all_contestants() -> dict[str, Contestant]:
    """Every contestant by name, whether or not it can run here."""
    known = (sluice.SLUICE, go.GO, floor.FLOOR, plain.PLAIN, litellm.LITELLM, portkey.PORTKEY)
    return {contestant.name: contestant for contestant in known}
