"""LiteLLM's deployments as our providers: which of its prefixes is which preset, and with what address and keys.

A deployment names its provider, address and credentials anew each time; ours are named once, so equal ones become one.
Where a deployment gives no key, LiteLLM reads the variable that it has for that provider, and so does the result.

Source: LiteLLM documentation, "AI Providers" and each provider's page, "Config.yaml", "Centralized credential
management".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import Factory, define, frozen

from gateway.config.presets import REGION, presets
from gateway.migrate.reading import Notes, Table

_IN_A_PATH = re.compile(r"/v\d+[a-z]*$")
_BEDROCK_ROUTES = ("converse/", "invoke/", "converse_like/")


@frozen(kw_only=True, slots=True)
class Known:
    """What a prefix means.

    Attributes:
        preset: Ours; "" for an address of one's own in OpenAI's dialect.
        variable: Where LiteLLM looks for the key; "" if it needs none.
        base_variable: Where it looks for the address.
        suffix: What ``api_base`` lacks there and ``base_url`` needs here.
    """

    preset: str = ""
    variable: str = ""
    base_variable: str = ""
    suffix: str = ""


KNOWN: Mapping[str, Known] = {
    "openai": Known(preset="openai", variable="OPENAI_API_KEY"),
    "anthropic": Known(preset="anthropic", variable="ANTHROPIC_API_KEY", suffix="/v1"),
    "gemini": Known(preset="gemini", variable="GEMINI_API_KEY"),
    "azure": Known(preset="azure", variable="AZURE_API_KEY", base_variable="AZURE_API_BASE"),
    "bedrock": Known(preset="bedrock"),
    "mistral": Known(preset="mistral", variable="MISTRAL_API_KEY"),
    "groq": Known(preset="groq", variable="GROQ_API_KEY"),
    "deepseek": Known(preset="deepseek", variable="DEEPSEEK_API_KEY"),
    "xai": Known(preset="xai", variable="XAI_API_KEY"),
    "together_ai": Known(preset="together", variable="TOGETHERAI_API_KEY"),
    "openrouter": Known(preset="openrouter", variable="OPENROUTER_API_KEY"),
    "fireworks_ai": Known(preset="fireworks", variable="FIREWORKS_AI_API_KEY"),
    "cohere": Known(preset="cohere", variable="COHERE_API_KEY"),
    "cohere_chat": Known(preset="cohere", variable="COHERE_API_KEY"),
    "cerebras": Known(preset="cerebras", variable="CEREBRAS_API_KEY"),
    "perplexity": Known(preset="perplexity", variable="PERPLEXITYAI_API_KEY"),
    "nvidia_nim": Known(preset="nvidia", variable="NVIDIA_NIM_API_KEY"),
    "ollama": Known(preset="ollama", suffix="/v1"),
    "ollama_chat": Known(preset="ollama", suffix="/v1"),
    "hosted_vllm": Known(preset="vllm", base_variable="HOSTED_VLLM_API_BASE"),
    "lm_studio": Known(preset="lmstudio", base_variable="LM_STUDIO_API_BASE"),
    "litellm_proxy": Known(variable="LITELLM_PROXY_API_KEY", base_variable="LITELLM_PROXY_API_BASE"),
    "openai_like": Known(),
    "custom_openai": Known(),
}
_BARE = (  # LiteLLM knows these names without a prefix
    (re.compile(r"(gpt-|chatgpt-|o\d|ft:gpt|text-embedding-|davinci|omni-moderation)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"command-"), "cohere"),
)


@define(slots=True)
class Providers:
    """The providers so far, one for each address, credentials and settings that differ."""

    notes: Notes
    shared: dict[str, Any] = Factory(dict)  # e.g. the breaker, which LiteLLM has once for all
    tables: list[dict[str, Any]] = Factory(list)

    def add(self, deployment: Table) -> tuple[str, str] | None:
        """The deployment's provider, added if it is new.

        Returns:
            Its name and the model's name there; None, noted, if there is no such provider here.
        """
        prefix, model = _split(deployment)
        known = KNOWN.get(prefix)
        if known is None:
            why = f"no provider is known for {prefix!r}" if prefix else "LiteLLM alone knows whose model this is"
            deployment.note("model", f"{why}; if it speaks OpenAI's dialect, write a [[provider]] with its base_url")
            return None
        fields = self._fields(prefix, known, deployment)
        if fields is None:
            return None
        if known.preset == "bedrock":
            model = _bedrock(model, fields, deployment)
        return self._named(fields, known.preset or prefix.replace("_", "-")), model

    def _fields(self, prefix: str, known: Known, deployment: Table) -> dict[str, Any] | None:
        base = deployment.text("api_base") or deployment.text("base_url")
        fields: dict[str, Any] = {"preset": known.preset or None}
        if not base and known.base_variable:
            self.notes.variables[known.base_variable] = None
            base = f"${{{known.base_variable}}}"
        if not base and not known.preset:
            deployment.note("api_base", f"is missing; {prefix!r} has no address of its own")
            return None
        own_server = bool(base) and known.preset == "openai" and not base.startswith(presets()["openai"].base_url)
        if own_server:
            fields["preset"] = None  # `openai/` with an address means: whoever speaks that dialect
        if base:
            fields["base_url"] = _with_suffix(base, known.suffix)
        self._add_key(fields, known, deployment, needed=not own_server)
        if known.preset == "azure":
            fields["api_version"] = deployment.text("api_version") or None
        self._add_headers(fields, deployment)
        parallel = deployment.count("max_parallel_requests")
        if parallel:
            fields["concurrency"] = {"floor": 1, "start": parallel, "ceiling": parallel}
        return {**self.shared, **fields}

    def _add_key(self, fields: dict[str, Any], known: Known, deployment: Table, *, needed: bool) -> None:
        key = deployment.text("api_key")
        if key.lower() in ("none", "anything", "dummy"):
            key = ""  # what is written there for servers that ask for none
        elif not key and known.variable and needed:
            self.notes.variables[known.variable] = None
            key = f"${{{known.variable}}}"
        if key:
            fields["api_key"] = key

    def _add_headers(self, fields: dict[str, Any], deployment: Table) -> None:
        headers: dict[str, str] = {}
        organization = deployment.take("organization")
        if isinstance(organization, str):
            headers["OpenAI-Organization"] = deployment.expanded(organization)
        elif organization is not None:
            deployment.note("organization", "several are several providers here; write one for each")
        for name in ("extra_headers", "headers"):
            given = deployment.table(name)
            headers.update({header: given.text(header) for header in given.fields})
        if headers:
            fields["headers"] = headers

    def _named(self, fields: dict[str, Any], stem: str) -> str:
        for table in self.tables:
            if {key: value for key, value in table.items() if key != "name"} == fields:
                return str(table["name"])
        taken = {table["name"] for table in self.tables}
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        self.tables.append({"name": name, **fields})
        return name


def _split(deployment: Table) -> tuple[str, str]:
    """Prefix and model: ``azure/gpt-4o-eu``, ``gpt-4o``, or with ``custom_llm_provider``."""
    model, prefix = deployment.text("model"), deployment.text("custom_llm_provider")
    if prefix:
        return prefix, model.removeprefix(f"{prefix}/")
    head, slash, rest = model.partition("/")
    if slash:
        return head, rest
    return next((name for pattern, name in _BARE if pattern.match(model)), ""), model


def _with_suffix(base: str, suffix: str) -> str:
    base = base.rstrip("/")
    if not suffix or _IN_A_PATH.search(base):
        return base
    return base + suffix


def _bedrock(model: str, fields: dict[str, Any], deployment: Table) -> str:
    """Region and credentials; the model without LiteLLM's routes before it."""
    for route in _BEDROCK_ROUTES:
        model = model.removeprefix(route)
    head, slash, rest = model.partition("/")
    region = deployment.text("aws_region_name")
    if slash and "-" in head and REGION.fullmatch(head):
        region, model = region or head, rest
    endpoint = deployment.text("aws_bedrock_runtime_endpoint")
    if endpoint:
        fields["base_url"] = endpoint.rstrip("/")
    credentials = {
        "access_key_id": deployment.text("aws_access_key_id"),
        "secret_access_key": deployment.text("aws_secret_access_key"),
        "session_token": deployment.text("aws_session_token"),
    }
    variables = deployment.notes.variables
    if not region:
        region, variables["AWS_REGION_NAME"] = "${AWS_REGION_NAME}", None
    if "api_key" not in fields and not credentials["access_key_id"]:
        credentials = {
            "access_key_id": "${AWS_ACCESS_KEY_ID}",
            "secret_access_key": "${AWS_SECRET_ACCESS_KEY}",
            "session_token": "${AWS_SESSION_TOKEN:-}",
        }
        variables.update(dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")))
    fields["region"] = region
    fields.update({name: value for name, value in credentials.items() if value})
    return model
