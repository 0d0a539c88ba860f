"""From a request to what is told: reads it in its dialect, decides what to say, and finds the bytes for it.

All dialects meet here in one :class:`~gateway.sim.request.ChatRequest` and one :func:`~gateway.sim.answers.answer`, so
the same prompt gets the same text everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from attrs import frozen

from gateway.sim import gemini_wire, small
from gateway.sim.answers import Answer, answer, estimate_prompt
from gateway.sim.anthropic_request import read_messages
from gateway.sim.anthropic_wire import Message
from gateway.sim.behaviour import Behaviour
from gateway.sim.connection import Request
from gateway.sim.errors import ApiError, Dialect, refuse_content, refuse_length, refuse_prefill
from gateway.sim.fields import read_document, read_model
from gateway.sim.gemini_request import read_contents, read_texts
from gateway.sim.request import ChatRequest, read_chat, read_embedding, text_of
from gateway.sim.responses_request import read_response
from gateway.sim.responses_wire import Response
from gateway.sim.routes import Route
from gateway.sim.telling import Telling
from gateway.sim.wire import Completion, embedding_document

Settle = Callable[[str], Behaviour]
"""The behaviour for a model's name; may raise ``ApiError``."""


@frozen(kw_only=True, slots=True)
class Made:
    """What a request gets.

    Attributes:
        telling: An answer, or the bytes of a JSON document.
    """

    model: str
    behaviour: Behaviour
    telling: Telling | bytes
    prompt_tokens: int = 0


def make(route: Route, request: Request, settle: Settle, request_id: str) -> Made:
    """Decide what a request gets.

    Raises:
        ApiError: The request is at fault, or is to be refused.
    """
    if route.kind == "files":
        model, body = "", {}
    else:
        body = read_document(request.body)
        model = route.model or (str(body.get("model") or "") if route.kind == "moderations" else read_model(body))
    behaviour = settle(model)
    if route.kind in ("chat", "messages", "responses", "content"):
        if route.kind == "messages" and "anthropic-version" not in request.headers:
            raise ApiError(400, "anthropic-version: header is required")
        return _answer(route, body, model, behaviour, request_id)
    if route.kind == "speech":
        telling: Telling | bytes = small.speech(body, behaviour)
    else:
        telling = _document(route, request, body, request_id)
    return Made(model=model, behaviour=behaviour, telling=telling)


def _answer(route: Route, body: dict[str, Any], model: str, behaviour: Behaviour, request_id: str) -> Made:
    chat = _read(route, body, model)
    dialect = route.dialect
    if behaviour.prefill == "refuse" and chat.partial:
        raise refuse_prefill(dialect)
    if behaviour.window_tokens is not None:
        given = estimate_prompt(chat)
        if given > behaviour.window_tokens:
            raise refuse_length(dialect, given, behaviour.window_tokens)
    said = answer(chat, behaviour)
    if behaviour.policy:
        said = _refused(said, dialect)
    ending = behaviour.ending
    if ending is not None and ending[1] == "end" and ending[0] <= said.tokens and not chat.stream:
        said = said.cut(ending[0])
    telling = _tell(route, chat, said, behaviour, request_id)
    return Made(model=model, behaviour=behaviour, telling=telling, prompt_tokens=said.prompt_tokens)


def _refused(said: Answer, dialect: Dialect) -> Answer:
    """What there is to say to a prompt that is against the policy, where that is an answer."""
    if dialect.policy is not None:
        raise refuse_content(dialect)
    return Answer(pieces=(), calls=(), finish="blocked", prompt_tokens=said.prompt_tokens)


def _read(route: Route, body: dict[str, Any], model: str) -> ChatRequest:
    if route.kind == "chat":
        return read_chat(body if "model" in body else body | {"model": model})
    if route.kind == "messages":
        return read_messages(body)
    if route.kind == "responses":
        return read_response(body)
    return read_contents(body, model, stream=route.method == "streamGenerateContent")


def _tell(route: Route, chat: ChatRequest, said: Answer, behaviour: Behaviour, request_id: str) -> Telling:
    usage, now_s = not behaviour.no_usage, int(time.time())
    if route.kind == "chat":
        return Completion(request=chat, answer=said, id=request_id, created_s=now_s, tells_usage=usage)
    if route.kind == "messages":
        return Message(request=chat, answer=said, id=request_id, tells_usage=usage)
    if route.kind == "responses":
        return Response(request=chat, answer=said, id=request_id, created_s=now_s, tells_usage=usage)
    return gemini_wire.Content(request=chat, answer=said, id=request_id, sse=route.sse, tells_usage=usage)


def _document(route: Route, request: Request, body: Mapping[str, Any], request_id: str) -> bytes:
    match route.kind:
        case "embeddings":
            return embedding_document(read_embedding(body if "model" in body else {**body, "model": route.model}))
        case "embed_content":
            many = route.method == "batchEmbedContents"
            return gemini_wire.embeddings(read_texts(body, many=many), many=many)
        case "count_messages":
            counted = estimate_prompt(read_messages(body, counting=True))
            return orjson.dumps({"input_tokens": counted})
        case "count_content":
            inner = body.get("generateContentRequest")
            chat = read_contents(inner if isinstance(inner, dict) else body, route.model, stream=False)
            return gemini_wire.count_of([text_of(message.get("content")) for message in chat.messages])
        case "moderations":
            return small.moderation(body, request_id)
        case "rerank":
            return small.ranking(body, request_id)
        case _:
            return small.uploaded(request.received_bytes, request.digest, request_id, int(time.time()))
