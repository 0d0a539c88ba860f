"""A gateway without keys answers this machine, but no stranger's page that this machine's browser happens to show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from attrs import evolve

from gateway.core.errors import RequestError
from gateway.edge.sites import check_site
from tests.component.stage import Heard, Stage, ask, chat, hear, staged

FOREIGN = pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("127.0.0.1:8080", "https://evil.example", "foreign_origin"),
        ("127.0.0.1:8080", "http://127.0.0.1:9090", "foreign_origin"),
        ("127.0.0.1:8080", "http://localhost:8080", "foreign_origin"),
        ("127.0.0.1:8080", "null", "foreign_origin"),
        ("127.0.0.1:8080", "", "foreign_origin"),
        ("evil.example:8080", "http://evil.example:8080", "foreign_host"),
        ("evil.example", None, "foreign_host"),
        ("localhost.evil.example", None, "foreign_host"),
        ("127.0.0.1.evil.example:8080", None, "foreign_host"),
        ("10.0.0.7:8080", None, "foreign_host"),
        ("", None, "foreign_host"),
    ],
)


@asynccontextmanager
async def keyless() -> AsyncIterator[Stage]:
    async with staged() as stage:
        stage.gateway.directory.configure(evolve(stage.gateway.config, key=()))
        yield stage


def headers(host: str, origin: str | None) -> dict[str, str]:
    return {"host": host} if origin is None else {"host": host, "origin": origin}


async def get_models(stage: Stage, host: str, origin: str | None) -> Heard:
    async with await stage.connect() as stream:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers(host, origin).items())
        await stream.send_all(f"GET /v1/models HTTP/1.1\r\n{lines}\r\n".encode())
        return await hear(stream)


@FOREIGN
async def test_a_strangers_page_gets_no_answer_and_costs_nothing(host: str, origin: str | None, code: str) -> None:
    async with keyless() as stage:
        asked = await ask(stage, chat(), key=None, headers=headers(host, origin))
        listed = await get_models(stage, host, origin)
        for heard in (asked, listed):
            assert (heard.status, heard.json()["error"]["code"]) == (403, code)
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/orchestrate"])
async def test_a_post_without_a_content_type_is_no_way_in(path: str) -> None:
    async with keyless() as stage:
        async with await stage.connect() as stream:
            body = b'{"model":"chat","assistant":"chat","input":"x","messages":[{"role":"user","content":"x"}]}'
            await stream.send_all(
                f"POST {path} HTTP/1.1\r\nhost: localhost:8080\r\norigin: https://evil.example\r\n"
                f"sec-fetch-site: cross-site\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            heard = await hear(stream)
        assert (heard.status, heard.json()["error"]["code"]) == (403, "foreign_origin")
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("LOCALHOST:8080", "http://localhost:8080"),
        ("sluice.localhost", "http://sluice.localhost"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.8.8.8", None),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::1]", None),
    ],
)
async def test_our_own_page_and_programs_on_this_machine_are_answered(host: str, origin: str | None) -> None:
    async with keyless() as stage:
        assert (await ask(stage, chat(), key=None, headers=headers(host, origin))).status == 200
        assert (await get_models(stage, host, origin)).status == 200


async def test_with_keys_it_is_the_key_that_counts() -> None:
    async with staged() as stage:
        heard = await ask(stage, chat(), headers=headers("api.example.com", "https://app.example.com"))
        assert heard.status == 200


def test_without_a_host_there_is_no_origin_to_be_its_own() -> None:
    check_site(None, None)
    with pytest.raises(RequestError):
        check_site(None, b"http://localhost")
