"""The same prompt gets the same text in every dialect, and a partial answer is gone on from exactly where it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import trio

from gateway.sim import Simulator

SYSTEM = 'Answer from <context name="docs">Descale it every month.</context>'
QUESTION = "How do I descale the machine?"
DIALECTS = ("openai", "openai-responses", "anthropic", "gemini")
ALL = pytest.mark.parametrize("dialect", DIALECTS)
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
TOKENS = 60
TOOL = {"name": "weather", "schema": {"type": "object"}}


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
async def client(nursery: trio.Nursery, simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    host, port = await nursery.start(simulator.serve)
    headers = {"anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        client.headers.update(headers)
        yield client


def asked(dialect: str, model: str, partial: str, stream: bool, tool: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of the same question in a dialect."""
    turns = [{"role": "user", "content": QUESTION}] + ([{"role": "assistant", "content": partial}] if partial else [])
    body: dict[str, Any] = {"model": model, "stream": stream}
    if dialect == "openai":
        body["messages"] = [{"role": "system", "content": SYSTEM}, *turns]
        if tool:
            body["tools"] = [{"type": "function", "function": {"name": TOOL["name"], "parameters": TOOL["schema"]}}]
        return "/v1/chat/completions", body
    if dialect == "openai-responses":
        if tool:
            body["tools"] = [{"type": "function", "name": TOOL["name"], "parameters": TOOL["schema"]}]
        return "/v1/responses", body | {"instructions": SYSTEM, "input": turns}
    if dialect == "anthropic":
        if tool:
            body["tools"] = [{"name": TOOL["name"], "input_schema": TOOL["schema"]}]
        return "/v1/messages", body | {"system": SYSTEM, "messages": turns, "max_tokens": 1000}
    roles = {"user": "user", "assistant": "model"}
    contents = [{"role": roles[turn["role"]], "parts": [{"text": turn["content"]}]} for turn in turns]
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    body = {"systemInstruction": {"parts": [{"text": SYSTEM}]}, "contents": contents}
    if tool:
        body["tools"] = [{"functionDeclarations": [{"name": TOOL["name"], "parameters": TOOL["schema"]}]}]
    return f"/v1beta/models/{model}:{method}", body


def text_of(dialect: str, document: Any) -> str:
    """The text in a document, or in an event."""
    if dialect == "openai":
        choice = document["choices"][0]
        return str((choice.get("message") or choice["delta"]).get("content") or "")
    if dialect == "openai-responses":
        if "output" in document:
            return "".join(part["text"] for item in document["output"] for part in item["content"])
        return str(document["delta"]) if document["type"] == "response.output_text.delta" else ""
    if dialect == "anthropic":
        if "content" in document:
            return "".join(block["text"] for block in document["content"])
        return str((document.get("delta") or {}).get("text", ""))
    return "".join(part["text"] for part in document["candidates"][0]["content"]["parts"])


async def ask(client: httpx.AsyncClient, dialect: str, model: str, *, partial: str = "", stream: bool = False) -> str:
    """The text that is answered, put together."""
    path, body = asked(dialect, model, partial, stream, False)
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if not stream:
        return text_of(dialect, answer.json())
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return "".join(text_of(dialect, orjson.loads(line)) for line in lines if line != "[DONE]")


@STREAMED
async def test_the_text_is_the_same_in_every_dialect(client: httpx.AsyncClient, stream: bool) -> None:
    texts = {await ask(client, dialect, f"sim-tokens={TOKENS}", stream=stream) for dialect in DIALECTS}
    [text] = texts
    assert text.startswith(f"You asked: “{QUESTION}”\n\nAccording to docs: Descale it every month.")


@ALL
@STREAMED
@pytest.mark.parametrize("kept", [1, 5, 40, 59])
async def test_a_partial_answer_is_gone_on_from_where_it_stops(
    client: httpx.AsyncClient, dialect: str, stream: bool, kept: int
) -> None:
    whole = await ask(client, dialect, f"sim-tokens={TOKENS}")
    partial = await ask(client, dialect, f"sim-tokens={kept}")
    assert whole.startswith(partial)
    rest = await ask(client, dialect, f"sim-tokens={TOKENS}", partial=partial, stream=stream)
    assert partial + rest == whole
    torn = partial[:-1].rstrip()  # Anthropic takes no white space at the end
    assert torn + await ask(client, dialect, f"sim-tokens={TOKENS}", partial=torn, stream=stream) == whole


@ALL
async def test_a_partial_answer_of_somebody_else_is_followed_by_the_whole_one(
    client: httpx.AsyncClient, dialect: str
) -> None:
    whole = await ask(client, dialect, "sim-tokens=9")
    assert await ask(client, dialect, "sim-tokens=9", partial="Quite different") == whole
    assert await ask(client, dialect, "sim-tokens=9-prefill=ignore", partial=whole[:20]) == whole


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        ("openai", "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"),
        ("openai-responses", "This model does not support assistant message prefill."),
        ("anthropic", "This model does not support assistant message prefill."),
        ("gemini", "Please ensure that multiturn requests ends with a user role or a function response."),
    ],
)
async def test_a_partial_answer_can_be_refused(
    client: httpx.AsyncClient, simulator: Simulator, dialect: str, words: str
) -> None:
    path, body = asked(dialect, "sim-prefill=refuse", "You asked", False, False)
    answer = await client.post(path, json=body)
    assert (answer.status_code, simulator.statistics().refused_for) == (400, {"prefill": 1})
    assert answer.json()["error"]["message"].startswith(words)
    assert await ask(client, dialect, "sim-prefill=refuse-tokens=1") == "You"


@pytest.mark.parametrize(
    ("dialect", "words", "code"),
    [
        ("openai", "maximum context length is 3 tokens", "context_length_exceeded"),
        ("openai-responses", "exceeds the context window", "context_length_exceeded"),
        ("anthropic", "prompt is too long: 24 tokens > 3 maximum", None),
        ("gemini", "exceeds the maximum number of tokens allowed (3)", 400),
    ],
)
async def test_a_prompt_longer_than_the_window_is_refused(
    client: httpx.AsyncClient, simulator: Simulator, dialect: str, words: str, code: Any
) -> None:
    path, body = asked(dialect, "sim-window=3", "", True, False)
    answer = await client.post(path, json=body)
    assert (answer.status_code, simulator.statistics().refused_for) == (400, {"too_long": 1})
    error = answer.json()["error"]
    assert words in error["message"]
    assert error.get("code") == code
    assert await ask(client, dialect, "sim-window=24-tokens=1") == "You"


@pytest.mark.parametrize(
    ("dialect", "words"),
    [("openai", "content policy"), ("openai-responses", "usage policy"), ("anthropic", "content filtering policy")],
)
async def test_a_prompt_can_be_against_the_policy(
    client: httpx.AsyncClient, simulator: Simulator, dialect: str, words: str
) -> None:
    path, body = asked(dialect, "sim-policy", "", False, False)
    answer = await client.post(path, json=body)
    assert (answer.status_code, simulator.statistics().refused_for) == (400, {"policy": 1})
    assert words in answer.json()["error"]["message"]


@ALL
async def test_a_tool_is_called_when_the_settings_say_so(client: httpx.AsyncClient, dialect: str) -> None:
    for model, called in (("sim-tool", True), ("sim", False)):
        path, body = asked(dialect, model, "", False, True)
        document = (await client.post(path, json=body)).json()
        document.pop("tools", None)  # a response repeats what was offered
        assert ('"weather"' in orjson.dumps(document).decode()) is called


@ALL
async def test_echo_gives_back_the_dialects_own_document(client: httpx.AsyncClient, dialect: str) -> None:
    path, body = asked(dialect, "sim-echo", "", False, False)
    body["x_new"] = {"deep": [1, None]}
    answer = await client.post(path, json=body)
    assert orjson.loads(text_of(dialect, answer.json())) == body
