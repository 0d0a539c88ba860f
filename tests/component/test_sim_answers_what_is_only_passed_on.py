"""Files, speech, moderations and rankings, keys in every dialect's place, and Azure's paths."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import trio

from gateway.sim import Simulator

QUESTION: Any = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(max_body_bytes=10_000)


@pytest.fixture
async def address(nursery: trio.Nursery, simulator: Simulator) -> tuple[str, int]:
    bound: tuple[str, int] = await nursery.start(simulator.serve)
    return bound


@pytest.fixture
async def client(address: tuple[str, int]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as client:
        yield client


@pytest.fixture
async def sdk(address: tuple[str, int]) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://{address[0]}:{address[1]}/v1"
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=url, max_retries=0) as sdk:
        yield sdk


async def test_openais_client_uploads_a_file_larger_than_any_body(sdk: openai.AsyncOpenAI) -> None:
    file = await sdk.files.create(file=("notes.txt", b"x" * 200_000), purpose="user_data")
    assert file.id.startswith("file-")
    assert file.bytes > 200_000


async def test_an_upload_is_counted_as_it_arrives_and_hashed(address: tuple[str, int], simulator: Simulator) -> None:
    body = b"--b\r\n\r\nfirst half" + b"second half\r\n--b--\r\n"
    head = b"POST /v1/files HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with await trio.open_tcp_stream(*address) as connection:
        with trio.fail_after(5):
            await connection.send_all(head + body[:17])
            await simulator.until(lambda now: now.received_bytes == 17)
            assert simulator.statistics().started == 0
            await connection.send_all(body[17:])
            received = b""
            async for data in connection:
                received += data
    assert hashlib.sha256(body).hexdigest().encode() in received
    assert b'"bytes":%d,' % len(body) in received


async def test_speech_streams_bytes_and_has_faults(client: httpx.AsyncClient, sdk: openai.AsyncOpenAI) -> None:
    body = {"model": "sim", "voice": "alloy", "input": "Hello there"}
    sound = await client.post("/v1/audio/speech", json=body)
    assert (sound.headers["content-type"], len(sound.content)) == ("audio/mpeg", 3 * 512)
    spoken = await sdk.audio.speech.create(model="sim", voice="alloy", input="Hello there")
    assert spoken.content == sound.content
    other = await client.post("/v1/audio/speech", json=body | {"input": "Something"})
    assert other.content != sound.content
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/v1/audio/speech", json=body | {"model": "sim-cut=1"})


async def test_moderations_and_rankings_depend_on_the_request(client: httpx.AsyncClient) -> None:
    judged = (await client.post("/v1/moderations", json={"input": ["one", "two"]})).json()
    assert [result["flagged"] for result in judged["results"]] == [False, False]
    documents = ["about cats", {"text": "descale the machine"}, "the machine"]
    body = {"model": "sim", "query": "descale machine", "documents": documents}
    ranked = (await client.post("/v1/rerank", json=body)).json()
    assert [(one["index"], one["relevance_score"]) for one in ranked["results"]] == [(1, 1.0), (2, 0.5), (0, 0.0)]
    assert len((await client.post("/v1/rerank", json=body | {"top_n": 1})).json()["results"]) == 1
    failed = await client.post("/v1/rerank", json=body | {"model": "sim-status=503"})
    assert failed.status_code == 503


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/moderations", {}, "input"),
        ("/v1/rerank", {"model": "sim", "documents": ["x"]}, "query"),
        ("/v1/rerank", {"model": "sim", "query": "x", "documents": []}, "documents"),
        ("/v1/audio/speech", {"model": "sim"}, "input"),
        ("/v1/audio/speech", {"input": "x"}, "model"),
    ],
)
async def test_a_missing_field_is_named(client: httpx.AsyncClient, path: str, body: Any, param: str) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/openai/v1/chat/completions", 200),
        ("/openai/deployments/sim-tokens=1/chat/completions?api-version=2024-10-21", 200),
        ("/openai/deployments/sim-status=503/chat/completions?api-version=2024-10-21", 503),
        ("/openai/deployments/sim/nothing", 404),
    ],
)
async def test_azures_paths_are_understood(client: httpx.AsyncClient, path: str, status: int) -> None:
    body: dict[str, Any] = {"messages": QUESTION}
    if "deployments" not in path:
        body["model"] = "sim"
    answer = await client.post(path, json=body)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", {"authorization": "Bearer sk-right"}),
        ("/openai/v1/chat/completions", {"api-key": "sk-right"}),
        ("/v1/messages", {"x-api-key": "sk-right"}),
        ("/v1beta/models/sim:generateContent", {"x-goog-api-key": "sk-right"}),
        ("/v1beta/models/sim:generateContent?key=sk-right", {}),
    ],
)
async def test_a_key_is_taken_where_the_dialect_has_it(
    nursery: trio.Nursery, path: str, headers: dict[str, str]
) -> None:
    simulator = Simulator(api_key="sk-right")
    host, port = await nursery.start(simulator.serve)
    body = {"model": "sim", "messages": QUESTION, "max_tokens": 9, "contents": [{"parts": [{"text": "x"}]}]}
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        client.headers["anthropic-version"] = "2023-06-01"
        assert (await client.post(path, json=body, headers=headers)).status_code == 200
        wrong = {name: value.replace("right", "wrong") for name, value in headers.items()}
        refused = await client.post(path.replace("right", "wrong"), json=body, headers=wrong)
    assert (refused.status_code, simulator.statistics().refused_for) == (401, {"key": 1})
