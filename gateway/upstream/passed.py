"""What is passed through to a provider as it is: which paths, to whom, and with which headers.

Clients ask for ``/v1/<rest>``; the provider is asked for ``<base_url>/<rest>`` if it lists that path in its
``passthrough``. Nothing is listed unless the operator does so: what such a path costs or shows is nobody's guess here.

A glob's ``*`` stands for any characters, slashes too, and ``/files/*`` is ``/files`` as well.

Headers go by lists of what may pass, in both directions. A client's credentials, cookies and whatever is about its own
connection are on neither list, nor is what a provider says of *our* account. A provider's redirect is not followed and
not passed: where it leads is no place that the operator named.

Limits: providers whose requests are signed over their body (Bedrock with credentials) pass nothing. Of several keys the
first is used always: what is uploaded with one belongs to its account.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway import __version__
from gateway.core.errors import RequestError
from gateway.core.principal import Principal
from gateway.upstream.targets import Provider

Headers = list[tuple[bytes, bytes]]

PREFIX: Final = b"/v1"
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))

_PATH: Final = re.compile(rb"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+)+")
_NOT_IN_A_SEGMENT: Final = bytes([*range(0x20), 0x7F]) + b"/\\%"
_TO_PROVIDER: Final = frozenset(
    (
        b"accept", b"content-type", b"content-encoding", b"content-disposition", b"content-language", b"range",
        b"if-match", b"if-none-match", b"if-range", b"if-modified-since", b"if-unmodified-since", b"idempotency-key",
        b"openai-beta", b"anthropic-beta", b"anthropic-version",
    )
)  # fmt: skip
_TO_CLIENT: Final = frozenset(
    (
        b"content-type", b"content-encoding", b"content-disposition", b"content-language", b"content-range",
        b"accept-ranges", b"cache-control", b"etag", b"last-modified", b"retry-after", b"retry-after-ms",
    )
)  # fmt: skip
_TO_CLIENT_BEGINS: Final = b"openai-"
_OF_OUR_ACCOUNT: Final = frozenset((b"openai-organization", b"openai-project"))
_NO_PAGE: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),  # a document of somebody else's must not act as one of ours
]


def below_base(raw_path: bytes) -> bytes:
    """A client's path as it goes below the provider's base path, still percent-encoded.

    Args:
        raw_path: As it was sent, beginning with ``/v1``.

    Raises:
        RequestError: 400 ``invalid_path``: it could be read as another path than the one that was allowed: dot
            segments, doubled or encoded slashes, encoded percent signs, control characters, what is no UTF-8 (an
            overlong dot), a ``/v1`` that is written in another way.
    """
    rest = raw_path.removeprefix(PREFIX)
    if raw_path.startswith(PREFIX) and _PATH.fullmatch(rest) and all(map(_is_plain, rest[1:].split(b"/"))):
        return rest
    raise RequestError(
        "invalid_path",
        400,
        "the path begins with '/v1/' as it stands here, and may not hold '.' or '..' segments, empty segments, encoded "
        "slashes, percent signs or control characters, or what is no UTF-8",
    )


def _is_plain(segment: bytes) -> bool:
    plain = unquote_to_bytes(segment)
    try:
        plain.decode()
    except UnicodeDecodeError:
        return False
    return plain.partition(b";")[0] not in (b".", b"..") and not any(byte in _NOT_IN_A_SEGMENT for byte in plain)


def passes_any(providers: Iterable[Provider]) -> bool:
    """Whether anything is passed through at all."""
    return any(provider.settings.passthrough for provider in providers)


def provider_for(
    rest: bytes, providers: Iterable[Provider], principal: Principal, wanted: bytes | None = None
) -> Provider:
    """Who is asked: the provider the client wants, else the first that lists the path and that its key may use.

    A key that is limited to some models may use a provider if it names all of its models: ``openai/*``.

    Args:
        rest: From :func:`below_base`.
        wanted: The ``x-sluice-provider`` header.

    Raises:
        RequestError: 404 ``not_passed_through``; 403 ``provider_not_allowed`` for this key.
    """
    path = unquote_to_bytes(rest).decode("utf-8", "replace")
    asked = None if wanted is None else wanted.decode("latin-1")
    listed = [each for each in providers if (asked is None or each.name == asked) and _lists(each, path)]
    if not listed:
        who = "no provider passes" if asked is None else "the provider of x-sluice-provider does not pass"
        raise RequestError(
            "not_passed_through",
            404,
            f"{who} this path through; the gateway's operator allows it by listing {_glob_for(path)!r} in "
            "provider.passthrough",
        )
    for provider in listed:
        if principal.may_use(f"{provider.name}/*"):
            return provider
    raise RequestError(
        "provider_not_allowed", 403, f"this key may not use the provider {listed[0].name!r} as a whole (key.models)"
    )


def _lists(provider: Provider, path: str) -> bool:
    return provider.sign is None and any(
        fnmatchcase(path, glob) or (glob.endswith("/*") and path == glob[:-2]) for glob in provider.settings.passthrough
    )


def _glob_for(path: str) -> str:
    first = path.split("/")[1]
    return f"/{first}/*" if first.isascii() and first.isprintable() else "/…"


def without_key(query: bytes) -> bytes:
    """A query without ``key``, which is how some clients send their credentials."""
    if b"key" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if unquote_to_bytes(part.partition(b"=")[0]) != b"key")


def request_headers(provider: Provider, headers: Headers) -> Headers:
    """What the provider is sent: of the client's what may pass, our own key, and what the operator configured."""
    settings = provider.settings
    key = settings.keys[0].reveal() if settings.keys else ""
    own = {name.lower().encode(): value.encode() for name, value in settings.headers.items()}
    listed = _connection_options(headers)
    sent = [(name, value) for name, value in headers if name in _TO_PROVIDER and name not in own and name not in listed]
    names = {name for name, _ in sent}
    fixed = {
        b"user-agent": f"sluice/{__version__}".encode(),
        b"accept-encoding": b"identity",
        **provider.dialect.headers(key),
    }
    return [*sent, *((name, value) for name, value in fixed.items() if name not in names | own.keys()), *own.items()]


def response_headers(provider: Provider, headers: Headers) -> Headers:
    """What the client is told of the provider's headers; the length and the gateway's own are added by the caller."""
    listed = _connection_options(headers)
    passed = [
        (name, provider.scrub(value))
        for name, value in headers
        if (name in _TO_CLIENT or (name.startswith(_TO_CLIENT_BEGINS) and name not in _OF_OUR_ACCOUNT))
        and name not in listed
    ]
    theirs = [(b"x-upstream-request-id", provider.scrub(value)) for name, value in headers if name in _THEIR_ID]
    return [*passed, *theirs[:1], *_NO_PAGE]


_THEIR_ID: Final = (b"x-request-id", b"request-id")


def _connection_options(headers: Headers) -> frozenset[bytes]:
    """Names that the sender declared to be about its connection only (RFC 9110 §7.6.1)."""
    lines = [value for name, value in headers if name == b"connection"]
    return frozenset(option.strip().lower() for line in lines for option in line.split(b",")) if lines else frozenset()
