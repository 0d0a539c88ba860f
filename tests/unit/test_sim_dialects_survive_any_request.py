"""Whatever JSON comes, every dialect of the simulated provider answers it or refuses it with a 400."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sim.behaviour import Behaviour
from gateway.sim.connection import Request
from gateway.sim.errors import ApiError
from gateway.sim.making import make
from gateway.sim.routes import Route, find_route
from gateway.sim.telling import Telling

HEADERS = {"anthropic-version": "2023-06-01"}
CONTENT = "/v1beta/models/sim:"

NAMES = st.sampled_from(
    [
        "model", "messages", "role", "content", "type", "text", "name", "id", "stream", "input", "system",
        "thinking", "tools", "tool_choice", "input_schema", "tool_use_id", "signature", "stop_sequences",
        "max_tokens", "contents", "parts", "functionCall", "functionResponse", "args", "generationConfig",
        "candidateCount", "functionDeclarations", "parameters", "toolConfig", "functionCallingConfig", "mode",
        "thought", "responseSchema", "instructions", "call_id", "output", "arguments", "summary", "reasoning",
        "format", "schema", "documents", "query",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "user", "assistant", "model", "tool_use", "tool_result", "thinking", "text", "message", "function_call",
        "auto", "function_call_output", "reasoning", "function", "any", "ANY", "tool", "enabled", "json_schema",
        "weather",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=14,
)
BLOCKS = st.lists(
    st.fixed_dictionaries({"type": WORDS}, optional={"text": st.text(max_size=9) | VALUES, "content": VALUES})
    | st.dictionaries(NAMES, VALUES, max_size=4),
    max_size=3,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "model"]), "content": st.text(max_size=9) | BLOCKS},
        optional={"parts": BLOCKS, "type": WORDS, "call_id": VALUES},
    ),
    min_size=1,
    max_size=3,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=6).flatmap(
    lambda body: TURNS.map(
        lambda turns: {"max_tokens": 9, **body, "model": "sim", "messages": turns, "input": turns, "contents": turns}
    )
)


def route(path: str) -> Route:
    path, _, query = path.partition("?")
    return find_route("POST", path, query, HEADERS)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        f"{CONTENT}generateContent",
        f"{CONTENT}streamGenerateContent?alt=sse",
        f"{CONTENT}streamGenerateContent",
        f"{CONTENT}countTokens",
        f"{CONTENT}batchEmbedContents",
        "/v1/moderations",
        "/v1/rerank",
        "/v1/audio/speech",
    ],
)
@settings(max_examples=40)
@given(body=BODIES, behaviour=st.sampled_from([Behaviour(), Behaviour(echo=True), Behaviour(call_tool=True)]))
def test_any_json_gets_an_answer_or_a_400(path: str, body: dict[str, Any], behaviour: Behaviour) -> None:
    raw = orjson.dumps(body)
    request = Request(
        method="POST", path=path, query="", headers=HEADERS, body=raw, keep=True, received_bytes=len(raw), digest=""
    )
    refused: ApiError | None = None
    try:
        made = make(route(path), request, lambda _: behaviour, "0" * 29)
    except ApiError as refusal:
        refused = refusal
    if refused is not None:
        assert refused.status == 400
        orjson.dumps(route(path).dialect.document(refused, "0"))
    elif isinstance(made.telling, bytes):
        orjson.loads(made.telling)
    elif path != "/v1/audio/speech":
        assert isinstance(orjson.loads(made.telling.document()), dict)
        check_stream(made.telling)


def check_stream(telling: Telling) -> None:
    """Every event is a document, and the tokens add up."""
    opening, events = telling.opening(), list(telling.events())
    assert sum(tokens for _, tokens in events) == telling.tokens
    told = opening + b"".join(data for data, _ in events) + telling.finish() + telling.end_mark()
    if telling.content_type.startswith("application/json"):
        assert isinstance(orjson.loads(told), list)
        return
    for event in told.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        orjson.loads(event.partition(b"data: ")[2])


@pytest.mark.parametrize("name", ["metadata", "tools", "text", "tool_choice"])
def test_what_a_response_repeats_is_refused_if_it_cannot_be_written_again(name: str) -> None:
    deep = b'{"model":"sim","input":"x","%s":%s1%s}' % (name.encode(), b'{"a":' * 300, b"}" * 300)
    request = Request(
        method="POST", path="/v1/responses", query="", headers={}, body=deep, keep=True, received_bytes=0, digest=""
    )
    with pytest.raises(ApiError, match=f"'{name}' is nested too deeply"):
        make(route("/v1/responses"), request, lambda _: Behaviour(), "0" * 29)
