"""What Gemini tells of tokens, read and written: ``usageMetadata`` and ``logprobsResult``.

Gemini counts thoughts beside the answer and not in it, so that ``candidatesTokenCount + thoughtsTokenCount`` is a
:class:`Usage`'s completion. What its own tools fed to the model (``toolUsePromptTokenCount``) is prompt; what came from
the cache is among the prompt's tokens.

Log probabilities are OpenAI's entries in the events: the token that was chosen and its alternatives together. Gemini
has two lists of the same length for that, and neither bytes nor, always, the token's text.

Without counterpart: counts by modality, ``trafficType``, token ids, tokens written to the cache.
Source: Gemini API reference, "GenerateContentResponse"; the types of Google's Python client.
"""

from __future__ import annotations

from typing import Any

from gateway.core.facts import Usage
from gateway.dialects.chat_usage import MAX_TOKENS


def usage_of(said: dict[str, Any]) -> Usage | None:
    """``usageMetadata``; None if it holds no count, or something that cannot be one."""
    if not any(name in said for name in ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")):
        return None
    try:
        thoughts = _count(said, "thoughtsTokenCount")
        return Usage(
            prompt_tokens=_count(said, "promptTokenCount") + _count(said, "toolUsePromptTokenCount"),
            completion_tokens=_count(said, "candidatesTokenCount") + thoughts,
            cached_tokens=_count(said, "cachedContentTokenCount"),
            reasoning_tokens=thoughts,
        )
    except ValueError:
        return None


def _count(said: dict[str, Any], name: str) -> int:
    value = said.get(name) or 0
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise ValueError(name)
    return value


def usage_document(usage: Usage) -> dict[str, Any]:
    """``usageMetadata``; ``estimated`` marks one that no provider reported."""
    thoughts = min(usage.reasoning_tokens, usage.completion_tokens)
    document: dict[str, Any] = {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens - thoughts,
        "totalTokenCount": usage.total_tokens,
    }
    if thoughts:
        document["thoughtsTokenCount"] = thoughts
    if usage.cached_tokens:
        document["cachedContentTokenCount"] = usage.cached_tokens
    if usage.estimated:
        document["estimated"] = True
    return document


def logprobs_of(said: Any) -> list[dict[str, Any]]:
    """``logprobsResult`` as OpenAI's entries; empty if it is none."""
    if not isinstance(said, dict):
        return []
    chosen, top = _list(said, "chosenCandidates"), _list(said, "topCandidates")
    made: list[dict[str, Any]] = []
    for place, token in enumerate(chosen):
        others = top[place] if place < len(top) else {}
        others = _list(others, "candidates") if isinstance(others, dict) else []
        if isinstance(token, dict):
            alternatives = [_entry(other) for other in others if isinstance(other, dict)]
            made.append({**_entry(token), "top_logprobs": alternatives})
    return made


def _entry(said: dict[str, Any]) -> dict[str, Any]:
    token, value = said.get("token"), said.get("logProbability")
    text = token if isinstance(token, str) else ""
    number = value if isinstance(value, int | float) else 0.0  # a proto leaves out what is zero
    return {"token": text, "logprob": number, "bytes": list(text.encode("utf-8", "surrogatepass"))}


def logprobs_document(entries: list[Any]) -> dict[str, Any]:
    """OpenAI's entries as ``logprobsResult``."""
    chosen = [_candidate(entry) for entry in entries if isinstance(entry, dict)]
    top = [
        {"candidates": [_candidate(other) for other in _list(entry, "top_logprobs") if isinstance(other, dict)]}
        for entry in entries
        if isinstance(entry, dict)
    ]
    return {"chosenCandidates": chosen, "topCandidates": top}


def _candidate(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry.get("token"), "logProbability": entry.get("logprob")}


def _list(said: dict[str, Any], name: str) -> list[Any]:
    value = said.get(name)
    return value if isinstance(value, list) else []
