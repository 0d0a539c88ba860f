"""URLs, headers and JSON templates of the configuration.

A URL is never shown in a message: it may hold a user's password or a token. Hosts of ``http`` loaders are compared as
written, without asking DNS, so a name that points at an internal address is allowed exactly if somebody listed it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from gateway.config.address import parse_address
from gateway.config.faults import HOLE, join, shown, suggest
from gateway.config.tree import HttpLoader, Secret

_FaultSink = Callable[[str, str], object]

LOADER_PLACEHOLDERS = ("input", "user", "conversation")

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_HOST_ENTRY = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_JSON_PIECE = re.compile(r'"(?:\\.|[^"\\])*"|' + _PLACEHOLDER.pattern)
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
)


def check_base_url(url: str, path: str, fault: _FaultSink) -> None:
    """An absolute http(s) URL without user, query and fragment."""
    parts = _split(url, path, fault)
    if parts is not None and (parts.query or parts.fragment or "?" in url or "#" in url):
        fault(path, "holds a query or fragment; the request's path is appended to it, so it must end with a path")


def _split(url: str, path: str, fault: _FaultSink) -> SplitResult | None:
    """The URL's parts if scheme and authority are usable."""
    if not url.isascii() or not url.isprintable() or " " in url:
        fault(path, "holds a space, a control character or a character outside ASCII; percent-encode it")
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        fault(path, "is no URL: its host or port cannot be read")
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        fault(path, "must be an absolute URL, as in https://api.example.com/v1")
        return None
    if "@" in parts.netloc:
        fault(path, "holds a user or password; put the secret into a header instead")
        return None
    try:
        parse_address(f"{host_in_url(parts)}:{port or 80}")
    except ValueError:
        fault(path, "is no URL: its host or port cannot be read")
        return None
    return parts


def host_in_url(parts: SplitResult) -> str:
    """The host in lower case, an IPv6 address in its brackets."""
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host


def check_headers(headers: Mapping[str, Any], path: str, fault: _FaultSink) -> None:
    """Names are tokens that are not the gateway's own; values hold visible ASCII and inner spaces."""
    seen: set[str] = set()
    for name, value in headers.items():
        where = join(path, name)
        if not _TOKEN.fullmatch(name):
            fault(where, "is no header name; letters, digits and '-' are safe")
        elif name.lower() in _OWN_HEADERS:
            fault(where, "is set by the gateway itself; remove it")
        elif name.lower() in seen:
            fault(where, "stands here twice, in different case; keep one")
        seen.add(name.lower())
        if value is HOLE:
            continue
        text = value.reveal() if isinstance(value, Secret) else value
        if text != text.strip() or not (text.isascii() and text.isprintable()):
            fault(where, "its value holds a control character, one outside ASCII, or a space at an end")


def host_of_entry(entry: str) -> str | None:
    """``host`` or ``host:port`` of ``allowed_hosts`` in lower case; None if it is neither."""
    match = _HOST_ENTRY.fullmatch(entry)
    if match is None or (match["port"] is not None and not 0 < int(match["port"]) <= 65_535):
        return None
    return entry.lower()


def check_http_loader(loader: HttpLoader, path: str, hosts: Iterable[str] | None, fault: _FaultSink) -> None:
    """URL, method, headers, body and pointer; ``hosts`` is ``allowed_hosts`` or None if that could not be read."""
    if loader.url is not HOLE:
        _check_loader_url(loader.url, f"{path}.url", hosts, fault)
    if isinstance(loader.headers, dict):
        check_headers(loader.headers, f"{path}.headers", fault)
    if isinstance(loader.body, str):
        if loader.method == "GET":
            fault(f"{path}.method", "is GET, which sends no body; write method = \"POST\" or remove 'body'")
        _check_body(loader.body, f"{path}.body", fault)
    if loader.pointer is not HOLE and not re.fullmatch(r"(?:/(?:[^/~]|~[01])*)*", loader.pointer):
        fault(
            f"{path}.pointer",
            f"{shown(loader.pointer)} is no JSON pointer (RFC 6901): empty, or '/' before every step, as in /data/0",
        )


def _check_loader_url(url: str, path: str, hosts: Iterable[str] | None, fault: _FaultSink) -> None:
    _check_placeholders(url, path, fault)
    authority = re.match(r"[^/?#]*//[^/?#]*", url)
    if "{" in (authority.group() if authority else url.partition("/")[0]):
        fault(path, "has a placeholder in its scheme or host; a request must not choose where the gateway connects")
        return
    # What stands for a placeholder here is as harmless as the percent-encoded value will be.
    parts = _split(_PLACEHOLDER.sub("x", url), path, fault)
    if parts is None:
        return
    if any(unquote(segment) in (".", "..") for segment in parts.path.split("/")):
        fault(path, "has a '.' or '..' in its path; write where it leads to")
    if hosts is None:
        return
    host = host_in_url(parts)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    allowed = {entry.lower() for entry in hosts}
    if host not in allowed and f"{host}:{port}" not in allowed:
        name = "its host" if hasattr(url, "variables") else f"'{host if parts.port is None else f'{host}:{port}'}'"
        fault(path, f"{name} is not in context.allowed_hosts; http loaders go nowhere else, so add it there")


def _check_placeholders(text: str, path: str, fault: _FaultSink) -> None:
    for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
        if name not in LOADER_PLACEHOLDERS:
            fault(path, f"a placeholder is not known here{suggest(name, LOADER_PLACEHOLDERS)}")


def _sample(piece: re.Match[str]) -> str:
    """Outside of a string a placeholder becomes a whole string; inside of one it changes nothing about the syntax."""
    return '""' if piece.group().startswith("{") else piece.group()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_body(body: str, path: str, fault: _FaultSink) -> None:
    _check_placeholders(body, path, fault)
    try:
        json.loads(_JSON_PIECE.sub(_sample, body), parse_constant=_refuse)
    except (ValueError, RecursionError):
        fault(path, 'is no JSON once its placeholders are filled in, as in {"query": {input}, "limit": 3}')
