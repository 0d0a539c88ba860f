"""Promise: what a key may ask for, where and from where holds on every endpoint, also on those that answer no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.identity.pepper import make_pepper, new_key
from gateway.sim import Behaviour
from gateway.store.keys import Keys, StoredKey
from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, staged

PASSED = """
[[provider]]
name = "files"
base_url = "${SIM}"
passthrough = ["/files/*"]
[[assistant]]
name = "helper"
model = "sim/sim"
[[assistant]]
name = "other"
model = "sim/sim"
"""
CHAT = "/v1/chat/completions"
GEMINI = {"contents": [{"parts": [{"text": "hello"}]}]}
POSTS: dict[str, Any] = {
    "/v1/orchestrate": {"assistant": "helper", "input": "hello"},
    "/v1/responses": {"model": "sim/sim", "input": "hello"},
    "/v1/completions": {"model": "sim/sim", "prompt": "hello"},
    "/v1/embeddings": {"model": "sim/sim", "input": "hello"},
    "/v1/messages": {**chat(), "max_tokens": 5},
    "/v1/messages/count_tokens": chat(),
    "/v1beta/models/sim/sim:generateContent": GEMINI,
    "/v1/models/sim/sim:streamGenerateContent": GEMINI,
    "/v1/files/x": {},
}


async def made(stage: Stage, **fields: Any) -> str:
    """A new virtual key that the gateway knows."""
    secret, prefix = new_key()
    pepper = make_pepper(stage.gateway.config)
    assert stage.gateway.store is not None
    keys = Keys(stage.gateway.store.sql)
    digest = pepper.digest(secret.encode()).hex()
    await keys.create(StoredKey(**fields), digest=digest, prefix=prefix, pepper_check=pepper.check)
    await stage.gateway.directory.refresh()
    return secret


async def without_body(stage: Stage, method: str, path: str, key: str) -> Heard:
    async with await stage.connect() as stream:
        lines = f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\r\n"
        await stream.send_all(lines.encode())
        return await hear(stream)


async def test_a_key_for_some_endpoints_is_refused_at_all_others(tmp_path: Path) -> None:
    async with staged(store=f"sqlite:///{tmp_path}/sluice.db", more=PASSED) as stage:
        key = await made(stage, name="bound", endpoints=(CHAT,))
        assert (await ask(stage, chat(), key=key)).status == 200
        before = stage.sim.statistics().started
        for path, document in POSTS.items():
            heard = await ask(stage, document, path=path, key=key)
            assert heard.status == 403, path
            assert f"the API key may be used for {CHAT} only" in heard.body.decode()
        for method in ("GET", "DELETE"):
            heard = await without_body(stage, method, "/v1/responses/resp_1", key)
            assert (heard.status, heard.json()["error"]["code"]) == (403, "endpoint_not_allowed")
        assert (await without_body(stage, "GET", "/v1/models", key)).status == 200, "the lists are open to every key"
        assert stage.sim.statistics().started == before


async def test_kept_responses_are_ours_also_where_other_paths_are_passed_through() -> None:
    async with staged(more=PASSED) as stage:
        kept = (await ask(stage, POSTS["/v1/responses"], path="/v1/responses")).json()
        path = f"/v1/responses/{kept['id']}"
        assert (await without_body(stage, "GET", path, KEY)).json()["id"] == kept["id"]
        assert (await without_body(stage, "DELETE", path, KEY)).json()["deleted"] is True
        assert (await without_body(stage, "GET", path, KEY)).status == 404


async def test_a_key_for_some_networks_is_refused_everywhere_else(tmp_path: Path) -> None:
    async with staged(store=f"sqlite:///{tmp_path}/sluice.db", more=PASSED) as stage:
        key = await made(stage, name="bound", networks=("203.0.113.0/24",))
        for path, document in {CHAT: chat(), **POSTS}.items():
            heard = await ask(stage, document, path=path, key=key)
            assert heard.status == 403, path
            assert "may not be used from this network address" in heard.body.decode()
        reads = [("GET", "/v1/models"), ("GET", "/v1beta/models"), ("GET", "/v1/models/sim/sim")]
        for method, path in (*reads, ("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1")):
            assert (await without_body(stage, method, path, key)).status == 403, path
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize("fields", [{"models": ("helper",)}, {"assistants": ("helper",)}])
async def test_a_key_for_one_assistant_asks_for_nothing_else_in_any_dialect(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with staged(store=f"sqlite:///{tmp_path}/sluice.db", more=PASSED) as stage:
        key = await made(stage, name="bound", **fields)
        assert (await ask(stage, POSTS["/v1/orchestrate"], path="/v1/orchestrate", key=key)).status == 200
        before = stage.sim.statistics().started
        elsewhere = {**POSTS, CHAT: chat(), "/v1/orchestrate": {"assistant": "other", "input": "hello"}}
        for path, document in elsewhere.items():
            assert (await ask(stage, document, path=path, key=key)).status in (403, 404), path
        assert (await without_body(stage, "GET", "/v1/models/other", key)).status in (403, 404)
        listed = (await without_body(stage, "GET", "/v1/models", key)).json()
        assert [model["id"] for model in listed["data"]] == ["helper"]
        assert stage.sim.statistics().started == before


async def test_a_key_that_is_revoked_ends_nothing_that_runs_and_gives_back_what_was_set_aside(tmp_path: Path) -> None:
    behaviour = Behaviour(ttft_s=0.0, tokens=40, tokens_per_s=40)
    async with staged(store=f"sqlite:///{tmp_path}/sluice.db", behaviour=behaviour) as stage:
        key = await made(stage, name="leaver", tpm=10_000, rpm=10, max_concurrent=1)
        heard: list[Heard] = []

        async def stream() -> None:
            heard.append(await ask(stage, chat(stream=True, max_tokens=100), key=key))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            with trio.fail_after(20):
                while not stage.sim.statistics().started:
                    await trio.sleep(0.01)
            assert stage.gateway.store is not None
            await Keys(stage.gateway.store.sql).revoke("leaver")
            await stage.gateway.directory.refresh()
            assert (await ask(stage, chat(), key=key)).status == 401
        assert (heard[0].status, heard[0].finished) == (200, True)
        await stage.settle()
        assert [limit.reserved for limit in stage.gateway.accounts.quota.statistics()] == [0, 0, 0]
