"""Promise: a token is taken only from a configured issuer, signed with one of its keys by an allowed algorithm, for us,
and in time; keys may change while the gateway runs, and nobody can make it ask for them all the time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import jwt
import pytest
import trio
from attrs import define, evolve, field
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.config import Claims, Config, Issuer, Organisation, Team
from gateway.core.errors import Rejected, RequestError
from gateway.core.principal import Principal
from gateway.identity.directory import Directory
from gateway.identity.tokens import MAX_TOKENS, Tokens
from gateway.upstream.transport import Transport, make_client

RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = {"RS": jwt.algorithms.RSAAlgorithm, "ES": jwt.algorithms.ECAlgorithm}


def jwk(key: Any, kid: str, **fields: Any) -> dict[str, Any]:
    kind = "RS" if isinstance(key, rsa.RSAPrivateKey) else "ES"
    return {**ALGORITHMS[kind].to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **fields}


@define
class Server:
    """An issuer's web server on loopback."""

    port: int = 0
    documents: dict[str, Any] = field(factory=dict)
    asked: list[str] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = await stream.receive_some()
                if not piece:
                    return
                head += piece
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            found = self.documents.get(path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            status = "200 OK" if found is not None else "404 Not Found"
            if isinstance(found, str):
                status, body = f"302 Found\r\nlocation: {found}", b""
            length = f"content-length: {len(body)}\r\nconnection: close"
            with suppress(trio.BrokenResourceError):  # who has read enough hangs up
                await stream.send_all(f"HTTP/1.1 {status}\r\n{length}\r\n\r\n".encode() + body)


@define
class Clock:
    at_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at_s


@define
class World:
    server: Server
    tokens: Tokens
    clock: Clock
    client: Any
    issuer: Issuer
    said: list[str]

    def token(self, key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> bytes:
        payload = {"iss": self.server.url, "aud": "sluice", "sub": "anna", "exp": int(self.clock.at_s) + 600, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key, algorithm, headers={"kid": kid} if kid else None).encode()

    def refused(self, token: bytes) -> tuple[int, str, str]:
        with pytest.raises((RequestError, Rejected)) as caught:
            self.tokens.identify(token)
        return caught.value.http_status, caught.value.code, caught.value.public_message

    async def refresh(self) -> None:
        await self.tokens.refresh(self.client)


@asynccontextmanager
async def world(loaded: bool = True, tables: dict[str, Any] | None = None, **fields: Any) -> AsyncIterator[World]:
    server, clock, transport = Server(), Clock(), Transport()
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, server.answer, 0, host="127.0.0.1"))
        server.port = listener.socket.getsockname()[1]
        server.documents["/jwks"] = {"keys": [jwk(RSA_KEY, "one"), jwk(EC_KEY, "two")]}
        fields = {"url": server.url + "/", "audience": "sluice", "jwks_url": f"{server.url}/jwks", **fields}
        issuer = Issuer(**fields)
        said: list[str] = []
        tokens = Tokens(
            Config(issuer=(issuer,), **(tables or {})),
            say=lambda level, event, **_: said.append(event),
            now=clock,
            clock=clock,
        )
        async with make_client(transport) as client:
            here = World(server, tokens, clock, client, issuer, said)
            if loaded:
                await here.refresh()
            yield here
        transport.close()
        nursery.cancel_scope.cancel()


async def test_a_token_says_who_it_is_and_what_it_may() -> None:
    team = Team(name="search", org="acme", rpm=5)
    claims = Claims(team="app.team", models="models", endpoints="paths", priority="prio")
    tables = {"team": (team,), "organisation": (Organisation(name="acme"),)}
    async with world(tables=tables, claims=claims) as here:
        token = here.token(app={"team": "search"}, models="chat openai/*", prio="high")
        found = here.tokens.identify(token)
        assert (found.name, found.team, found.org, found.priority.name) == ("anna", "search", "acme", "HIGH")
        assert found.models == {"chat", "openai/*"}
        assert found.key_id == f"jwt:{here.server.url}#anna"
        assert [(rule.scope, rule.kind, rule.amount) for rule in found.limits] == [("team", "rpm", 5)]
        assert found.expires_at == here.clock.at_s + 600
        assert here.tokens.identify(here.token(EC_KEY, "ES256", "two")).name == "anna"
        directory = Directory(Config(issuer=(here.issuer,), **tables), tokens=here.tokens)
        assert not directory.is_open
        assert directory.identify(b"Bearer " + token, local=False).name == "anna"
        assert here.refused(here.token(app={"team": "other"}))[:2] == (403, "team_not_allowed")
        assert here.refused(here.token(app={"team": ["search"]}))[:2] == (403, "team_not_allowed")
        assert here.refused(here.token(models=[]))[:2] == (403, "model_not_allowed")
        assert here.refused(here.token(models=[1]))[0] == 401
        assert found.endpoints == ()
        bound = here.token(paths=["/v1/embeddings"])
        assert directory.identify(b"Bearer " + bound, endpoint="/v1/embeddings").name == "anna"
        with pytest.raises(RequestError, match="may be used for /v1/embeddings only"):
            directory.identify(b"Bearer " + bound, endpoint="/v1/chat/completions")
        assert here.refused(here.token(paths=""))[:2] == (403, "endpoint_not_allowed")
        assert here.refused(here.token(paths={}))[:2] == (401, "invalid_token")


def unsigned(header: dict[str, Any], payload: dict[str, Any], secret: bytes | None = None) -> bytes:
    """A token as somebody makes it who has no key: without a signature, or with HMAC under ``secret``."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signed = b".".join(parts)
    signature = b"" if secret is None else hmac.digest(secret, signed, "sha256")
    return signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


async def test_algorithms_cannot_be_confused() -> None:
    async with world() as here:
        payload = {"iss": here.server.url, "aud": "sluice", "sub": "anna", "exp": here.clock.at_s + 600}
        for name in ("none", "None", "NONE", "", None, ["RS256"], "HS256"):
            assert here.refused(unsigned({"alg": name, "kid": "one"}, payload))[0] == 401
        public = RSA_KEY.public_key()
        for known in (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk(RSA_KEY, "one")).encode(),
        ):
            forged = unsigned({"alg": "HS256", "kid": "one"}, payload, known)
            assert "algorithm is not allowed" in here.refused(forged)[2]
        assert "algorithm is not allowed" in here.refused(here.token(algorithm="RS512"))[2]
        # Allowed, but not for a key of this type.
        assert "no such key" in here.refused(here.token(EC_KEY, "ES256", "one"))[2]
        # The key that is in the token's own header is nobody's.
        own = jwt.encode(payload, OTHER_RSA_KEY, "RS256", headers={"kid": "one", "jwk": jwk(OTHER_RSA_KEY, "one")})
        assert "signature is wrong" in here.refused(own.encode())[2]
        critical = jwt.encode(payload, RSA_KEY, "RS256", headers={"kid": "one", "crit": ["exp"]})
        assert here.refused(critical.encode())[0] == 401
        header, body, signature = here.token().split(b".")
        assert "signature is wrong" in here.refused(b".".join((header, body, signature[:-4] + b"AAAA")))[2]
        other = here.token(sub="boss").split(b".")[1]
        assert "signature is wrong" in here.refused(b".".join((header, other, signature)))[2]


async def test_shared_secrets_and_short_keys_of_a_key_set_are_never_used() -> None:
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
    async with world(loaded=False) as here:
        secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
        here.server.documents["/jwks"] = {
            "keys": [secret, jwk(weak, "weak"), jwk(EC_KEY, "enc", use="enc"), {"kty": "RSA"}, 7, jwk(RSA_KEY, "one")]
        }
        await here.refresh()
        assert here.tokens.gauges()["sluice_issuer_keys"] == {(here.server.url,): 1.0}
        assert here.tokens.identify(here.token()).name == "anna"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"aud": "another"}, "for another audience"),
        ({"aud": None}, "exp, iss or aud is missing"),
        ({"exp": None}, "exp, iss or aud is missing"),
        ({"iss": "https://login.example.com"}, "nobody here knows its issuer"),
        ({"iss": None}, "nobody here knows its issuer"),
        ({"sub": None}, "'sub' names nobody"),
        ({"sub": ""}, "'sub' names nobody"),
        ({"sub": "a\nb"}, "'sub' names nobody"),
        ({"sub": 7}, "'sub' names nobody"),
    ],
)
async def test_what_is_wrong_with_a_token_is_said(claims: dict[str, Any], message: str) -> None:
    async with world() as here:
        refused = here.refused(here.token(**claims))
        assert refused[0] == 401
        assert message in refused[2]


async def test_what_is_no_token_is_refused() -> None:
    async with world() as here:
        for text in (b"..", b"a.b.c", b"\xff.\xff.\xff", b"e30.e30.", b"x" * 20_000 + b"..", b"W10.W10.W10"):
            assert here.refused(text)[0] == 401


async def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    async with world(leeway_s=30.0) as here:
        now = here.clock.at_s
        assert here.tokens.identify(here.token(exp=now - 29)).name == "anna"
        assert here.refused(here.token(exp=now - 30))[:2] == (401, "expired_token")
        assert here.tokens.identify(here.token(nbf=now + 30, iat=now + 30)).name == "anna"
        assert "not valid yet" in here.refused(here.token(nbf=now + 31))[2]
        assert "not valid yet" in here.refused(here.token(iat=now + 31))[2]
        remembered = here.token(exp=now + 10)
        assert here.tokens.identify(remembered) is here.tokens.identify(remembered)
        here.clock.at_s += 40
        assert here.refused(remembered)[:2] == (401, "expired_token")


async def test_keys_rotate_without_a_restart_and_old_ones_end() -> None:
    async with world() as here:
        old, new = here.token(), here.token(OTHER_RSA_KEY, kid="three")
        assert here.tokens.identify(old).name == "anna"
        assert here.refused(new)[:2] == (401, "invalid_token")  # the keys are fresh: there is no such key
        here.server.documents["/jwks"] = {"keys": [jwk(OTHER_RSA_KEY, "three")]}
        here.clock.at_s += 11
        assert here.refused(new)[:2] == (503, "identity_unavailable")  # at once, and asks for a refresh
        await here.refresh()
        assert here.tokens.identify(new).name == "anna"
        assert here.refused(old)[:2] == (401, "invalid_token")  # remembered, but its key is gone
        assert here.said == ["issuer_keys", "issuer_keys"]


async def test_invented_key_names_do_not_make_the_gateway_ask_and_ask() -> None:
    async with world() as here:
        for number in range(100):
            here.clock.at_s += 1
            assert here.refused(here.token(kid=f"invented {number}"))[0] in (401, 503)
            await here.refresh()
        assert len(here.server.asked) <= 11
        for _ in range(600):
            here.clock.at_s += 1
            await here.refresh()
        assert len(here.server.asked) <= 14  # every five minutes when nobody asks


async def test_an_issuer_that_is_away_costs_known_keys_nothing_for_a_day() -> None:
    async with world() as here:
        del here.server.documents["/jwks"]
        here.clock.at_s += 400
        await here.refresh()
        assert here.said == ["issuer_keys", "issuer_away"]
        assert here.tokens.gauges()["sluice_issuer_down"] == {(here.server.url,): 1.0}
        assert here.tokens.identify(here.token()).name == "anna"
        assert here.refused(here.token(kid="new"))[:2] == (503, "identity_unavailable")
        here.clock.at_s += 86_400
        assert here.refused(here.token())[:2] == (503, "identity_unavailable")


async def test_before_the_first_keys_it_is_503() -> None:
    async with world(loaded=False) as here:
        assert here.refused(here.token())[:2] == (503, "identity_unavailable")


async def test_keys_are_found_by_discovery_at_the_issuers_host_only() -> None:
    async with world(loaded=False, jwks_url=None) as here:
        documents, discovery = here.server.documents, "/.well-known/openid-configuration"
        for wrong in (
            {"issuer": here.server.url, "jwks_uri": "http://169.254.169.254/latest"},
            {"issuer": here.server.url, "jwks_uri": f"http://localhost:{here.server.port}/jwks"},
            {"issuer": "https://another.example", "jwks_uri": f"{here.server.url}/jwks"},
            {"issuer": here.server.url},
            [],
            b"no json",
            b" " * 1_100_000,
            f"{here.server.url}/jwks",  # a redirect
        ):
            documents[discovery] = wrong
            await here.refresh()
            assert here.refused(here.token())[0] == 503
            here.clock.at_s += 11
        assert "/jwks" not in here.server.asked
        documents[discovery] = {"issuer": here.server.url + "/", "jwks_uri": f"{here.server.url}/jwks"}
        await here.refresh()
        assert here.tokens.identify(here.token()).name == "anna"


async def test_remembered_tokens_are_bounded_and_kept_by_digest() -> None:
    async with world() as here:
        token = here.token()
        here.tokens.identify(token)
        assert token not in here.tokens._checked
        assert hashlib.sha256(token).digest() in here.tokens._checked
        filler: tuple[float, Principal] = (0.0, Principal(name="x"))
        here.tokens._checked.update({b"%d" % number: filler for number in range(MAX_TOKENS)})
        here.tokens.identify(here.token(sub="bob"))
        assert len(here.tokens._checked) == MAX_TOKENS


async def test_a_reload_keeps_keys_and_takes_new_rules() -> None:
    async with world() as here:
        token = here.token()
        here.tokens.configure(Config(issuer=(evolve(here.issuer, audience="other"),)))
        assert "another audience" in here.refused(token)[2]
        here.tokens.configure(Config())
        assert "nobody here knows its issuer" in here.refused(token)[2]
