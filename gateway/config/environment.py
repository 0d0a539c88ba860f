"""A configuration out of the provider keys in the environment, for ``sluice serve`` without a file.

Every preset (``presets.toml``) whose key is set becomes a ``[[provider]]`` and can be asked in three ways:
``openai/gpt-4o-mini`` (one sensible model, listed for clients), ``openai/*`` (any model of that provider) and, where a
provider's models share a prefix, that too (``gpt-*``), so that programs written for it run unchanged. ``chat`` is the
sensible model of the first provider found, with the others behind it. ``SLUICE_KEY`` becomes a ``[[key]]`` named
``env``.

Only these variables are read. ``OPENAI_BASE_URL`` above all is not: it is what points clients *at* a gateway.
The names of models age; a file overrules them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config.load import Overrides, build
from gateway.config.presets import Preset, presets
from gateway.config.tree import Config


def known_variables() -> tuple[str, ...]:
    """The variables in which providers' keys are looked for."""
    return tuple(preset.env for preset in presets().values() if preset.env)


def from_environment(environ: Mapping[str, str], *, overrides: Overrides | None = None) -> Config | None:
    """The configuration that the keys in ``environ`` make; None if no provider's key is set (empty counts as unset).

    Raises:
        ConfigFaults: A key holds what cannot stand in a header, or an override is wrong.
    """
    found = [preset for preset in presets().values() if _is_set(preset, environ)]
    if not found:
        return None
    targets = [{"provider": preset.name, "model": preset.model} for preset in found if preset.model]
    document: dict[str, Any] = {
        "provider": [_provider(preset) for preset in found],
        "model": [
            *([{"name": "chat", "targets": targets}] if targets else []),
            *(model for preset in found for model in _models(preset)),
        ],
    }
    if environ.get("SLUICE_KEY"):
        document["key"] = [{"name": "env", "secret": "${SLUICE_KEY}"}]
    return build(document, environ=environ, overrides=overrides)


def _is_set(preset: Preset, environ: Mapping[str, str]) -> bool:
    return bool(preset.env) and all(environ.get(name) for name in (preset.env, *preset.env_fields.values()))


def _provider(preset: Preset) -> dict[str, Any]:
    fields = {"api_key": preset.env, **preset.env_fields}
    return {
        "name": preset.name,
        "preset": preset.name,
        **{field: f"${{{variable}}}" for field, variable in fields.items()},
    }


def _models(preset: Preset) -> list[dict[str, Any]]:
    """A listed name, any model of this provider, and its family."""
    names = {f"{preset.name}/*": "*"}
    if preset.model:
        names = {f"{preset.name}/{preset.model}": preset.model, **names}
    if preset.family:
        names[f"{preset.family}*"] = f"{preset.family}*"
    return [{"name": name, "targets": [{"provider": preset.name, "model": model}]} for name, model in names.items()]
