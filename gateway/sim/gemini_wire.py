"""The bytes of Gemini's answers: the document, and a stream of documents that each hold a piece of it.

As a stream (``alt=sse``) each is an event whose lines end with CR LF; without ``alt=sse`` they are the elements of one
JSON array. There is no end mark: a stream is over when its candidates have their finish reasons. A function call comes
whole. Every document tells the usage so far. A prompt that is refused for what it says has no candidates.

Source: Gemini API reference, "generateContent", "streamGenerateContent", "embedContent"; streams as sent.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import orjson
from attrs import define, field

from gateway.sim.answers import Answer, estimate_tokens
from gateway.sim.errors import GEMINI, ApiError
from gateway.sim.request import ChatRequest
from gateway.sim.wire import EVENT_STREAM, unit_vector

_FINISH: Final = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


@define(kw_only=True)
class Content:
    """One answer; a :class:`~gateway.sim.telling.Telling`. Told as a stream once: an array knows its first element.

    Attributes:
        sse: The stream is one of events.
    """

    request: ChatRequest
    answer: Answer
    id: str
    sse: bool
    tells_usage: bool = True
    _begun: bool = field(default=False, init=False)
    _made: int = field(default=0, init=False)

    @property
    def choices(self) -> int:
        return self.request.choices

    @property
    def stream(self) -> bool:
        return self.request.stream

    @property
    def content_type(self) -> str:
        return EVENT_STREAM if self.sse else "application/json; charset=UTF-8"

    @property
    def ping(self) -> bytes:
        return GEMINI.ping if self.sse else b"\r\n"

    @property
    def tokens(self) -> int:
        return self.answer.tokens * self.request.choices

    @property
    def each(self) -> int:
        return self.answer.tokens

    def document(self) -> bytes:
        self._made = self.answer.tokens
        said = self.answer
        if said.finish == "blocked":
            return orjson.dumps(self._blocked())
        parts: list[dict[str, Any]] = []
        if said.thoughts:
            parts.append({"text": "".join(said.thoughts), "thought": True})
        if said.pieces:
            parts.append({"text": "".join(said.pieces)} | self._signature())
        parts += self._calls()
        finish = _FINISH.get(said.finish or "")
        return orjson.dumps(self._document([self._candidate(index, parts, finish) for index in range(self.choices)]))

    def opening(self) -> bytes:
        return b""

    def events(self) -> Iterator[tuple[bytes, int]]:
        for piece in self.answer.thoughts:
            yield from self._everywhere({"text": piece, "thought": True}, 1)
        for piece in self.answer.pieces:
            yield from self._everywhere({"text": piece}, 1)
        for part, call in zip(self._calls(), self.answer.calls, strict=True):
            yield from self._everywhere(part, len(call.pieces))

    def finish(self) -> bytes:
        said = self.answer
        if said.finish == "blocked":
            return self._event(self._blocked())
        finish = _FINISH.get(said.finish or "")
        part = {"text": ""} | ({} if said.calls else self._signature())
        return b"".join(
            self._event(self._document([self._candidate(index, [part], finish)])) for index in range(self.choices)
        )

    def end_mark(self) -> bytes:
        """The end of the array; a stream of events has none."""
        return b"" if self.sse else b"]"

    def failure(self, error: ApiError) -> bytes:
        return self._event(GEMINI.document(error, self.id)) + self.end_mark()

    def _everywhere(self, part: dict[str, Any], tokens: int) -> Iterator[tuple[bytes, int]]:
        self._made += tokens
        for index in range(self.choices):
            yield self._event(self._document([self._candidate(index, [part], None)])), tokens

    def _event(self, document: dict[str, Any]) -> bytes:
        begun, self._begun = self._begun, True
        if self.sse:
            return b"data: " + orjson.dumps(document) + b"\r\n\r\n"
        return (b",\r\n" if begun else b"[") + orjson.dumps(document)

    def _candidate(self, index: int, parts: list[Any], finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
        return candidate if finish is None else candidate | {"finishReason": finish}

    def _document(self, candidates: list[Any]) -> dict[str, Any]:
        usage = {"usageMetadata": self._usage()} if self.tells_usage else {}
        return {"candidates": candidates, **usage, "modelVersion": self.request.model, "responseId": self.id}

    def _blocked(self) -> dict[str, Any]:
        document = self._document([]) | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        del document["candidates"]
        return document

    def _usage(self) -> dict[str, Any]:
        given, thoughts = self.answer.prompt_tokens, min(self._made, len(self.answer.thoughts))
        spoken = (self._made - thoughts) * self.choices
        thoughts *= self.choices
        usage = {
            "promptTokenCount": given,
            "candidatesTokenCount": spoken,
            "totalTokenCount": given + spoken + thoughts,
        }
        return usage | ({"thoughtsTokenCount": thoughts} if thoughts else {})

    def _calls(self) -> list[dict[str, Any]]:
        """The function calls, the first with the signature of the thoughts before it."""
        calls: list[dict[str, Any]] = [
            {"functionCall": {"name": call.name, "args": orjson.loads("".join(call.pieces))}}
            for call in self.answer.calls
        ]
        if calls:
            calls[0] |= self._signature()
        return calls

    def _signature(self) -> dict[str, str]:
        if not self.answer.thoughts:
            return {}
        thought = "".join(self.answer.thoughts).encode()
        return {"thoughtSignature": base64.b64encode(hashlib.sha256(thought).digest()).decode()}


def embeddings(texts: list[tuple[str, int]], *, many: bool) -> bytes:
    """The answer to ``embedContent``, or to ``batchEmbedContents`` if ``many``."""
    made = [{"values": unit_vector(text, dimensions).tolist()} for text, dimensions in texts]
    return orjson.dumps({"embeddings": made} if many else {"embedding": made[0]})


def count_of(texts: list[str]) -> bytes:
    """The answer to ``countTokens``."""
    return orjson.dumps({"totalTokens": estimate_tokens(texts)})


def models(name: str | None) -> bytes:
    """One model, or the list of them."""
    methods = ["generateContent", "countTokens", "embedContent"]
    entry = {"name": f"models/{name or 'sim'}", "displayName": "Simulated", "supportedGenerationMethods": methods}
    return orjson.dumps(entry if name else {"models": [entry]})
