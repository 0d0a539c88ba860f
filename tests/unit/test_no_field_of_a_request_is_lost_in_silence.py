"""Promise: each field that a client may send reaches the provider, or is refused by name, or is named as dropped.

Every field that the types of Anthropic's, Google's and OpenAI's libraries know is set, one at a time. If the request
to a provider of another dialect is the same with it and without it, its name has to be among the dropped ones. What
makes no difference because it says what holds anyhow stands in :data:`SAYS_NOTHING`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from google.genai import types as google
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import BaseModel

from gateway.core.errors import RequestError
from gateway.dialects import anthropic_request, gemini_request, openai_chat
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.bedrock import BedrockConverse
from gateway.dialects.call import Call
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.gemini import Gemini
from gateway.dialects.provider import ProviderDialect, Quirks
from gateway.dialects.responses_provider import ResponsesProvider
from tests.unit.documented_fields import Case, Fields

OPENROUTER = Quirks(reasoning_field="reasoning", reasoning_back=True)
PROVIDERS: dict[str, tuple[ProviderDialect, str]] = {
    "openai": (OpenAIChat(), "gpt-5"),
    "openrouter": (OpenAIChat(quirks=OPENROUTER), "auto"),
    "responses": (ResponsesProvider(), "gpt-5"),
    "anthropic": (Anthropic(), "claude-sonnet-4-5"),
    "gemini": (Gemini(), "gemini-3-pro"),
    "bedrock": (BedrockConverse(), "anthropic.claude-sonnet-4-5"),
    "llama": (BedrockConverse(), "meta.llama3"),
}
PNG, JPEG = "iVBORw0KGgoAAAAN", "/9j/4AAQSkZJRgAB"
VALUES = {
    "tool_use_id": ("call_1", "call_2"),
    "tool_call_id": ("call_1", "call_2"),
    "arguments": ('{"a":1}', '{"a":2}'),
    "data": (PNG, JPEG),
    "media_type": ("image/png", "image/jpeg"),
    "mimeType": ("image/png", "image/jpeg"),
    "url": ("https://x/y.png", f"data:image/png;base64,{PNG}"),
}
ALIASES = {  # what the header calls what the client called otherwise
    "signature": "reasoning",
    "thinking": "reasoning",
    "data": "reasoning",
    "effort": "thinking",
    "reasoning_effort": "thinkingConfig",
}
SAYS_NOTHING = [
    # Objects without anything in them, and what is the default.
    r"\.metadata\?", r"\.output_config\?", r"\.toolConfig\?", r"\.generationConfig\?", r"\.systemInstruction\?",
    r"\.thinkingConfig\?", r"\.functionCallingConfig\?", r"\.parts\?", r"\.contents\?", r"parameters\?",
    r"\.service_tier\?", r"\.tool_choice\?", r"tools\[\]\.type\?", r"cache_control<ephemeral>\.ttl\?", r"\.stream\?",
    r"\.mode=AUTO", r"\.mode\?", r"detail\?", r"\.modalities\?", r"parallel_tool_calls\?", r"reasoning_effort\?",
    r"\.nullable\??$", r"\.propertyOrdering(\[\]|\?)", r"displayName\?", r"mimeType\?", r"response_format\?",
    # The next best: the highest level of all, the same level for budgets that are nearly the same.
    r"effort=(minimal|low|high|xhigh|max)", r"budget_tokens", r"thinkingBudget",
    # A name that nobody sees, strictness where nothing else is known, usage that always comes.
    r"json_schema\.(name|strict)", r"stream_options",
    # Names of tools that are not there; alternatives to log probabilities that were not asked for.
    r"allowedFunctionNames", r"\.logprobs", r"\.top_logprobs",
]  # fmt: skip


class Wire(BaseModel):
    """A request of Google's, whose library has no type for it."""

    contents: list[google.Content] | None = None
    system_instruction: google.Content | None = None
    tools: list[google.Tool] | None = None
    tool_config: google.ToolConfig | None = None
    safety_settings: list[google.SafetySetting] | None = None
    generation_config: google.GenerationConfig | None = None
    cached_content: str | None = None
    service_tier: str | None = None
    labels: dict[str, str] | None = None
    store: bool | None = None


def anthropics(said: dict[str, Any]) -> Call:
    uses = [{"type": "tool_use", "id": f"call_{n}", "name": "t", "input": {}} for n in (1, 2)]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": uses}, *said.get("messages", ())]
    turns += [{"role": "user", "content": "end"}] if turns[-1]["role"] != "user" else []
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    document = {"max_tokens": 3000, "tools": tools, **said, "model": "m", "messages": turns}
    return anthropic_request.parse_request(json.dumps(document).encode()).call()


def openais(said: dict[str, Any]) -> Call:
    uses = [{"id": f"call_{n}", "type": "function", "function": {"name": "t", "arguments": "{}"}} for n in (1, 2)]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": uses}, *said.get("messages", ())]
    turns += [{"role": "user", "content": "end"}] if turns[-1]["role"] != "user" else []
    tools = [{"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}]
    document = {"tools": tools, **said, "model": "m", "messages": turns}
    return openai_chat.parse_request(json.dumps(document).encode()).call()


def googles(said: dict[str, Any]) -> Call:
    called = {"functionCall": {"name": "t", "args": {}, "id": "call_1"}}
    contents = [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [called]}]
    tools = [{"functionDeclarations": [{"name": "t", "parameters": {"type": "OBJECT"}}]}]
    document = {"tools": tools, **said, "contents": contents + [whole(each) for each in said.get("contents") or ()]}
    for tool in document["tools"] or ():
        for function in tool.get("functionDeclarations") or ():
            function.setdefault("name", "f")
    config = document.get("generationConfig") or {}
    if {"responseSchema", "responseJsonSchema"} & config.keys():
        config.setdefault("responseMimeType", "application/json")
    return gemini_request.parse_request(json.dumps(document).encode(), model="m", stream=False).call()


def whole(content: dict[str, Any]) -> dict[str, Any]:
    """With what Google's types do not say is required."""
    needs = {
        "functionResponse": {"name": "t"},
        "functionCall": {"name": "t"},
        "inlineData": {"data": PNG, "mimeType": "image/png"},
        "fileData": {"fileUri": "https://x/y.png", "mimeType": "image/png"},
    }
    parts = [
        {name: {**needs[name], **value} if name in needs else value for name, value in part.items()}
        for part in content.get("parts") or ()
    ]
    return {**content, "parts": parts}


def outcome(call: Callable[[], Call], provider: str) -> tuple[bytes, tuple[str, ...]] | None:
    """What the provider gets and what is dropped; None for a refusal."""
    dialect, model = PROVIDERS[provider]
    try:
        made = dialect.encode(call(), model)
    except RequestError:
        return None
    return made.body, made.dropped


def is_named(path: str, dropped: Iterable[str]) -> bool:
    said = set(re.findall(r"\w+", re.sub(r"<\w*>", "", path)))
    said |= {ALIASES[name] for name in said & ALIASES.keys()}
    said -= {"messages", "contents", "content", "parts", "tools", "generationConfig"}
    return any(said & set(re.findall(r"\w+", name)) for name in dropped)


def lost(case: Case, read: Callable[[dict[str, Any]], Call], providers: Iterable[str]) -> list[str]:
    """Where the field makes no difference, and nobody says so."""
    silent = []
    for provider in providers:
        got = outcome(lambda: read(case.document), provider)
        if got is None or is_named(case.path, got[1]):
            continue
        if got == outcome(lambda: read(case.other), provider):
            silent.append(f"{case.path}: {provider}")
    return silent


@pytest.mark.parametrize(
    ("client", "shape", "read"),
    [
        ("anthropic", MessageCreateParamsNonStreaming, anthropics),
        ("openai", CompletionCreateParamsNonStreaming, openais),
        ("gemini", Wire, googles),
    ],
)
def test_every_documented_field_arrives_or_is_named(
    client: str, shape: Any, read: Callable[[dict[str, Any]], Call]
) -> None:
    nothing = re.compile("|".join([r"^\.model", *SAYS_NOTHING]))
    cases = [case for case in Fields(VALUES).cases(shape) if not nothing.search(case.path)]
    assert len(cases) > 150
    others = [name for name in PROVIDERS if name != client and not (client == "openai" and name == "openrouter")]
    assert [each for case in cases for each in lost(case, read, others)] == []
