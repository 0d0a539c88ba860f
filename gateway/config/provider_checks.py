"""What the classes' types cannot say of a provider: addresses, keys, what belongs to which dialect, paths.

As in :mod:`gateway.config.checks`, holes are stepped over, and nothing stops at the first fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from gateway.config.faults import HOLE, shown, suggest
from gateway.config.http_checks import check_base_url, check_headers
from gateway.config.presets import REGION, presets
from gateway.config.tree import Provider, Secret

FaultSink = Callable[[str, str], object]

_KEY_HEADERS = {
    "openai": "Authorization",
    "openai-responses": "Authorization",
    "anthropic": "x-api-key",
    "gemini": "x-goog-api-key",
    "azure": "api-key",
    "bedrock": "Authorization",
}
_ONLY_FOR = {
    "api_version": "azure",
    "region": "bedrock",
    "access_key_id": "bedrock",
    "secret_access_key": "bedrock",
    "session_token": "bedrock",
}
_API_VERSION = re.compile(r"[A-Za-z0-9.-]+")
_GLOB = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%*?\[\]/-]*")


def check_provider(provider: Provider, path: str, fault: FaultSink) -> None:
    """Tell ``fault(path, message)`` everything that is wrong with one provider."""
    _check_preset(provider, path, fault)
    if provider.base_url is not HOLE:
        check_base_url(provider.base_url, f"{path}.base_url", fault)
    if isinstance(provider.headers, dict):
        _check_headers(provider, path, fault)
    _check_keys(provider, path, fault)
    if provider.dialect is not HOLE:
        _check_dialect(provider, path, fault)
    for index, glob in enumerate(_readable(provider.passthrough)):
        if not _GLOB.fullmatch(glob) or ".." in glob.split("/"):
            fault(
                f"{path}.passthrough[{index}]",
                f"{shown(glob)} is no path below base_url: it begins with '/', as in \"/files/*\"",
            )
    _check_limits(provider, path, fault)


def check_secret(secret: str, path: str, fault: FaultSink) -> None:
    """Whether it can stand in a header."""
    if secret and not all("!" <= char <= "~" for char in secret):
        fault(
            path,
            "holds a space, a line break or another character that cannot stand in a header; "
            "is there a line break at the end of the variable?",
        )


def _readable(array: Any) -> Iterable[Any]:
    return () if array is HOLE else (one for one in array if one is not HOLE)


def _check_preset(provider: Provider, path: str, fault: FaultSink) -> None:
    if provider.preset is HOLE or not provider.preset:
        return
    preset = presets().get(provider.preset)
    if preset is None:
        fault(f"{path}.preset", f"no preset is called {shown(provider.preset)}{suggest(provider.preset, presets())}")
    elif provider.dialect not in (HOLE, preset.dialect):
        fault(f"{path}.dialect", f"is '{preset.dialect}' for this preset; leave one of the two out")


def _check_headers(provider: Provider, path: str, fault: FaultSink) -> None:
    check_headers(provider.headers, f"{path}.headers", fault)
    if provider.dialect is HOLE or not _given(provider.api_key):
        return
    name = _KEY_HEADERS[provider.dialect]
    if any(header.lower() == name.lower() for header in provider.headers):
        fault(f"{path}.headers", f"holds {name}, which api_key already sets; remove one of them")


def _given(secret: Any) -> bool:
    return secret is not HOLE and bool(secret)


def _check_keys(provider: Provider, path: str, fault: FaultSink) -> None:
    seen: dict[str, str] = {}
    fields: list[tuple[str, Any]] = [("api_key", provider.api_key)]
    if provider.api_keys is not HOLE:
        fields += [(f"api_keys[{index}]", key) for index, key in enumerate(provider.api_keys)]
    for name, key in fields:
        if not _given(key):
            continue
        where, secret = f"{path}.{name}", key.reveal()
        if secret in seen:
            fault(where, f"is the same key as {seen[secret]}; two of one share one limit")
        seen.setdefault(secret, name)
        check_secret(secret, where, fault)
    for name in ("access_key_id", "secret_access_key", "session_token"):
        value = getattr(provider, name)
        if isinstance(value, Secret):
            check_secret(value.reveal(), f"{path}.{name}", fault)


def _check_dialect(provider: Provider, path: str, fault: FaultSink) -> None:
    for name, dialect in _ONLY_FOR.items():
        value = getattr(provider, name)
        if value is not HOLE and value and provider.dialect != dialect:
            fault(f"{path}.{name}", f"is for dialect '{dialect}' only; this provider's is '{provider.dialect}'")
    if provider.dialect == "azure" and provider.api_version not in (HOLE, ""):
        if not _API_VERSION.fullmatch(provider.api_version):
            fault(f"{path}.api_version", "is no version, as in 2024-10-21; leave it out for the v1 API")
    elif provider.dialect == "bedrock":
        _check_bedrock(provider, path, fault)


def _check_bedrock(provider: Provider, path: str, fault: FaultSink) -> None:
    if provider.region is not HOLE and not REGION.fullmatch(provider.region):
        said = "is missing" if not provider.region else f"{shown(provider.region)} is no region"
        fault(f"{path}.region", f"{said}; write it as in us-east-1")
    pair = {"access_key_id": provider.access_key_id, "secret_access_key": provider.secret_access_key}
    missing = [name for name, value in pair.items() if value is not HOLE and not value]
    with_key = provider.api_key is HOLE or provider.api_keys is HOLE or bool(provider.keys)
    if len(missing) == 2 and not with_key:
        fault(path, "has no credentials: give access_key_id and secret_access_key, or an api_key")
    elif len(missing) == 1:
        fault(f"{path}.{missing[0]}", "is missing; access_key_id and secret_access_key belong together")
    if len(missing) == 2 and _given(provider.session_token):
        fault(f"{path}.session_token", "belongs to access_key_id and secret_access_key, which are missing")
    if provider.passthrough not in (HOLE, ()) and not with_key:
        fault(f"{path}.passthrough", "needs an api_key: what is passed through cannot be signed with access_key_id")
    if len(missing) < 2 and _given(provider.api_key):
        fault(f"{path}.api_key", "is one way to sign in, access_key_id the other; remove one of them")


def _check_limits(provider: Provider, path: str, fault: FaultSink) -> None:
    _in_order(provider.concurrency, ("floor", "start", "ceiling"), f"{path}.concurrency", fault)
    _in_order(provider.breaker, ("open_s", "max_open_s"), f"{path}.breaker", fault)


def _in_order(table: Any, names: tuple[str, ...], path: str, fault: FaultSink) -> None:
    if table is HOLE or table is None:
        return
    for lower, higher in pairwise(names):
        low, high = getattr(table, lower), getattr(table, higher)
        if HOLE not in (low, high) and low > high:
            fault(f"{path}.{higher}", f"is less than {lower}")
