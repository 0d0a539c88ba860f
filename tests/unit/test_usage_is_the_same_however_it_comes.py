"""Promise: what OpenAI's dialect says of tokens means the same, streamed or whole, passed through or translated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.chat_reader import ChatReader
from gateway.dialects.chat_stream import ChatStream, read_answer
from gateway.dialects.events import Event

XAI = {
    "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115,
    "completion_tokens_details": {"reasoning_tokens": 100},
}  # fmt: skip
VARIANTS: list[tuple[dict[str, Any], Usage | None]] = [
    (
        {
            "prompt_tokens": 10, "completion_tokens": 105, "total_tokens": 115,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 100},
        },
        Usage(
            prompt_tokens=10, completion_tokens=105, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=100
        ),
    ),
    (XAI, Usage(prompt_tokens=10, completion_tokens=105, reasoning_tokens=100)),
    (
        {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 90, "prompt_cache_miss_tokens": 10},
        Usage(prompt_tokens=100, completion_tokens=5, cached_tokens=90),
    ),
    (
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12},
        Usage(prompt_tokens=19, completion_tokens=13, cached_tokens=12),
    ),
    ({"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None}, Usage(prompt_tokens=7)),
    ({"prompt_tokens": -1, "completion_tokens": 1}, None),
    ({"prompt_tokens": 10**12}, None),
    ({"prompt_tokens": "5"}, None),
]  # fmt: skip


def whole(usage: dict[str, Any]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    return json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()


def streamed(usage: dict[str, Any]) -> bytes:
    said = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks = [{"choices": [said]}, {"choices": [ended]}, {"choices": [], "usage": usage}]
    return (
        b"".join(b"data: " + json.dumps({"id": "x", **one}).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize(("said", "meant"), VARIANTS)
def test_it_means_the_same_streamed_and_whole_passed_and_translated(said: dict[str, Any], meant: Usage | None) -> None:
    passed = ChatStream(want_usage=False)
    passed.feed(streamed(said))
    reader = ChatReader("")
    events: list[Event] = [*reader.feed(streamed(said)), *reader.end()]
    assert passed.usage == meant
    assert Answer.of(events).usage == meant
    assert read_answer(whole(said)) == (meant, "stop")
    assert Answer.of(ChatReader("").whole(whole(said))).usage == meant
