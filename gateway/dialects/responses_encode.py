"""A :class:`Call` as a request for a provider that speaks OpenAI's Responses dialect.

What a call has and this dialect has not:

=====================================  =========================================================================
several blocks of instructions         ``instructions``, joined by empty lines
``n`` above 1, prefill                 refused, 400
sounds, videos                         refused, 400
``stop``, ``seed``, penalties,         dropped and named
``top_k``
thoughts in earlier turns              reasoning items, where OpenAI encrypted them (their id begins with ``rs_`` or
                                       the text with ``gAAAA``); those of other providers are dropped and named: it
                                       refuses them
``cached`` marks, names of messages,   dropped and named; this provider caches by itself
an error mark on a tool's result
thinking budget                        ``reasoning.effort``: ``low`` to 1,024 tokens, ``medium`` to 8,192, else ``high``
thinking forbidden                     effort ``none`` if the client spoke a dialect of OpenAI's; else dropped: most
                                       models refuse the word
a function without ``strict``          ``strict: false``, which is the default of all other dialects
``extra``                              of the same name and meaning: passed on; else dropped and named
=====================================  =========================================================================

The response is not stored by the provider unless the client said so. Thoughts are asked for in their encrypted form
where thinking was asked for at all: models that cannot think refuse the wish.

Source: OpenAI API reference, "Create a model response"; guide "Reasoning models"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import Call, Encoded, Format, Thinking, Tool, ToolChoice
from gateway.dialects.field_names import client_name
from gateway.dialects.provider import Quirks
from gateway.dialects.responses_encode_items import input_items

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
LOW_BUDGET_TOKENS, MEDIUM_BUDGET_TOKENS = 1_024, 8_192
_OPENAI = ("openai", "openai-responses")
_SHARED = frozenset(
    {"metadata", "store", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
)  # the same in chat completions
_WITHOUT = ("seed", "presence_penalty", "frequency_penalty", "top_k")
_encode = msgspec.json.Encoder().encode


def encode_responses(call: Call, model: str, quirks: Quirks) -> Encoded:
    """The document.

    Raises:
        RequestError: 400 ``unsupported_by_provider``, naming the field.
    """
    _refuse(call)
    dropped: dict[str, None] = {}
    body: dict[str, Any] = {"model": model, "input": input_items(call, quirks, dropped)}
    if call.system:
        body["instructions"] = "\n\n".join(text.text for text in call.system)
        if any(text.cached for text in call.system):
            dropped["cache_control"] = None
    body["store"] = False
    if call.stream:
        body["stream"] = True
    _sampling(call, body, dropped)
    _tools(call, body, dropped)
    _thinking(call, body, dropped)
    if call.format is not None:
        body["text"] = {"format": _format(call.format)}
    _extra(call, body, dropped)
    for name in quirks.drops:
        if body.pop(name, None) is not None and (name != "store" or "store" in call.extra):
            dropped[client_name(call.dialect, name)] = None
    return Encoded(body=_encode(body), dropped=tuple(dropped))


def _refuse(call: Call) -> None:
    if call.n > 1:
        raise _unsupported(client_name(call.dialect, "n"), "this provider gives one answer per request")
    if call.prefill:
        name = client_name(call.dialect, "messages")
        raise _unsupported(name, "this provider does not go on from a last message of the assistant")


def _sampling(call: Call, body: dict[str, Any], dropped: dict[str, None]) -> None:
    if call.max_tokens is not None:
        body["max_output_tokens"] = call.max_tokens
    for name in ("temperature", "top_p", "user"):
        if getattr(call, name) is not None:
            body[name] = getattr(call, name)
    if call.service_tier:
        body["service_tier"] = call.service_tier
    if call.logprobs:
        _include(body, LOGPROBS)
        if call.top_logprobs is not None:
            body["top_logprobs"] = call.top_logprobs
    if call.stop:
        dropped[client_name(call.dialect, "stop")] = None
    for name in _WITHOUT:
        if getattr(call, name) is not None:
            dropped[client_name(call.dialect, name)] = None


def _tools(call: Call, body: dict[str, Any], dropped: dict[str, None]) -> None:
    if call.tools:
        body["tools"] = [_tool(tool) for tool in call.tools]
        if any(tool.cached for tool in call.tools):
            dropped["cache_control"] = None
        if call.parallel_tools is not None:
            body["parallel_tool_calls"] = call.parallel_tools
    if call.tool_choice is not None:
        body["tool_choice"] = _choice(call.tool_choice)


def _tool(tool: Tool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "function",
        "name": tool.name,
        "parameters": tool.schema or {"type": "object", "properties": {}},
        "strict": bool(tool.strict),
    }
    if tool.description:
        made["description"] = tool.description
    return made


def _choice(choice: ToolChoice) -> Any:
    return {"type": "function", "name": choice.name} if choice.mode == "named" else choice.mode


def _format(asked: Format) -> dict[str, Any]:
    if asked.kind != "schema":
        return {"type": "json_object" if asked.kind == "json" else "text"}
    made: dict[str, Any] = {"type": "json_schema", "name": asked.name or "answer", "schema": asked.schema}
    if asked.strict is not None:
        made["strict"] = asked.strict
    return made


def _thinking(call: Call, body: dict[str, Any], dropped: dict[str, None]) -> None:
    thinking = call.thinking
    if thinking is None:
        return
    if thinking.off and call.dialect not in _OPENAI:
        dropped[client_name(call.dialect, "reasoning_effort")] = None
        return
    effort = "none" if thinking.off else thinking.effort or _effort_of(thinking)
    reasoning = {"effort": effort} if effort else {}
    if thinking.show:
        reasoning["summary"] = "auto"
    if reasoning:
        body["reasoning"] = reasoning
    if not thinking.off:
        _include(body, ENCRYPTED)


def _effort_of(thinking: Thinking) -> str:
    budget = thinking.budget_tokens
    if budget is None or budget < 0:
        return ""
    return "low" if budget <= LOW_BUDGET_TOKENS else "medium" if budget <= MEDIUM_BUDGET_TOKENS else "high"


def _extra(call: Call, body: dict[str, Any], dropped: dict[str, None]) -> None:
    for name, value in call.extra.items():
        if call.dialect == "openai" and name == "verbosity":
            body.setdefault("text", {})["verbosity"] = value
        elif call.dialect == "openai" and name in _SHARED:
            body[name] = value
        elif call.dialect == "openai-responses" and name == "include":
            _include(body, *value)
        elif call.dialect == "openai-responses" and name.startswith(("text.", "reasoning.")):
            group, _, field = name.partition(".")
            body.setdefault(group, {})[field] = value
        elif call.dialect == "openai-responses" and not (set(name) & set(".[: ")):
            body[name] = value
        else:
            dropped[name] = None


def _include(body: dict[str, Any], *names: str) -> None:
    body["include"] = list(dict.fromkeys([*body.get("include", ()), *names]))


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)
