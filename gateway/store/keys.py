"""Virtual keys as they are stored: what may be known of them, never what they are.

Of a secret only its HMAC under a pepper that is not in the database is kept, so neither a copy of the database nor
somebody who may read it has a key; a prefix tells people which key it is. A key outlives its secrets: rotating gives it
a second one, and takes the first away after an overlap. Limits, budgets and the ledger go by the key's id and never
notice. Revoked keys stay, for the ledger's reports.

Every change raises ``key_state.version`` in its own transaction: whoever keeps keys in memory asks for that number
alone, and reads again when it is another (:mod:`gateway.identity.directory`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

from attrs import evolve, field, frozen

from gateway.store.sql import Session, SqlStore

Period = Literal["day", "month", "total"]
PERIODS: tuple[str, ...] = get_args(Period)


@frozen(kw_only=True, slots=True)
class StoredSecret:
    """One of a key's secrets.

    Attributes:
        digest: HMAC-SHA256 under the pepper, hexadecimal.
        prefix: The eight characters that the key shows of itself.
        created_s: Seconds since the epoch.
        ends_s: When it stops working because another took its place; None while it is the newest.
    """

    digest: str = field(repr=False)
    prefix: str
    created_s: float
    ends_s: float | None = None


@frozen(kw_only=True, slots=True)
class StoredKey:
    """A virtual key.

    Attributes:
        id: ``key_…``; never used again.
        name: Unique among the keys that are not revoked.
        models, assistants, endpoints, networks: What it may ask for, how, and from where; empty means all.
        rpm, rpd, tpm, tpd: Requests and tokens per minute and per day; None means no limit.
        budget_micro_usd: Per ``period``.
        created_s, expires_s, revoked_s: Seconds since the epoch.
        secrets: Newest first.
    """

    id: str = ""
    name: str
    team: str = ""
    org: str = ""
    priority: str = "normal"
    models: tuple[str, ...] = ()
    assistants: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    max_concurrent: int | None = None
    budget_micro_usd: int | None = None
    period: str = "month"
    created_s: float = 0.0
    expires_s: float | None = None
    revoked_s: float | None = None
    secrets: tuple[StoredSecret, ...] = ()


@frozen(kw_only=True, slots=True)
class KeySnapshot:
    """All keys that are not revoked, as of ``version``."""

    version: int
    pepper_check: str
    keys: tuple[StoredKey, ...]


class KeyRefused(Exception):
    """A change of keys that cannot be; the message says why and what to do."""


class Keys:
    """The keys of a store.

    Args:
        sql: Where they are.
        now: Seconds since the epoch.
    """

    def __init__(self, sql: SqlStore, now: Callable[[], float] = time.time) -> None:
        self._sql = sql
        self._now = now

    async def version(self) -> int:
        """A number that every change raises. Raises: StoreError."""
        return await self._sql.read(lambda session: _state(session)[0])

    async def load(self) -> KeySnapshot:
        """All keys that are not revoked. Raises: StoreError. *Cost*: 10,000 keys 0.15 s, in a thread."""

        def work(session: Session) -> KeySnapshot:
            # The version first: a change in between is then seen by the next look at the version.
            version, check = _state(session)
            return KeySnapshot(version=version, pepper_check=check, keys=_read(session, "WHERE revoked_s IS NULL"))

        return await self._sql.read(work)

    async def list(self) -> tuple[StoredKey, ...]:
        """All keys, revoked ones too, newest first. Raises: StoreError."""
        return await self._sql.read(lambda session: _read(session, ""))

    async def get(self, id: str) -> StoredKey | None:
        """The key of this id, whatever its state. Raises: StoreError."""
        found = await self._sql.read(lambda session: _read(session, "WHERE id = ?", (id,)))
        return found[0] if found else None

    async def create(self, key: StoredKey, *, digest: str, prefix: str, pepper_check: str) -> StoredKey:
        """Add a key with its first secret; ``id`` and ``created_s`` are given here.

        Args:
            pepper_check: Of the pepper that ``digest`` was made with; the first key decides which it is.

        Raises: KeyRefused; StoreError.
        """
        secret = StoredSecret(digest=digest, prefix=prefix, created_s=self._now())
        key = evolve(key, id=f"key_{secrets.token_hex(8)}", created_s=secret.created_s, secrets=(secret,))

        def work(session: Session) -> StoredKey:
            _changed(session, pepper_check)
            if session.rows("SELECT 1 FROM virtual_key WHERE name = ? AND revoked_s IS NULL", (key.name,)):
                raise KeyRefused(f"there is a key called '{key.name}'; choose another name, or revoke it")
            session.run(_INSERT_KEY, [_column(key, name) for name in _COLUMNS])
            session.run(_ADD_DIGEST, (digest, key.id, prefix, secret.created_s, None))
            return key

        return await self._write(work)

    async def rotate(self, name: str, *, digest: str, prefix: str, pepper_check: str, overlap_s: float) -> StoredKey:
        """Give a key a new secret; those before it work ``overlap_s`` longer, or less if they end sooner.

        Args:
            name: Name, id or prefix.

        Raises: KeyRefused; StoreError.
        """

        def work(session: Session) -> StoredKey:
            _changed(session, pepper_check)
            key, now_s = _find(session, name), self._now()
            ends_s = now_s + overlap_s
            session.run(_END_DIGESTS, (ends_s, key.id, ends_s))
            session.run("DELETE FROM key_secret WHERE key_id = ? AND ends_s <= ?", (key.id, now_s))
            session.run(_ADD_DIGEST, (digest, key.id, prefix, now_s, None))
            return _find(session, key.id)

        return await self._write(work)

    async def revoke(self, name: str) -> StoredKey:
        """End a key with all its secrets, for good. Raises: KeyRefused; StoreError."""

        def work(session: Session) -> StoredKey:
            _changed(session, None)
            key = _find(session, name)
            session.run("UPDATE virtual_key SET revoked_s = ? WHERE id = ?", (self._now(), key.id))
            return key

        return await self._write(work)

    async def _write(self, work: Callable[[Session], StoredKey]) -> StoredKey:
        return await self._sql.write(work)


def _state(session: Session) -> tuple[int, str]:
    [(version, check)] = session.rows("SELECT version, pepper_check FROM key_state")
    return version, check


def _changed(session: Session, pepper_check: str | None) -> None:
    """Count a change. First in every transaction: its row's lock lets one change be made after the other."""
    session.run("UPDATE key_state SET version = version + 1")
    if pepper_check is None:
        return
    _, known = _state(session)
    if not known:
        session.run("UPDATE key_state SET pepper_check = ?", (pepper_check,))
    elif known != pepper_check:
        raise KeyRefused(
            "the pepper is not the one that the keys in the store were made with (identity.pepper, or the file "
            "sluice.pepper beside the database); a key made with this one would lock out all others"
        )


def _find(session: Session, name: str) -> StoredKey:
    """The key that is not revoked and has this name, id, or prefix."""
    found = _read(session, _BY_NAME, (name, name, name))
    if not found:
        raise KeyRefused(f"there is no key called '{name}' that is not revoked already; `sluice keys list` shows all")
    return min(found, key=lambda key: (key.id != name, key.name != name))  # what is unique for good goes first


def _read(session: Session, condition: str, values: tuple[str, ...] = ()) -> tuple[StoredKey, ...]:
    by_key: dict[str, list[StoredSecret]] = {}
    ids = f"SELECT id FROM virtual_key {condition}"  # noqa: S608 - conditions of our own
    for digest, key_id, prefix, created_s, ends_s in session.rows(
        f"{_SELECT_DIGESTS} WHERE key_id IN ({ids}) ORDER BY created_s DESC", values
    ):
        secret = StoredSecret(digest=digest, prefix=prefix, created_s=created_s, ends_s=ends_s)
        by_key.setdefault(key_id, []).append(secret)
    rows = session.rows(f"{_SELECT_KEYS} {condition} ORDER BY created_s DESC", values)
    return tuple(_key(row, by_key) for row in rows)


def _key(row: tuple[Any, ...], by_key: dict[str, list[StoredSecret]]) -> StoredKey:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    for name in _ARRAYS:
        values[name] = tuple(json.loads(values[name]))
    return StoredKey(**values, secrets=tuple(by_key.get(values["id"], ())))


def _column(key: StoredKey, name: str) -> Any:
    value = getattr(key, name)
    return json.dumps(value) if name in _ARRAYS else value


_ARRAYS = ("models", "assistants", "endpoints", "networks")
_COLUMNS = tuple(name for name in StoredKey.__slots__ if name not in ("secrets", "__weakref__"))
_SELECT_KEYS = f"SELECT {', '.join(_COLUMNS)} FROM virtual_key"  # noqa: S608 - names of our own
_INSERT_KEY = f"INSERT INTO virtual_key ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_ADD_DIGEST = "INSERT INTO key_secret (digest, key_id, prefix, created_s, ends_s) VALUES (?, ?, ?, ?, ?)"
_END_DIGESTS = "UPDATE key_secret SET ends_s = ? WHERE key_id = ? AND (ends_s IS NULL OR ends_s > ?)"
_SELECT_DIGESTS = "SELECT digest, key_id, prefix, created_s, ends_s FROM key_secret"
_BY_NAME = """
WHERE revoked_s IS NULL AND (
    name = ? OR id = ? OR id IN (SELECT key_id FROM key_secret WHERE prefix = ?)
)
"""
