"""A :class:`Call` as the body of Gemini's ``generateContent``; the conversation itself: ``gemini_turns``.

What a call may have, and what becomes of it:

=======================================  =============================================================================
``tools[].schema``                       ``parametersJsonSchema``, as it is: it takes JSON Schema with ``$ref``,
                                         ``anyOf``, ``additionalProperties`` … and passes over what it does not know,
                                         while ``parameters`` would refuse it
``tools[].strict``                       dropped and named: arguments follow the schema as closely as the model can
``tool_choice`` named                    mode ``ANY`` with that one name
``parallel_tools`` false                 dropped and named; true is what Gemini does
JSON schema for the answer               ``responseJsonSchema``; its name and ``strict`` mean nothing here
``service_tier``                         ``flex``, ``priority``; ``default`` and ``standard_only`` → ``standard``;
                                         ``auto`` is left out; others dropped and named
``user``                                 dropped and named
other dialects' own fields (``extra``)   dropped and named
=======================================  =============================================================================

Thinking. Google's own chat endpoint maps efforts like this; models before Gemini 3 know budgets only:

===========================  ======================  =====================================================
the call says                up to Gemini 2.5        from Gemini 3 on
===========================  ======================  =====================================================
effort ``minimal``           1,024 tokens            ``MINIMAL``; models named *pro*: ``LOW``
``low``                      1,024                   ``LOW``
``medium``                   8,192                   ``MEDIUM``
``high``                     24,576                  ``HIGH``
``xhigh``, ``max``           24,576                  ``HIGH``
another effort               dropped and named       dropped and named
a budget                     itself                  itself (accepted for compatibility)
as much as it likes (-1)     -1                      -1
off                          0                       as ``minimal``, and named: it cannot be turned off
shown or not                 ``includeThoughts``     ``includeThoughts``
===========================  ======================  =====================================================

Limits: a model is older if its name says ``gemini-1`` or ``gemini-2``, or is none of Gemini's. Whether a model takes a
level, a budget or a prefill is Google's to know; its refusal is passed on.
Source: Gemini API reference, "GenerationConfig", "FunctionDeclaration"; guides "Gemini thinking", "OpenAI
compatibility", "Structured output"; the types of Google's Python client.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import Call, Encoded, Format, Thinking, ToolChoice
from gateway.dialects.field_names import client_name, is_top_level
from gateway.dialects.gemini_turns import Turns
from gateway.dialects.provider import Quirks

_SAME = (
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("max_tokens", "maxOutputTokens"),
    ("seed", "seed"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("logprobs", "responseLogprobs"),
    ("top_logprobs", "logprobs"),
)
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
_TIERS = {
    "flex": "flex",
    "priority": "priority",
    "standard": "standard",
    "default": "standard",
    "standard_only": "standard",
}
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
_OLDER = re.compile(r"gemini-[12](?!\d)")
_CONFIG = "generationConfig."
_encode = msgspec.json.Encoder().encode


def encode_gemini(call: Call, model: str, quirks: Quirks) -> Encoded:
    """The document.

    Raises:
        RequestError: 400 ``unsupported_by_provider`` or ``invalid_request``.
    """
    if call.prefill and not quirks.prefill:
        param = client_name(call.dialect, "messages")
        why = "this provider does not go on from a last message of the assistant"
        raise RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)
    modern = thinks_in_levels(model)
    turns = Turns(call, signs=modern)
    dropped = [client_name(call.dialect, name) for name in turns.dropped]
    body: dict[str, Any] = {"contents": turns.contents}
    if turns.system:
        body["systemInstruction"] = {"parts": turns.system}
    _tools(call, body, dropped)
    config = _config(call, model, modern, dropped)
    if config:
        body["generationConfig"] = config
    if call.service_tier and call.service_tier != "auto":
        tier = _TIERS.get(call.service_tier)
        if tier is None:
            dropped.append("service_tier")
        else:
            body["serviceTier"] = tier
    if call.user is not None:
        dropped.append(client_name(call.dialect, "user"))
    _add_extra(call, body, dropped)
    return Encoded(body=_encode(body), dropped=tuple(dict.fromkeys(dropped)))


def _add_extra(call: Call, body: dict[str, Any], dropped: list[str]) -> None:
    """The fields that only this dialect has, for a client of the same one, whose broken answer is gone on with."""
    for name, value in call.extra.items():
        if call.dialect == "gemini" and name.startswith(_CONFIG) and is_top_level(name.removeprefix(_CONFIG)):
            body.setdefault("generationConfig", {})[name.removeprefix(_CONFIG)] = value
        elif call.dialect == "gemini" and is_top_level(name):
            body[name] = value
        else:
            dropped.append(name)


def thinks_in_levels(model: str) -> bool:
    """Whether it is a model from Gemini 3 on, which think in levels and sign what they say."""
    name = model.rpartition("/")[2]
    return name.startswith("gemini-") and _OLDER.match(name) is None


def _config(call: Call, model: str, modern: bool, dropped: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for ours, theirs in _SAME:
        value = getattr(call, ours)
        if value is not None:
            config[theirs] = value
    if call.stop:
        config["stopSequences"] = list(call.stop)
    if call.n != 1:
        config["candidateCount"] = call.n
    if call.format is not None:
        config.update(_format(call.format))
    if call.thinking is not None:
        thinking, kept = _thinking(call.thinking, model, modern)
        if thinking:
            config["thinkingConfig"] = thinking
        if not kept:
            dropped.append(client_name(call.dialect, "reasoning_effort"))
    return config


def _format(asked: Format) -> dict[str, Any]:
    if asked.kind == "text":
        return {}
    made: dict[str, Any] = {"responseMimeType": "application/json"}
    if asked.kind == "schema":
        made["responseJsonSchema"] = asked.schema
    return made


def _thinking(asked: Thinking, model: str, modern: bool) -> tuple[dict[str, Any], bool]:
    """``thinkingConfig``, and whether it says all that was asked for."""
    made: dict[str, Any] = {}
    kept = True
    effort = asked.effort.lower()
    if asked.off and not modern:
        made["thinkingBudget"] = 0
    elif asked.off:
        made["thinkingLevel"], kept = _level("minimal", model), False
    elif effort in _LEVELS:
        made |= {"thinkingLevel": _level(effort, model)} if modern else {"thinkingBudget": _BUDGETS[effort]}
    elif asked.budget_tokens is not None:
        made["thinkingBudget"] = asked.budget_tokens
    elif effort:
        kept = False
    if asked.show is not None:
        made["includeThoughts"] = asked.show
    return made, kept


def _level(effort: str, model: str) -> str:
    level = _LEVELS[effort]
    return "LOW" if level == "MINIMAL" and "pro" in model.split("-") else level


def _tools(call: Call, body: dict[str, Any], dropped: list[str]) -> None:
    declared: list[dict[str, Any]] = []
    for tool in call.tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.schema:
            function["parametersJsonSchema"] = tool.schema
        declared.append(function)
        if tool.cached:
            dropped.append("cache_control")
        if tool.strict:
            dropped.append("tools[].strict")
    if declared:
        body["tools"] = [{"functionDeclarations": declared}]
    if call.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _choice(call.tool_choice)}
    if call.parallel_tools is False and declared:
        dropped.append(client_name(call.dialect, "parallel_tool_calls"))


def _choice(choice: ToolChoice) -> dict[str, Any]:
    made: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode == "named":
        made["allowedFunctionNames"] = [choice.name]
    return made
