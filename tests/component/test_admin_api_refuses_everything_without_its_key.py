"""Promise: without its key the admin API says 401 and nothing else; with it, only so often, and on record."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from gateway.config import Secret
from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, staged

ADMIN = "admin-0123456789abcdef"
MORE = '[admin]\nkey = "{key}"\nrpm = {rpm}\n[[team]]\nname = "search"\n'


@asynccontextmanager
async def administered(
    folder: Path, *, key: str = ADMIN, rpm: int = 600, more: str = "", **options: Any
) -> AsyncIterator[Stage]:
    """A gateway with an admin key and a store in a file, where keys can be kept."""
    text = MORE.format(key=key, rpm=rpm)
    async with staged(store=f"sqlite:///{folder}/sluice.db", more=text + more, **options) as stage:
        yield stage


async def call(
    stage: Stage, method: str, path: str, document: Any = None, *, key: str | None = ADMIN, body: bytes | None = None
) -> Heard:
    if body is None:
        body = b"" if document is None else json.dumps(document).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"content-length: {len(body)}"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    async with await stage.connect() as stream:
        await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return await hear(stream)


async def make(stage: Stage, **fields: Any) -> dict[str, Any]:
    heard = await call(stage, "POST", "/admin/api/keys", fields)
    assert heard.status == 201, heard.body
    return dict(heard.json())


def bytes_of_store(folder: Path) -> bytes:
    """All that is on the disk, what was not checkpointed yet too."""
    return b"".join(file.read_bytes() for file in folder.glob("sluice.db*"))


PATHS = [
    ("GET", "/admin/api"),
    ("GET", "/admin/api/"),
    ("GET", "/admin/api/keys"),
    ("POST", "/admin/api/keys"),
    ("POST", "/admin/api/keys/key_1/revoke"),
    ("GET", "/admin/api/usage"),
    ("GET", "/admin/api/targets"),
    ("GET", "/admin/api/audit"),
    ("GET", "/admin/api/nothing/of/the/kind"),
    ("DELETE", "/admin/api/keys"),
    ("OPTIONS", "/admin/api/keys"),
    ("GET", "/admin%2Fapi/keys"),
]


async def test_every_path_and_every_wrong_key_gets_the_same_answer(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        heard = {
            (found.status, found.body, found.headers["www-authenticate"], found.headers["cache-control"])
            for method, path in PATHS
            for key in (None, "", KEY, ADMIN + "x", ADMIN[:-1])
            for found in [await call(stage, method, path, key=key)]
        }
    [(status, body, authenticate, cache)] = heard
    assert (status, authenticate, cache) == (401, "Bearer", "no-store")
    assert json.loads(body)["error"]["message"] == "unauthorized"


async def test_without_a_key_in_the_configuration_it_is_closed(tmp_path: Path) -> None:
    async with administered(tmp_path, key="") as stage:
        for key in (None, "", KEY):
            assert (await call(stage, "GET", "/admin/api/keys", key=key)).status == 401


async def test_the_admin_key_is_no_clients_key(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        assert (await ask(stage, chat(), key=ADMIN)).status == 401
        assert (await call(stage, "GET", "/admin/apiary")).status == 404


async def test_a_large_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage, await stage.connect() as stream:
        head = f"POST /admin/api/keys HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 65537\r\n"
        await stream.send_all(head.encode() + b"\r\n")
        assert (await hear(stream)).status == 413


async def test_a_key_is_made_shown_once_used_rotated_and_revoked(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        made = await make(stage, name="app", team="search", rpm=600, budget_usd="2.50", models=["sim/*"], expires="30d")
        secret = made.pop("key")
        assert secret.startswith(f"sk-sluice-{made['secrets'][0]['prefix']}-")
        assert (made["state"], made["budget_micro_usd"], made["models"]) == ("active", 2_500_000, ["sim/*"])
        assert (await ask(stage, chat(), key=secret)).status == 200

        got = await call(stage, "GET", f"/admin/api/keys/{made['id']}")
        assert got.json() == made

        rotated = (await call(stage, "POST", f"/admin/api/keys/{made['id']}/rotate", {"overlap": "1h"})).json()
        assert rotated["key"] != secret
        assert [(await ask(stage, chat(), key=each)).status for each in (secret, rotated["key"])] == [200, 200]

        revoked = await call(stage, "POST", f"/admin/api/keys/{made['id']}/revoke")
        assert revoked.json()["state"] == "revoked"
        for each in (secret, rotated["key"]):
            assert (await ask(stage, chat(), key=each)).status == 401
        listed = (await call(stage, "GET", "/admin/api/keys")).body + got.body + revoked.body
        stored = bytes_of_store(tmp_path)
    assert made["id"].encode() in stored
    for each in (secret, rotated["key"], ADMIN):
        assert each.encode() not in listed + stored
        assert each.rpartition("-")[2].encode() not in listed + stored
    assert b"digest" not in listed


async def test_lists_come_in_pages(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        names = [(await make(stage, name=f"key {number}"))["name"] for number in range(5)]
        found, after, pages = [], "", 0
        while after is not None:
            heard = (await call(stage, "GET", f"/admin/api/keys?limit=2&after={after}")).json()
            found += [row["name"] for row in heard["data"]]
            after, pages = heard["next"], pages + 1
            assert heard["has_more"] is (after is not None)
        assert (found, pages) == (names[::-1], 3)
        newest = (await call(stage, "GET", "/admin/api/audit?limit=4")).json()
        rest = (await call(stage, "GET", f"/admin/api/audit?after={newest['next']}")).json()
        assert (len(newest["data"]), len(rest["data"]), rest["has_more"], rest["next"]) == (4, 1, False, None)
        active = (await call(stage, "GET", "/admin/api/keys?state=revoked")).json()
        assert active == {"data": [], "has_more": False, "next": None}


async def test_changes_leave_a_trail_and_refused_ones_too(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        id = (await make(stage, name="app"))["id"]
        assert (await call(stage, "POST", "/admin/api/keys", {"name": "app"})).status == 409
        await call(stage, "POST", f"/admin/api/keys/{id}/revoke")
        rows = (await call(stage, "GET", "/admin/api/audit")).json()["data"]
    assert [(row["action"], row["subject"], row["outcome"]) for row in rows] == [
        ("keys.revoke", id, "done"),
        ("keys.create", "app", "key_refused"),
        ("keys.create", id, "done"),
    ]
    assert {row["client"] for row in rows} == {"127.0.0.1"}
    [who] = {row["who"] for row in rows}
    assert who.startswith("admin-")
    assert ADMIN not in who


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_calls_are_lines_of_the_log_without_any_key(tmp_path: Path, pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.set_blocking(reads, False)
    async with administered(tmp_path, log="requests = false", log_fd=writes) as stage:
        made = await make(stage, name="app")
        for _ in range(15):
            await call(stage, "GET", "/admin/api/keys", key="wrong-" + ADMIN)
        await call(stage, "GET", "/admin/api/nothing")
    text = os.read(reads, 1_000_000).decode()
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "admin"]
    refused = [line for line in lines if line["status"] == 401]
    others = [(line["status"], line["outcome"]) for line in lines if line["status"] != 401]
    assert others == [(201, "done"), (404, "not_found")]
    assert 10 <= len(refused) < 15  # so many at once, then one every two seconds
    assert (lines[0]["method"], lines[0]["path"], lines[0]["subject"]) == ("POST", "/admin/api/keys", made["id"])
    assert not any("path" in line for line in refused)
    assert made["key"] not in text
    assert ADMIN not in text


async def test_it_has_a_limit_of_its_own_that_the_keyless_cannot_use_up(tmp_path: Path) -> None:
    async with administered(tmp_path, rpm=6) as stage:
        for _ in range(20):
            assert (await call(stage, "GET", "/admin/api/keys", key=None)).status == 401
        assert (await call(stage, "GET", "/admin/api/keys")).status == 200
        refused = await call(stage, "GET", "/admin/api/keys")
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert (await ask(stage, chat())).status == 200


async def test_a_new_admin_key_holds_from_the_reload_on(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        other = "another-0123456789abcdef"
        config = stage.gateway.config
        stage.gateway.reload(evolve(config, admin=evolve(config.admin, key=Secret(other))))
        assert (await call(stage, "GET", "/admin/api/keys")).status == 401
        assert (await call(stage, "GET", "/admin/api/keys", key=other)).status == 200


async def test_usage_and_targets_are_told(tmp_path: Path) -> None:
    async with administered(tmp_path) as stage:
        secret = (await make(stage, name="app", team="search"))["key"]
        await ask(stage, chat(), key=secret)
        await stage.settle()
        with trio.fail_after(10):
            rows: list[dict[str, Any]] = []
            while not any(row["requests"] for row in rows):
                usage = await call(stage, "GET", "/admin/api/usage?by=team,model&since=1h")
                rows = usage.json()["data"]
                await trio.sleep(0.05)
        assert [(row["team"], row["model"], row["requests"]) for row in rows] == [("search", "sim/sim", 1)]
        targets = {row["target"]: row for row in (await call(stage, "GET", "/admin/api/targets")).json()["data"]}
    assert (targets["sim/*"]["asked"], targets["sim/*"]["breaker"]) == (True, "closed")
    assert (targets["sim/sim"]["asked"], targets["sim/sim"]["in_flight"]) == (False, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/keys?name=app", b"{}", 400, "name"),
        ("POST", "/keys", b"{", 400, ""),
        ("POST", "/keys", b"[]", 400, ""),
        ("POST", "/keys", b"{}", 400, "name"),
        ("POST", "/keys", b'{"name": "a", "budget": 3}', 400, "budget"),
        ("POST", "/keys", b'{"name": " a"}', 400, "name"),
        ("POST", "/keys", b'{"name": "a", "rpm": 0}', 400, "rpm"),
        ("POST", "/keys", b'{"name": "a", "budget_usd": 0.0000001}', 400, "budget_usd"),
        ("POST", "/keys", b'{"name": "a", "budget_usd": "NaN"}', 400, "budget_usd"),
        ("POST", "/keys", b'{"name": "a", "networks": ["10.0.0.0/33"]}', 400, "networks"),
        ("POST", "/keys", b'{"name": "a", "expires": "2020-01-31"}', 400, "is over"),
        ("POST", "/keys", b'{"name": "a", "expires": "soon"}', 400, "soon"),
        ("POST", "/keys", b'{"name": "dev"}', 409, "[[key]]"),
        ("GET", "/keys?limit=0x", b"", 400, "limit"),
        ("GET", "/keys?limit=1001", b"", 400, "limit"),
        ("GET", "/keys?limit=0", b"", 400, "limit"),
        ("GET", "/usage?sinse=7d", b"", 400, "sinse: no such field; there is after, by, limit, since, until"),
        ("GET", "/usage?until=2027-13-01", b"", 400, "until"),
        ("GET", "/targets?by=model", b"", 400, "by"),
        ("GET", "/keys/key_0?limit=1", b"", 400, "limit"),
        ("GET", "/keys?after=key_0", b"", 400, "after"),
        ("GET", "/keys?state=lost", b"", 400, "state"),
        ("GET", "/keys?" + "a=b&" * 30, b"", 400, ""),
        ("GET", "/keys/key_0", b"", 404, "id"),
        ("POST", "/keys/key_0/rotate", b"", 404, "id"),
        ("POST", "/keys/key_0/rotate", b'{"overlap": "long"}', 400, "overlap"),
        ("POST", "/keys/key_0/rotate", b'{"overlap": "9999d"}', 400, "overlap"),
        ("POST", "/keys/key_0/revoke", b"", 404, "id"),
        ("DELETE", "/keys/key_0", b"", 405, "GET"),
        ("GET", "/usage?by=color", b"", 400, "color"),
        ("GET", "/usage?since=yesterday", b"", 400, "yesterday"),
        ("GET", "/audit?after=x", b"", 400, "after"),
        ("GET", "", b"", 404, "path"),
        ("GET", "/keys/", b"", 200, "data"),
    ],
)
async def test_what_is_wrong_is_said_in_json(
    tmp_path: Path, method: str, path: str, body: bytes, status: int, says: str
) -> None:
    async with administered(tmp_path) as stage:
        heard = await call(stage, method, f"/admin/api{path}", body=body)
    assert heard.status == status, heard.body
    assert heard.headers["content-type"] == "application/json"
    document = heard.json()
    assert says in (document["error"]["message"] if status >= 400 else str(list(document)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "name"),
        (b'{"name": 5}', "name"),
        (b'{"name": "a", "budget": 3}', "budget"),
        (b'{"name": "a", "rpm": 0}', "rpm"),
        (b'{"name": "a", "models": ["x", 7]}', "models[1]"),
        (b'{"name": "a", "period": "year"}', "period"),
        (b'{"name": "a", "networks": ["10.0.0.0/33"]}', "networks"),
        (b'{"name": "a", "budget_usd": -1}', "budget_usd"),
        (b"[]", None),
    ],
)
async def test_the_field_at_fault_is_named(tmp_path: Path, body: bytes, param: str | None) -> None:
    async with administered(tmp_path) as stage:
        error = (await call(stage, "POST", "/admin/api/keys", body=body)).json()["error"]
        by = (await call(stage, "GET", "/admin/api/usage?since=x")).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert by["param"] == "since"


async def test_a_store_that_is_away_is_said_and_nothing_is_changed() -> None:
    more = MORE.format(key=ADMIN, rpm=600)
    async with staged(more=more) as stage:
        heard = await call(stage, "POST", "/admin/api/keys", {"name": "app"})
        assert (heard.status, heard.json()["error"]["code"]) == (503, "no_pepper")
        assert (await call(stage, "GET", "/admin/api/audit")).json()["data"] == []
        assert stage.gateway.store is not None
        await stage.gateway.store.sql.aclose()
        heard = await call(stage, "GET", "/admin/api/keys")
        assert (heard.status, heard.json()["error"]["code"]) == (503, "store_away")
