"""Promise: Google's own client talks to the gateway as it talks to Gemini.

Once to a provider of another dialect, where everything is translated, and once to one of its own, where the bytes pass.
The latter is a few lines here that answer with the golden streams. The client's async half needs asyncio, so its other
half runs in a thread.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from attrs import define, field
from google import genai
from google.genai import errors, types

from tests.component.stage import KEY, Stage, ask, hear, request_bytes, staged

T = TypeVar("T")
GOLDEN = Path(__file__).parents[1] / "golden"
QUESTION = "How do I descale the machine?"
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}
WEATHER: Any = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather at a place.",
            parameters=types.Schema(type=types.Type.OBJECT, properties={"place": types.Schema(type=types.Type.STRING)}),
        )
    ]
)
GEMINI = """
[[provider]]
name = "google"
dialect = "gemini"
api_key = "AIza-0123456789"
base_url = "http://127.0.0.1:{port}/v1beta"
[[model]]
name = "flash"
targets = [{{ provider = "google", model = "gemini-2.5-flash" }}]
retry = {{ max = 0 }}
[[assistant]]
name = "support"
model = "flash"
system = "Answer from the documents."
"""


@define
class Google:
    """A provider of Gemini's dialect: answers with what it is told to, and remembers how it was asked.

    Attributes:
        rest: Of the answer, sent once ``heard`` is set.
    """

    answer: bytes = b""
    rest: bytes = b""
    heard: trio.Event = field(factory=trio.Event)
    status: int = 200
    heads: list[bytes] = field(factory=list)
    bodies: list[dict[str, Any]] = field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some(65_536)
            if not data:
                return
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += await stream.receive_some(65_536)
        self.heads.append(head)
        self.bodies.append(json.loads(body))
        kind = b"application/json" if self.answer.startswith(b"{") else b"text/event-stream"
        reply = b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(reply % (self.status, kind, len(self.answer + self.rest)) + self.answer)
        if self.rest:
            await self.heard.wait()
            await stream.send_all(self.rest)
        await stream.aclose()


class Client:
    """Google's client, each call in a thread."""

    def __init__(self, url: str, key: str = KEY, version: str = "v1beta") -> None:
        self.genai = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, api_version=version))

    async def ask(self, model: str, contents: Any = QUESTION, **config: Any) -> types.GenerateContentResponse:
        models = self.genai.models
        return await in_thread(partial(models.generate_content, model=model, contents=contents, config=of(config)))

    async def stream(self, model: str, contents: Any = QUESTION, **config: Any) -> list[types.GenerateContentResponse]:
        models = self.genai.models
        return await in_thread(
            lambda: list(models.generate_content_stream(model=model, contents=contents, config=of(config)))
        )


def of(config: dict[str, Any]) -> Any:
    return types.GenerateContentConfig(**config) if config else None


async def in_thread(call: Callable[[], T]) -> T:
    with trio.fail_after(30):
        return await trio.to_thread.run_sync(call)


@asynccontextmanager
async def talking(**options: Any) -> AsyncIterator[tuple[Client, Stage]]:
    async with staged(**options) as stage:
        client = Client(stage.url)
        try:
            yield client, stage
        finally:
            client.genai.close()


@asynccontextmanager
async def talking_to_google() -> AsyncIterator[tuple[Client, Stage, Google]]:
    google = Google()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, google.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with talking(more=GEMINI.format(port=port)) as (client, stage):
            yield client, stage, google
        nursery.cancel_scope.cancel()


def golden(name: str) -> bytes:
    return (GOLDEN / f"gemini_{name}.sse").read_bytes()


def text_of(pieces: list[types.GenerateContentResponse]) -> str:
    return "".join(piece.text or "" for piece in pieces)


def finish_of(answer: types.GenerateContentResponse) -> str:
    assert answer.candidates
    assert answer.candidates[0].finish_reason is not None
    return answer.candidates[0].finish_reason.value


# ── a provider of another dialect ────────────────────────────────────────────────────────────────────────────────


async def test_it_gets_a_whole_answer_from_a_provider_of_another_dialect() -> None:
    async with talking() as (client, stage):
        answer = await client.ask("chat", max_output_tokens=50, system_instruction="Be kind.")
        assert QUESTION in (answer.text or "")
        assert (answer.model_version, finish_of(answer)) == ("sim", "STOP")
        assert answer.usage_metadata is not None
        assert answer.usage_metadata.candidates_token_count == 20
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        [record] = stage.records
        assert (record.model, record.endpoint) == ("chat", "/v1beta/models")


async def test_it_reads_a_stream_from_a_provider_of_another_dialect() -> None:
    async with talking() as (client, stage):
        pieces = await client.stream("sim/sim")
        assert text_of(pieces).startswith(f"You asked: “{QUESTION}”")
        assert len(pieces) > 2
        assert finish_of(pieces[-1]) == "STOP"
        assert pieces[-1].usage_metadata is not None
        assert pieces[-1].usage_metadata.candidates_token_count == 20
        assert len({piece.response_id for piece in pieces}) == 1
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_both_versions_of_the_paths_are_the_same() -> None:
    async with talking() as (_, stage):
        client = Client(stage.url, version="v1")
        assert QUESTION in text_of(await client.stream("chat"))
        client.genai.close()


async def test_it_calls_tools_and_hands_their_results_back() -> None:
    async with talking() as (client, _):
        asked = types.Content(role="user", parts=[types.Part(text="Use the tool.")])
        pieces = await client.stream("chat", [asked], tools=[WEATHER])
        [call] = [call for piece in pieces for call in piece.function_calls or ()]
        assert (call.name, call.args) == ("weather", {"place": "Use the tool."})
        said = [
            part
            for piece in pieces
            for part in ((piece.candidates or [])[0].content or types.Content()).parts or ()
            if part.function_call
        ]
        result = types.Part.from_function_response(name="weather", response={"output": "17 degrees"})
        turns = [asked, types.Content(role="model", parts=said), types.Content(role="user", parts=[result])]
        final = await client.ask("chat", turns, tools=[WEATHER])
        assert "17 degrees" in (final.text or "")


async def test_without_alt_sse_a_stream_is_one_array() -> None:
    async with talking() as (_, stage):
        heard = await ask(stage, CONTENTS, path="/v1beta/models/chat:streamGenerateContent")
        assert heard.headers["content-type"].startswith("application/json")
        pieces = heard.json()
        text = "".join(piece["candidates"][0]["content"]["parts"][0]["text"] for piece in pieces)
        assert text.startswith("You asked:")
        assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"
        assert heard.whole


@pytest.mark.parametrize("query", ["alt=sse&key=", "key="])
async def test_the_key_may_stand_in_the_query_and_reaches_no_log(query: str) -> None:
    async with talking() as (_, stage):
        path = f"/v1/models/chat:streamGenerateContent?{query}{KEY}"
        heard = await ask(stage, CONTENTS, path=path, key=None)
        assert (heard.status, b"finishReason" in heard.body) == (200, True)
        assert KEY not in repr(stage.records)
        assert (await ask(stage, CONTENTS, path=path.replace(KEY, "wrong"), key=None)).status == 401


async def test_errors_are_its_own() -> None:
    async with talking() as (client, stage):
        with pytest.raises(errors.ClientError) as missing:
            await client.ask("nobody")
        assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
        with pytest.raises(errors.ClientError) as foreign:
            await client.ask("chat", tools=[types.Tool(google_search=types.GoogleSearch())])
        assert (foreign.value.code, foreign.value.status) == (400, "INVALID_ARGUMENT")
        assert "tools[0].googleSearch" in str(foreign.value)
        stranger = Client(stage.url, key="sk-wrong")
        with pytest.raises(errors.ClientError) as unknown:
            await stranger.ask("chat")
        assert (unknown.value.code, unknown.value.status) == (401, "UNAUTHENTICATED")
        stranger.genai.close()


async def test_what_others_cannot_do_is_told_in_a_header() -> None:
    async with talking() as (_, stage):
        document = {**CONTENTS, "safetySettings": [], "generationConfig": {"topK": 3, "mediaResolution": "LOW"}}
        heard = await ask(stage, document, path="/v1beta/models/chat:generateContent")
        assert (
            heard.headers["x-sluice-dropped"]
            == "generationConfig.topK, safetySettings, generationConfig.mediaResolution"
        )


# ── a provider of its own ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["text", "tools", "thinking", "safety", "max_tokens", "candidates"])
async def test_a_provider_of_its_own_dialect_answers_in_its_own_bytes(name: str) -> None:
    async with talking_to_google() as (_, stage, google):
        google.answer = golden(name)
        document = {**CONTENTS, "generationConfig": {"candidateCount": 2 if name == "candidates" else 1}}
        async with await stage.connect() as stream:
            path = "/v1beta/models/flash:streamGenerateContent?alt=sse"
            await stream.send_all(request_bytes(document, path=path))
            heard = await hear(stream)
        assert heard.body == google.answer.replace(b"\r\n", b"\n")
        [head], [body] = google.heads, google.bodies
        assert body == document
        assert head.startswith(b"POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1\r\n")
        assert b"x-goog-api-key: AIza-0123456789\r\n" in head + b"\r\n"
        assert KEY.encode() not in head


async def test_it_reads_calls_thoughts_and_signatures() -> None:
    async with talking_to_google() as (client, stage, google):
        google.answer = golden("tools")
        calls = [call for piece in await client.stream("flash") for call in piece.function_calls or ()]
        assert [(call.id, call.name) for call in calls] == [
            ("fc-1", "get_weather"),
            (None, "get_weather"),
            (None, "now"),
        ]
        google.answer = golden("thinking")
        assert text_of(await client.stream("flash")) == "There are 23 chickens."
        await stage.settle()
        assert stage.records[-1].usage is not None
        assert stage.records[-1].usage.reasoning_tokens == 52


async def test_a_chat_client_gets_what_gemini_says() -> None:
    async with talking_to_google() as (_, stage, google):
        google.answer = golden("tools")
        document = {"model": "flash", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        heard = await ask(stage, document)
        assert (heard.text, heard.finished) == ("I will look both up.", True)
        chunks = [json.loads(event) for event in heard.events[:-1]]
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert google.bodies == [CONTENTS]


def break_off(google: Google) -> None:
    """Answer with a piece of text, and with an error once that was heard."""
    before, after, _ = golden("error").split(b"\r\n\r\n")
    google.answer, google.rest, google.heard = before + b"\r\n\r\n", after + b"\r\n\r\n", trio.Event()


async def test_an_error_in_the_middle_is_its_last_word() -> None:
    async with talking_to_google() as (client, _, google):
        break_off(google)

        def listen() -> None:
            for piece in client.genai.models.generate_content_stream(model="flash", contents=QUESTION):
                assert piece.text == "Half an ans"
                trio.from_thread.run_sync(google.heard.set)

        with pytest.raises(errors.ServerError) as broken:
            await in_thread(listen)
        assert (broken.value.code, broken.value.status) == (502, "UNAVAILABLE")
        assert "overloaded" not in str(broken.value)


@define
class Telling:
    """A stream that says when the first piece of text has come."""

    stream: trio.SocketStream
    heard: trio.Event
    received: bytes = b""

    async def receive_some(self) -> bytes:
        data = bytes(await self.stream.receive_some())
        self.received += data
        if b"Half an ans" in self.received:
            self.heard.set()
        return data


async def test_an_array_that_breaks_off_is_json_and_ends_with_the_error() -> None:
    async with talking_to_google() as (_, stage, google):
        break_off(google)
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(CONTENTS, path="/v1beta/models/flash:streamGenerateContent"))
            telling: Any = Telling(stream, google.heard)
            heard = await hear(telling)
        first, last = heard.json()
        assert first["candidates"][0]["content"]["parts"] == [{"text": "Half an ans"}]
        assert (last["error"]["code"], last["error"]["status"]) == (502, "UNAVAILABLE")


async def test_a_prompt_that_is_blocked_is_an_answer_without_text() -> None:
    async with talking_to_google() as (client, _, google):
        google.answer = golden("blocked_prompt")
        [piece] = await client.stream("flash")
        assert piece.prompt_feedback is not None
        assert piece.prompt_feedback.block_reason is not None
        assert piece.prompt_feedback.block_reason.value == "PROHIBITED_CONTENT"


async def test_an_assistants_text_stands_before_the_clients() -> None:
    async with talking_to_google() as (client, _, google):
        google.answer = golden("text")
        await client.stream("support", system_instruction="Be brief.")
        [body] = google.bodies
        assert body["systemInstruction"]["parts"] == [{"text": "Answer from the documents."}, {"text": "Be brief."}]


async def test_googles_own_refusals_pass_with_their_reason() -> None:
    async with talking_to_google() as (client, _, google):
        google.status = 400
        google.answer = b'{"error": {"code": 400, "message": "Unknown name \\"x\\"", "status": "INVALID_ARGUMENT"}}'
        with pytest.raises(errors.ClientError) as refused:
            await client.ask("flash")
        assert (refused.value.code, refused.value.message) == (400, 'Unknown name "x"')


async def test_a_key_that_google_does_not_know_is_no_fault_of_the_clients() -> None:
    async with talking_to_google() as (client, _, google):
        google.status = 400
        google.answer = b'{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}'
        with pytest.raises(errors.ServerError) as refused:
            await client.ask("flash")
        assert (refused.value.code, refused.value.status) == (502, "UNAVAILABLE")
        assert "API key not valid" not in str(refused.value)
