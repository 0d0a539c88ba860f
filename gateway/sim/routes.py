"""Which path asks for what, and in whose dialect the answer, or the refusal, is.

``/v1`` is OpenAI's and Anthropic's, ``/v1beta`` (and ``/v1/models/{model}:method``) Google's. Azure's ways to say the
same, ``/openai/v1/…`` and ``/openai/deployments/{deployment}/…``, are understood, too. All three list their models at
``/v1/models``: there the headers tell who asks. A path that is not known is refused in the dialect it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qs, unquote

from attrs import frozen

from gateway.sim.errors import ANTHROPIC, CHAT, GEMINI, RESPONSES, ApiError, Dialect

Kind = Literal[
    "chat",
    "messages",
    "responses",
    "content",
    "count_messages",
    "count_content",
    "embeddings",
    "embed_content",
    "moderations",
    "rerank",
    "speech",
    "files",
    "models",
    "stats",
    "served",
    "reset",
]

LOOK_UPS = frozenset({"models", "stats", "served", "reset"})
"""What is no answer of a model: not paced, not counted, without faults."""


@frozen(kw_only=True, slots=True)
class Route:
    """What a request asks for.

    Attributes:
        path: For the statistics: without the model's name.
        model: As the path names it; "" where the body does.
        method: Google's, after the colon.
        sse: A stream is asked for as events (Google's ``alt=sse``).
    """

    dialect: Dialect
    kind: Kind
    path: str
    model: str = ""
    method: str = ""
    sse: bool = False


_PATHS: Mapping[str, tuple[str, Route]] = MappingProxyType(
    {
        path: (method, Route(dialect=dialect, kind=kind, path=path))  # type: ignore[arg-type]
        for path, method, dialect, kind in (
            ("/v1/chat/completions", "POST", CHAT, "chat"),
            ("/v1/responses", "POST", RESPONSES, "responses"),
            ("/v1/messages", "POST", ANTHROPIC, "messages"),
            ("/v1/messages/count_tokens", "POST", ANTHROPIC, "count_messages"),
            ("/v1/embeddings", "POST", CHAT, "embeddings"),
            ("/v1/moderations", "POST", CHAT, "moderations"),
            ("/v1/rerank", "POST", CHAT, "rerank"),
            ("/v1/audio/speech", "POST", CHAT, "speech"),
            ("/v1/files", "POST", CHAT, "files"),
            ("/v1/models", "GET", CHAT, "models"),
            ("/v1beta/models", "GET", GEMINI, "models"),
            ("/stats", "GET", CHAT, "stats"),
            ("/stats/requests", "GET", CHAT, "served"),
            ("/stats/reset", "POST", CHAT, "reset"),
        )
    }
)

_METHODS: Mapping[str, Kind] = MappingProxyType(
    {
        "generateContent": "content",
        "streamGenerateContent": "content",
        "countTokens": "count_content",
        "embedContent": "embed_content",
        "batchEmbedContents": "embed_content",
    }
)

_MODELS = ("/v1beta/models/", "/v1/models/")
_DEPLOYMENTS = "/openai/deployments/"


def dialect_of(path: str, headers: Mapping[str, str]) -> Dialect:
    """The dialect that a path looks like."""
    if path.startswith("/v1beta/") or (path.startswith("/v1/models/") and ":" in path):
        return GEMINI
    if path.startswith("/v1/models"):
        if "anthropic-version" in headers:
            return ANTHROPIC
        return GEMINI if "x-goog-api-key" in headers else CHAT
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    return RESPONSES if path == "/v1/responses" else CHAT


def find_route(method: str, path: str, query: str, headers: Mapping[str, str]) -> Route:
    """What is asked for.

    Raises:
        ApiError: 404, there is no such path; 405, not with this method.
    """
    model, path = _without_azure(path)
    known = _PATHS.get(path)
    if known is not None:
        wanted, route = known
        if model or path == "/v1/models":
            route = Route(dialect=dialect_of(path, headers), kind=route.kind, path=route.path, model=model)
    else:
        wanted, route = _of_model(path, query, headers)
    if wanted != method:
        problem = f"{path} takes {wanted}, not {method}."
        raise ApiError(405, problem, headers=(("allow", wanted),), reason="path")
    return route


def _of_model(path: str, query: str, headers: Mapping[str, str]) -> tuple[str, Route]:
    prefix = next((one for one in _MODELS if path.startswith(one) and path != one), None)
    if prefix is None:
        known = ", ".join(_PATHS)
        raise ApiError(404, f"There is no path {path}; known are {known}.", code="unknown_url", reason="path")
    model, colon, method = path.removeprefix(prefix).rpartition(":")
    kind = _METHODS.get(method)
    if colon and kind is not None:
        sse = method == "streamGenerateContent" and parse_qs(query).get("alt") == ["sse"]
        path = f"{prefix}{{model}}:{method}"
        return "POST", Route(dialect=GEMINI, kind=kind, path=path, model=unquote(model), method=method, sse=sse)
    name = unquote(path.removeprefix(prefix))
    return "GET", Route(dialect=dialect_of(path, headers), kind="models", path=f"{prefix}{{model}}", model=name)


def _without_azure(path: str) -> tuple[str, str]:
    """The deployment that an Azure path names, and OpenAI's path for the same."""
    if path.startswith("/openai/v1/"):
        return "", path.removeprefix("/openai")
    if path.startswith(_DEPLOYMENTS):
        deployment, _, rest = path.removeprefix(_DEPLOYMENTS).partition("/")
        return unquote(deployment), f"/v1/{rest}"
    return "", path
