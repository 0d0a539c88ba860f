"""Promise: a Bedrock provider answers clients of other dialects, signed, streamed and whole; its faults are faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import Factory, define

from tests.component.stage import KEY, Heard, Stage, ask, chat, staged

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MORE = """
[[provider]]
name = "aws"
dialect = "bedrock"
base_url = "http://127.0.0.1:{port}"
region = "us-east-1"
access_key_id = "AKIDEXAMPLE"
secret_access_key = "{secret}"
[[model]]
name = "claude"
targets = [{{ provider = "aws", model = "{model}" }}]
retry = {{ max = 0 }}
fallback = ["chat"]
"""


@define
class Asked:
    head: str
    body: dict[str, Any]


@define
class Aws:
    """A raw server that answers each request with what is next in ``answers``: status, content type, body."""

    answers: list[tuple[str, str, bytes]] = Factory(list)
    asked: list[Asked] = Factory(list)

    async def handle(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            some = await stream.receive_some()
            if not some:
                return
            data += some
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
        while len(body) < length:
            body += await stream.receive_some()
        self.asked.append(Asked(head.decode(), json.loads(body)))
        status, kind, answer = self.answers.pop(0)
        lines = (
            f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(answer)}\r\nconnection: close\r\n\r\n"
        )
        await stream.send_all(lines.encode())
        await stream.send_all(answer)
        await stream.aclose()


@asynccontextmanager
async def bedrock(*answers: tuple[str, str, bytes]) -> AsyncIterator[tuple[Stage, Aws]]:
    aws = Aws(list(answers))
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, aws.handle, [listener])
        port = listener.socket.getsockname()[1]
        async with staged(more=MORE.format(port=port, secret=SECRET, model=MODEL)) as stage:
            yield stage, aws
        nursery.cancel_scope.cancel()


def stream_of(name: str) -> tuple[str, str, bytes]:
    return "200 OK", "application/vnd.amazon.eventstream", (GOLDEN / f"bedrock_{name}.bin").read_bytes()


def whole(text: str) -> tuple[str, str, bytes]:
    message = {"role": "assistant", "content": [{"text": text}]}
    usage = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    document = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
    return "200 OK", "application/json", json.dumps(document).encode()


async def ask_anthropic(stage: Stage) -> Heard:
    document = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    return await ask(stage, document, path="/v1/messages", headers={"anthropic-version": "2023-06-01"})


async def test_a_stream_reaches_openais_clients_with_its_usage() -> None:
    async with bedrock(stream_of("text")) as (stage, aws):
        heard = await ask(stage, chat("claude", stream=True, stream_options={"include_usage": True}))
    assert (heard.status, heard.finished) == (200, True)
    assert heard.text == 'The kettle boils at 100 °C — at sea level. "Quoted" 🫖\n'
    assert json.loads(heard.events[-2])["usage"]["total_tokens"] == 30
    [asked] = aws.asked
    assert asked.head.startswith(f"POST /model/{MODEL.replace(':', '%3A')}/converse-stream HTTP/1.1\r\n")
    assert "\r\nauthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/" in asked.head
    assert asked.head.lower().count("\r\ncontent-type:") == 1
    assert asked.body == {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
    assert KEY not in asked.head


async def test_tools_reach_anthropics_clients() -> None:
    async with bedrock(stream_of("tools")) as (stage, _):
        heard = await ask_anthropic(stage)
    events = [json.loads(event) for event in heard.events]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(block["type"], block.get("name")) for block in starts] == [
        ("text", None),
        ("tool_use", "get_weather"),
        ("tool_use", "now"),
    ]
    [delta] = [event for event in events if event["type"] == "message_delta"]
    assert (delta["delta"]["stop_reason"], events[-1]["type"]) == ("tool_use", "message_stop")


async def test_a_whole_answer_reaches_them_too() -> None:
    async with bedrock(whole("Hi there")) as (stage, aws):
        heard = await ask(stage, chat("claude"))
    document = heard.json()
    assert document["choices"][0]["message"]["content"] == "Hi there"
    assert document["usage"]["total_tokens"] == 7
    assert aws.asked[0].head.startswith(f"POST /model/{MODEL.replace(':', '%3A')}/converse HTTP/1.1\r\n")


async def test_a_failure_before_any_content_is_another_targets_answer() -> None:
    failed = ("424 Failed Dependency", "application/json", b'{"message": "The model failed."}')
    async with bedrock(stream_of("error"), failed) as (stage, _):
        for _ in range(2):
            heard = await ask(stage, chat("claude", stream=True))
            assert (heard.status, heard.finished, heard.headers["x-sluice-target"]) == (200, True, "sim/sim")


async def test_an_exception_that_comes_with_the_first_words_is_another_targets_answer_too() -> None:
    async with bedrock(stream_of("throttled")) as (stage, _):
        heard = await ask(stage, chat("claude", stream=True))
    assert (heard.finished, heard.headers["x-sluice-target"]) == (True, "sim/sim")
    assert "Half an ans" not in heard.text


async def test_a_prompt_that_is_too_long_is_said_to_be() -> None:
    refusal = ("400 Bad Request", "application/json", b'{"message": "Input is too long for requested model."}')
    async with bedrock(refusal) as (stage, _):
        heard = await ask(stage, chat("claude"))
    assert (heard.status, heard.json()["error"]["code"]) == (400, "context_length_exceeded")
