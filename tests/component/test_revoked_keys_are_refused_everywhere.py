"""Promise: a key that is made, rotated or revoked is so in every process within two seconds, without a restart; while
the store is away known keys work on, and one that is not known is told why it cannot be judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import services
import trio

from tests.component.served import ROOT, Served, served
from tests.component.stage import Heard, chat, hear, request_bytes
from tests.component.test_workers_are_processes import both_listen

pytestmark = pytest.mark.alone

TWO = ("--workers", "2")
WITHIN_S = 2.0
GIVE_UP_S = 20.0
AT_ONCE = 24  # clients, so that both processes are asked
UNKNOWN = "sk-sluice-Abcdefgh-" + "x" * 40
PEPPER = '[identity]\npepper = "0123456789abcdef0123456789abcdef"\n'


async def keys(folder: Path, *arguments: str) -> Any:
    """Run ``sluice keys`` against the gateway's configuration; its JSON, if it prints some."""
    command = [sys.executable, "-m", "gateway", "keys", *arguments, "--config", str(folder / "sluice.toml")]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else None


async def ask_all(gateway: Served, key: str) -> list[Heard]:
    heard: list[Heard] = []

    async def client() -> None:
        async with await gateway.connect() as stream:
            await stream.send_all(request_bytes(chat(), key=key))
            heard.append(await hear(stream))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(client)
    return heard


async def until_all_say(gateway: Served, key: str, status: int, code: str = "", within_s: float = WITHIN_S) -> Heard:
    """Both processes answer with this status from a moment on that is at most ``within_s`` away."""
    began = trio.current_time()
    with trio.fail_after(GIVE_UP_S):
        while True:
            asked_at = trio.current_time()
            heard = await ask_all(gateway, key)
            processes = {one.headers["x-request-id"][:20] for one in heard}
            if len(processes) == 2 and {one.status for one in heard} == {status}:
                break
            await trio.sleep(0.05)
    assert asked_at - began <= within_s
    assert not code or {one.json()["error"]["code"] for one in heard} == {code}
    return heard[0]


@pytest.mark.alone
async def test_made_rotated_and_revoked_within_two_seconds_in_every_process(tmp_path: Path) -> None:
    async with served(tmp_path, arguments=TWO, workers=100) as gateway:
        before = await both_listen(gateway)
        await until_all_say(gateway, UNKNOWN, 401, "invalid_api_key")
        first = (await keys(tmp_path, "create", "alice", "--json"))["key"]
        await until_all_say(gateway, first, 200)
        second = (await keys(tmp_path, "rotate", "alice", "--overlap", "1h", "--json"))["key"]
        await until_all_say(gateway, second, 200)
        await until_all_say(gateway, first, 200, within_s=GIVE_UP_S)
        other = (await keys(tmp_path, "create", "bob", "--json"))["key"]
        await until_all_say(gateway, other, 200)
        await keys(tmp_path, "revoke", "alice")
        await until_all_say(gateway, second, 401, "invalid_api_key")
        for key, status in ((first, 401), (second, 401), (other, 200)):
            assert {one.status for one in await ask_all(gateway, key)} == {status}
        assert await both_listen(gateway) == before
        for secret in (first, second, other):
            assert secret[len("sk-sluice-") + 9 :] not in gateway.log


async def test_while_the_store_is_away_known_keys_work_and_others_are_told_why(
    postgres: services.Postgres, tmp_path: Path
) -> None:
    async with served(tmp_path, arguments=TWO, workers=100, store=postgres.new_database(), more=PEPPER) as gateway:
        before = await both_listen(gateway)
        known = (await keys(tmp_path, "create", "alice", "--rpm", "6000", "--budget-usd", "5", "--json"))["key"]
        await until_all_say(gateway, known, 200)
        postgres.stop()
        try:
            assert {one.status for one in await ask_all(gateway, known)} == {200}
            refused = await until_all_say(gateway, UNKNOWN, 503, "identity_unavailable", within_s=GIVE_UP_S)
            error = refused.json()["error"]
            assert error["message"] == "the key store is away, and this key is not among those known; try again"
            assert int(refused.headers["retry-after"]) >= 1
            for _ in range(3):
                assert {one.status for one in await ask_all(gateway, known)} == {200}
        finally:
            postgres.start()
        await until_all_say(gateway, UNKNOWN, 401, "invalid_api_key", within_s=GIVE_UP_S)
        new = (await keys(tmp_path, "create", "bob", "--json"))["key"]
        await until_all_say(gateway, new, 200)
        await keys(tmp_path, "revoke", "alice")
        await until_all_say(gateway, known, 401, "invalid_api_key")
        assert await both_listen(gateway) == before
