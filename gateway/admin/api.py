"""The admin API: which path does what. Whoever comes here has shown the key (``admin/guard.py``).

=======================================  =============================================================================
``GET /admin/api/keys``                  virtual keys, newest first; ``state=active|expired|revoked``
``POST /admin/api/keys``                 makes one; the answer alone has the key itself
``GET /admin/api/keys/{id}``             one of them
``POST /admin/api/keys/{id}/rotate``     gives it a new secret, in the answer alone; the other ends after ``overlap``
``POST /admin/api/keys/{id}/revoke``     ends it
``GET /admin/api/usage``                 ``by=team,model``, ``since=7d``, ``until=2027-01-31``: as ``sluice usage``
``GET /admin/api/targets``               how each target fares, as this process has learnt it
``GET /admin/api/audit``                 what was changed, newest first
=======================================  =============================================================================

Lists come in pages: ``limit`` rows, and ``after`` what the page before called ``next``.

A change is written into the trail before it is made, and its end after that (``store/audit.py``); all calls are lines
of the log. This process follows a change of keys at once, the others within 2 s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import trio

from gateway.admin.documents import (
    MOST_PER_PAGE,
    PER_PAGE,
    Call,
    Document,
    NewKey,
    Rotation,
    check_query,
    invalid,
    key_document,
    number,
    overlap_s,
    page,
    parsed,
    stored_key,
)
from gateway.config import Config
from gateway.core.errors import GatewayError, Rejected, RequestError
from gateway.identity.directory import Directory
from gateway.identity.pepper import Pepper, PepperError, make_pepper, new_key
from gateway.ledger.report import moment_s, parse_by, usage_report
from gateway.store.audit import Audit
from gateway.store.database import StoreError
from gateway.store.keys import KeyRefused, Keys, StoredKey
from gateway.store.sql import SqlStore

Answer = tuple[int, Document]
_DEFAULT_SINCE = "30d"
_NONE: frozenset[str] = frozenset()
_PAGE = frozenset(("limit", "after"))
_QUERIES: Mapping[tuple[str, ...], frozenset[str]] = MappingProxyType(
    {
        ("keys",): _PAGE | {"state"},
        ("usage",): _PAGE | {"by", "since", "until"},
        ("targets",): _PAGE,
        ("audit",): _PAGE,
    }
)


class Surroundings(Protocol):
    """What the API works on, as it is now."""

    @property
    def config(self) -> Config: ...
    @property
    def directory(self) -> Directory: ...
    def sql(self) -> SqlStore | None: ...
    def target_states(self) -> list[dict[str, Any]]: ...


class AdminApi:
    """Answers calls."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def answer(self, call: Call) -> Answer:
        """Do what is asked for.

        Raises:
            GatewayError: With its status; nothing was changed.

        Cancellation: a change that was begun was made or not; its row in the trail says ``begun``.
        """
        try:
            return await self._find(call)(call)
        except StoreError as error:
            raise Rejected("store_away", 503, f"the store cannot be asked now: {error}", retry_after_s=1.0) from error

    def _find(self, call: Call) -> Callable[[Call], Awaitable[Answer]]:
        shape = tuple("*" if place == 1 and part else part for place, part in enumerate(call.parts))
        methods = {
            ("keys",): {"GET": self._list, "POST": self._create},
            ("keys", "*"): {"GET": self._get},
            ("keys", "*", "rotate"): {"POST": self._rotate},
            ("keys", "*", "revoke"): {"POST": self._revoke},
            ("usage",): {"GET": self._usage},
            ("targets",): {"GET": self._targets},
            ("audit",): {"GET": self._trail},
        }.get(shape)
        if methods is None:
            raise RequestError("not_found", 404, "the admin API has no such path")
        if call.method not in methods:
            raise RequestError("method_not_allowed", 405, f"this path takes {' and '.join(methods)}")
        check_query(call.query, _QUERIES.get(shape, _NONE) if call.method == "GET" else _NONE)
        return methods[call.method]

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _list(self, call: Call) -> Answer:
        state = call.query.get("state", "")
        if state not in ("", "active", "expired", "revoked"):
            raise invalid("active, expired or revoked", "state")
        rows = [key_document(key) for key in await self._keys().list()]
        return 200, page([row for row in rows if state in ("", row["state"])], call.query, "id")

    async def _get(self, call: Call) -> Answer:
        return 200, key_document(await self._found(call.parts[1]))

    async def _create(self, call: Call) -> Answer:
        key = stored_key(parsed(call, NewKey))
        if any(key.name == static.name for static in self._around.config.key):
            raise RequestError("key_refused", 409, f"'{key.name}' is the name of a [[key]] in the configuration")
        pepper, secret, prefix, digest = await self._secret()
        made = await self._change(
            call,
            "keys.create",
            key.name,
            lambda keys: keys.create(key, digest=digest, prefix=prefix, pepper_check=pepper.check),
        )
        return 201, {"key": secret, **key_document(made)}

    async def _rotate(self, call: Call) -> Answer:
        overlap = overlap_s(parsed(call, Rotation))
        id = (await self._found(call.parts[1])).id
        pepper, secret, prefix, digest = await self._secret()
        made = await self._change(
            call,
            "keys.rotate",
            id,
            lambda keys: keys.rotate(id, digest=digest, prefix=prefix, pepper_check=pepper.check, overlap_s=overlap),
        )
        return 200, {"key": secret, **key_document(made)}

    async def _revoke(self, call: Call) -> Answer:
        id = (await self._found(call.parts[1])).id
        await self._change(call, "keys.revoke", id, lambda keys: keys.revoke(id))
        return 200, key_document(await self._found(id))

    async def _change(
        self, call: Call, action: str, subject: str, work: Callable[[Keys], Awaitable[StoredKey]]
    ) -> StoredKey:
        """Make a change between the two halves of its row in the trail, and have this process follow it."""
        audit, keep_days = Audit(self._sql()), self._around.config.admin.audit_days
        row = await audit.begin(who=call.who, client=call.client, action=action, subject=subject, keep_days=keep_days)
        try:
            made = await work(self._keys())
        except KeyRefused as error:
            await audit.end(row, subject=subject, outcome="key_refused")
            raise RequestError("key_refused", 409, str(error)) from error
        await audit.end(row, subject=made.id, outcome="done")
        await self._around.directory.refresh()
        return made

    async def _found(self, id: str) -> StoredKey:
        found = await self._keys().get(id)
        if found is None:
            raise RequestError("not_found", 404, "no key has this id")
        return found

    async def _secret(self) -> tuple[Pepper, str, str, str]:
        """Pepper, a new key, its prefix, its digest. Raises: GatewayError 503."""
        try:
            pepper = await trio.to_thread.run_sync(make_pepper, self._around.config)
        except PepperError as error:
            raise GatewayError("no_pepper", 503, str(error)) from error
        secret, prefix = new_key()
        return pepper, secret, prefix, pepper.digest(secret.encode()).hex()

    def _keys(self) -> Keys:
        return Keys(self._sql())

    def _sql(self) -> SqlStore:
        sql = self._around.sql()
        if sql is None:
            raise Rejected("store_away", 503, "the store is not open yet", retry_after_s=1.0)
        return sql

    # ── what is going on ─────────────────────────────────────────────────────────────────────────────────────────

    async def _usage(self, call: Call) -> Answer:
        now_s = time.time()
        try:
            by = parse_by(call.query.get("by", "model"))
        except ValueError as error:
            raise invalid(str(error), "by") from None
        since_s = _moment_s(call, "since", _DEFAULT_SINCE, now_s)
        until_s = _moment_s(call, "until", "0s", now_s)
        rows = await usage_report(self._sql(), by, since_s, until_s)
        return 200, {"by": by, "since_s": since_s, "until_s": until_s, **page(rows, call.query)}

    async def _targets(self, call: Call) -> Answer:
        return 200, {"process": os.getpid(), **page(self._around.target_states(), call.query)}

    async def _trail(self, call: Call) -> Answer:
        limit = number(call.query, "limit", PER_PAGE, least=1, most=MOST_PER_PAGE)
        before = number(call.query, "after", 0) or None
        rows = await Audit(self._sql()).list(before=before, limit=limit + 1)
        more = len(rows) > limit
        return 200, {"data": rows[:limit], "has_more": more, "next": str(rows[limit - 1]["id"]) if more else None}


def _moment_s(call: Call, name: str, default: str, now_s: float) -> float:
    try:
        return moment_s(call.query.get(name, default), now_s)
    except (ValueError, OverflowError) as error:
        raise invalid(str(error), name) from None
