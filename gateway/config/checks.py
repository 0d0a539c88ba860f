"""What the classes' types cannot say: names, references, addresses, headers, templates.

Each function takes the tree as it was read, holes included, and tells ``fault`` what is wrong; none stops at the first.
A hole already has its fault, so it is stepped over, and where one leaves a name unknown nothing that might have meant
it is called unknown. Nothing here connects anywhere; the only files touched are the TLS ones, to see that they exist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.config.address import parse_address
from gateway.config.faults import HOLE, join, shown, suggest
from gateway.config.http_checks import check_http_loader, host_of_entry
from gateway.config.identity_checks import asks_for_keys, check_identity, check_limits, check_store
from gateway.config.model_checks import check_models
from gateway.config.provider_checks import check_provider, check_secret
from gateway.config.tree import Assistant, Config, HttpLoader, Key, Server

FaultSink = Callable[[str, str], object]

_NAME_CHARS = 200
_ADMIN_KEY_CHARS = 16
_LOADER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLACEHOLDER = re.compile(r"(?<![{$])\{(" + _LOADER_NAME.pattern + r")\}(?!\})")


def check(config: Config, fault: FaultSink) -> None:
    """Tell ``fault(path, message)`` everything that is wrong between and inside the values of a read tree."""
    _check_server(config, fault)
    check_store(config, fault)
    check_limits(config, fault)
    _check_allowed_hosts(config, fault)
    _check_names(config, fault)
    for path, provider in _each(config, "provider"):
        check_provider(provider, path, fault)
    check_models(list(_each(config, "model")), _names(config, "provider"), _names(config, "model"), fault)
    for path, assistant in _each(config, "assistant"):
        _check_assistant(config, assistant, path, fault)
    _check_keys(config, fault)
    _check_admin(config, fault)
    _check_prices(config, fault)
    issuers = list(_each(config, "issuer"))
    check_identity(_each(config, "team"), _names(config, "organisation"), issuers, fault)


def _entries(array: Any) -> Iterator[tuple[int, Any]]:
    """Position and value of what could be read."""
    if array is not HOLE:
        yield from ((index, value) for index, value in enumerate(array) if value is not HOLE)


def _each(config: Config, table: str) -> Iterator[tuple[str, Any]]:
    for index, value in _entries(getattr(config, table)):
        yield f"{table}[{index}]", value


def _names(config: Config, *tables: str) -> list[str] | None:
    """The names in these arrays; None if one could not be read, for it might be the one that is looked for."""
    arrays = [getattr(config, table) for table in tables]
    if any(array is HOLE or any(one is HOLE or one.name is HOLE for one in array) for array in arrays):
        return None
    return [str(one.name) for array in arrays for one in array]


def _check_prices(config: Config, fault: FaultSink) -> None:
    names = _names(config, "provider")
    if config.prices is HOLE or names is None:
        return
    for target in config.prices:
        provider, slash, model = target.partition("/")
        if not slash or not model:
            fault(join("prices", target), 'expected the provider and its model, as in [prices."openai/gpt-4o-mini"]')
        elif provider not in names:
            fault(join("prices", target), f"no provider is called {shown(provider)}{suggest(provider, names)}")


# --- [server] -------------------------------------------------------------------------------------------------------


def _check_server(config: Config, fault: FaultSink) -> None:
    server = config.server
    if server is HOLE:
        return
    _check_bind(server, no_key=not asks_for_keys(config), fault=fault)
    _check_tls(server, fault)
    workers = None if config.admission is HOLE else config.admission.workers
    if server.workers not in (HOLE, 1) and isinstance(workers, int) and workers < server.workers:
        fault(
            "admission.workers",
            f"{workers} cannot be shared out among {server.workers} processes (server.workers); "
            f"every process needs at least 1",
        )


def _check_bind(server: Server, *, no_key: bool, fault: FaultSink) -> None:
    if server.bind is HOLE:
        return
    try:
        address = parse_address(server.bind)
    except ValueError as error:
        fault("server.bind", str(error))
        return
    if no_key and not address.is_loopback:
        fault(
            "server.bind",
            f"{shown(server.bind)} can be reached from other machines; without a [[key]] the gateway answers on "
            f"loopback only; add a [[key]] or bind to 127.0.0.1:{address.port}",
        )


def _check_tls(server: Server, fault: FaultSink) -> None:
    files = {"tls_cert": server.tls_cert, "tls_key": server.tls_key}
    missing = [name for name, file in files.items() if file is None]
    if len(missing) == 1:
        given = "tls_key" if missing[0] == "tls_cert" else "tls_cert"
        fault(f"server.{missing[0]}", f"is missing; {given} needs it: give both, or none for plain HTTP")
    for name, file in files.items():
        if file is None or file is HOLE:
            continue
        if "\0" in file or not os.access(file, os.R_OK) or not os.path.isfile(file):
            fault(f"server.{name}", f"no readable file at {shown(file)}")


def _check_allowed_hosts(config: Config, fault: FaultSink) -> None:
    if config.context is HOLE:
        return
    for index, entry in _entries(config.context.allowed_hosts):
        if host_of_entry(entry) is None:
            fault(
                f"context.allowed_hosts[{index}]",
                f"{shown(entry)} is no host; write api.example.com or api.example.com:8443, without scheme and path",
            )


# --- names ----------------------------------------------------------------------------------------------------------


def _check_names(config: Config, fault: FaultSink) -> None:
    for tables in (("provider",), ("model", "assistant"), ("key",), ("team",), ("organisation",)):
        taken: dict[str, str] = {}
        for table in tables:
            for path, value in _each(config, table):
                _check_name(value.name, path, taken, fault)
    for path, provider in _each(config, "provider"):
        if provider.name is not HOLE and not (provider.name.isascii() and " " not in provider.name):
            fault(f"{path}.name", f"{shown(provider.name)} goes into a header: ASCII without spaces only")
    for path, assistant in _each(config, "assistant"):
        if assistant.name is not HOLE and "*" in assistant.name:
            fault(f"{path}.name", "an assistant's name holds no '*'; only a model's name may end in one")


def _check_name(name: Any, path: str, taken: dict[str, str], fault: FaultSink) -> None:
    if name is HOLE:
        return
    where = join(path, "name")
    if not name or name != name.strip() or not name.isprintable() or len(name) > _NAME_CHARS:
        fault(where, f"must be 1 to {_NAME_CHARS} printable characters without spaces at the ends")
    elif name in taken:
        fault(where, f"{shown(name)} is already the name of {taken[name]}; names must differ")
    taken.setdefault(name, path)


# --- [[assistant]] --------------------------------------------------------------------------------------------------


def _check_assistant(config: Config, assistant: Assistant, path: str, fault: FaultSink) -> None:
    models = _names(config, "model")
    if assistant.model is not HOLE and models is not None:
        _check_models_name(config, assistant.model, models, f"{path}.model", fault)
    taken: dict[str, str] = {}
    for index, loader in _entries(assistant.loader):
        where = f"{path}.loader[{index}]"
        if loader.name is not HOLE and not _LOADER_NAME.fullmatch(loader.name):
            fault(f"{where}.name", "stands in the template as {name}: a letter, then letters, digits, '_' or '-'")
        else:
            _check_name(loader.name, where, taken, fault)
        if isinstance(loader, HttpLoader):
            check_http_loader(loader, where, _allowed_hosts(config), fault)
    complete = assistant.loader is not HOLE and all(
        one is not HOLE and one.name is not HOLE for one in assistant.loader
    )
    if assistant.system is not HOLE and complete:
        _check_template(assistant.system, [one.name for one in assistant.loader], f"{path}.system", fault)


def _allowed_hosts(config: Config) -> tuple[str, ...] | None:
    if config.context is HOLE or config.context.allowed_hosts is HOLE or HOLE in config.context.allowed_hosts:
        return None
    return config.context.allowed_hosts


def _check_models_name(config: Config, name: str, models: list[str], path: str, fault: FaultSink) -> None:
    if name.endswith("*"):
        fault(path, f"{shown(name)} leaves open which model; write the whole name")
    elif config.find_model(name) is None:
        known = suggest(name, models, otherwise="; there is no [[model]]")
        fault(path, f"no model is called {shown(name)}{known}")


def _check_template(system: str, loaders: list[str], path: str, fault: FaultSink) -> None:
    """Only what looks like a placeholder counts: other braces, as in JSON, stay as they are."""
    for name in dict.fromkeys(_PLACEHOLDER.findall(system)):
        if name not in loaders:
            what = "a placeholder" if hasattr(system, "variables") else f"{{{name}}}"
            known = suggest(name, loaders, otherwise="; this assistant has no loader")
            fault(path, f"{what} names no loader of this assistant{known}")


# --- [[key]] --------------------------------------------------------------------------------------------------------


def _check_keys(config: Config, fault: FaultSink) -> None:
    askable = _names(config, "model", "assistant")
    first_with: dict[str, str] = {}
    for path, key in _each(config, "key"):
        _check_key_secret(key, path, first_with, fault)
        for index, name in _entries(key.models):
            if askable is not None and name not in askable and config.find_model(name) is None:
                known = suggest(name, askable, otherwise="; there is no [[model]]")
                fault(f"{path}.models[{index}]", f"no model or assistant is called {shown(name)}{known}")


def _check_key_secret(key: Key, path: str, first_with: dict[str, str], fault: FaultSink) -> None:
    if key.secret is HOLE:
        return
    secret, where = key.secret.reveal(), f"{path}.secret"
    if not secret:
        fault(where, "is empty; every client would know it")
    elif secret in first_with:
        fault(where, f"is the secret of {first_with[secret]}, too; give every key its own")
    else:
        check_secret(secret, where, fault)
    first_with.setdefault(secret, path)


# --- [admin] --------------------------------------------------------------------------------------------------------


def _check_admin(config: Config, fault: FaultSink) -> None:
    """The admin key is long, and nobody's who may only ask for models."""
    key = None if config.admin is HOLE else config.admin.key
    if not key or key is HOLE:
        return
    secret = key.reveal()
    check_secret(secret, "admin.key", fault)
    if len(secret) < _ADMIN_KEY_CHARS:
        message = f"has fewer than {_ADMIN_KEY_CHARS} characters; `openssl rand -hex 32` makes one"
        fault("admin.key", message)
    for path, client in _each(config, "key"):
        if client.secret is not HOLE and client.secret.reveal() == secret:
            fault("admin.key", f"is the secret of {path}, too; whoever has that could make keys")
