"""The public keys of an issuer of tokens (JWKS): where they are, which of them may be used, when to fetch them again.

Nothing but what is configured is connected to: the issuer's URL, and ``jwks_url``. Where the keys are may be left to
the issuer's ``/.well-known/openid-configuration`` only as long as it names the issuer's own host; https, but for
loopback; no redirects; a megabyte at most.

Of a key set every key is used that is for signatures and fits an allowed algorithm by its type and curve; RSA keys of
less than 2048 bits are not.

Source: RFC 7517 (JWK), RFC 7518 (JWA), OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import trio
from attrs import define, field

from gateway.config import Issuer

if TYPE_CHECKING:
    import httpx

REFRESH_S = 300.0
AGAIN_S = 10.0  # at the soonest
_FETCH_S = 10.0
_MAX_BYTES = 1_048_576
_MIN_RSA_BITS = 2_048
_DISCOVERY = "/.well-known/openid-configuration"
_PUBLIC = ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y")  # a key set that holds private parts loses them


@define(slots=True)
class IssuerKeys:
    """The keys of one issuer.

    Attributes:
        keys: By name and algorithm.
        source: The key set they were made of.
        fetched_at, tried_at: On the caller's clock; ``-inf`` for never.
        wanted: Whether somebody needs them sooner than every five minutes.
        trouble: Why the last try failed; "" if it did not.
    """

    issuer: Issuer
    keys: dict[tuple[str, str], Any] = field(factory=dict)
    source: Any = None
    fetched_at: float = -inf
    tried_at: float = -inf
    wanted: bool = True
    trouble: str = ""

    def due(self, now: float) -> bool:
        pause_s = AGAIN_S if self.wanted or self.trouble else REFRESH_S
        return now - self.tried_at >= pause_s

    async def fetch(self, client: httpx.AsyncClient, now: float) -> None:
        """Fetch the keys; ``keys`` is another dictionary if they changed. What goes wrong is noted in ``trouble``.

        *Cancellation*: at once; the keys are as they were.
        """
        import httpx

        self.tried_at = now
        try:
            with trio.fail_after(_FETCH_S):
                url = self.issuer.jwks_url or _jwks_url(self.issuer, await _get(client, self.issuer.url + _DISCOVERY))
                source = await _get(client, url)
            if source != self.source:
                self.keys = await trio.to_thread.run_sync(partial(usable, source, self.issuer.algorithms))
                self.source = source
        except (httpx.HTTPError, ValueError, trio.TooSlowError) as error:
            self.trouble = str(error) or type(error).__name__
        else:
            self.fetched_at, self.wanted, self.trouble = now, False, ""


def usable(source: Any, algorithms: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    """The set's keys that fit an allowed algorithm. Raises: ValueError, if that is none."""
    jwt = import_jwt()
    entries = source.get("keys") if isinstance(source, dict) else None
    found: dict[tuple[str, str], Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        public = {name: value for name, value in entry.items() if name in _PUBLIC}
        for algorithm in algorithms:
            if entry.get("alg", algorithm) != algorithm or not _fits(entry, algorithm):
                continue
            try:
                key = jwt.PyJWK(public, algorithm=algorithm)
            except (jwt.PyJWTError, ValueError):
                continue  # one bad entry does not take the others away
            if getattr(key.key, "key_size", _MIN_RSA_BITS) >= (_MIN_RSA_BITS if entry["kty"] == "RSA" else 0):
                found[str(entry.get("kid", "")), algorithm] = key
    if not found:
        raise ValueError(f"its key set has no key for {', '.join(algorithms)}")
    return found


def _fits(entry: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key of this type and curve is for the algorithm (RFC 7518, 3.1; RFC 8037)."""
    kind = (entry.get("kty"), None if entry.get("kty") == "RSA" else entry.get("crv"))
    wanted = {"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "EdDSA": ("OKP", "Ed25519")}
    return kind == wanted.get(algorithm, ("RSA", None))


def _jwks_url(issuer: Issuer, document: Any) -> str:
    """Where the issuer says its keys are. Raises: ValueError."""
    if not isinstance(document, dict) or str(document.get("issuer", "")).rstrip("/") != issuer.url:
        raise ValueError("its openid-configuration names another issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str):
        raise ValueError("its openid-configuration has no jwks_uri")
    there, here = urlsplit(url), urlsplit(issuer.url)
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise ValueError("its keys are at another host than it is; write their address into issuer.jwks_url")
    return url


async def _get(client: httpx.AsyncClient, url: str) -> Any:
    """The JSON document at ``url``. Raises: httpx.HTTPError, ValueError."""
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            raise ValueError(f"{url} answered {response.status_code}")
        body = bytearray()
        # The bound stream under aiter_raw: leaving nested generators early would leave the inner ones unclosed.
        stream = cast("AsyncGenerator[bytes, None]", aiter(cast("httpx.AsyncByteStream", response.stream)))
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > _MAX_BYTES:
                    raise ValueError(f"{url} answered more than {_MAX_BYTES} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise ValueError(f"{url} did not answer with JSON") from None


def import_jwt() -> Any:
    try:
        import jwt
        import jwt.algorithms
    except ImportError as error:
        raise ValueError("[[issuer]] needs PyJWT and cryptography; pip install 'sluice[jwt]'") from error
    if not jwt.algorithms.has_crypto:
        raise ValueError("[[issuer]] needs cryptography; pip install 'sluice[jwt]'")
    return jwt
