"""``/v1/embeddings``: OpenAI's dialect gets the client's document, Gemini gets its own, others refuse."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, ClassVar

import pytest
from attrs import frozen
from openai.types import CreateEmbeddingResponse

from gateway.core.errors import RequestError, StreamBroken
from gateway.core.facts import Usage
from gateway.dialects.azure import AzureOpenAI
from gateway.dialects.call import Call, Encoded
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.embeddings import EmbeddingRequest, EmbeddingsVoice
from gateway.dialects.events import Event
from gateway.dialects.provider import BadAnswer, ProviderDialect, Quirks, Reader
from gateway.dialects.voice import Voice, Whole

VOICE: Voice = EmbeddingsVoice()  # the type is the test: mypy and readers see that it is a voice


@frozen
class Other:
    """A dialect that is asked for nothing but its name."""

    name: str
    wire: ClassVar[str] = "other"
    quirks: ClassVar[Quirks] = Quirks()

    def path(self, model: str, *, stream: bool) -> bytes:
        raise AssertionError("no chat is asked for")

    def headers(self, key: str) -> dict[bytes, bytes]:
        return {}

    def encode(self, call: Call, model: str) -> Encoded:
        raise AssertionError("no chat is asked for")

    def reader(self) -> Reader:
        raise AssertionError("no chat is asked for")

    def read_whole(self, body: bytes) -> list[Event]:
        raise AssertionError("no chat is asked for")

    def error_code(self, body: bytes) -> str:
        return ""


GEMINI = Other("gemini")


def parsed(**fields: Any) -> EmbeddingRequest:
    return EmbeddingsVoice().parse(json.dumps({"model": "embed", "input": "hi", **fields}).encode())


def gemini(document: Any, **fields: Any) -> Whole:
    return EmbeddingsVoice().read_whole(parsed(**fields), GEMINI, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        (OpenAIChat(), b"/embeddings"),
        (AzureOpenAI(), b"/openai/v1/embeddings"),
        (AzureOpenAI(api_version="2024-10-21"), b"/openai/deployments/m/embeddings?api-version=2024-10-21"),
    ],
)
@pytest.mark.parametrize("said", ["hi", ["hi", "there"], [1, 2], [[1], [2, 3]]])
def test_openais_dialect_gets_the_clients_document(dialect: ProviderDialect, path: bytes, said: Any) -> None:
    request = parsed(input=said, dimensions=3, encoding_format="base64", user="u", input_type="query")
    asking = EmbeddingsVoice().prepare(request, dialect, "m", keep=False)
    assert (asking.path, asking.passes, asking.stream, asking.dropped) == (path, True, None, ())
    assert json.loads(asking.body) == {
        "model": "m",
        "input": said,
        "dimensions": 3,
        "encoding_format": "base64",
        "user": "u",
        "input_type": "query",
    }


def test_what_a_provider_refuses_is_left_out_and_named() -> None:
    dialect = OpenAIChat(quirks=Quirks(drops=("user", "seed")))
    asking = EmbeddingsVoice().prepare(parsed(user="u"), dialect, "m", keep=False)
    assert json.loads(asking.body) == {"model": "m", "input": "hi"}
    assert asking.dropped == ("user",)


def test_gemini_gets_one_request_per_text() -> None:
    request = parsed(input=["hi", "there"], dimensions=3, user="u")
    asking = EmbeddingsVoice().prepare(request, GEMINI, "gemini-embedding-001", keep=False)
    assert asking.path == b"/models/gemini-embedding-001:batchEmbedContents"
    assert asking.dropped == ("user",)
    one = {"model": "models/gemini-embedding-001", "outputDimensionality": 3}
    assert json.loads(asking.body) == {
        "requests": [
            {**one, "content": {"parts": [{"text": "hi"}]}},
            {**one, "content": {"parts": [{"text": "there"}]}},
        ]
    }


def test_geminis_vectors_come_back_in_openais_shape() -> None:
    found = {"embeddings": [{"values": [0.5, -1.0]}, {"values": [0.25, 2.0]}], "usageMetadata": {"promptTokenCount": 4}}
    whole = gemini(found, input=["hi", "there"])
    CreateEmbeddingResponse.model_validate_json(whole.body, strict=True)
    document = json.loads(whole.body)
    assert [one["embedding"] for one in document["data"]] == [[0.5, -1.0], [0.25, 2.0]]
    assert document["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert whole.usage == Usage(prompt_tokens=4)


def test_base64_is_little_endian_floats() -> None:
    whole = gemini({"embeddings": [{"values": [0.5, -1.0]}]}, encoding_format="base64")
    packed = json.loads(whole.body)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -1.0)


def test_a_usage_nobody_told_is_estimated_and_marked() -> None:
    whole = gemini({"embeddings": [{"values": [1]}, {"values": [1]}]}, input=["hello", "you"])
    assert whole.usage == Usage(prompt_tokens=3, estimated=True)
    assert json.loads(whole.body)["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "estimated": True}


def test_openais_answer_passes_and_its_usage_is_read() -> None:
    body = b'{"object":"list","data":[{"embedding":"AAAA"}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}'
    whole = EmbeddingsVoice().read_whole(parsed(), OpenAIChat(), body)
    assert (whole.body, whole.usage) == (body, Usage(prompt_tokens=8))


@pytest.mark.parametrize(("said", "tokens"), [("abcde", 2), (["abcde", "a"], 3), ([1, 2, 3], 3), ([[1], [2, 3]], 3)])
@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {"prompt_tokens": "many"}}])
def test_what_openais_dialect_leaves_out_is_estimated_by_what_was_asked(said: Any, tokens: int, usage: Any) -> None:
    body = json.dumps({"data": [{"embedding": [0.5] * 100}], **usage}).encode()
    whole = EmbeddingsVoice().read_whole(parsed(input=said), OpenAIChat(), body)
    assert (whole.body, whole.usage) == (body, Usage(prompt_tokens=tokens, estimated=True))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"error":{}}', b"[]", b'{"data":3}'])
def test_what_is_no_answer_is_a_bad_one(body: bytes) -> None:
    for dialect in (OpenAIChat(), GEMINI):
        with pytest.raises(BadAnswer):
            EmbeddingsVoice().read_whole(parsed(), dialect, body)


def test_a_vector_too_few_is_a_bad_answer() -> None:
    with pytest.raises(BadAnswer, match="1 embeddings for 2 texts"):
        gemini({"embeddings": [{"values": [1]}]}, input=["a", "b"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"stream": True}, "stream"),
    ],
)
def test_wrong_requests_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(**fields)
    assert (refused.value.http_status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("name", "fields", "param"), [("gemini", {"input": [1, 2]}, "input"), ("anthropic", {}, "model")]
)
def test_a_provider_without_a_counterpart_is_named(name: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        EmbeddingsVoice().prepare(parsed(**fields), Other(name), "m", keep=False)
    assert (refused.value.code, refused.value.param) == ("unsupported_by_provider", param)


def test_an_assistant_embeds_nothing() -> None:
    request = parsed()
    assert request.messages() == []
    with pytest.raises(RequestError, match="embed answers questions"):
        request.with_messages([{"role": "system", "content": "x"}])


def test_errors_have_openais_shape() -> None:
    assert VOICE.error(RequestError("bad", 400, "no", param="input"))["error"]["param"] == "input"
    assert b'"code":"cut"' in VOICE.breaks(StreamBroken("cut", "it ended"))
