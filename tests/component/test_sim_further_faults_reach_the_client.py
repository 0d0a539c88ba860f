"""The faults beyond cut, stall and status arrive as they are meant, in every dialect where they differ."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson
import pytest
import trio

from gateway.sim import Behaviour, Simulator

QUESTION: Any = [{"role": "user", "content": "Hello there"}]
PATHS = {"openai": "/v1/chat/completions", "openai-responses": "/v1/responses", "anthropic": "/v1/messages"}
KEEP_ALIVES = {
    "openai": b": keep-alive\n\n",
    "openai-responses": b": keep-alive\n\n",
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
    "gemini": b": keep-alive\r\n\r\n",
}


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator(Behaviour(tokens=8))


@pytest.fixture
async def address(nursery: trio.Nursery, simulator: Simulator) -> tuple[str, int]:
    bound: tuple[str, int] = await nursery.start(simulator.serve)
    return bound


@pytest.fixture
async def client(address: tuple[str, int]) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(
        base_url=f"http://{address[0]}:{address[1]}", trust_env=False, headers=headers
    ) as client:
        yield client


def asked(dialect: str, model: str, *, stream: bool) -> tuple[str, dict[str, Any]]:
    if dialect == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{method}", {"contents": [{"parts": [{"text": "Hello there"}]}]}
    messages = "input" if dialect == "openai-responses" else "messages"
    more = {"max_tokens": 100} if dialect == "anthropic" else {}
    return PATHS[dialect], {"model": model, "stream": stream, messages: QUESTION, **more}


def request(dialect: str, model: str, *, stream: bool = True) -> bytes:
    path, document = asked(dialect, model, stream=stream)
    body = orjson.dumps(document)
    head = f"POST {path} HTTP/1.1\r\nHost: sim\r\nanthropic-version: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def until(simulator: Simulator, **wanted: int) -> None:
    with trio.fail_after(5):
        await simulator.until(lambda now: all(getattr(now, name) == value for name, value in wanted.items()))


async def read_into(connection: trio.SocketStream, received: bytearray) -> None:
    """Read until the connection ends, which must not be in an orderly way."""
    async for data in connection:
        received += data
    raise AssertionError("an orderly end")


# ── when to come back ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_provider_says_in_many_ways_when_to_come_back(client: httpx.AsyncClient) -> None:
    async def refused(dialect: str, form: str) -> httpx.Headers:
        path, body = asked(dialect, f"sim-status=429-retry_after=1.5-retry_form={form}", stream=False)
        answer = await client.post(path, json=body)
        assert answer.status_code == 429
        return answer.headers

    earliest = time.time() + 1.5
    assert (await refused("openai", "seconds"))["retry-after"] == "1.5"
    assert (await refused("openai", "ms"))["retry-after-ms"] == "1500"
    date = parsedate_to_datetime((await refused("openai", "date"))["retry-after"])
    assert earliest <= date.timestamp() <= earliest + 5
    reset = await refused("openai", "reset")
    assert (reset["x-ratelimit-remaining-requests"], reset["x-ratelimit-reset-requests"]) == ("0", "1.5s")
    reset = await refused("anthropic", "reset")
    assert reset["anthropic-ratelimit-requests-remaining"] == "0"
    end = datetime.fromisoformat(reset["anthropic-ratelimit-requests-reset"])
    assert earliest <= end.timestamp() <= earliest + 5
    assert "retry-after" not in await refused("gemini", "reset")


@pytest.mark.parametrize(("seconds", "said"), [("0.02", "20ms"), ("61.5", "1m1.5s"), ("360", "6m0s")])
async def test_durations_are_written_as_openai_writes_them(client: httpx.AsyncClient, seconds: str, said: str) -> None:
    path, body = asked("openai", f"sim-status=429-retry_after={seconds}-retry_form=reset", stream=False)
    assert (await client.post(path, json=body)).headers["x-ratelimit-reset-requests"] == said


# ── streams that go wrong ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dialect", KEEP_ALIVES)
async def test_keep_alives_can_be_all_that_comes(address: tuple[str, int], simulator: Simulator, dialect: str) -> None:
    received = b""
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request(dialect, "sim-pings=0.001"))
        with trio.fail_after(5):
            while received.count(KEEP_ALIVES[dialect]) < 5:
                received += await connection.receive_some()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"You" not in received
    await until(simulator, active=0, cancelled=1, tokens_sent=0)


async def test_keep_alives_fill_a_stall_and_a_slow_start(address: tuple[str, int], simulator: Simulator) -> None:
    received = b""
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("openai", "sim-stall=2-pings=0.001"))
        with trio.fail_after(5):
            while received.count(KEEP_ALIVES["openai"]) < 3:
                received += await connection.receive_some()
    before, _, after = received.partition(KEEP_ALIVES["openai"])
    assert (before.count(b'{"content":'), after.count(b'{"content":')) == (2, 0)
    await until(simulator, cancelled=1)
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("openai", "sim-slow=0.05-pings=0.001"))
        received = b""
        with trio.fail_after(5):
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += await connection.receive_some()
    assert received.count(KEEP_ALIVES["openai"]) >= 2
    assert received.rindex(KEEP_ALIVES["openai"]) < received.index(b'{"content":"You"')


async def test_a_document_is_kept_alive_by_white_space(client: httpx.AsyncClient) -> None:
    path, body = asked("openai", "sim-slow=0.02-pings=0.001", stream=False)
    answer = await client.post(path, json=body)
    assert answer.text.startswith("\n\n")
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", KEEP_ALIVES)
async def test_a_reset_in_the_middle_comes_after_the_tokens(
    address: tuple[str, int], simulator: Simulator, dialect: str, stream: bool
) -> None:
    received = bytearray()
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request(dialect, "sim-rst=1", stream=stream))
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
            await read_into(connection, received)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"You" in received) or not stream
    assert simulator.statistics().by_fault == {"rst": 1}


@pytest.mark.parametrize("dialect", KEEP_ALIVES)
async def test_a_stream_can_end_in_order_and_without_a_reason(client: httpx.AsyncClient, dialect: str) -> None:
    path, body = asked(dialect, "sim-end=3", stream=True)
    text = (await client.post(path, json=body)).text  # httpx would not take a body that is cut
    assert "Hello" in text
    assert not any(word in text for word in ('"stop"', "STOP", "end_turn", '"completed"', "[DONE]", "message_stop"))


@pytest.mark.parametrize("dialect", KEEP_ALIVES)
async def test_a_document_can_have_no_reason_for_its_end(client: httpx.AsyncClient, dialect: str) -> None:
    path, body = asked(dialect, "sim-end=3", stream=False)
    document = (await client.post(path, json=body)).json()
    reason = {
        "openai": lambda: document["choices"][0]["finish_reason"],
        "openai-responses": lambda: None if document["status"] == "in_progress" else document["status"],
        "anthropic": lambda: document["stop_reason"],
        "gemini": lambda: document["candidates"][0].get("finishReason"),
    }[dialect]
    assert reason() is None


async def test_the_first_event_can_be_an_error(client: httpx.AsyncClient) -> None:
    for stream in (True, False):
        path, body = asked("openai", "sim-error_first", stream=stream)
        answer = await client.post(path, json=body)
        assert answer.status_code == 200
        document = orjson.loads(answer.text.removeprefix("data: "))
        assert set(document) == {"error"}


async def test_a_finish_and_its_mark_can_come_twice(client: httpx.AsyncClient) -> None:
    path, body = asked("openai", "sim-double_finish", stream=True)
    text = (await client.post(path, json=body)).text
    assert (text.count('"finish_reason":"stop"'), text.count("[DONE]")) == (2, 2)


async def test_an_answer_can_be_filtered_and_usage_be_missing(client: httpx.AsyncClient) -> None:
    path, body = asked("openai", "sim-filter=2-nousage", stream=False)
    document = (await client.post(path, json=body)).json()
    choice = document["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You asked:", "content_filter")
    assert "usage" not in document
    told = body | {"stream": True, "stream_options": {"include_usage": True}}
    streamed = (await client.post(path, json=told)).text
    assert "completion_tokens" not in streamed


async def test_thoughts_of_a_chat_are_reasoning_content(client: httpx.AsyncClient) -> None:
    path, body = asked("openai", "sim-thinking=3-tokens=2", stream=False)
    document = (await client.post(path, json=body)).json()
    assert document["choices"][0]["message"]["reasoning_content"] == " So this is"
    usage = document["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (5, 3)
    streamed = (await client.post(path, json=body | {"stream": True})).text
    assert streamed.count('"reasoning_content":') == 3


async def test_late_requests_come_at_their_turn(client: httpx.AsyncClient) -> None:
    took = []
    for _ in range(2):
        began = trio.current_time()
        path, body = asked("openai", "sim-ttft_tail=0.5:0.5", stream=True)
        await client.post(path, json=body)
        took.append(trio.current_time() - began >= 0.5)
    assert took == [False, True]


# ── changed while it runs, and what it counts ────────────────────────────────────────────────────────────────────────


async def status_of(client: httpx.AsyncClient, model: str) -> int:
    path, body = asked("openai", model, stream=False)
    return (await client.post(path, json=body)).status_code


async def test_the_behaviour_changes_while_it_runs(client: httpx.AsyncClient, simulator: Simulator) -> None:
    simulator.behave(Behaviour(status=503), model="primary")
    assert (await status_of(client, "primary"), await status_of(client, "backup")) == (503, 200)
    simulator.behave(Behaviour(status=500))
    assert (await status_of(client, "primary"), await status_of(client, "backup")) == (503, 500)
    simulator.behave(None, model="primary")
    simulator.behave(None)
    assert (await status_of(client, "primary"), await status_of(client, "backup")) == (200, 200)


async def test_what_is_being_answered_goes_on_as_it_began(address: tuple[str, int], simulator: Simulator) -> None:
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request("openai", "sim-stall=1"))
        await until(simulator, tokens_sent=1)
        simulator.behave(Behaviour(reset=True))
        assert simulator.statistics().active == 1


@pytest.mark.parametrize("dialect", KEEP_ALIVES)
async def test_every_request_leaves_what_was_sent_for_it(
    client: httpx.AsyncClient, address: tuple[str, int], simulator: Simulator, dialect: str
) -> None:
    path, body = asked(dialect, "sim-cut=3", stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(path, json=body, headers={"x-request-id": "mine"})
    async with await trio.open_tcp_stream(*address) as connection:
        await connection.send_all(request(dialect, "sim-stall=2"))
        await until(simulator, tokens_sent=5)
    await until(simulator, active=0)
    cut, left = simulator.served()
    assert (cut.asked_as, cut.model, cut.dialect, cut.fault) == ("mine", "sim-cut=3", dialect, "cut")
    assert (cut.prompt_tokens, cut.tokens_sent, cut.finished) == (3, 3, True)
    assert (left.asked_as, left.tokens_sent, left.finished) == ("", 2, False)
    now = simulator.statistics()
    assert (now.by_dialect, now.by_model) == ({dialect: 2}, {"sim-cut=3": 1, "sim-stall=2": 1})
    assert list(now.by_path.values()) == [2]
    assert "sim" not in next(iter(now.by_path))
    assert [one["tokens_sent"] for one in (await client.get("/stats/requests")).json()] == [3, 2]
