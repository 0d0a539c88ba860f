"""An endpoint is found by its exact path, or by a pattern; its name is from a bounded set whatever clients write."""

from __future__ import annotations

import pytest

from gateway.dialects.openai_chat import ChatVoice, error_document
from gateway.edge.endpoints import Endpoint, Endpoints, Listen, name_of
from gateway.exchange import Answer, Exchange

GENERATE = "/v1beta/models/{model}:generateContent"
STREAM = "/v1beta/models/{model}:streamGenerateContent"


async def view(exchange: Exchange, listen: Listen, voice: object) -> Answer:
    return Answer()


def endpoint(path: str) -> Endpoint:
    return Endpoint(name=name_of(path), view=view, voice=lambda _: ChatVoice(), error=error_document)


@pytest.fixture
def endpoints() -> Endpoints:
    made = Endpoints()
    for path in ("/v1/chat/completions", GENERATE, STREAM):
        made.add(path, endpoint(path))
    return made


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1beta/models/gemini-x:generateContent", "/v1beta/models"),
        ("/v1beta/models/openai/gpt:generateContent", "/v1beta/models"),
        ("/v1beta/models/a:b:streamGenerateContent", "/v1beta/models"),
    ],
)
def test_what_is_an_endpoints_is_found_by_its_bounded_name(endpoints: Endpoints, path: str, name: str) -> None:
    found = endpoints.find(path)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1beta/models/:generateContent",
        "/v1beta/models/gemini-x",
        "/v1beta/models/gemini-x:countTokens",
        "/v1/models/gemini-x:generateContent",
        "/",
    ],
)
def test_what_is_nearly_one_is_none(endpoints: Endpoints, path: str) -> None:
    assert endpoints.find(path) is None
