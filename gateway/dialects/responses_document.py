"""Response documents of OpenAI's Responses API: what streams and whole answers have in common.

A document repeats what the client asked for (:class:`Echo`); what it did not say is the API's documented default, or
null where that is the model's business.

What an answer has and this dialect has not:

================================  ==============================================================================
choices but the first             left out (a request in this dialect asks for one)
thoughts                          a reasoning item's ``summary``, whether summed up or in full
signatures, others' encrypted     ``encrypted_content`` under a mark, see ``responses_marks``
thoughts
the matched stop sequence         left out (a request in this dialect has none)
finish ``length``                 ``incomplete``, ``max_output_tokens``
finish ``content_filter``, and    ``incomplete``, ``content_filter``
``refusal`` without words
finish ``error``                  ``failed``, ``server_error``
finish ``pause``                  ``completed``
estimated usage                   ``usage.estimated: true``
================================  ==============================================================================

Source: OpenAI API reference, "The response object"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.events import Finished

Status = Literal["in_progress", "completed", "incomplete", "failed"]

FAILED: Final = {"code": "server_error", "message": "the provider failed while it answered"}
_DEFAULTS: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_NULL: Final = b"null"


class Echo:
    """What every document of one response says in the same words.

    Args:
        fields: The request's, as the client wrote them.
        model: Named where the provider does not say which model answers.
    """

    def __init__(self, fields: Mapping[str, msgspec.Raw], model: str) -> None:
        said = {name: raw for name, raw in fields.items() if name in _DEFAULTS and bytes(raw) != _NULL}
        self._said: dict[str, Any] = _DEFAULTS | said
        self._model = model

    def document(
        self,
        id: str,
        *,
        status: Status,
        created: int,
        model: str = "",
        output: list[dict[str, Any]] | None = None,
        usage: Usage | None = None,
        incomplete: str | None = None,
        error: dict[str, str] | None = None,
        completed: int | None = None,
    ) -> dict[str, Any]:
        """A response.

        Args:
            created, completed: Unix seconds.
            incomplete: Why it is.
        """
        return {
            "id": id,
            "object": "response",
            "created_at": created,
            "completed_at": completed,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "model": model or self._model,
            "output": output or [],
            "usage": usage_document(usage) if usage is not None else None,
            **self._said,
        }


def ending(finished: Finished | None, *, refused: bool) -> tuple[Status, str | None]:
    """Status and reason of an answer that ended so."""
    reason = finished.reason if finished is not None else "stop"
    if reason == "length":
        return "incomplete", "max_output_tokens"
    if reason == "content_filter" or (reason == "refusal" and not refused):
        return "incomplete", "content_filter"
    return ("failed", None) if reason == "error" else ("completed", None)


def usage_document(usage: Usage) -> dict[str, Any]:
    """``usage``; ``estimated`` marks one that no provider reported."""
    document: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
    if usage.estimated:
        document["estimated"] = True
    return document


def logprob_documents(entries: Any) -> list[dict[str, Any]]:
    """Chat's log probabilities in the form of this dialect, which wants the bytes of each token."""
    made: list[dict[str, Any]] = []
    for entry in entries or ():
        if isinstance(entry, dict) and isinstance(entry.get("token"), str):
            top = entry.get("top_logprobs")
            others = [_logprob(other) for other in top if isinstance(other, dict)] if isinstance(top, list) else []
            made.append({**_logprob(entry), "top_logprobs": others})
    return made


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    token = entry.get("token") or ""
    known = entry.get("bytes")
    data = known if isinstance(known, list) else list(str(token).encode(errors="replace"))
    return {"token": token, "bytes": data, "logprob": entry.get("logprob") or 0.0}
