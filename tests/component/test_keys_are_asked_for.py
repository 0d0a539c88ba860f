"""Promise: a key is asked for, decides what its owner may do, and is shown to nobody; neither are the gateway's own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.app import make_app
from tests.component.served import kill, port_said, start
from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, request_bytes, staged

NARROW, HIGH, LOW = "sk-narrow-0123456789", "sk-high-0123456789", "sk-low-0123456789"
KEYS = f"""
[[key]]
name = "narrow"
secret = "{NARROW}"
models = ["sim/small*", "helper"]
[[key]]
name = "high"
secret = "{HIGH}"
priority = "high"
[[key]]
name = "low"
secret = "{LOW}"
priority = "low"
[[assistant]]
name = "helper"
model = "chat"
"""
PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/orchestrate"])


async def get(stage: Stage, path: str, key: str | None = None) -> Heard:
    async with await stage.connect() as stream:
        authorization = f"authorization: Bearer {key}\r\n" if key else ""
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n{authorization}\r\n".encode())
        return await hear(stream)


def code_of(heard: Heard) -> tuple[int, str]:
    return heard.status, heard.json()["error"]["code"]


@PATHS
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer "}, "missing_api_key"),
        ({"authorization": f"Basic {KEY}"}, "missing_api_key"),
        ({"authorization": KEY}, "missing_api_key"),
        ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY[:-1]}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY.upper()}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY} {KEY}"}, "invalid_api_key"),
        ({"x-api-key": "sk-other"}, "invalid_api_key"),
        ({"authorization": "Bearer sk-other", "x-api-key": KEY}, "invalid_api_key"),
    ],
)
async def test_without_a_known_key_nothing_is_done(path: str, headers: dict[str, str], code: str) -> None:
    async with staged() as stage:
        heard = await ask(stage, chat(), path=path, key=None, headers=headers)
        assert code_of(heard) == (401, code)
        assert heard.headers["www-authenticate"] == "Bearer"
        assert heard.headers["x-request-id"]
        assert stage.gateway.admission.statistics().admitted == 0
        assert [record.code for record in stage.records] == [code]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY}"},
        {"x-api-key": KEY},
    ],
)
async def test_a_key_is_taken_from_either_header(headers: dict[str, str]) -> None:
    async with staged() as stage:
        assert (await ask(stage, chat(), key=None, headers=headers)).status == 200
        assert stage.records[0].principal == "dev"


async def test_a_key_asks_for_its_own_models_only() -> None:
    async with staged(more=KEYS) as stage:
        assert (await ask(stage, chat("sim/small-one"), key=NARROW)).status == 200
        assert (await ask(stage, chat("helper"), key=NARROW)).status == 200
        for model in ("chat", "sim/large", "sim/smal"):
            heard = await ask(stage, chat(model), key=NARROW)
            assert code_of(heard) == (403, "model_not_allowed")
            assert heard.json()["error"]["param"] == "model"
        heard = await ask(
            stage, {"assistant": "chat", "input": "x", "stream": True}, key=NARROW, path="/v1/orchestrate"
        )
        assert (heard.status, heard.json()["error"]["param"]) == (403, "assistant")
        assert stage.sim.statistics().started == 2


async def test_the_list_of_models_wants_a_key_and_shows_what_it_may_ask_for() -> None:
    async with staged(more=KEYS) as stage:
        assert code_of(await get(stage, "/v1/models")) == (401, "missing_api_key")
        assert code_of(await get(stage, "/v1/models", "sk-other")) == (401, "invalid_api_key")
        assert code_of(await get(stage, "/v1/models/chat")) == (401, "missing_api_key")
        assert code_of(await get(stage, "/v1/models/chat", NARROW)) == (403, "model_not_allowed")
        listed = {
            key: [model["id"] for model in (await get(stage, "/v1/models", key)).json()["data"]]
            for key in (KEY, NARROW)
        }
        assert listed == {KEY: ["chat", "helper"], NARROW: ["helper"]}


@pytest.mark.parametrize(
    ("key", "asked", "given"),
    [
        (KEY, "high", "normal"),
        (KEY, "low", "low"),
        (KEY, "LOW", "low"),
        (HIGH, None, "high"),
        (HIGH, "normal", "normal"),
        (LOW, "high", "low"),
        (LOW, "normal", "low"),
    ],
)
async def test_the_priority_header_only_lowers(key: str, asked: str | None, given: str) -> None:
    async with staged(more=KEYS) as stage:
        assert (await ask(stage, chat(), key=key, headers={"x-priority": asked} if asked else {})).status == 200
        assert stage.records[0].priority == given


async def test_metrics_are_for_this_machine_or_for_a_key() -> None:
    async with staged() as stage:
        assert (await get(stage, "/metrics")).status == 200  # a test's client is on this machine
        for address, local in (("203.0.113.9", False), ("127.0.0.2", True), ("::1", True), ("", False)):
            transport = httpx.ASGITransport(make_app(stage.gateway), client=(address, 1))  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                answer = await client.get("/metrics")
                assert answer.status_code == (200 if local else 401)
                forged = {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"}
                assert (await client.get("/metrics", headers=forged)).status_code == answer.status_code
                answer = await client.get("/metrics", headers={"authorization": f"Bearer {KEY}"})
                assert "sluice_requests_in_flight" in answer.text


async def test_health_and_the_page_ask_for_no_key() -> None:
    async with staged() as stage:
        for path in ("/healthz", "/readyz", "/"):
            heard = await get(stage, path)
            assert heard.status == 200
            assert KEY.encode() not in heard.body


# ── the gateway's own keys ──────────────────────────────────────────────────────────────────────────────────────────

OURS, HEADER_KEY = "sk-provider-a1b2c3d4e5f6", "azure-f6e5d4c3b2a1"
LOADER_KEY, QUERY_KEY, WRONG = "loader-0a1b2c3d4e", "query-9f8e7d6c5b", "sk-guessed-5a5a5a5a"
SECRETS = (KEY, OURS, HEADER_KEY, LOADER_KEY, QUERY_KEY, WRONG)
CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


class Telltale:
    """A provider, and an API behind a loader, that quote the caller's credentials in whatever they say.

    The model's name is the status of the answer; ``stream`` and ``early`` are streams that end in an error event.
    """

    def __init__(self) -> None:
        self.heads: list[str] = []

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += await stream.receive_some()
        self.heads.append(head.decode())
        await stream.send_all(self._answer(head.decode(), json.loads(body)["model"] if body else "500"))
        await stream.aclose()

    def _answer(self, head: str, model: str) -> bytes:
        message = f"Incorrect credentials: {OURS} {HEADER_KEY} in {head}"
        error = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": "theirs"}}).encode()
        if model in ("stream", "early"):
            events = (CONTENT if model == "stream" else b"") + b"data: " + error + b"\n\n"
            return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n" + events
        start = f"HTTP/1.1 {model} {OURS}\r\nx-your-key: {OURS}\r\nconnection: close\r\n"
        return f"{start}content-length: {len(error)}\r\n\r\n".encode() + error


def telltale_config(port: int) -> str:
    return f"""
    [[provider]]
    name = "telltale"
    base_url = "http://127.0.0.1:{port}/v1"
    api_key = "{OURS}"
    headers = {{ api-key = "{HEADER_KEY}" }}
    breaker = {{ enabled = false }}
    [[model]]
    name = "t/*"
    targets = [{{ provider = "telltale", model = "*" }}]
    [context]
    allowed_hosts = ["127.0.0.1:{port}"]
    [[assistant]]
    name = "curious"
    model = "t/400"
      [[assistant.loader]]
      kind = "http"
      name = "orders"
      required = true
      timeout_s = 5
      url = "http://127.0.0.1:{port}/orders?key={QUERY_KEY}"
      headers = {{ x-token = "{LOADER_KEY}" }}
    """


@asynccontextmanager
async def telltale() -> AsyncIterator[tuple[Telltale, str]]:
    provider = Telltale()
    async with trio.open_nursery() as nursery:
        yield provider, telltale_config(await nursery.start(provider.serve))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "code"), [(401, "upstream_auth"), (403, "upstream_forbidden")])
async def test_a_provider_that_does_not_know_our_key_is_a_502_without_its_text(
    status: int, code: str, stream: bool
) -> None:
    async with telltale() as (provider, config), staged(more=config) as stage:
        heard = await ask(stage, chat(f"t/{status}", stream=stream))
        assert code_of(heard) == (502, code)
        assert b"Incorrect" not in heard.body
        assert OURS.encode() not in heard.body
        assert "x-your-key" not in heard.headers
        assert f"authorization: Bearer {OURS}" in provider.heads[0]  # it did get the key


@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_words_about_the_request_pass_without_our_keys(stream: bool) -> None:
    async with telltale() as (_, config), staged(more=config) as stage:
        heard = await ask(stage, chat("t/400", stream=stream))
        assert code_of(heard) == (400, "theirs")
        assert "Incorrect credentials: *** *** in POST" in heard.json()["error"]["message"]
        for secret in (OURS, HEADER_KEY):
            assert secret.encode() not in heard.body


async def ask_everything(port: int) -> list[bytes]:
    """Make every mistake that could make somebody quote a key; all that the clients hear."""

    async def say(data: bytes) -> bytes:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            heard = await hear(stream)
            return repr(heard.headers).encode() + heard.body

    models = ("t/400", "t/401", "t/422", "t/429", "t/500", "t/stream", "t/early", "curious", "nope")
    heard = [await say(request_bytes(chat(model, stream=stream))) for model in models for stream in (False, True)]
    for stream in (False, True):
        asked = {"assistant": "curious", "input": "x", "stream": stream}
        heard.append(await say(request_bytes(asked, path="/v1/orchestrate")))
    wrong: Any = ({"authorization": f"Bearer {WRONG}"}, {"x-api-key": WRONG}, {"authorization": f"Basic {WRONG}"})
    heard += [await say(request_bytes(chat(), key=None, headers=headers)) for headers in wrong]
    heard.append(await say(request_bytes(b"{" + KEY.encode())))
    for path in ("/metrics", "/v1/models", "/readyz", "/nope"):
        heard.append(await say(f"GET {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()))
    return heard


async def test_no_secret_is_in_any_answer_metric_or_log(tmp_path: Path) -> None:
    async with telltale() as (_, more):
        file, log = tmp_path / "sluice.toml", tmp_path / "log"
        head = '[server]\nbind = "127.0.0.1:0"\n[log]\nlevel = "debug"\n[store]\nurl = "sqlite:///:memory:"\n'
        file.write_text(head + f'[[key]]\nname = "dev"\nsecret = "{KEY}"\n' + more)
        with log.open("wb") as out:
            process = await start([sys.executable, "-m", "gateway", "serve", "--config", str(file)], stderr=out)
            try:
                heard = await ask_everything(await port_said(process))
                process.send_signal(signal.SIGTERM)
                with trio.fail_after(10):
                    assert await process.wait() == 0
            finally:
                await kill(process)
    logged = log.read_bytes()
    codes = {json.loads(line).get("code") for line in logged.splitlines() if line.startswith(b"{")}
    assert {"upstream_auth", "upstream_refused", "invalid_api_key", "context_failed", "upstream_error"} <= codes
    for secret in SECRETS:
        assert secret.encode() not in logged
        assert not [answer for answer in heard if secret.encode() in answer]


def test_the_effective_configuration_is_printed_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "sluice.toml"
    file.write_text(f'[[key]]\nname = "dev"\nsecret = "{KEY}"\n' + telltale_config(1))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--config", str(file)], capture_output=True, timeout=30, check=True
    )
    assert b"telltale" in done.stdout
    assert not [secret for secret in SECRETS if secret.encode() in done.stdout + done.stderr]
