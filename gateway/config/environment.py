"""A configuration out of the provider keys in the environment, for ``sluice serve`` without a file.

Every provider whose key is set becomes a ``[[provider]]`` on its OpenAI-compatible endpoint and can be asked in three
ways: ``openai/gpt-4o-mini`` (one sensible model, listed for clients), ``openai/*`` (any model of that provider) and,
where a provider's models share a prefix, that too (``gpt-*``), so that programs written for it run unchanged.
``chat`` is the sensible model of the first provider found, with the others behind it. ``SLUICE_KEY`` becomes a
``[[key]]`` named ``env``.

Only these variables are read. ``OPENAI_BASE_URL`` above all is not: it is what points clients *at* a gateway.
The names of models age; a file overrules them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway.config.load import Overrides, build
from gateway.config.tree import Config


@frozen(kw_only=True, slots=True)
class KnownProvider:
    """A provider as its documentation describes it.

    Attributes:
        variable: Where its users keep the key.
        base_url: Of its OpenAI-compatible API, from the page in ``source``.
        model: A cheap, quick, general one; an alias that follows new versions where there is one.
        family: Prefix that all its main models share; "" if they do not.
        source: The page that documents the endpoint.
    """

    name: str
    variable: str
    base_url: str
    model: str
    family: str = ""
    source: str


KNOWN_PROVIDERS = (
    KnownProvider(
        name="openai",
        variable="OPENAI_API_KEY",
        base_url="https://api.openai.com/v1",
        model="gpt-4o-mini",
        family="gpt-",
        source="https://platform.openai.com/docs/api-reference/chat",
    ),
    KnownProvider(
        name="anthropic",
        variable="ANTHROPIC_API_KEY",
        base_url="https://api.anthropic.com/v1",
        model="claude-haiku-4-5",
        family="claude-",
        source="https://docs.anthropic.com/en/api/openai-sdk",
    ),
    KnownProvider(
        name="gemini",
        variable="GEMINI_API_KEY",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        model="gemini-flash-latest",
        family="gemini-",
        source="https://ai.google.dev/gemini-api/docs/openai",
    ),
    KnownProvider(
        name="mistral",
        variable="MISTRAL_API_KEY",
        base_url="https://api.mistral.ai/v1",
        model="mistral-small-latest",
        family="mistral-",
        source="https://docs.mistral.ai/api",
    ),
    KnownProvider(
        name="groq",
        variable="GROQ_API_KEY",
        base_url="https://api.groq.com/openai/v1",
        model="openai/gpt-oss-20b",
        source="https://console.groq.com/docs/api-reference",
    ),
    KnownProvider(
        name="deepseek",
        variable="DEEPSEEK_API_KEY",
        base_url="https://api.deepseek.com/v1",
        model="deepseek-v4-flash",
        family="deepseek-",
        source="https://api-docs.deepseek.com",
    ),
    KnownProvider(
        name="xai",
        variable="XAI_API_KEY",
        base_url="https://api.x.ai/v1",
        model="grok-4",
        family="grok-",
        source="https://docs.x.ai/docs/models",
    ),
    KnownProvider(
        name="together",
        variable="TOGETHER_API_KEY",
        base_url="https://api.together.ai/v1",
        model="openai/gpt-oss-20b",
        source="https://docs.together.ai/docs/inference/openai-compatibility",
    ),
    KnownProvider(
        name="openrouter",
        variable="OPENROUTER_API_KEY",
        base_url="https://openrouter.ai/api/v1",
        model="openrouter/auto",
        source="https://openrouter.ai/docs/guides/routing/routers/auto-router",
    ),
)


def from_environment(environ: Mapping[str, str], *, overrides: Overrides | None = None) -> Config | None:
    """The configuration that the keys in ``environ`` make; None if no provider's key is set (empty counts as unset).

    Raises:
        ConfigFaults: A key holds what cannot stand in a header, or an override is wrong.
    """
    found = [known for known in KNOWN_PROVIDERS if environ.get(known.variable)]
    if not found:
        return None
    document: dict[str, Any] = {
        "provider": [
            {"name": known.name, "base_url": known.base_url, "api_key": f"${{{known.variable}}}"} for known in found
        ],
        "model": [
            {"name": "chat", "targets": [{"provider": known.name, "model": known.model} for known in found]},
            *(model for known in found for model in _models(known)),
        ],
    }
    if environ.get("SLUICE_KEY"):
        document["key"] = [{"name": "env", "secret": "${SLUICE_KEY}"}]
    return build(document, environ=environ, overrides=overrides)


def _models(known: KnownProvider) -> list[dict[str, Any]]:
    """A listed name, any model of this provider, and its family."""
    names = {f"{known.name}/{known.model}": known.model, f"{known.name}/*": "*"}
    if known.family:
        names[f"{known.family}*"] = f"{known.family}*"
    return [{"name": name, "targets": [{"provider": known.name, "model": model}]} for name, model in names.items()]
