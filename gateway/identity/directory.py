"""Who a request's key belongs to, decided in memory: keys of the configuration, of the store, and tokens of issuers.

:meth:`Directory.identify` is synchronous and asks nobody. The keys of the store are all in memory, by their digest;
:meth:`Directory.run` asks once a second for the number that every change raises, and reads them again when it is
another. So a revoked key is refused, and a new one known, in every process about a second later.

While the store is away, known keys work on for ``identity.grace_s`` (counted from the last time the store said that
nothing has changed); after that they are answered 503. A key that is not known then may be one that was made
meanwhile: 503 with the reason, not 401. The same holds before the first load. The log says when the store goes and
when it is back; :meth:`Directory.gauges` are metrics.

Virtual keys are in use as ``identity.virtual_keys`` says. ``auto``: as soon as there is a pepper. Without any key of
any kind everybody on this machine is let in; the first ``sluice keys create`` ends that.

Neither lookup nor comparison tells how much of a guess was right: what is looked up is a digest, and digests are
compared in constant time.

*Cost*, measured: a key 1.7 µs (the keyring alone 1.2), one of the store 2.8 when it is used first; asking for the
version 1.4 ms a second. 10,000 keys take 17 MB and are read in 0.3 s, in a thread.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from math import inf
from typing import Protocol

import trio
from attrs import frozen

from gateway.config import Config
from gateway.core.errors import Rejected, RequestError
from gateway.core.principal import ANONYMOUS, Principal
from gateway.identity.belonging import Belonging
from gateway.identity.keyring import Keyring, presented
from gateway.identity.pepper import PREFIX, Pepper, PepperError, find_pepper
from gateway.store.database import StoreError
from gateway.store.keys import Keys, KeySnapshot

_PREFIX = PREFIX.encode()
_QUERY_S = 5.0
_FRESH_S = 2.0  # silence of the store after which a key that is not known may be a new one
_RETRY_S = 1.0


class Tokens(Protocol):
    """What takes JSON Web Tokens; :class:`gateway.identity.tokens.Tokens`."""

    def identify(self, token: bytes) -> Principal: ...

    def configure(self, config: Config) -> None: ...


@frozen(kw_only=True, slots=True)
class DirectoryStatistics:
    """What a directory knows.

    Attributes:
        keys: Of the store, in memory.
        version: Of the store's keys; -1 before the first load.
        silent_s: Since the store last said what it has; infinite before it ever did.
        loads: How often keys were read.
        failures: How often the store did not answer.
    """

    keys: int
    version: int
    silent_s: float
    loads: int
    failures: int


@frozen(kw_only=True, slots=True)
class _Known:
    """A secret of the store. ``ends_s`` is the earlier of the key's end and the secret's."""

    digest: bytes
    principal: Principal
    ends_s: float


class Directory:
    """See the module.

    Args:
        config: Keys, teams, organisations, and ``[identity]``.
        keys: The store's; None where there is no store.
        tokens: What takes the tokens of ``[[issuer]]``; None where nothing does.
        say: Writes a line of the log: level, event, fields.
        now: Seconds since the epoch.
        clock: Seconds on a clock that is never set.
    """

    def __init__(
        self,
        config: Config,
        keys: Keys | None = None,
        tokens: Tokens | None = None,
        *,
        say: Callable[..., None] = lambda level, event, **fields: None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._tokens, self._say, self._now, self._clock = keys, tokens, say, now, clock
        self._known: dict[bytes, _Known] = {}
        self._seen: dict[bytes, tuple[bytes, _Known]] = {}  # those that were used, by the keyring's digest of them
        self._snapshot: KeySnapshot | None = None
        self._confirmed_at = -inf
        self._good_until = -inf
        self._trouble = ""
        self._loads = self._failures = 0
        self._pepper: Pepper | None = None
        self._looking = trio.Lock()  # one at a time: an earlier look that ends later would undo what a later one found
        self.configure(config)

    def attach(self, keys: Keys) -> None:
        """Use this store's keys from now on: it is open later than a directory is made. Sync; nothing is asked yet."""
        self._keys = keys
        self.configure(self._config)

    def configure(self, config: Config) -> None:
        """Work with another configuration from now on. Sync; the store is the same."""
        self._rules = config.identity
        self._config = config
        self._belonging = Belonging.of(config)
        self._static = Keyring(config.key, self._belonging)
        self._seen = {}
        if self._tokens is not None:
            self._tokens.configure(config)
        self._wanted = self._keys is not None and config.identity.virtual_keys != "off"
        if self._wanted and self._pepper is None:
            self._look_for_pepper()
        if not self._wanted:
            self._known, self._seen, self._snapshot = {}, {}, None
        elif self._snapshot is not None and self._pepper is not None:
            self._take(self._snapshot, _by_digest(self._snapshot, self._belonging))
            self._good_until = self._confirmed_at + self._rules.grace_s

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._static.is_open and not self._uses_store and not self._config.issuer

    @property
    def _uses_store(self) -> bool:
        return self._wanted and (self._pepper is not None or self._rules.virtual_keys == "on" or bool(self._trouble))

    def identify(
        self,
        authorization: bytes | None,
        api_key: bytes | None = None,
        *,
        local: bool = True,
        client: str | None = None,
        endpoint: str = "",
    ) -> Principal:
        """Find out who presents a secret, and whether it may be used from there and for that.

        Args:
            authorization: The ``Authorization`` header; the scheme is ``Bearer``.
            api_key: The ``x-api-key`` header, which some clients send instead.
            local: Whether the client is on this machine; nobody else is answered where there are no keys.
            client: The client's IP address, for keys that are bound to networks.
            endpoint: As in ``Record.endpoint``, for keys that are bound to endpoints; "" asks for none.

        Raises:
            RequestError: 401 ``missing_api_key``, ``invalid_api_key``, ``expired_api_key``, ``loopback_only``,
                ``invalid_token``; 403 ``network_not_allowed``, ``endpoint_not_allowed``, ``team_not_allowed``.
            Rejected: 503 ``identity_unavailable``: it cannot be known now.
        """
        if self.is_open:
            if not local:
                raise RequestError(
                    "loopback_only", 401, "without a [[key]] in its configuration the gateway answers this machine only"
                )
            return ANONYMOUS
        principal = self._who(presented(authorization, api_key))
        if principal.networks and not principal.may_come_from(client):
            raise RequestError("network_not_allowed", 403, "the API key may not be used from this network address")
        if principal.endpoints and endpoint and not principal.may_ask(endpoint):
            raise RequestError(
                "endpoint_not_allowed", 403, f"the API key may be used for {', '.join(principal.endpoints)} only"
            )
        return principal

    def _who(self, secret: bytes) -> Principal:
        if secret.startswith(_PREFIX) and self._uses_store:
            return self._stored(secret)
        static = self._static.find(secret)
        if static is not None:
            return static
        if self._tokens is not None and secret.count(b".") == 2:
            return self._tokens.identify(secret)
        raise _unknown()

    def _stored(self, secret: bytes) -> Principal:
        known = self._find(secret)
        if known is not None:
            if known.ends_s <= self._now():
                raise RequestError("expired_api_key", 401, "the API key has expired")
            if self._clock() > self._good_until:
                raise self._unavailable(f"the key store has been away for longer than {self._rules.grace_s:g} s")
            return known.principal
        static = self._static.find(secret)
        if static is not None:
            return static
        if self._trouble or self._clock() - self._confirmed_at > _FRESH_S + self._rules.refresh_s:
            why = "the key store is away" if self._snapshot is not None else "the keys are not loaded yet"
            raise self._unavailable(f"{why}, and this key is not among those known")
        raise _unknown()

    def _find(self, secret: bytes) -> _Known | None:
        """Whose secret of the store this is. Its HMAC is made once; the keyring's digest takes a third of that time."""
        digest = self._static.digest(secret)
        seen = self._seen.get(digest)
        if seen is not None and hmac.compare_digest(seen[0], digest):
            return seen[1]
        made = self._pepper.digest(secret) if self._pepper is not None else b""
        known = self._known.get(made)
        if known is None or not hmac.compare_digest(known.digest, made):
            return None
        self._seen[digest] = digest, known
        return known

    def _unavailable(self, why: str) -> Rejected:
        return Rejected("identity_unavailable", 503, f"{why}; try again", retry_after_s=max(1.0, self._rules.refresh_s))

    # ── in the background ────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep the keys as the store has them, until cancelled. *Cancellation*: at once; nothing is half taken in."""
        while True:
            if self._wanted:
                await self.refresh()
            await trio.sleep(self._rules.refresh_s)

    async def refresh(self) -> None:
        """Ask the store once, and take in what has changed. What goes wrong is noted, not raised."""
        async with self._looking:
            if self._wanted and self._keys is not None:
                await self._look(self._keys)

    async def _look(self, keys: Keys) -> None:
        try:
            if self._pepper is None:
                self._pepper = await trio.to_thread.run_sync(find_pepper, self._config, abandon_on_cancel=True)
                if self._pepper is None and self._rules.virtual_keys == "auto":
                    self._well()
                    return
            with trio.fail_after(_QUERY_S):
                await self._refresh(keys)
        except trio.TooSlowError:
            self._ill(f"no answer within {_QUERY_S:g} s")
        except (StoreError, PepperError) as error:
            self._ill(str(error))
        else:
            self._well()

    async def _refresh(self, keys: Keys) -> None:
        asked_at = self._clock()  # what the answer says holds from here on at the latest
        if self._snapshot is None or await keys.version() != self._snapshot.version:
            snapshot = await keys.load()
            if self._pepper is not None and snapshot.pepper_check not in ("", self._pepper.check):
                raise PepperError(
                    "the pepper is not the one that the keys in the store were made with (identity.pepper, or the "
                    "file sluice.pepper beside the database)"
                )
            belonging = self._belonging
            known = await trio.to_thread.run_sync(_by_digest, snapshot, belonging, abandon_on_cancel=True)
            if belonging is not self._belonging:  # configured anew meanwhile
                known = _by_digest(snapshot, self._belonging)
            self._take(snapshot, known)
            self._loads += 1
        self._confirmed_at = asked_at
        self._good_until = asked_at + self._rules.grace_s

    def _take(self, snapshot: KeySnapshot, known: dict[bytes, _Known]) -> None:
        self._snapshot, self._known, self._seen = snapshot, known, {}

    def _look_for_pepper(self) -> None:
        try:
            self._pepper = find_pepper(self._config)
        except PepperError as error:
            self._ill(str(error))

    def _ill(self, why: str) -> None:
        self._failures += 1
        if why != self._trouble:
            self._say("error", "key_store_away", error=why, known_keys=len(self._known), grace_s=self._rules.grace_s)
        self._trouble = why

    def _well(self) -> None:
        if self._trouble:
            self._say("info", "key_store_back", keys=len(self._known))
        self._trouble = ""

    # ── for people ───────────────────────────────────────────────────────────────────────────────────────────────

    def statistics(self) -> DirectoryStatistics:
        return DirectoryStatistics(
            keys=len(self._known),
            version=-1 if self._snapshot is None else self._snapshot.version,
            silent_s=self._clock() - self._confirmed_at,
            loads=self._loads,
            failures=self._failures,
        )

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        """``sluice_virtual_keys``, ``sluice_key_store_down``, ``sluice_key_store_failures``; none without a store."""
        if not self._uses_store:
            return {}
        return {
            "sluice_virtual_keys": {(): float(len(self._known))},
            "sluice_key_store_down": {(): float(bool(self._trouble))},
            "sluice_key_store_failures": {(): float(self._failures)},
        }


def _by_digest(snapshot: KeySnapshot, belonging: Belonging) -> dict[bytes, _Known]:
    found: dict[bytes, _Known] = {}
    for key in snapshot.keys:
        principal = belonging.virtual(key)
        for secret in key.secrets:
            digest = bytes.fromhex(secret.digest)
            ends_s = min(inf if end is None else end for end in (key.expires_s, secret.ends_s))
            found[digest] = _Known(digest=digest, principal=principal, ends_s=ends_s)
    return found


def _unknown() -> RequestError:
    return RequestError("invalid_api_key", 401, "the API key is not known here")
