"""A refusal before the dialect is even entered has its shape: the client's library must read it as its own error."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, request_bytes, staged

GEMINI = "/v1beta/models/chat:generateContent"
PATHS = {
    "/v1/chat/completions": "openai",
    "/v1/responses": "openai",
    "/v1/completions": "openai",
    "/v1/embeddings": "openai",
    "/v1/messages": "anthropic",
    "/v1/messages/count_tokens": "anthropic",
    GEMINI: "gemini",
    "/v1/models/chat:streamGenerateContent": "gemini",
}
ANTHROPICS = {401: "authentication_error", 408: None, 413: "request_too_large", 415: None, 429: "rate_limit_error"}
each_path = pytest.mark.parametrize("path", PATHS)


def assert_speaks(heard: Heard, path: str, status: int) -> None:
    """The status, and the document of the path's dialect."""
    assert heard.status == status
    document: dict[str, Any] = heard.json()
    error = document["error"]
    assert error["message"]
    match PATHS[path]:
        case "anthropic":
            assert document["type"] == "error"
            assert error["type"] == (ANTHROPICS[status] or error["type"])
            assert "param" not in error
        case "gemini":
            assert error["code"] == status
            assert isinstance(error["status"], str)
            assert error["status"].isupper()
        case "openai":
            assert set(error) >= {"message", "type", "param", "code"}


@each_path
async def test_without_a_key_with_too_much_of_the_wrong_kind_or_too_slow(path: str) -> None:
    async with staged(server="max_body_bytes = 1000\nbody_timeout_s = 0.1") as stage:
        assert_speaks(await ask(stage, b"{}", path=path, key=None), path, 401)
        assert_speaks(await ask(stage, b"{}", path=path, key="sk-wrong"), path, 401)
        assert_speaks(await ask(stage, b" " * 1001, path=path), path, 413)
        chunks = {"transfer-encoding": "chunked"}
        async with await stage.connect() as stream:
            head = request_bytes(b"", path=path, headers=chunks).replace(b"content-length: 0\r\n", b"")
            await stream.send_all(head + b"3e9\r\n" + b" " * 1001 + b"\r\n")
            assert_speaks(await hear(stream), path, 413)
        assert_speaks(await ask(stage, b"{}", path=path, headers={"content-type": "text/plain"}), path, 415)
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(b"{}", path=path)[:-1])
            assert_speaks(await hear(stream), path, 408)


@each_path
async def test_when_there_is_no_room(path: str) -> None:
    async with staged(workers=1, queue=0) as stage, await stage.connect() as busy:
        await busy.send_all(request_bytes(chat("sim/sim-ttft=60")))
        await stage.sim.until(lambda now: now.active == 1)
        heard = await ask(stage, b"{}", path=path)
        assert_speaks(heard, path, 429)
        assert int(heard.headers["retry-after"]) >= 1
        assert [record.endpoint for record in stage.records] == [path.partition("/chat:")[0]]
        await trio.aclose_forcefully(busy)


async def asked_with(stage: Stage, path: str, headers: dict[str, str]) -> int:
    heard = await ask(stage, b"{}", path=path, key=None, headers=headers)
    return heard.status


async def test_keys_come_as_each_dialects_clients_send_them() -> None:
    async with staged() as stage:
        assert await asked_with(stage, GEMINI, {"x-goog-api-key": KEY}) == 400  # past the door: the body is empty
        assert await asked_with(stage, f"{GEMINI}?key={KEY}", {}) == 400
        assert await asked_with(stage, GEMINI, {"x-api-key": KEY}) == 400
        assert await asked_with(stage, "/v1/messages", {"x-api-key": KEY}) == 400
        assert await asked_with(stage, "/v1/messages", {"x-goog-api-key": KEY}) == 401
        assert await asked_with(stage, f"/v1/chat/completions?key={KEY}", {}) == 401
        assert {record.endpoint for record in stage.records if record.status == 400} == {
            "/v1beta/models",
            "/v1/messages",
        }
