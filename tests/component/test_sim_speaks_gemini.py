"""The simulated provider speaks Gemini's wire: seen through Google's own client, and document by document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest
import trio
from google import genai
from google.genai import errors, types

from gateway.sim import Simulator

QUESTION = "How do I descale the machine?"
BODY: Any = {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}


@pytest.fixture
async def simulator() -> Simulator:
    return Simulator()


@pytest.fixture
async def url(nursery: trio.Nursery, simulator: Simulator) -> str:
    host, port = await nursery.start(simulator.serve)
    return f"http://{host}:{port}"


@pytest.fixture
async def plain(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as plain:
        yield plain


async def with_client(url: str, version: str, use: Callable[[genai.Client], Any]) -> Any:
    """Use Google's client, which blocks, in a thread."""

    def run() -> Any:
        options = types.HttpOptions(base_url=url, api_version=version)
        with genai.Client(api_key="key", http_options=options) as client:
            return use(client)

    with trio.fail_after(20):
        return await trio.to_thread.run_sync(run)


async def events(plain: httpx.AsyncClient, model: str, body: Any = BODY) -> list[Any]:
    """The documents of a stream; None for one that cannot be read."""
    answer = await plain.post(f"/v1beta/models/{model}:streamGenerateContent?alt=sse", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    found: list[Any] = []
    for block in answer.text.replace("\r\n", "\n").split("\n\n")[:-1]:
        try:
            found.append(orjson.loads(block.removeprefix("data: ")))
        except orjson.JSONDecodeError:
            found.append(None)
    return found


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_content_is_read_by_googles_client(url: str, version: str) -> None:
    def use(client: genai.Client) -> Any:
        whole = client.models.generate_content(model="sim-tokens=4", contents=QUESTION)
        pieces = list(client.models.generate_content_stream(model="sim-tokens=4", contents=QUESTION))
        return whole, pieces, [model.name for model in client.models.list()]

    whole, pieces, models = await with_client(url, version, use)
    assert whole.text == "".join(piece.text for piece in pieces) == "You asked: “How do"
    assert whole.candidates[0].finish_reason == pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert [piece.usage_metadata.candidates_token_count for piece in pieces] == [1, 2, 3, 4, 4]
    assert (whole.usage_metadata.prompt_token_count, whole.usage_metadata.total_token_count) == (8, 12)
    assert models == ["models/sim"]


async def test_googles_client_calls_tools_and_sees_thoughts(url: str) -> None:
    def use(client: genai.Client) -> Any:
        schema: Any = {"type": "OBJECT", "properties": {"place": {"type": "STRING"}}}
        tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", parameters=schema)])
        seen = types.ThinkingConfig(include_thoughts=True)
        config = types.GenerateContentConfig(tools=[tool], thinking_config=seen)
        asked = types.Content(role="user", parts=[types.Part(text="weather, please")])
        first = client.models.generate_content(model="sim", contents=[asked], config=config)
        said = first.candidates[0].content
        result = types.Part.from_function_response(name="weather", response={"output": "17 degrees"})
        turns = [asked, said, types.Content(role="user", parts=[result])]
        return said, client.models.generate_content(model="sim", contents=turns, config=config).text

    said, answer = await with_client(url, "v1beta", use)
    thought, call = said.parts
    assert thought.thought
    assert (call.function_call.name, call.function_call.args) == ("weather", {"place": "weather, please"})
    assert call.thought_signature
    assert 'The tool weather returned: {"output":"17 degrees"}' in answer


async def test_googles_client_embeds_and_counts_and_reads_errors(url: str) -> None:
    def use(client: genai.Client) -> Any:
        size = types.EmbedContentConfig(output_dimensionality=8)
        vectors = client.models.embed_content(model="sim", contents=["one", "two"], config=size).embeddings
        counted = client.models.count_tokens(model="sim", contents="hello there").total_tokens
        with pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model="sim-status=429-retry_after=34", contents="x")
        return [len(vector.values) for vector in vectors or ()], counted, caught.value

    sizes, counted, error = await with_client(url, "v1beta", use)
    assert (sizes, counted) == ([8, 8], 3)
    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    assert error.details["error"]["details"][0]["retryDelay"] == "34s"


async def test_a_stream_without_sse_is_one_array(plain: httpx.AsyncClient) -> None:
    answer = await plain.post("/v1beta/models/sim-tokens=2:streamGenerateContent", json=BODY)
    assert answer.headers["content-type"].startswith("application/json")
    documents = answer.json()
    assert [one["candidates"][0]["content"]["parts"][0]["text"] for one in documents] == ["You", " asked:", ""]
    failed = (await plain.post("/v1beta/models/sim-tokens=2-error=1:streamGenerateContent", json=BODY)).json()
    assert failed[-1]["error"]["status"] == "INTERNAL"


async def test_lines_of_a_stream_end_with_cr_lf(plain: httpx.AsyncClient) -> None:
    answer = await plain.post("/v1beta/models/sim-tokens=1:streamGenerateContent?alt=sse", json=BODY)
    assert answer.text.count("\r\n\r\n") == 2
    assert answer.text.count("\n") == 4


@pytest.mark.parametrize(
    ("model", "config", "finish"),
    [
        ("sim", {"maxOutputTokens": 3}, "MAX_TOKENS"),
        ("sim", {"max_output_tokens": 3}, "MAX_TOKENS"),
        ("sim", {"stopSequences": ["descale"]}, "STOP"),
        ("sim-filter=2", {}, "SAFETY"),
    ],
)
async def test_an_answer_says_why_it_ended(plain: httpx.AsyncClient, model: str, config: Any, finish: str) -> None:
    found = await events(plain, model, BODY | {"generationConfig": config})
    assert [one["candidates"][0].get("finishReason") for one in found][-2:] == [None, finish]


async def test_structured_answers_follow_googles_schemas(plain: httpx.AsyncClient) -> None:
    schema = {"type": "OBJECT", "properties": {"count": {"type": "INTEGER", "minimum": 3}}}
    config = {"responseMimeType": "application/json", "responseSchema": schema}
    answer = await plain.post("/v1beta/models/sim:generateContent", json=BODY | {"generationConfig": config})
    assert orjson.loads(answer.json()["candidates"][0]["content"]["parts"][0]["text"]) == {"count": 3}


async def test_several_candidates_are_told_side_by_side(plain: httpx.AsyncClient) -> None:
    found = await events(plain, "sim-tokens=2", BODY | {"generationConfig": {"candidateCount": 2}})
    assert [one["candidates"][0]["index"] for one in found] == [0, 1] * 3
    assert found[-1]["usageMetadata"]["candidatesTokenCount"] == 4


async def test_a_prompt_against_the_policy_has_no_candidates(plain: httpx.AsyncClient) -> None:
    whole = (await plain.post("/v1beta/models/sim-policy:generateContent", json=BODY)).json()
    [only] = await events(plain, "sim-policy")
    for document in (whole, only):
        assert document["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
        assert "candidates" not in document


async def test_faults_of_the_stream_are_in_googles_words(plain: httpx.AsyncClient) -> None:
    broken = await events(plain, "sim-tokens=5-error=2")
    assert (len(broken), broken[-1]["error"]["status"]) == (3, "INTERNAL")
    assert [set(one) for one in await events(plain, "sim-error_first")] == [{"error"}]
    ended = await events(plain, "sim-tokens=5-end=3")
    assert [one["candidates"][0].get("finishReason") for one in ended] == [None] * 3
    assert await events(plain, "sim-end=0") == []
    assert [one is None for one in await events(plain, "sim-tokens=3-malformed=2")] == [False, True, False, False]
    twice = await events(plain, "sim-tokens=1-double_finish")
    assert [one["candidates"][0].get("finishReason") for one in twice] == [None, "STOP", "STOP"]
    assert not any("usageMetadata" in one for one in await events(plain, "sim-tokens=1-nousage"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "* GenerateContentRequest.contents: is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "Please use a valid role: user, model."),
        (
            {"contents": [{"role": "user", "parts": []}]},
            "* GenerateContentRequest.contents[0].parts: must not be empty",
        ),
        ({"contents": [{"role": "user"}]}, "* GenerateContentRequest.contents[0].parts: should be an array"),
        ({**BODY, "generationConfig": {"maxOutputTokens": 0}}, "* GenerateContentRequest.maxOutputTokens: should be"),
        ({**BODY, "tools": [{"functionDeclarations": [{}]}]}, "* GenerateContentRequest.tools[0].function_decl"),
        ({**BODY, "tools": True}, "* GenerateContentRequest.tools: should be an array, but is a boolean"),
        ({**BODY, "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "* GenerateContentRequest.tool_config:"),
    ],
)
async def test_faulty_requests_get_googles_error_shape(plain: httpx.AsyncClient, body: Any, message: str) -> None:
    answer = await plain.post("/v1beta/models/sim:generateContent", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert error["message"].startswith(message)


async def test_unknown_methods_are_not_found(plain: httpx.AsyncClient) -> None:
    answer = await plain.post("/v1beta/tunedModels/sim:generateContent", json=BODY)
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")
    answer = await plain.get("/v1beta/models/sim:generateContent")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
