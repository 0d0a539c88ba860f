"""What a client's dialect calls the fields of a :class:`Call`: for saying which were dropped, or are at fault.

The names of OpenAI's chat completions are the default; where a dialect has another one it stands here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

_GEMINI_CONFIG: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "stop": "stopSequences",
    "max_tokens": "maxOutputTokens",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "response_format": "responseSchema",
    "reasoning_effort": "thinkingConfig",
    "show_thoughts": "thinkingConfig.includeThoughts",
}
_NAMES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "openai-responses": {
            "reasoning_effort": "reasoning",
            "response_format": "text.format",
            "max_tokens": "max_output_tokens",
            "show_thoughts": "reasoning.summary",
            "messages": "input",
        },
        "anthropic": {
            "reasoning_effort": "thinking",
            "show_thoughts": "thinking.display",
            "response_format": "output_config.format",
            "filename": "title",
            "stop": "stop_sequences",
            "user": "metadata.user_id",
        },
        "gemini": {
            **{name: f"generationConfig.{theirs}" for name, theirs in _GEMINI_CONFIG.items()},
            "messages": "contents",
            "tool_choice": "toolConfig",
            "service_tier": "serviceTier",
            "filename": "displayName",
        },
    }
)


_NUMBER: Final = re.compile(r"\[\d+\]")


def in_a_header(names: Sequence[str], most_chars: int) -> str:
    """The names in one line: whole ones, and how many there was no room for.

    A long conversation has the same field in each of its messages. What is too long that way is told without their
    numbers, each name once: ``messages[].reasoning``.
    """
    line = ", ".join(names)
    if len(line) <= most_chars:
        return line
    kinds = list(dict.fromkeys(_NUMBER.sub("[]", name) for name in names))
    line = ", ".join(kinds)
    if len(line) <= most_chars:
        return line
    told, room = 0, most_chars - len(f"and {len(kinds)} more")
    for name in kinds:
        room -= len(name) + len(", ")
        if room < 0:
            break
        told += 1
    return ", ".join([*kinds[:told], f"and {len(kinds) - told} more" if told else f"{len(kinds)} fields"])


def is_top_level(name: str) -> bool:
    """Whether a name in ``Call.extra`` is that of a field of the document itself, and not of one within another."""
    return "." not in name and "[" not in name


def client_name(dialect: str, field: str) -> str:
    """The client's name of ``field``, which is given as OpenAI's chat completions call it."""
    return _NAMES.get(dialect, {}).get(field, field)
