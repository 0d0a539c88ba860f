"""The admin API's way in and out: its key is asked for at the gate, before a body is read or a path is looked at.

Every path below :data:`ADMIN_PATH` belongs to it, so that who has no key learns nothing of which there are. Answers are
never to be stored, and hold no secret but a new key, once.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import trio
from attrs import evolve

from gateway.admin.api import AdminApi
from gateway.admin.documents import MAX_BODY_BYTES, Call, encoded, invalid
from gateway.admin.guard import Guard, Refused
from gateway.config import Config
from gateway.core.errors import GatewayError
from gateway.edge.errors import JSON_TYPE, error_reply
from gateway.edge.gate import BodyRules, Reply
from gateway.identity.directory import Directory
from gateway.instance import Gateway
from gateway.store.sql import SqlStore

ADMIN_PATH = "/admin/api"
BODY_RULES = BodyRules(max_bytes=MAX_BODY_BYTES, max_field="of the admin API", whole_in_time=True)
_NOT_STORED = (b"cache-control", b"no-store")


def is_admin(path: str) -> bool:
    """Whether the path is the admin API's. *Cost*: one comparison for nearly all."""
    return path.startswith(ADMIN_PATH) and (len(path) == len(ADMIN_PATH) or path[len(ADMIN_PATH)] == "/")


class AdminDoor:
    """Guard and API of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._guard = Guard()
        self._api = AdminApi(_Around(gateway))

    def knock(self, scope: dict[str, Any]) -> Reply | None:
        """None lets in; the same 401 for everything that is wrong with the key, 429 for too many calls with it."""
        settings = self._gateway.config.admin
        refused = self._guard.check(settings, _authorization(scope), trio.current_time())
        if refused is None:
            return None
        if isinstance(refused, Refused):
            if refused.tell:
                self._say("warning", scope, status=401, outcome="unauthorized", untold=refused.untold)
            return _reply(refused.error)
        self._say("warning", scope, status=429, outcome=refused.code, who=self._guard.who)
        return _reply(refused)

    async def answer(self, scope: dict[str, Any], body: bytes) -> Reply:
        """Answer what was let in.

        Cancellation: see :meth:`gateway.admin.api.AdminApi.answer`.
        """
        if not self._guard.knows(self._gateway.config.admin, _authorization(scope)):
            return self._refused(scope)  # it changed since the gate was passed
        call = Call(method=scope["method"], parts=(), query={}, body=body, client=_client(scope), who=self._guard.who)
        try:
            call = evolve(call, parts=_parts(scope), query=_query(scope))
            status, document = await self._api.answer(call)
        except GatewayError as error:
            level = "warning" if error.http_status < 500 else "error"
            self._say(level, scope, status=error.http_status, outcome=error.code, who=call.who)
            return _reply(error)
        self._say("info", scope, status=status, outcome="done", who=call.who, subject=str(document.get("id", "")))
        return Reply(status, [JSON_TYPE, _NOT_STORED], encoded(document))

    def _refused(self, scope: dict[str, Any]) -> Reply:
        refused = self.knock(scope)
        assert refused is not None
        return refused

    def _say(self, level: str, scope: dict[str, Any], **about: Any) -> None:
        """A line of the log; what was asked for only of whoever has the key, for the others may write anything."""
        asked = {"method": scope["method"], "path": scope["path"]} if about.get("who") else {}
        self._gateway.log.say(level, "admin", client=_client(scope), **asked, **about)


class _Around:
    """The gateway as the API sees it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def config(self) -> Config:
        return self._gateway.config

    @property
    def directory(self) -> Directory:
        return self._gateway.directory

    def sql(self) -> SqlStore | None:
        return self._gateway.store.sql if self._gateway.store is not None else None

    def target_states(self) -> list[dict[str, Any]]:
        """Of every target of the configuration; one that was never asked has learnt nothing."""
        states = {row["target"]: {**row, "asked": True} for row in self._gateway.health.states()}
        for model in self._gateway.config.model:
            for target in model.targets:
                label = f"{target.provider}/{target.model}"
                states.setdefault(
                    label, {"target": label, "breaker": "closed", "in_flight": 0, "ttft_ms": 0.0, "asked": False}
                )
        return [states[label] for label in sorted(states)]


def _reply(error: GatewayError) -> Reply:
    reply = error_reply(error)
    return Reply(reply.status, [*reply.headers, _NOT_STORED], reply.body)


def _parts(scope: dict[str, Any]) -> tuple[str, ...]:
    raw = scope.get("raw_path") or scope["path"].encode()
    rest = raw.partition(b"?")[0].decode("latin-1")[len(ADMIN_PATH) :].strip("/")
    return tuple(unquote(part) for part in rest.split("/")) if rest else ()


def _query(scope: dict[str, Any]) -> dict[str, str]:
    """The query's fields. Raises: RequestError 400 if there are too many."""
    try:
        return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise invalid(str(error)) from None


def _authorization(scope: dict[str, Any]) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"authorization"), None)


def _client(scope: dict[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
