"""A file to a configuration, or to all of its faults.

The order: read the file, parse TOML, lay the command line's values over it, fill in what presets give, read it into the
classes, check what lies between the values. Only the first two stop at their first fault; a file that is not TOML has
no fields to speak of.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gateway.config.checks import check
from gateway.config.faults import ConfigFaults, Fault, FromEnvironment
from gateway.config.presets import fill_in
from gateway.config.tree import Config

Overrides = Mapping[str, Mapping[str, object]]


def load(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    text: str | None = None,
    overrides: Overrides | None = None,
) -> Config:
    """Read a configuration.

    Args:
        path: The TOML file; None together with no ``text`` is an empty file, so every default.
        environ: Where ``${VAR}`` looks.
        text: TOML to use in the file's place.
        overrides: What the command line says, e.g. ``{"server": {"bind": "127.0.0.1:9000"}}``; it replaces the file's
            value before anything is checked.

    Raises:
        ConfigFaults: All of its faults at once. A loader without a placeholder in its assistant's ``system`` is none:
            what it loads is appended.
    """
    if text is None:
        text = "" if path is None else _read(path)
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ConfigFaults([Fault(path="", message="not TOML: nested too deeply")]) from None
    except ValueError as error:
        raise ConfigFaults([Fault(path="", message=f"not TOML: {error}")]) from None
    return build(document, environ=environ, overrides=overrides)


def build(document: Mapping[str, Any], *, environ: Mapping[str, str], overrides: Overrides | None = None) -> Config:
    """A configuration from parsed TOML; see :func:`load`."""
    from gateway.config.read import read  # brings in cattrs, which the command line's help does without

    written = _overlaid(document, overrides or {})
    config, faults = read(fill_in(written, environ), environ)
    check(config, lambda path, message: faults.append(Fault(path=path, message=message)))
    if faults:
        raise ConfigFaults(dict.fromkeys(faults))
    settled: Config = _settled(_with_answers_times(config, written.get("timeouts", {})))
    return settled


def _with_answers_times(config: Config, written: Mapping[str, Any]) -> Config:
    """The configuration with ``answer_s`` where nobody set it but ``first_token_s``: then that holds for both.

    Who says how long a silent provider is waited for means every request, streamed or not; :func:`advice` tells of it.

    Args:
        written: The document's ``[timeouts]``.
    """
    if "answer_s" in written:
        return config
    timeouts = config.timeouts
    if "first_token_s" in written:
        timeouts = attrs.evolve(timeouts, answer_s=timeouts.first_token_s)
    models = tuple(
        attrs.evolve(model, timeouts=attrs.evolve(model.timeouts, answer_s=model.timeouts.first_token_s))
        if model.timeouts.answer_s is None
        else model
        for model in config.model
    )
    return attrs.evolve(config, timeouts=timeouts, model=models)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigFaults([Fault(path="", message=f"not TOML: not UTF-8 at byte {error.start}")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigFaults([Fault(path="", message=f"cannot be read: {why}")]) from None


def _overlaid(document: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    merged = dict(document)
    for table, fields in overrides.items():
        below = merged.get(table, {})
        if isinstance(below, Mapping):  # otherwise it is a fault that the reader names
            merged[table] = {**below, **fields}
    return merged


def _settled(value: Any) -> Any:
    """The tree with plain strings: where a value came from matters to faults only."""
    if isinstance(value, FromEnvironment):
        return str(value)
    if isinstance(value, tuple):
        return tuple(_settled(one) for one in value)
    if isinstance(value, dict):
        return {name: _settled(one) for name, one in value.items()}
    if isinstance(value, Config) or attrs.has(type(value)):
        fields = [field for field in attrs.fields(type(value)) if field.alias == field.name]
        return attrs.evolve(value, **{field.name: _settled(getattr(value, field.name)) for field in fields})
    return value
