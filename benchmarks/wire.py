"""The bytes of the benchmark, made once: requests, OpenAI's and Anthropic's answers, server-sent events.

Load and provider share one core and must cost much less than what they measure, so neither formats anything per
request: every request is sent from one ``bytes`` object and every answer is a tuple of pieces ready for ``send``.

What the provider does is asked for by the model's name, because that is the one field every gateway hands on:

=====================  ==========================================================================================
``unary``              a JSON answer of about 700 bytes (16 chunks if asked to stream)
``stream-64``          64 content chunks as fast as the socket takes them, one ``send`` each
``paced-20-500``       500 content chunks, one every 20 ms
``slow-100-8``         nothing for 100 ms, then 8 chunks at once
``tail-20-5``          nothing for 15 to 25 ms, for 5 requests of 100 10 to 20 times as long; then 8 chunks at once
``claude-64``          the same as ``stream-64`` in Anthropic's form; asked without ``stream``, a message of 64 words
``idle``               one chunk, then silence until the other side closes
``flood-8``            8 MB as fast as the socket takes them, then silence
``large-1048576``      a JSON answer of so many bytes
=====================  ==========================================================================================
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

WORDS = (
    " the",
    " gateway",
    " answers",
    " token",
    " by",
    " token",
    ",",
    " bounded",
    " and",
    " cancelled",
    " as",
    " one",
)
CREATED = 1_760_000_000
ANSWER_ID = "chatcmpl-B4nChM4rkB4nChM4rkB4nChM4rk0"
FLOOD_PIECE_EVENTS = 64
_LONG_BODY_BYTES = 65_536

_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_USER = re.compile(rb'"user"\s*:\s*"([^"]*)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


@frozen(kw_only=True, slots=True)
class Wanted:
    """What a request body asks the provider for."""

    model: str
    stream: bool
    usage: bool
    tag: str  # the ``user`` field: tells which client's stream this is

    @classmethod
    def read(cls, body: bytes) -> Wanted:
        if len(body) > _LONG_BODY_BYTES:  # fields stand before or after a long prompt, never in its midst
            body = body[:2_048] + body[-2_048:]
        model, user = _MODEL.search(body), _USER.search(body)
        return cls(
            model=model[1].decode() if model else "unary",
            stream=_STREAM.search(body) is not None,
            usage=_USAGE.search(body) is not None,
            tag=user[1].decode() if user else "",
        )


@frozen(kw_only=True, slots=True)
class Plan:
    """An answer: pieces, each one ``send``, and when to send them.

    Attributes:
        pieces: Wire bytes in order; the first holds the response's head.
        delay_s: Silence before the first piece.
        slow_percent: So many answers of a hundred are heavy-tailed: see :meth:`silence_s`.
        interval_s: Time between pieces; 0 sends them as fast as the socket takes them.
        hangs: After the last piece the answer stays open until the other side closes.
    """

    pieces: tuple[bytes, ...]
    delay_s: float = 0.0
    slow_percent: float = 0.0
    interval_s: float = 0.0
    hangs: bool = False

    def silence_s(self, dice: random.Random) -> float:
        """How long to wait before the first piece: as said, or, of a heavy-tailed answer, drawn anew each time."""
        if not self.slow_percent:
            return self.delay_s
        usual_s = self.delay_s * dice.uniform(0.75, 1.25)
        return usual_s * dice.uniform(10, 20) if dice.random() * 100 < self.slow_percent else usual_s


def plan(wanted: Wanted) -> Plan:
    """Make the answer that ``wanted.model`` names; unknown names are answered as ``unary``."""
    kind, *numbers = wanted.model.split("-")
    n = [int(part) for part in numbers if part.isdigit()]
    match kind, n:
        case "large", [size_bytes]:
            return Plan(pieces=(json_answer(wanted.model, "x" * max(0, size_bytes - 600)),))
        case "stream", [chunks]:
            return _stream_or_unary(wanted, chunks)
        case "paced", [interval_ms, chunks]:
            return _stream_or_unary(wanted, chunks, interval_s=interval_ms / 1000)
        case "slow", [delay_ms, chunks]:
            return _stream_or_unary(wanted, chunks, delay_s=delay_ms / 1000)
        case "tail", [delay_ms, percent]:
            return evolve(_stream_or_unary(wanted, 8, delay_s=delay_ms / 1000), slow_percent=percent)
        case "claude", [chunks]:
            return Plan(pieces=(_claude_stream if wanted.stream else _claude_answer)(wanted.model, chunks))
        case "idle", _:
            return Plan(pieces=(STREAM_HEAD + _chunked(_event(wanted.model, {"content": " the"})),), hangs=True)
        case "flood", [megabytes]:
            piece = b"".join(_content(wanted.model, i) for i in range(FLOOD_PIECE_EVENTS))
            count = megabytes * 1_000_000 // len(piece)
            return Plan(pieces=(STREAM_HEAD + piece, *(piece,) * count), hangs=True)
        case _:
            return _stream_or_unary(wanted, 16)


def _stream_or_unary(wanted: Wanted, chunks: int, *, delay_s: float = 0.0, interval_s: float = 0.0) -> Plan:
    if not wanted.stream:
        text = "".join(WORDS[i % len(WORDS)] for i in range(min(chunks, 64)))
        return Plan(pieces=(json_answer(wanted.model, text),), delay_s=delay_s)
    cycle = tuple(_content(wanted.model, i) for i in range(len(WORDS)))
    body = [cycle[i % len(cycle)] for i in range(chunks)]
    first = STREAM_HEAD + _chunked(_event(wanted.model, {"role": "assistant", "content": "", "refusal": None}))
    last = _chunked(_event(wanted.model, {}, finish="stop"))
    if wanted.usage:
        last += _chunked(_event(wanted.model, None, usage={"prompt_tokens": 19, "completion_tokens": chunks}))
    last += _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return Plan(pieces=(first, *body, last), delay_s=delay_s, interval_s=interval_s)


def _content(model: str, i: int) -> bytes:
    return _chunked(_event(model, {"content": WORDS[i % len(WORDS)]}))


def _event(model: str, delta: Any, *, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    """One event in the form and of the size (about 280 bytes) that OpenAI sends today."""
    document: dict[str, Any] = {
        "id": ANSWER_ID,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    if delta is None:
        document["choices"] = []
    if usage is not None:
        document["usage"] = {**usage, "total_tokens": sum(usage.values())}
    document["obfuscation"] = "k3Fq9Zx2"
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _claude_stream(model: str, chunks: int) -> tuple[bytes, ...]:
    """Anthropic's events, each content event a piece of its own. Source: Anthropic API, "Streaming messages"."""
    message = {**_claude_message(model), "content": [], "stop_reason": None, "usage": _claude_usage(1)}
    start = {"index": 0, "content_block": {"type": "text", "text": ""}}
    cycle = [_claude_event("content_block_delta", {"index": 0, "delta": _text_delta(word)}) for word in WORDS]
    first = _claude_event("message_start", {"message": message}) + _claude_event("content_block_start", start)
    end = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": chunks}}
    last = (
        _claude_event("content_block_stop", {"index": 0})
        + _claude_event("message_delta", end)
        + _claude_event("message_stop", {})
        + b"0\r\n\r\n"
    )
    return (STREAM_HEAD + first, *(cycle[i % len(cycle)] for i in range(chunks)), last)


def _text_delta(text: str) -> dict[str, str]:
    return {"type": "text_delta", "text": text}


def _claude_answer(model: str, words: int) -> tuple[bytes, ...]:
    text = "".join(WORDS[i % len(WORDS)] for i in range(words))
    document = {
        **_claude_message(model),
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": _claude_usage(words),
    }
    return (json_response(json.dumps(document, separators=(",", ":")).encode()),)


def _claude_message(model: str) -> dict[str, Any]:
    head = {"id": "msg_01B4nChM4rkB4nChM4rkB4nC", "type": "message", "role": "assistant", "model": model}
    return {**head, "stop_sequence": None}


def _claude_usage(output_tokens: int) -> dict[str, Any]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": 19, **cached, "output_tokens": output_tokens, "service_tier": "standard"}


def _claude_event(kind: str, fields: dict[str, Any]) -> bytes:
    document = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
    return _chunked(b"event: %b\ndata: %b\n\n" % (kind.encode(), document))


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


def json_answer(model: str, text: str) -> bytes:
    """A whole non-streaming response, head included."""
    document = {
        "id": ANSWER_ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 19, "completion_tokens": 16, "total_tokens": 35},
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
    }
    return json_response(json.dumps(document, separators=(",", ":")).encode())


def json_response(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )


def body(model: str, *, stream: bool = False, tag: str = "", padding_bytes: int = 0) -> bytes:
    """A chat completion request as a client library writes it; ``padding_bytes`` lengthens the prompt."""
    document: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "Answer from the documents, in one paragraph."},
            {"role": "user", "content": "How does a bounded queue keep the tail short?" + "x" * padding_bytes},
        ],
        "temperature": 0.2,
    }
    if stream:
        document["stream"] = True
    if tag:
        document["user"] = tag
    return json.dumps(document, separators=(",", ":")).encode()


def request(path: str, port: int, content: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole POST, ready for ``send``."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "accept: */*",
        "user-agent: bench/1",
        "content-type: application/json",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
