"""Providers that are known by name: ``presets.toml``, and how it fills in what a file leaves out.

``preset = "mistral"`` gives a provider its dialect, its address and its quirks; without one, a ``dialect`` that has an
address of its own gives those of the preset of the same name. What the file says comes first, quirk by quirk. This
happens to the document before it is read, so that everything behind it, ``sluice check`` above all, sees what holds.

Nothing is reported here: a preset that is not known is left alone with a hole in the place of the address, and
:mod:`gateway.config.provider_checks` says so.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attrs import field, frozen

from gateway.config.expand import ExpandError, expand
from gateway.config.faults import HOLE

FILE = Path(__file__).with_name("presets.toml")
REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@frozen(kw_only=True)
class Preset:
    """One table of ``presets.toml``, whose name is the preset's.

    Attributes:
        base_url: "" where there is none that all users share; ``{region}`` stands for the provider's.
        env: Where its users keep the key; "" if it needs none.
        env_fields: Further fields that come out of the environment, with their variables; each must be set.
        model: A cheap, quick, general one, for who has no configuration; "" if there is none that everybody has.
        family: Prefix that all its main models share; "" if they do not.
        source: The page that documents its API.
        quirks: As in ``gateway.dialects.provider.Quirks``.
    """

    name: str
    dialect: str = "openai"
    base_url: str = ""
    env: str = ""
    env_fields: Mapping[str, str] = field(factory=dict)
    model: str = ""
    family: str = ""
    source: str = ""
    quirks: Mapping[str, Any] = field(factory=dict)


@cache
def presets() -> Mapping[str, Preset]:
    """All of them by name, in the file's order, which is the order of preference without a configuration.

    Cost: 2 ms the first time, for parsing the file.
    """
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Preset(name=name, **table) for name, table in tables.items()}


def fill_in(document: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The document with what presets and dialects give its providers. What is no table stays as it is."""
    filled = dict(document)
    providers = filled.get("provider")
    if isinstance(providers, list):
        filled["provider"] = [_filled(one, environ) if isinstance(one, Mapping) else one for one in providers]
    return filled


def _filled(table: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    filled = dict(table)
    name = _text(table.get("preset", ""), environ)
    if name == "" and "dialect" in table:
        name = _text(table["dialect"], environ)
    elif name == "":
        return filled
    preset = presets().get(name) if name is not None else None
    if preset is None:
        filled.setdefault("base_url", HOLE)
        return filled
    filled.setdefault("dialect", preset.dialect)
    if preset.base_url:
        filled.setdefault("base_url", _address(preset.base_url, table, environ))
    quirks = table.get("quirks", {})
    if isinstance(quirks, Mapping) and filled["dialect"] == preset.dialect:
        filled["quirks"] = {**preset.quirks, **quirks}
    return filled


def _address(base_url: str, table: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    if "{region}" not in base_url:
        return base_url
    region = _text(table.get("region", ""), environ)
    return base_url.replace("{region}", region) if region and REGION.fullmatch(region) else HOLE


def _text(raw: Any, environ: Mapping[str, str]) -> str | None:
    """The string that the reader will make of it; None if it will find a fault instead."""
    if not isinstance(raw, str):
        return None
    try:
        return str(expand(raw, environ))
    except ExpandError:
        return None
