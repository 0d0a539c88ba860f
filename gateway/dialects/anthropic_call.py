"""An Anthropic request as a :class:`Call`: what a client says in this dialect, for a provider of another one.

Blocks become parts in their order. ``system`` messages between the turns stay where they are.

What this dialect has and a ``Call`` has not:

===========================================  =======================================================================
server tools (``tools[].type``), their       refused, 400: no other provider runs them
blocks, ``mcp_servers``, ``container``
``document`` of text or content blocks       becomes text, under its ``title`` and ``context``
``context`` of another document              becomes text before it
``search_result``                            becomes text: title, source, words
citations, asked for or passed back          dropped and named
``cache_control``                            ``cached`` on texts, media, tools, tool calls and results, with its ``ttl``
a thought with a tool call's signature       the signature of the call behind it (``signatures``)
``thinking`` ``between_tools``               off
``output_config.effort``                     ``Thinking.effort``
``output_config.format``                     ``Format``, strict, named ``answer`` (OpenAI wants a name)
``service_tier`` ``standard_only``           ``default``
fields within these that no shape names      dropped and named by their place (``tools[0].defer_loading`` …)
every other field (``inference_geo``,        ``extra``: dropped by other dialects, and named
``speed``, ``context_management`` …)
===========================================  =======================================================================

Source: Anthropic API reference, "Messages", and the types of Anthropic's Python client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.anthropic_shapes import (
    Choice,
    ClientTool,
    Metadata,
    OutputConfig,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ThinkingConfig,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from gateway.dialects.anthropic_turns import unsupported
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Part,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.signatures import calls
from gateway.dialects.unknown import Known

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "model": msgspec.json.Decoder(str),
    "messages": msgspec.json.Decoder(list[Turn]),
    "system": msgspec.json.Decoder(str | list[TextBlock] | None),
    "stream": msgspec.json.Decoder(bool | None),
    "max_tokens": msgspec.json.Decoder(int | None),
    "temperature": msgspec.json.Decoder(float | None),
    "top_p": msgspec.json.Decoder(float | None),
    "top_k": msgspec.json.Decoder(int | None),
    "stop_sequences": msgspec.json.Decoder(list[str] | None),
    "tools": msgspec.json.Decoder(list[ClientTool] | None),
    "tool_choice": msgspec.json.Decoder(Choice | None),
    "thinking": msgspec.json.Decoder(ThinkingConfig | None),
    "output_config": msgspec.json.Decoder(OutputConfig | None),
    "metadata": msgspec.json.Decoder(Metadata | None),
    "service_tier": msgspec.json.Decoder(str | None),
}
_KNOWN = {
    "messages": Known(list[Turn]),
    "system": Known(list[TextBlock]),
    "tools": Known(list[ClientTool]),
    "tool_choice": Known(Choice),
    "thinking": Known(ThinkingConfig),
    "output_config": Known(OutputConfig),
    "metadata": Known(Metadata),
}
_TURNS: dict[type, tuple[str, ...]] = {
    ToolUseBlock: ("assistant",),
    ThinkingBlock: ("assistant",),
    RedactedThinkingBlock: ("assistant",),
    ToolResultBlock: ("user",),
}
_OTHERS_CANNOT = ("mcp_servers", "container")
_MODES: dict[str, Any] = {"any": "required", "tool": "named"}
_TIERS = {"standard_only": "default"}
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def anthropic_call(fields: Mapping[str, msgspec.Raw]) -> Call:
    """The request as a call.

    Args:
        fields: Its top-level fields as the client wrote them; JSON already.

    Raises:
        RequestError: 400 ``invalid_request`` or ``unsupported_by_provider``, naming the field
            (``messages[2].content[0].type``).
    """
    said, extra = _decode(fields)
    system = said.get("system") or ()
    choice = said.get("tool_choice")
    output = said.get("output_config") or OutputConfig()
    metadata = said.get("metadata") or Metadata()
    tier = said.get("service_tier") or ""
    return Call(
        model=said.get("model") or "",
        messages=_messages(said.get("messages") or []),
        system=(Text(text=system),) if isinstance(system, str) else tuple(_text_of(block) for block in system),
        stream=bool(said.get("stream")),
        include_usage=True,
        max_tokens=said.get("max_tokens"),
        temperature=said.get("temperature"),
        top_p=said.get("top_p"),
        top_k=said.get("top_k"),
        stop=tuple(said.get("stop_sequences") or ()),
        tools=_tools(said.get("tools") or []),
        tool_choice=ToolChoice(mode=_MODES.get(choice.type, choice.type), name=choice.name) if choice else None,
        parallel_tools=False if choice and choice.disable_parallel_tool_use else None,
        format=Format(kind="schema", name="answer", schema=output.format.schema, strict=True)
        if output.format
        else None,
        thinking=_thinking(said.get("thinking"), output.effort or ""),
        user=metadata.user_id,
        service_tier=_TIERS.get(tier, tier),
        extra=extra,
        dialect="anthropic",
    )


def _decode(fields: Mapping[str, msgspec.Raw]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a call knows, checked, and the others."""
    said: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in fields.items():
        try:
            value = _DECODERS.get(name, _anything).decode(raw)
            if name in _KNOWN:
                extra.update(_KNOWN[name].others(_anything.decode(raw), name))
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            param = name + path.rstrip("`")
            if param.endswith(".type") and what.startswith("Invalid value"):
                raise unsupported(param, f"{what}; it has no counterpart in the provider's dialect") from None
            raise RequestError("invalid_request", 400, f"{param}: {what}", param=param) from None
        if name in _DECODERS:
            said[name] = value
        elif name in _OTHERS_CANNOT and value:
            raise unsupported(name, "only Anthropic's own API has that")
        elif value is not None:
            extra[name] = value
    return said, extra


def _messages(turns: list[Turn]) -> tuple[Message, ...]:
    names: dict[str, str] = {}  # of the tools that were called, by the call's id
    return tuple(
        Message(role=turn.role, parts=tuple(_parts(turn, f"messages[{place}]", names)))
        for place, turn in enumerate(turns)
    )


def _parts(turn: Turn, param: str, names: dict[str, str]) -> list[Part]:
    if isinstance(turn.content, str):
        return [Text(text=turn.content)] if turn.content else []
    parts: list[Part] = []
    signature = ""  # of the call that comes next
    for place, block in enumerate(turn.content):
        if turn.role not in _TURNS.get(type(block), (turn.role,)):
            param = f"{param}.content[{place}]"
            why = f"a block of this type does not stand in a turn of the role {turn.role!r}"
            raise RequestError("invalid_request", 400, f"{param}: {why}", param=param)
        match block:
            case ToolUseBlock():
                names[block.id] = block.name
                parts.append(_tool_call(block, signature))
                signature = ""
            case ThinkingBlock() if calls(block.signature):
                signature = calls(block.signature)
            case ToolResultBlock():
                parts.append(_result(block, names))
            case _:
                parts += block.read()
    return parts


def _tool_call(block: ToolUseBlock, signature: str) -> ToolCall:
    arguments = _encode(block.input).decode()
    return ToolCall(id=block.id, name=block.name, arguments=arguments, signature=signature, cached=block.cached)


def _result(block: ToolResultBlock, names: dict[str, str]) -> ToolResult:
    content: list[Text | Media] = []
    if isinstance(block.content, str):
        content.append(Text(text=block.content))
    else:
        content += [part for piece in block.content or () for part in piece.read()]
    return ToolResult(
        id=block.tool_use_id,
        name=names.get(block.tool_use_id, ""),
        content=tuple(content),
        is_error=bool(block.is_error),
        cached=block.cached,
    )


def _tools(said: list[ClientTool]) -> tuple[Tool, ...]:
    for place, tool in enumerate(said):
        if tool.type not in (None, "custom"):
            raise unsupported(f"tools[{place}].type", f"{tool.type} is run by Anthropic; no other provider has it")
    return tuple(tool.read() for tool in said)


def _thinking(said: ThinkingConfig | None, effort: str) -> Thinking | None:
    if said is None:
        return Thinking(effort=effort) if effort else None
    if said.type in ("disabled", "between_tools"):
        return Thinking(off=True)
    show = None if said.display is None else said.display == "summarized"
    budget = said.budget_tokens if said.type == "enabled" else (None if effort else -1)
    return Thinking(effort=effort, budget_tokens=budget, show=show)


def _text_of(block: TextBlock) -> Text:
    return Text(text=block.text, cached=block.cached)
