"""The simulated provider speaks OpenAI's wire: seen through httpx, a raw socket and OpenAI's own client."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
import trio

from gateway.sim import Behaviour, Simulator
from gateway.sim.command import run

QUESTION: Any = [{"role": "user", "content": "How do I descale the machine?"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"place": {"type": "string"}}}},
}

# OpenAI's client stops reading its own generators at [DONE] and leaves them to the garbage collector.
SDK_LEAVES_GENERATORS = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(max_body_bytes=1_000_000)


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


async def events(client: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    """The decoded events of a streamed completion, the text ``[DONE]`` included."""
    answer = await client.post("/v1/chat/completions", json={"messages": QUESTION, "stream": True, **body})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    data = [part.removeprefix("data: ") for part in answer.text.split("\n\n")[:-1]]
    return [part if part == "[DONE]" else orjson.loads(part) for part in data]


async def test_a_completion_has_openais_fields(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", json={"model": "sim-tokens=5", "messages": QUESTION, "n": 2})
    document = answer.json()
    assert answer.status_code == 200
    assert set(document) == {
        "id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"
    }  # fmt: skip
    assert document["id"].startswith("chatcmpl-")
    assert (document["object"], document["model"], document["service_tier"]) == (
        "chat.completion",
        "sim-tokens=5",
        "default",
    )
    first, second = document["choices"]
    assert (first["index"], second["index"], first["finish_reason"]) == (0, 1, "stop")
    assert first["message"]["role"] == "assistant"
    assert first["message"]["content"].startswith("You asked: “How")
    assert document["usage"]["completion_tokens"] == 10
    assert document["usage"]["total_tokens"] == document["usage"]["prompt_tokens"] + 10


async def test_a_stream_opens_with_the_role_and_ends_with_usage_and_done(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    stream = await events(client, {"model": "sim-tokens=3", "stream_options": {"include_usage": True}})
    first, *content, last, usage, done = stream
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [event["choices"][0]["delta"]["content"] for event in content] == ["You", " asked:", " “How"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 3, "[DONE]")
    assert all(event["usage"] is None for event in (first, *content, last))
    assert len({(event["id"], event["object"], event["created"]) for event in stream[:-1]}) == 1
    assert simulator.statistics().tokens_sent == 3


async def test_usage_is_left_out_unless_asked_for(client: httpx.AsyncClient) -> None:
    stream = await events(client, {"model": "sim-tokens=2"})
    assert all("usage" not in event for event in stream[:-1])


async def test_choices_take_turns_in_a_stream(client: httpx.AsyncClient, simulator: Simulator) -> None:
    stream = await events(client, {"model": "sim-tokens=2", "n": 3})
    assert [event["choices"][0]["index"] for event in stream[:-1]] == [0, 1, 2] * 4
    assert simulator.statistics().tokens_sent == 6


async def test_logprobs_come_when_asked_for(client: httpx.AsyncClient) -> None:
    body = {"model": "sim-tokens=1", "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    unary = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["logprobs"]["content"]
    streamed = (await events(client, body))[1]["choices"][0]["logprobs"]["content"]
    assert unary == streamed
    assert (unary[0]["token"], unary[0]["bytes"], len(unary[0]["top_logprobs"])) == ("You", [89, 111, 117], 2)


async def test_a_long_unpaced_answer_arrives_whole(client: httpx.AsyncClient, simulator: Simulator) -> None:
    stream = await events(client, {"model": "sim-tokens=1000"})
    assert len(stream) == 1 + 1000 + 1 + 1
    assert simulator.statistics().tokens_sent == 1000


async def test_a_paced_answer_takes_its_time(client: httpx.AsyncClient) -> None:
    for stream in (True, False):
        started = trio.current_time()
        body = {"model": "sim-ttft=0.05-tps=100-tokens=11", "messages": QUESTION, "stream": stream}
        await client.post("/v1/chat/completions", json=body)
        assert trio.current_time() - started >= 0.05 + 0.1
    started = trio.current_time()
    assert len(await events(client, {"model": "sim-tps=10000-tokens=1000"})) == 1003
    assert trio.current_time() - started >= 0.09


async def test_embeddings_come_as_numbers_or_base64(client: httpx.AsyncClient) -> None:
    body = {"model": "sim", "input": ["one", "two"], "dimensions": 8}
    plain = (await client.post("/v1/embeddings", json=body)).json()
    packed = (await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
    for one, other in zip(plain["data"], packed["data"], strict=True):
        assert one["embedding"] == list(struct.unpack("<8f", base64.b64decode(other["embedding"])))
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_models_are_listed_and_any_name_is_known(client: httpx.AsyncClient) -> None:
    assert [entry["id"] for entry in (await client.get("/v1/models")).json()["data"]] == ["sim"]
    assert (await client.get("/v1/models/sim-cut%3D3")).json()["id"] == "sim-cut=3"


async def test_echo_shows_every_field_that_reached_the_provider(client: httpx.AsyncClient) -> None:
    body = {"model": "any-model", "messages": QUESTION, "seed": 7, "x_new": {"deep": [1, 2.5, None]}, "user": "ada"}
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-sim": "echo=1"})
    assert orjson.loads(answer.json()["choices"][0]["message"]["content"]) == body


async def test_statistics_are_served_and_reset(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json={"model": "sim-tokens=4", "messages": QUESTION})
    await client.post("/v1/chat/completions", json={"model": "sim-status=503", "messages": QUESTION})
    await client.post("/v1/chat/completions", json={})
    found = (await client.get("/stats")).json()
    wanted = {"started": 2, "active": 0, "finished": 2, "cancelled": 0, "tokens_sent": 4, "peak_active": 1}
    assert {name: found[name] for name in wanted} == wanted
    assert (found["by_fault"], found["refused"], found["connections"], found["blocked"]) == ({"status": 1}, 1, 1, 0)
    assert (await client.post("/stats/reset")).json()["started"] == 0
    assert (await client.get("/stats")).json()["by_fault"] == {}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, None),
        ("POST", "/v1/models", 405, None),
        ("GET", "/stats/reset", 405, None),
    ],
)
async def test_unknown_paths_and_methods_are_refused(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str | None
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"{", None),
        (b'{"messages": []}', "model"),
        (b'{"model": "sim"}', "messages"),
        (b'{"model": "sim-ttft=soon", "messages": []}', "model"),
    ],
)
async def test_faulty_requests_get_openais_error_shape(
    client: httpx.AsyncClient, content: bytes, param: str | None
) -> None:
    answer = await client.post("/v1/chat/completions", content=content)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_key_is_required_where_one_is_set(nursery: trio.Nursery) -> None:
    host, port = await nursery.start(Simulator(api_key="sk-right").serve)
    body = {"model": "sim", "messages": QUESTION}
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        for key, status in ((None, 401), ("Bearer sk-wrong", 401), ("Basic sk-right", 401), ("Bearer sk-right", 200)):
            headers = {} if key is None else {"authorization": key}
            assert (await client.post("/v1/chat/completions", json=body, headers=headers)).status_code == status
        assert (await client.get("/stats")).status_code == 200


async def exchange(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send raw bytes, a write each, and read until the server closes."""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(*address) as stream:
            for part in parts:
                await stream.send_all(part)
                await trio.testing.wait_all_tasks_blocked()
            received = b""
            with trio.move_on_after(5):
                async for data in stream:
                    received += data
            return received


async def test_chunked_and_split_request_bodies_are_read(address: tuple[str, int]) -> None:
    body = orjson.dumps({"model": "sim-tokens=1", "messages": QUESTION})
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    request += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    middle = len(request) // 2
    assert (await exchange(address, request[:middle], request[middle:])).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    requests = b"GET /v1/models/first HTTP/1.1\r\nHost: sim\r\n\r\nGET /v1/models/second HTTP/1.1\r\nHost: sim\r\n"
    received = await exchange(address, requests + b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert 0 < received.index(b"first") < received.index(b"second")


async def test_a_client_that_expects_to_be_told_is_told_to_continue(address: tuple[str, int]) -> None:
    head = b"POST /stats/reset HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(head)
        with trio.fail_after(5):
            assert await stream.receive_some(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(b"{}")
            assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxyz", 404),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 1000001\r\n\r\n", 413),
        (b"POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * 1_000_100, 413),
    ],
)
async def test_what_cannot_be_served_is_answered_before_the_close(
    address: tuple[str, int], request_bytes: bytes, status: int
) -> None:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(request_bytes)
        received = b""
        with trio.fail_after(5):
            async for data in stream:
                received += data
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b'"error"') == 1


async def test_openais_client_gets_a_completion(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="sim-tokens=4", messages=QUESTION)
    assert answer.choices[0].message.content == "You asked: “How do"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@SDK_LEAVES_GENERATORS
async def test_openais_client_reads_a_stream_with_usage(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="sim-tokens=4",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You asked: “How do"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


async def test_openais_client_calls_tools(sdk: openai.AsyncOpenAI) -> None:
    wanted: Any = {"messages": [{"role": "user", "content": "Use the tool."}], "tools": [WEATHER]}
    message = (await sdk.chat.completions.create(model="sim", **wanted)).choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert (call.function.name, orjson.loads(call.function.arguments)) == ("weather", {"place": "Use the tool."})
    result = {"role": "tool", "tool_call_id": call.id, "content": "17 degrees"}
    wanted["messages"] += [message.model_dump(exclude_none=True), result]
    final = await sdk.chat.completions.create(model="sim", **wanted)
    assert "The tool weather returned: 17 degrees" in (final.choices[0].message.content or "")


@SDK_LEAVES_GENERATORS
async def test_openais_client_puts_streamed_tool_calls_together(sdk: openai.AsyncOpenAI) -> None:
    wanted: Any = {"messages": [{"role": "user", "content": "weather and clock, please"}]}
    wanted["tools"] = [WEATHER, {"type": "function", "function": {"name": "clock"}}]
    async with sdk.chat.completions.stream(model="sim", **wanted) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert orjson.loads(calls[0].function.arguments) == {"place": "weather and clock, please"}
    assert final.choices[0].finish_reason == "tool_calls"
    assert len({call.id for call in calls}) == 2


async def test_openais_client_gets_embeddings_and_errors(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.embeddings.create(model="sim", input="one", dimensions=16)
    assert len(answer.data[0].embedding) == 16
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.chat.completions.create(model="sim-status=429-retry_after=2", messages=QUESTION)
    assert caught.value.response.headers["retry-after"] == "2"


async def test_the_command_tells_where_it_listens_or_why_it_cannot(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str], address: tuple[str, int]
) -> None:
    nursery.start_soon(run, "127.0.0.1", 0, Behaviour(), None)
    with trio.fail_after(5):
        while "simulated provider on http://127.0.0.1:" not in capsys.readouterr().out:
            await trio.lowlevel.checkpoint()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{address[1]}: Address already in use"):
        await run(*address, Behaviour(), None)
