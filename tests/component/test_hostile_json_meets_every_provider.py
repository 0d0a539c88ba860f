"""Promise: JSON that is valid, but meant to break a translation, gets an answer or a 400 of the client's own shape.

What passes as bytes may be nested as deeply as a decoder goes, and hold numbers that no float does; what is translated
is decoded again, further down the stack. Here are such requests, and valid ones with parts changed, dropped and
exchanged, for the client dialects of OpenAI before every provider dialect. None of them is a failure of the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.changes import changed
from tests.component.stage import Heard, Stage, ask
from tests.component.test_every_dialect_reaches_every_provider import PROVIDERS, speaking

FUNCTION = {"name": "weather", "description": "of a place", "parameters": {"type": "object"}, "strict": False}
IMAGE = "data:image/png;base64,aGk="
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "name": "anna",
            "content": [
                {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "A lookup.",
            "reasoning_details": [{"type": "reasoning.text", "text": "A lookup.", "signature": "c2ln", "index": 0}],
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
        {"role": "user", "content": "And now?"},
    ],
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 20,
    "temperature": 1,
    "stop": ["END"],
    "seed": 3,
    "n": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"1": 2},
    "metadata": {"a": "b"},
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "user": "anna",
    "service_tier": "auto",
}
RESPONSES: dict[str, Any] = {
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "A lookup."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"type": "message", "role": "user", "content": "And now?"},
    ],
    "max_output_tokens": 20,
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
    "store": True,
}
COMPLETIONS: dict[str, Any] = {"prompt": ["Say it."], "max_tokens": 20, "logprobs": 2, "echo": False, "stop": "END"}
EMBEDDINGS: dict[str, Any] = {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 8}
REQUESTS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
}


async def assert_answered_or_refused(stage: Stage, path: str, data: bytes) -> Heard:
    heard = await ask(stage, data, path=path)
    assert heard.whole, (path, data)
    if heard.status != 200:
        # What the simulated provider would not take is its own affair: a 4xx of its, or a 502 that says so.
        code = heard.json()["error"]["code"]
        assert heard.status < 500 or str(code).startswith("upstream_"), (path, data, heard)
        assert {"message", "type", "param", "code"} == set(heard.json()["error"])
    assert stage.gateway.server_statistics is not None
    assert stage.gateway.server_statistics().app_failed == 0, (path, data)
    return heard


def nested(levels: int) -> Iterator[tuple[str, str]]:
    """Requests with something nested so deeply in each of the places where anything may stand."""
    array = "[" * levels + "]" * levels
    schema = '{"properties":' * levels + "{}" + "}" * levels
    function = f'{{"name":"f","parameters":{schema}}}'
    ask_it = '"messages":[{"role":"user","content":"x"}]'
    yield "/v1/chat/completions", f'{ask_it},"x":{array}'
    yield "/v1/chat/completions", f'"messages":[{{"role":"user","content":"x","y":{array}}}]'
    yield "/v1/chat/completions", f'{ask_it},"tools":[{{"type":"function","function":{function}}}]'
    schema_format = f'{{"type":"json_schema","json_schema":{{"name":"n","schema":{schema}}}}}'
    yield "/v1/chat/completions", f'{ask_it},"response_format":{schema_format}'
    yield "/v1/responses", f'"input":[{{"role":"user","content":"x","y":{array}}}]'
    yield "/v1/responses", f'"input":"x","metadata":{schema}'
    yield "/v1/responses", f'"input":"x","tools":[{{"type":"function",{function[1:]}]'
    yield "/v1/completions", f'"prompt":"x","y":{array}'
    yield "/v1/embeddings", f'"input":"x","y":{array}'
    yield "/v1/orchestrate", f'"input":"x","y":{array}'


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_nested_as_deeply_as_can_be_read_is_no_failure(provider: str) -> None:
    async with speaking() as stage:
        codes = set()
        for levels in (150, 400, *range(960, 990, 2)):
            for path, rest in nested(levels):
                name = "assistant" if path == "/v1/orchestrate" else "model"
                data = f'{{"{name}":"{provider}/sim",{rest}}}'.encode()
                heard = await assert_answered_or_refused(stage, path, data)
                codes.add(heard.json()["error"]["code"] if heard.status != 200 else "")
        assert {"", "invalid_json"} <= codes  # the last levels were more than can be read at all


@pytest.mark.parametrize("number", ["1e999", "-1E400", "9" * 5_000])
@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai-responses"])
async def test_a_number_beyond_all_numbers_is_a_400_that_names_the_field(provider: str, number: str) -> None:
    def body(rest: str) -> bytes:
        return f'{{"model":"{provider}/sim","messages":[{{"role":"user","content":"x"}}],{rest}}}'.encode()

    places = {
        "x": f'"x":{number}',
        "temperature": f'"temperature":{number}',
        "logit_bias[...]": f'"logit_bias":{{"1":{number}}}',
        "tools[0].function.parameters[...]": (
            f'"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"minimum":{number}}}}}}}]'
        ),
    }
    async with speaking() as stage:
        for param, rest in places.items():
            if param == "temperature" and number.startswith("9"):
                continue  # a float takes as many digits as there are
            heard = await assert_answered_or_refused(stage, "/v1/chat/completions", body(rest))
            error = heard.json()["error"]
            assert (heard.status, error["code"], error["param"]) == (400, "invalid_request", param)
            assert "out of range" in error["message"]


# ── valid requests, changed ─────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def requests_changed(draw: st.DrawFn) -> tuple[str, bytes]:
    path = draw(st.sampled_from(list(REQUESTS)))
    model = f"{draw(st.sampled_from(PROVIDERS))}/sim"
    document = {"model": model, "stream": draw(st.booleans()), **REQUESTS[path]}
    return path, json.dumps(draw(changed(document))).encode()


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(requests_changed(), min_size=60, max_size=80))
async def test_any_change_of_a_valid_request_is_answered_or_refused(requests: list[tuple[str, bytes]]) -> None:
    async with speaking() as stage:
        for path, data in requests:
            await assert_answered_or_refused(stage, path, data)
        await stage.settle()
        stage.assert_nothing_left(requests=len(requests))
