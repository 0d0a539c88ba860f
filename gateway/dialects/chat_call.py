"""An OpenAI chat request as a :class:`Call`: what a client says in this dialect, for a provider of another one.

Texts, media, tool calls, tool results and thoughts become parts; the sampling fields have the same names on both
sides. The order in an assistant's turn is: thoughts, text or refusal, tool calls. Leading instructions go to
``Call.system``; later ones (and any with a ``name``) stay messages. ``tool`` messages become results in a ``user``
message, those that follow each other in one. ``null`` says the same as nothing.

What the chat dialect has and a ``Call`` has not:

==============================================  ================================================================
``functions``, ``function_call``, role          refused, 400: deprecated; ``tools`` say the same
``function``
``tools[].type`` ``custom``                     refused, 400: its calls have no JSON arguments
``modalities`` with ``audio``,                  refused, 400: a spoken answer must not become a written one
``messages[].audio``
``tool_choice.allowed_tools``                   only those tools are passed on, with its mode
``response_format.json_schema.description``     becomes the schema's ``description``
``image_url.detail``                            kept; dialects without it leave it out
``cache_control``, ``prompt_cache_breakpoint``  ``cached`` on the text or medium
fields within these that no shape names         dropped and named by their place
every other field (``logit_bias``, ``store``,   ``extra``: passed on to chat providers, else dropped and named
``metadata``, ``prediction``, ``verbosity`` …)
==============================================  ================================================================

Beyond OpenAI's own: ``reasoning_content`` (DeepSeek), ``reasoning`` and ``reasoning_details`` (OpenRouter; with the
signatures in them), ``extra_content.google.thought_signature`` of a tool call (Gemini), ``video_url`` (vLLM, Qwen),
``thinking`` parts and ``prefix`` (Mistral, DeepSeek), ``top_k``.

Source: OpenAI API reference, "Create chat completion", and the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import (
    Call,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from gateway.dialects.chat_shapes import (
    AllowedTools,
    ChatMessage,
    ChatTool,
    JsonFormat,
    NamedTool,
    ReasoningDetail,
    SchemaFormat,
    TextFormat,
)
from gateway.dialects.unknown import Known

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "model": msgspec.json.Decoder(str),
    "messages": msgspec.json.Decoder(list[ChatMessage]),
    "stream": msgspec.json.Decoder(bool | None),
    "stream_options": msgspec.json.Decoder(dict[str, Any] | None),
    "max_tokens": msgspec.json.Decoder(int | None),
    "max_completion_tokens": msgspec.json.Decoder(int | None),
    "temperature": msgspec.json.Decoder(float | None),
    "top_p": msgspec.json.Decoder(float | None),
    "top_k": msgspec.json.Decoder(int | None),
    "stop": msgspec.json.Decoder(str | list[str] | None),
    "seed": msgspec.json.Decoder(int | None),
    "n": msgspec.json.Decoder(int | None),
    "presence_penalty": msgspec.json.Decoder(float | None),
    "frequency_penalty": msgspec.json.Decoder(float | None),
    "logprobs": msgspec.json.Decoder(bool | None),
    "top_logprobs": msgspec.json.Decoder(int | None),
    "tools": msgspec.json.Decoder(list[ChatTool] | None),
    "tool_choice": msgspec.json.Decoder(Literal["none", "auto", "required"] | NamedTool | AllowedTools | None),
    "parallel_tool_calls": msgspec.json.Decoder(bool | None),
    "response_format": msgspec.json.Decoder(TextFormat | JsonFormat | SchemaFormat | None),
    "reasoning_effort": msgspec.json.Decoder(str | None),
    "user": msgspec.json.Decoder(str | None),
    "service_tier": msgspec.json.Decoder(str | None),
    "modalities": msgspec.json.Decoder(list[str] | None),
}
_anything = msgspec.json.Decoder()
_KNOWN = {
    "messages": Known(list[ChatMessage]),
    "tools": Known(list[ChatTool]),
    "tool_choice": Known(NamedTool | AllowedTools),
    "response_format": Known(TextFormat | JsonFormat | SchemaFormat),
}
_REPLACED = {"functions": "tools", "function_call": "tool_choice"}


def chat_call(fields: Mapping[str, msgspec.Raw]) -> Call:
    """The request as a call.

    Args:
        fields: Its top-level fields as the client wrote them; JSON already.

    Raises:
        RequestError: 400 ``invalid_request`` or ``unsupported_by_provider``; names the field, as ``messages[2].role``.
    """
    said, extra = _decode(fields)
    for name in _KNOWN.keys() & fields.keys():
        extra.update(_KNOWN[name].others(_anything.decode(fields[name]), name))
    choice, tools = _tool_choice(said.get("tool_choice"), [tool.read() for tool in said.get("tools") or ()])
    options = dict(said.get("stream_options") or {})
    include_usage = bool(options.pop("include_usage", False))
    if options:
        extra["stream_options"] = options
    if any(modality != "text" for modality in said.get("modalities") or ()):
        raise _unsupported("modalities", "an answer in sound cannot be translated to this provider")
    system, messages, prefill = _conversation(said.get("messages") or [])
    stop = said.get("stop")
    effort = said.get("reasoning_effort") or ""
    limit = said.get("max_completion_tokens")
    return Call(
        model=said.get("model") or "",
        messages=messages,
        system=system,
        stream=bool(said.get("stream")),
        include_usage=include_usage,
        max_tokens=limit if limit is not None else said.get("max_tokens"),
        temperature=said.get("temperature"),
        top_p=said.get("top_p"),
        top_k=said.get("top_k"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        seed=said.get("seed"),
        n=said.get("n") or 1,
        presence_penalty=said.get("presence_penalty"),
        frequency_penalty=said.get("frequency_penalty"),
        logprobs=said.get("logprobs"),
        top_logprobs=said.get("top_logprobs"),
        tools=tuple(tools),
        tool_choice=choice,
        parallel_tools=said.get("parallel_tool_calls"),
        format=_format(said.get("response_format")),
        thinking=Thinking(effort=effort, off=effort == "none") if effort else None,
        user=said.get("user"),
        service_tier=said.get("service_tier") or "",
        prefill=prefill,
        extra=extra,
        dialect="openai",
    )


def _decode(fields: Mapping[str, msgspec.Raw]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a call knows, checked, and the others."""
    said: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in fields.items():
        try:
            value = _DECODERS.get(name, _anything).decode(raw)
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            param = name + path.rstrip("`")
            raise RequestError("invalid_request", 400, f"{param}: {what}", param=param) from None
        if name in _DECODERS:
            said[name] = value
        elif value is not None:
            if name in _REPLACED:
                raise _unsupported(name, f"deprecated, and not translated to this provider; send {_REPLACED[name]}")
            extra[name] = value
    return said, extra


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)


def _conversation(said: list[ChatMessage]) -> tuple[tuple[Text, ...], tuple[Message, ...], bool]:
    """Instructions, messages, and whether the last is to be gone on from."""
    system: list[Text] = []
    messages: list[Message] = []
    results: list[Part] = []  # that follow each other, until another message comes
    names: dict[str, str] = {}  # of the tools that were called, by the call's id
    for place, message in enumerate(said):
        _check(message, place)
        parts = _content(message, place)
        if message.role == "tool":
            results.append(_tool_result(message, place, parts, names))
            continue
        if results:
            messages.append(Message(role="user", parts=tuple(results)))
            results = []
        if message.role in ("system", "developer"):
            if messages or message.name or not all(isinstance(part, Text) for part in parts):
                messages.append(Message(role="system", parts=tuple(parts), name=message.name or ""))
            else:
                system += [part for part in parts if isinstance(part, Text)]
        elif message.role == "user":
            messages.append(Message(role="user", parts=tuple(parts), name=message.name or ""))
        else:
            parts = [*_thoughts(message), *parts, *_tool_calls(message, names)]
            messages.append(Message(role="assistant", parts=tuple(parts), name=message.name or ""))
    if results:
        messages.append(Message(role="user", parts=tuple(results)))
    prefill = bool(said) and said[-1].role == "assistant" and bool(said[-1].prefix)
    return tuple(system), tuple(messages), prefill


def _check(message: ChatMessage, place: int) -> None:
    if message.audio is not None:
        raise _unsupported(f"messages[{place}].audio", "an answer in sound cannot be translated to this provider")
    if message.function_call is not None:
        raise _unsupported(f"messages[{place}].function_call", "deprecated, and not translated; send tool_calls")


def _content(message: ChatMessage, place: int) -> list[Part]:
    if message.content is None or isinstance(message.content, str):
        parts: list[Part] = [Text(text=message.content)] if message.content else []
    else:
        parts = []
        for index, said in enumerate(message.content):
            part = said.read()
            if part is None:
                param = f"messages[{place}].content[{index}].file"
                raise RequestError("invalid_request", 400, f"{param}: has neither file_data nor file_id", param=param)
            parts.append(part)
    if message.refusal:
        parts.append(Refusal(text=message.refusal))
    return parts


def _tool_result(message: ChatMessage, place: int, parts: list[Part], names: dict[str, str]) -> ToolResult:
    if not message.tool_call_id:
        param = f"messages[{place}].tool_call_id"
        raise RequestError("invalid_request", 400, f"{param}: required, but missing", param=param)
    content = tuple(part for part in parts if isinstance(part, Text | Media))
    name = message.name or names.get(message.tool_call_id, "")
    return ToolResult(id=message.tool_call_id, name=name, content=content)


def _tool_calls(message: ChatMessage, names: dict[str, str]) -> list[Part]:
    calls: list[Part] = []
    for said in message.tool_calls or ():
        names[said.id] = said.function.name
        signature = said.extra_content.google.thought_signature if said.extra_content else ""
        calls.append(
            ToolCall(id=said.id, name=said.function.name, arguments=said.function.arguments, signature=signature)
        )
    return calls


def _thoughts(message: ChatMessage) -> list[Part]:
    """Thoughts passed back; the details say all that the plain field says, and the signatures."""
    plain = message.reasoning_content or message.reasoning or ""
    thoughts = join_details(message.reasoning_details or [])
    if not any(thought.text for thought in thoughts) and plain:
        if thoughts and not thoughts[0].redacted:
            thoughts[0] = Reasoning(text=plain, signature=thoughts[0].signature, id=thoughts[0].id)
        else:
            thoughts.insert(0, Reasoning(text=plain))
    return [*thoughts]


def join_details(details: list[ReasoningDetail]) -> list[Reasoning]:
    """OpenRouter's details as thoughts: pieces of a text up to its signature are one, and so are summary and data."""
    thoughts: list[Reasoning] = []
    pieces: list[str] = []  # of a thought that nothing has closed yet
    open_id = ""

    def close(signature: str = "", data: str = "", id: str = "") -> None:
        if pieces or signature or data:
            thoughts.append(Reasoning(text="".join(pieces), signature=signature, redacted=data, id=id or open_id))
        pieces.clear()

    for detail in details:
        text, id = detail.text or detail.summary or "", detail.id or ""
        if pieces and (open_id not in ("", id) or (detail.data and not id)):
            close()
        if not pieces or id:
            open_id = id
        if text:
            pieces.append(text)
        if detail.signature or detail.data:
            close(detail.signature or "", detail.data or "", id)
    close()
    return thoughts


def _tool_choice(said: Any, tools: list[Tool]) -> tuple[ToolChoice | None, list[Tool]]:
    if said is None:
        return None, tools
    if isinstance(said, NamedTool):
        return ToolChoice(mode="named", name=said.function.name), tools
    if isinstance(said, AllowedTools):
        allowed = {tool.function.name for tool in said.allowed_tools.tools}
        return ToolChoice(mode=said.allowed_tools.mode), [tool for tool in tools if tool.name in allowed]
    return ToolChoice(mode=said), tools


def _format(said: Any) -> Format | None:
    if isinstance(said, SchemaFormat):
        asked = said.json_schema
        schema = {"description": asked.description, **asked.schema} if asked.description else asked.schema
        return Format(kind="schema", name=asked.name, schema=schema, strict=asked.strict)
    if isinstance(said, JsonFormat):
        return Format(kind="json")
    return Format(kind="text") if isinstance(said, TextFormat) else None
