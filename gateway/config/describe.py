"""The configuration as TOML, defaults included and secrets masked, and what is odd about it.

``describe`` prints what the gateway works with, not what the file says: read back, with the masked values replaced, it
gives an equal configuration. Every header value and every fixed value in a URL's query is masked, for any of them may
be a key. ``system`` and ``body`` are shown: prompts are no place for secrets, headers are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs

from gateway.config.address import parse_address
from gateway.config.faults import quote_key
from gateway.config.http_checks import host_in_url
from gateway.config.identity_checks import asks_for_keys
from gateway.config.tree import MASK, Config, ModelTimeouts, Provider, Secret, Timeouts, mask_query

_SHORT_SECRET_CHARS = 16


def describe(config: Config) -> str:
    """The effective configuration as TOML, with ``***`` for secrets."""
    return "\n".join(_tables("", config)).strip() + "\n"


def _tables(path: str, value: Any) -> Iterator[str]:
    """Own fields first, then sub-tables: a line after a table's header would belong to that table.

    Tables below an entry of an array (a provider's breaker, a model's targets) are written inline.
    """
    tables = []
    for field in attrs.fields(type(value)):
        inner = getattr(value, field.name)
        where = f"{path}.{field.name}" if path else field.name
        if attrs.has(type(inner)) and not isinstance(inner, Secret) and not path:
            tables.append((f"[{where}]", where, inner))
        elif _is_array_of_tables(inner) and field.name != "targets":
            tables.extend((f"[[{where}]]", where, one) for one in inner)
        elif inner is None:
            yield f"# {field.name} is not set"
        elif isinstance(inner, tuple) and not inner and not path:
            yield f"# no [[{field.name}]]"
        else:
            yield f"{field.name} = {_inline(inner, field.name)}"
    for header, where, inner in tables:
        yield f"\n{header}"
        yield from _tables(where, inner)


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and attrs.has(type(value[0])) and not isinstance(value[0], Secret)


def _inline(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(mask_query(value) if name == "url" else value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_inline(one, name) for one in value) + "]"
    if isinstance(value, dict):
        if any(attrs.has(type(one)) for one in value.values()):
            return "{ " + ", ".join(f"{quote_key(key)} = {_inline(one, name)}" for key, one in value.items()) + " }"
        masked = (f"{quote_key(key)} = {_string(MASK)}" for key in value)
        return "{ " + ", ".join(masked) + " }" if value else "{}"
    if isinstance(value, Secret):
        return _string(MASK)
    if attrs.has(type(value)):
        fields = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
        pairs = [f"{name} = {_inline(inner, name)}" for name, inner in fields.items() if inner is not None]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    return repr(value)


def _string(text: str) -> str:
    # JSON's escapes are TOML's, except that TOML wants DEL escaped, too; ${ would be read as a variable.
    escaped = json.dumps(text.replace("${", "$${"), ensure_ascii=False).replace("\x7f", "\\u007f")
    if "\n" not in text:
        return escaped
    return '"""\n' + escaped[1:-1].replace("\\n", "\n") + '"""'


def advice(config: Config) -> tuple[str, ...]:
    """What is allowed but probably not meant, one sentence each."""
    return tuple(_advice(config))


def _advice(config: Config) -> Iterator[str]:
    if not asks_for_keys(config):
        yield "no [[key]]: the gateway answers on loopback only, and everybody on this machine may use it"
    for index, key in enumerate(config.key):
        if len(key.secret.reveal()) < _SHORT_SECRET_CHARS:
            yield f"key[{index}].secret: shorter than {_SHORT_SECRET_CHARS} characters; it may be guessed"
    if not config.model:
        yield "no [[model]]: every request for a model is answered 404"
    if asks_for_keys(config) and config.server.tls_cert is None and not parse_address(config.server.bind).is_loopback:
        yield "server.tls_cert: not set on an address that others can reach; keys and prompts travel unencrypted"
    used = {target.provider for model in config.model for target in model.targets}
    for index, provider in enumerate(config.provider):
        yield from _provider_advice(provider, f"provider[{index}]", used=provider.name in used)
    limits = config.timeouts
    for name in ("connect_s", "first_token_s", "stall_s"):
        if getattr(limits, name) > limits.total_s:
            yield f"timeouts.{name}: longer than timeouts.total_s, which always passes first"
    yield from _times_of_answers(config)
    for index, assistant in enumerate(config.assistant):
        for number, loader in enumerate(assistant.loader):
            if loader.timeout_s > assistant.context_budget_s:
                yield (
                    f"assistant[{index}].loader[{number}].timeout_s: longer than context_budget_s, "
                    f"which always passes first"
                )


def _times_of_answers(config: Config) -> Iterator[str]:
    """Whole answers take as long as all of their tokens do."""
    places: dict[str, Timeouts | ModelTimeouts] = {"timeouts": config.timeouts}
    places |= {f"model[{index}].timeouts": model.timeouts for index, model in enumerate(config.model)}
    for path, times in places.items():
        if times.answer_s is not None and times.answer_s == times.first_token_s:
            yield (
                f"{path}.answer_s: {times.answer_s:g} s, as first_token_s; an answer that is not streamed and takes "
                "longer is asked for at the next target, and may be paid twice"
            )


def _provider_advice(provider: Provider, path: str, *, used: bool) -> Iterator[str]:
    if not used:
        yield f"{path}: no model has '{provider.name}' as a target"
    parts = urlsplit(provider.base_url)
    # The port does not matter to the question, but an address has one.
    local = parse_address(f"{host_in_url(parts)}:80").is_loopback
    if not provider.keys and provider.access_key_id is None and not provider.headers and not local:
        yield f"{path}.api_key: not set, and no headers either; the provider will probably refuse every request"
    if parts.scheme == "http" and not local:
        yield f"{path}.base_url: http, not https; its key and every prompt travel unencrypted"
