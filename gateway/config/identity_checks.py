"""What is wrong with teams, organisations and issuers, and whether anybody has to show a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from gateway.config.address import parse_address
from gateway.config.faults import HOLE, shown, suggest
from gateway.config.http_checks import check_base_url, host_in_url
from gateway.config.tree import Config, Issuer

_FaultSink = Callable[[str, str], object]
_SHORT_PEPPER_CHARS = 16


def asks_for_keys(config: Config) -> bool:
    """Whether the configuration alone says that everybody needs a key; a table that could not be read may say so."""
    identity = config.identity
    return bool(
        config.key != ()
        or config.issuer != ()
        or identity is HOLE
        or identity.virtual_keys == "on"
        or (identity.virtual_keys == "auto" and identity.pepper)
    )


def is_store(url: str) -> bool:
    """Whether this is the form of a store's address."""
    for prefix in ("sqlite:///", "postgresql://", "postgres://"):
        if url.startswith(prefix) and len(url) > len(prefix) and "\0" not in url:
            return True
    return False


def check_store(config: Config, fault: _FaultSink) -> None:
    """``[store]``, and ``[identity]`` with it."""
    if config.store is HOLE:
        return
    url, local_url = config.store.url, config.store.local_url
    if url is not HOLE and not is_store(url):
        fault("store.url", "expected sqlite:///PATH, as in sqlite:///sluice.db, or postgresql://USER@HOST/DATABASE")
        return
    if local_url is not HOLE and not (local_url.startswith("sqlite:///") and is_store(local_url)):
        fault("store.local_url", "expected sqlite:///PATH, as in sqlite:///sluice.db")
    identity = config.identity
    if identity is HOLE or url is HOLE:
        return
    shared = not url.startswith("sqlite:")
    if shared and identity.virtual_keys == "on" and identity.pepper is None:
        fault("identity.pepper", "is missing; keys in PostgreSQL need the same one on all machines: 16 random bytes")
    if not shared and url.endswith(":memory:") and identity.virtual_keys == "on":
        fault("identity.virtual_keys", "is on, but a store in memory forgets its keys; name a file in store.url")
    pepper = identity.pepper
    if pepper and pepper is not HOLE and len(pepper.reveal()) < _SHORT_PEPPER_CHARS:
        fault("identity.pepper", f"has fewer than {_SHORT_PEPPER_CHARS} characters; `openssl rand -hex 32` makes one")


def check_limits(config: Config, fault: _FaultSink) -> None:
    """``[limits]``."""
    url = None if config.limits is HOLE else config.limits.url
    if url is None or url is HOLE:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        fault("limits.url", "expected redis://HOST:PORT/DATABASE or rediss://…; leave it out to use the store")


def check_identity(
    teams: Iterable[tuple[str, Any]],
    organisations: list[str] | None,
    issuers: Iterable[tuple[str, Issuer]],
    fault: _FaultSink,
) -> None:
    """``[[team]]`` and ``[[issuer]]``; ``organisations`` are those there are, None if one could not be read."""
    for path, team in [*teams, *issuers]:
        if team.org is not HOLE and team.org and organisations is not None and team.org not in organisations:
            known = suggest(team.org, organisations, otherwise="; there is no [[organisation]]")
            fault(f"{path}.org", f"no organisation is called {shown(team.org)}{known}")
    for path, issuer in issuers:
        for name in ("url", "jwks_url"):
            url = getattr(issuer, name)
            if url is not None and url is not HOLE:
                _check_issuer_url(url, f"{path}.{name}", fault)
        if issuer.audience == "":
            fault(f"{path}.audience", "is empty; a token for anybody else would be taken, too")
        if issuer.algorithms == ():
            fault(f"{path}.algorithms", "is empty; no token could be checked")


def _check_issuer_url(url: str, path: str, fault: _FaultSink) -> None:
    check_base_url(url, path, fault)
    parts = urlsplit(url)
    if parts.scheme != "http":
        return
    try:
        local = parse_address(f"{host_in_url(parts)}:80").is_loopback
    except ValueError:
        return
    if not local:
        fault(path, "must be https; whoever is between could give out keys of their own")
