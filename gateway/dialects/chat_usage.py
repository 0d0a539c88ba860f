"""OpenAI's ``usage``: read from providers, with the ways in which compatible ones differ, and written for clients.

Source: OpenAI API reference; DeepSeek on ``prompt_cache_hit_tokens``, Kimi on ``cached_tokens``, xAI on reasoning
tokens.
"""

from __future__ import annotations

from typing import Any

from gateway.core.facts import Usage

MAX_TOKENS = 1_000_000_000  # a usage beyond that is no count


def usage_of(said: dict[str, Any]) -> Usage | None:
    """OpenAI's ``usage`` and its variants; None if that is no count of tokens."""
    prompt, completion = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    prompt = prompt if isinstance(prompt, dict) else {}
    completion = completion if isinstance(completion, dict) else {}
    asked, answered = said.get("prompt_tokens") or 0, said.get("completion_tokens") or 0
    # OpenAI's place for it; DeepSeek's; Kimi's.
    cached = prompt.get("cached_tokens") or said.get("prompt_cache_hit_tokens") or said.get("cached_tokens") or 0
    written, reasoning = prompt.get("cache_write_tokens") or 0, completion.get("reasoning_tokens") or 0
    for count in (asked, answered, cached, written, reasoning):
        if type(count) is not int or not 0 <= count <= MAX_TOKENS:
            return None
    if reasoning and said.get("total_tokens") == asked + answered + reasoning:
        answered += reasoning  # xAI counts them apart
    return Usage(
        prompt_tokens=asked,
        completion_tokens=answered,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
    )


def usage_document(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage``; ``estimated`` marks one that no provider reported."""
    prompt: dict[str, int] = {"cached_tokens": usage.cached_tokens}
    if usage.cache_write_tokens:
        prompt["cache_write_tokens"] = usage.cache_write_tokens
    document: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if usage.estimated:
        document["estimated"] = True
    return document
