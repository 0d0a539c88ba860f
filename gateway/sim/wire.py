"""The bytes of OpenAI's chat answers: JSON documents and server-sent events; and the heads of everybody's.

Everything that is the same in all events of a stream is encoded once; an event costs one JSON string and one
concatenation (under 1 µs). Nothing here waits or knows of sockets.
"""

from __future__ import annotations

import base64
import hashlib
import math
import random
from array import array
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from attrs import frozen

from gateway.sim.answers import Answer, ToolCall, estimate_tokens
from gateway.sim.errors import CHAT, ApiError
from gateway.sim.request import ChatRequest, EmbeddingRequest

FINGERPRINT = "fp_5104ce5104"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def head(
    status: int, *headers: tuple[str, str], length: int | None, content_type: str = "application/json", keep: bool
) -> bytes:
    """The head of a response; without ``length`` the body is chunked."""
    body = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"content-type: {content_type}", body]
    lines += [f"{name}: {value}" for name, value in headers]
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def identify(rng: random.Random) -> str:
    """The random part of an id."""
    return f"{rng.getrandbits(116):029x}"


@frozen(kw_only=True, slots=True)
class Completion:
    """One answer with the names that stand in all of its documents; a :class:`~gateway.sim.telling.Telling`.

    Thoughts are told in ``reasoning_content``, as DeepSeek and many others do; OpenAI itself does not show them.
    """

    request: ChatRequest
    answer: Answer
    id: str
    created_s: int
    tells_usage: bool = True
    content_type: ClassVar[str] = EVENT_STREAM
    ping: ClassVar[bytes] = CHAT.ping

    @property
    def choices(self) -> int:
        return self.request.choices

    @property
    def stream(self) -> bool:
        return self.request.stream

    @property
    def tokens(self) -> int:
        """Tokens of all choices."""
        return self.answer.tokens * self.request.choices

    @property
    def each(self) -> int:
        return self.answer.tokens

    def document(self) -> bytes:
        """The answer to a call without ``stream``."""
        choices = [
            {
                "index": index,
                "message": self._message(index),
                "logprobs": self._logprobs(self.answer.pieces),
                "finish_reason": self.answer.finish,
            }
            for index in range(self.request.choices)
        ]
        named = {"id": f"chatcmpl-{self.id}", "object": "chat.completion", "created": self.created_s}
        usage = {"usage": self._usage()} if self.tells_usage else {}
        return orjson.dumps(
            {
                **named,
                "model": self.request.model,
                "choices": choices,
                **usage,
                "service_tier": self.request.service_tier,
                "system_fingerprint": FINGERPRINT,
            }
        )

    def opening(self) -> bytes:
        """The events before the first token: every choice's role, and the names of its first tool call."""
        events = []
        for index in range(self.request.choices):
            delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
            if self.answer.calls:
                delta |= {"content": None, "tool_calls": [self._named(self.answer.calls[0], index, 0)]}
            events.append(self._event(index, delta))
        return b"".join(events)

    def events(self) -> Iterator[tuple[bytes, int]]:
        """The events in between, each with the number of tokens in it (1, or 0 for the name of a further tool call)."""
        for piece in self.answer.thoughts:
            for index in range(self.request.choices):
                yield self._event(index, {"reasoning_content": piece}), 1
        if self.answer.calls:
            yield from self._call_events()
        elif self.request.top_logprobs is not None:
            for piece in self.answer.pieces:
                for index in range(self.request.choices):
                    yield self._event(index, {"content": piece}, logprobs=[piece]), 1
        else:
            yield from self._text_events()

    def finish(self) -> bytes:
        """The events after the last token, without ``[DONE]``."""
        events = [self._event(index, {}, finish=self.answer.finish) for index in range(self.request.choices)]
        if self.request.include_usage and self.tells_usage:
            events.append(self._prefix() + b'[],"usage":' + orjson.dumps(self._usage()) + b"}\n\n")
        return b"".join(events)

    def end_mark(self) -> bytes:
        return DONE

    def failure(self, error: ApiError) -> bytes:
        return b"data: " + orjson.dumps(error.document) + b"\n\n"

    def _text_events(self) -> Iterator[tuple[bytes, int]]:
        prefix = self._prefix()
        before = [b'%b[{"index":%d,"delta":{"content":' % (prefix, index) for index in range(self.request.choices)]
        after = b'},"logprobs":null,"finish_reason":null}]' + self._suffix()
        for piece in self.answer.pieces:
            encoded = orjson.dumps(piece) + after
            for start in before:
                yield start + encoded, 1

    def _call_events(self) -> Iterator[tuple[bytes, int]]:
        choices = range(self.request.choices)
        for position, call in enumerate(self.answer.calls):
            if position:
                for index in choices:
                    yield self._event(index, {"tool_calls": [self._named(call, index, position)]}), 0
            for piece in call.pieces:
                delta = {"tool_calls": [{"index": position, "function": {"arguments": piece}}]}
                for index in choices:
                    yield self._event(index, delta), 1

    def _prefix(self) -> bytes:
        named = {"id": f"chatcmpl-{self.id}", "object": "chat.completion.chunk", "created": self.created_s}
        made = {"model": self.request.model, "service_tier": self.request.service_tier}
        return b"data: " + orjson.dumps(named | made | {"system_fingerprint": FINGERPRINT})[:-1] + b',"choices":'

    def _suffix(self) -> bytes:
        return b',"usage":null}\n\n' if self.request.include_usage else b"}\n\n"

    def _event(
        self, index: int, delta: dict[str, Any], *, logprobs: list[str] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None if logprobs is None else self._logprobs(logprobs),
            "finish_reason": finish,
        }
        return self._prefix() + orjson.dumps([choice]) + self._suffix()

    def _message(self, index: int) -> dict[str, Any]:
        calls = self.answer.calls
        content = None if calls else "".join(self.answer.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if self.answer.thoughts:
            message["reasoning_content"] = "".join(self.answer.thoughts)
        if calls:
            message["tool_calls"] = [
                {
                    "id": named["id"],
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.pieces)},
                }
                for call, named in ((call, self._named(call, index, at)) for at, call in enumerate(calls))
            ]
        return message

    def _named(self, call: ToolCall, index: int, position: int) -> dict[str, Any]:
        return {
            "index": position,
            "id": f"call_{self.id[:20]}{index:02x}{position:02x}",
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }

    def _logprobs(self, pieces: Any) -> dict[str, Any] | None:
        top = self.request.top_logprobs
        if top is None or self.answer.calls:
            return None
        content = []
        for piece in pieces:
            scored = {"token": piece, "logprob": -0.01, "bytes": list(piece.encode())}
            others = [
                {"token": f" {rank}", "logprob": -4.0 - rank, "bytes": [32, 48 + rank]} for rank in range(top - 1)
            ]
            content.append({**scored, "top_logprobs": [scored, *others] if top else []})
        return {"content": content, "refusal": None}

    def _usage(self) -> dict[str, Any]:
        given, made = self.answer.prompt_tokens, self.tokens
        return {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": len(self.answer.thoughts) * self.request.choices,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def embedding_document(request: EmbeddingRequest) -> bytes:
    """The answer to an embedding request.

    Cost: about 0.4 ms per input of 1,536 dimensions.
    """
    data = []
    for index, text in enumerate(request.inputs):
        vector = unit_vector(text, request.dimensions)
        shown: object = base64.b64encode(vector.tobytes()).decode() if request.base64 else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = estimate_tokens(request.inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": request.model, "usage": usage})


def unit_vector(text: str, dimensions: int) -> array[float]:
    """A vector of length 1 that depends on nothing but the text: float32, little-endian on the machines we run on."""
    numbers = array("i", hashlib.shake_256(text.encode()).digest(4 * dimensions))
    length = math.sqrt(sum(float(number) * number for number in numbers)) or 1.0
    return array("f", (number / length for number in numbers))


def models_document(created_s: int) -> bytes:
    """The list of models: one name stands for all that the grammar can make of it."""
    return orjson.dumps({"object": "list", "data": [model_entry("sim", created_s)]})


def model_entry(name: str, created_s: int) -> dict[str, Any]:
    """One model as OpenAI lists it."""
    return {"id": name, "object": "model", "created": created_s, "owned_by": "simulator"}


def anthropic_models(name: str | None) -> bytes:
    """One model, or the list of them, as Anthropic shows it."""
    entry = {"type": "model", "id": name or "sim", "display_name": "Simulated", "created_at": "2026-01-01T00:00:00Z"}
    return orjson.dumps(entry if name else {"data": [entry], "has_more": False, "first_id": "sim", "last_id": "sim"})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
