"""An OpenAI Responses request as a :class:`Call`: what a client says in this dialect, for a provider of another one.

Items become turns: reasoning, messages of the assistant and function calls that follow each other are one turn of the
assistant, function outputs that follow each other one of the user. Leading instructions go to ``Call.system``, behind
``instructions``; later ones stay where they are. ``null`` says the same as nothing. The items of earlier responses that
the gateway has kept (``history``) stand before the request's own.

What this dialect has and a ``Call`` has not:

================================================  ================================================================
tools that the provider runs (``web_search``,     refused, 400, naming the tool; so is a ``tool_choice`` of one
``file_search``, ``computer``, ``mcp`` …),        and its items in ``input`` (those of kept responses are dropped
``custom``, ``namespace``                         and named)
``prompt``, ``conversation``                      refused, 400: only the provider has them
``previous_response_id``, ``item_reference``      looked up in the gateway's store; refused, 404, if unknown there
``tool_choice`` ``allowed_tools``                 only those tools are passed on, with its mode
``text.format.description``                       becomes the schema's ``description``
``tools[].strict`` not given                      the provider's default (here it would be true)
``reasoning.summary``                             the provider's thoughts are asked for, in whatever form it has
``include``                                       thoughts always come with what encrypts or signs them; log
                                                  probabilities are asked for; what belongs to hosted tools is dropped
``top_logprobs`` without its ``include``          dropped: it does nothing here
``truncation`` ``auto``                           dropped: no other provider shortens a prompt
``store``                                         the gateway's own: it keeps the response, whoever answered
``phase``, ``status``, annotations of items       left out: they say nothing to other providers
every other field (``metadata``, ``text.``        ``extra``: passed on where the other dialect has the same field,
``verbosity``, ``max_tool_calls`` …)              else dropped and named
================================================  ================================================================

Source: OpenAI API reference, "Create a model response"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import Call, Text, Thinking, Tool, ToolChoice
from gateway.dialects.responses_items import Conversation, invalid, unsupported
from gateway.dialects.responses_shapes import AllowedTools, FunctionTool, NamedTool, TextConfig

ALONE = "it is run by the provider, and only one of dialect openai-responses has it"
LOGPROBS = "message.output_text.logprobs"
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "model": msgspec.json.Decoder(str),
    "input": msgspec.json.Decoder(str | list[msgspec.Raw] | None),
    "instructions": msgspec.json.Decoder(str | None),
    "stream": msgspec.json.Decoder(bool | None),
    "max_output_tokens": msgspec.json.Decoder(int | None),
    "temperature": msgspec.json.Decoder(float | None),
    "top_p": msgspec.json.Decoder(float | None),
    "top_logprobs": msgspec.json.Decoder(int | None),
    "tools": msgspec.json.Decoder(list[dict[str, Any]] | None),
    "tool_choice": msgspec.json.Decoder(
        Literal["none", "auto", "required"] | NamedTool | AllowedTools | None,
    ),
    "parallel_tool_calls": msgspec.json.Decoder(bool | None),
    "text": msgspec.json.Decoder(TextConfig | None),
    "reasoning": msgspec.json.Decoder(dict[str, Any] | None),
    "include": msgspec.json.Decoder(list[str] | None),
    "user": msgspec.json.Decoder(str | None),
    "service_tier": msgspec.json.Decoder(str | None),
    "truncation": msgspec.json.Decoder(str | None),
    "stream_options": msgspec.json.Decoder(dict[str, Any] | None),
}
_OURS = frozenset({"store", "background", "previous_response_id"})
_OTHERS_CANNOT = ("prompt", "conversation")
_TOOL_FIELDS = {"type", *FunctionTool.__struct_fields__}
_anything = msgspec.json.Decoder()


def responses_call(
    fields: Mapping[str, msgspec.Raw],
    *,
    history: Sequence[msgspec.Raw] = (),
    items: Mapping[str, msgspec.Raw] | None = None,
) -> Call:
    """The request as a call.

    Args:
        fields: Its top-level fields as the client wrote them; JSON already.
        history: Input and output items of the responses before it, oldest first.
        items: Kept items by their ids, for ``item_reference``.

    Raises:
        RequestError: 400 ``invalid_request`` or ``unsupported_by_provider``, naming the field (``input[2].type``);
            404 for a reference that is not known.
    """
    said, extra = _decode(fields)
    tools = _tools(said.get("tools") or [], extra)
    choice, tools = _tool_choice(said.get("tool_choice"), tools)
    conversation = Conversation(extra, items or {})
    conversation.add_kept(history)
    conversation.add(said.get("input") or [])
    instructions = said.get("instructions")
    text = said.get("text") or TextConfig()
    if text.verbosity:
        extra["text.verbosity"] = text.verbosity
    logprobs = _included(said, extra)
    return Call(
        model=said.get("model") or "",
        messages=conversation.messages(),
        system=(*((Text(text=instructions),) if instructions else ()), *conversation.system),
        stream=bool(said.get("stream")),
        include_usage=True,
        max_tokens=said.get("max_output_tokens"),
        temperature=said.get("temperature"),
        top_p=said.get("top_p"),
        logprobs=True if logprobs else None,
        top_logprobs=said.get("top_logprobs") if logprobs else None,
        tools=tuple(tools),
        tool_choice=choice,
        parallel_tools=said.get("parallel_tool_calls"),
        format=text.format.read() if text.format is not None else None,
        thinking=_thinking(said.get("reasoning") or {}, extra),
        user=said.get("user"),
        service_tier=said.get("service_tier") or "",
        extra=extra,
        dialect="openai-responses",
    )


def _decode(fields: Mapping[str, msgspec.Raw]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a call knows, checked, and the others."""
    said: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in fields.items():
        if name in _OURS:
            continue
        try:
            value = _DECODERS.get(name, _anything).decode(raw)
        except msgspec.ValidationError as error:
            if name == "tool_choice":
                raise _wrong_choice(raw) from None
            raise invalid(name, error) from None
        if name in _DECODERS:
            said[name] = value
        elif value is not None:
            if name in _OTHERS_CANNOT:
                raise unsupported(name, "only a provider of dialect openai-responses has that")
            extra[name] = value
    if said.get("truncation") == "auto":
        extra["truncation"] = "auto"
    if (said.get("stream_options") or {}).get("include_obfuscation"):
        extra["stream_options.include_obfuscation"] = True
    return said, extra


def _wrong_choice(raw: msgspec.Raw) -> RequestError:
    choice = _anything.decode(raw)
    kind = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(kind, str) and kind not in ("function", "allowed_tools"):
        return unsupported("tool_choice.type", f"{kind}: {ALONE}")
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        for place, tool in enumerate(choice["tools"]):
            if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] != "function":
                return unsupported(f"tool_choice.tools[{place}].type", f"{tool['type']}: {ALONE}")
    what = "neither none, auto, required, nor a function or allowed_tools with its fields"
    return RequestError("invalid_request", 400, f"tool_choice: {what}", param="tool_choice")


def _tools(said: list[dict[str, Any]], extra: dict[str, Any]) -> list[Tool]:
    tools = []
    for place, tool in enumerate(said):
        kind = tool.get("type")
        if kind != "function":
            raise unsupported(f"tools[{place}].type", f"{kind}: {ALONE}")
        try:
            tools.append(msgspec.convert(tool, FunctionTool).read())
        except msgspec.ValidationError as error:
            raise invalid(f"tools[{place}]", error) from None
        for name in tool.keys() - _TOOL_FIELDS:
            extra[f"tools[{place}].{name}"] = tool[name]
    return tools


def _tool_choice(said: Any, tools: list[Tool]) -> tuple[ToolChoice | None, list[Tool]]:
    if said is None:
        return None, tools
    if isinstance(said, NamedTool):
        return ToolChoice(mode="named", name=said.name), tools
    if isinstance(said, AllowedTools):
        allowed = {tool.name for tool in said.tools}
        return ToolChoice(mode=said.mode), [tool for tool in tools if tool.name in allowed]
    return ToolChoice(mode=said), tools


def _included(said: dict[str, Any], extra: dict[str, Any]) -> bool:
    """Whether log probabilities are to be in the answer; what else was to be and cannot is dropped."""
    wanted = said.get("include") or []
    others = [name for name in wanted if name not in (LOGPROBS, "reasoning.encrypted_content")]
    if others:
        extra["include"] = others
    if said.get("top_logprobs") and LOGPROBS not in wanted:
        extra["top_logprobs"] = said["top_logprobs"]
    return LOGPROBS in wanted


def _thinking(said: dict[str, Any], extra: dict[str, Any]) -> Thinking | None:
    effort, summary = said.get("effort") or "", said.get("summary") or said.get("generate_summary")
    for name in ("effort", "summary", "generate_summary"):
        if not isinstance(said.get(name), str | None):
            param = f"reasoning.{name}"
            raise RequestError("invalid_request", 400, f"{param}: Expected `str | null`", param=param)
    for name, value in said.items():
        if name not in ("effort", "summary", "generate_summary") and value is not None:
            extra[f"reasoning.{name}"] = value
    if not effort and not summary:
        return None
    return Thinking(effort=effort, off=effort == "none", show=True if summary else None)
