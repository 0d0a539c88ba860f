"""A Gemini request as a :class:`Call`: what a client says in this dialect, for a provider of another one.

What the dialect has and a ``Call`` has not:

=============================================  ======================================================================
tools other than functions (``googleSearch``,  refused, 400: without them the answer would be another one
``codeExecution``, ``urlContext`` …)
``executableCode``, ``codeExecutionResult``,   refused, 400
``toolCall``, ``toolResponse`` in a turn
``cachedContent``                              refused, 400: a part of the prompt that only Google has
``responseModalities`` other than TEXT         refused, 400
``responseMimeType`` other than JSON or text   refused, 400
``parameters``, ``responseSchema``             as JSON Schema, see ``gemini_schema``
calls without an ``id``                        get one by their place; a response without one answers the earliest call
                                               of its name that has no response yet
``response: {"output": …}``, ``{"result": …}`` its value; ``{"error": …}`` marks the result as an error; else all of it
                                               as JSON text
a text's ``thoughtSignature``                  a :class:`Reasoning` of the signature alone, behind the text
signatures                                     marked as Google's; what the gateway wrapped is unwrapped
``allowedFunctionNames``                       one with mode ANY is a named choice; of several, only those tools pass
mode ``VALIDATED``                             ``auto``, and named as dropped
``thinkingBudget`` 0                           thinking is off
anything but text in ``systemInstruction``     refused, 400
``videoMetadata``, ``mediaResolution``,        ``extra``: dropped and named by their place
``safetySettings``, ``labels``, ``store``,
``speechConfig`` and all else
=============================================  ======================================================================

Source: Gemini API reference, "Generating content"; guides "Function calling", "Thought signatures".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects import call as calls
from gateway.dialects.call import Call, Format, Media, Message, Reasoning, Text, Thinking, Tool, ToolChoice, ToolResult
from gateway.dialects.gemini_schema import json_schema
from gateway.dialects.gemini_shapes import (
    Content,
    Document,
    FunctionCallingConfig,
    FunctionDeclaration,
    FunctionResponse,
    GenerationConfig,
    Part,
    ThinkingConfig,
    camel,
    standard_base64,
)
from gateway.dialects.responses_marks import Kind
from gateway.dialects.signatures import mark_googles, unwrap
from gateway.dialects.unknown import Known

_KNOWN = Known(Document)
_KNOWN_TOOLS = Known(list[FunctionDeclaration])
_NONE = FunctionCallingConfig()
_FOREIGN = ("executable_code", "code_execution_result", "tool_call", "tool_response")
_TIERS = {"standard": "default", "unspecified": ""}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def gemini_call(fields: Mapping[str, msgspec.Raw], *, model: str, stream: bool) -> Call:
    """The request as a call.

    Args:
        fields: Its top-level fields as the client wrote them; JSON already.
        model, stream: As its path says.

    Raises:
        RequestError: 400 ``invalid_request`` or ``unsupported_by_provider``; names the field, as
            ``contents[2].parts[0].text``.
    """
    written = camel({name: _decode(raw) for name, raw in fields.items()})
    said = _convert(written, Document)
    config = said.generation_config or GenerationConfig()
    _check(said, config)
    system = _instructions(said.system_instruction, "systemInstruction") if said.system_instruction else []
    turns = _Turns()
    for place, content in enumerate(said.contents):
        turns.add(content, place)
    extra = dict(_KNOWN.others(written))
    extra.pop("model", None)
    choice, tools = _tool_choice(said, _tools(said.tools or [], extra))
    if said.tool_config is not None and (said.tool_config.function_calling_config or _NONE).mode == "VALIDATED":
        extra["toolConfig.functionCallingConfig.mode"] = "VALIDATED"
    return Call(
        model=model,
        messages=tuple(turns.messages),
        system=(*system, *turns.system),
        stream=stream,
        include_usage=True,
        max_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        stop=tuple(config.stop_sequences or ()),
        seed=config.seed,
        n=config.candidate_count or 1,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        logprobs=config.response_logprobs,
        top_logprobs=config.logprobs,
        tools=tools,
        tool_choice=choice,
        format=_format(config),
        thinking=_thinking(config.thinking_config),
        service_tier=_TIERS.get(said.service_tier or "", said.service_tier or ""),
        extra=extra,
        dialect="gemini",
    )


def _convert(value: Any, kind: Any, where: str = "") -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        param = (where + path.rstrip("`")).removeprefix(".") or None
        raise RequestError("invalid_request", 400, f"{param}: {what}" if param else what, param=param) from None


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)


def _check(said: Document, config: GenerationConfig) -> None:
    if said.cached_content:
        raise _unsupported("cachedContent", "only Google has what it stands for; send the contents themselves")
    if any(modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED") for modality in config.response_modalities or ()):
        param = "generationConfig.responseModalities"
        raise _unsupported(param, "only answers in text can be translated to this provider")


class _Turns:
    """The conversation; calls and their responses find each other."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.system: list[Text] = []
        self._open: list[tuple[str, str]] = []  # id and name of calls without a response
        self._count = 0

    def add(self, content: Content, place: int) -> None:
        parts: list[calls.Part] = []
        for index, part in enumerate(content.parts or ()):
            self._add_part(part, f"contents[{place}].parts[{index}]", parts)
        if content.role == "system":
            self.system += _instructions(content, f"contents[{place}]")
        elif parts:
            role: calls.Role = "assistant" if content.role == "model" else "user"
            self.messages.append(Message(role=role, parts=tuple(parts)))

    def _add_part(self, part: Part, where: str, parts: list[calls.Part]) -> None:
        if any(getattr(part, name) is not None for name in _FOREIGN):
            raise _unsupported(where, "only Google's own tools make and understand this; leave the part out")
        signature = standard_base64(part.thought_signature or "")
        if part.thought:
            kind, proof = unwrap(signature)
            _think(part.text or "", kind, proof if kind else mark_googles(signature), parts)
        elif part.function_call is not None:
            self._count += 1
            id, name = part.function_call.id or f"call_{self._count}", part.function_call.name
            self._open.append((id, name))
            arguments = _encode(part.function_call.args or {}).decode()
            parts.append(calls.ToolCall(id=id, name=name, arguments=arguments, signature=signature))
        elif part.function_response is not None:
            parts.append(self._result(part.function_response, where))
        elif part.inline_data is not None or part.file_data is not None:
            media = part.inline_data or part.file_data
            assert media is not None
            parts.append(media.read())
        else:
            if part.text:
                parts.append(Text(text=part.text))
            if signature:
                parts.append(Reasoning(signature=mark_googles(signature)))

    def _result(self, said: FunctionResponse, where: str) -> ToolResult:
        id = said.id or next((id for id, name in self._open if name == said.name), None)
        if id is None:
            param = f"{where}.functionResponse"
            raise RequestError(
                "invalid_request", 400, f"{param}: no earlier call of {said.name!r} waits for a response", param=param
            )
        self._open = [waiting for waiting in self._open if waiting[0] != id]
        text, is_error = _result_text(said.response or {})
        content: list[Text | Media] = [Text(text=text)]
        for part in said.parts or ():
            media = part.inline_data or part.file_data
            if media is not None:
                content.append(media.read())
        return ToolResult(id=id, name=said.name, content=tuple(content), is_error=is_error)


def _think(text: str, kind: Kind | None, proof: str, parts: list[calls.Part]) -> None:
    """One thought: a stream hands it out in pieces, the last of which has the signature."""
    if kind == "redacted":
        parts.append(Reasoning(text=text, redacted=proof))
        return
    last = parts[-1] if parts else None
    if isinstance(last, Reasoning) and not last.signature and not last.redacted:
        parts[-1] = Reasoning(text=last.text + text, signature=proof)
    else:
        parts.append(Reasoning(text=text, signature=proof))


def _result_text(response: dict[str, Any]) -> tuple[str, bool]:
    is_error = response.keys() == {"error"}
    value: Any = response
    if is_error or response.keys() in ({"output"}, {"result"}):
        [value] = response.values()
    return value if isinstance(value, str) else _encode(value).decode(), is_error


def _instructions(content: Content, where: str) -> list[Text]:
    for index, part in enumerate(content.parts or ()):
        if part.text is None and part != Part():
            raise _unsupported(f"{where}.parts[{index}]", "instructions are text here, and nothing else")
    return [Text(text=part.text) for part in content.parts or () if part.text]


def _tools(said: list[dict[str, Any]], extra: dict[str, Any]) -> list[Tool]:
    made: list[Tool] = []
    for place, tool in enumerate(said):
        foreign = next(
            (name for name, value in tool.items() if name != "functionDeclarations" and value is not None), ""
        )
        if foreign:
            raise _unsupported(f"tools[{place}].{foreign}", "only Google has this tool")
        where = f"tools[{place}].functionDeclarations"
        declared = _convert(tool.get("functionDeclarations") or [], list[FunctionDeclaration], where)
        extra.update(_KNOWN_TOOLS.others(tool.get("functionDeclarations"), where))
        made += [_tool(each) for each in declared]
    return made


def _tool(said: FunctionDeclaration) -> Tool:
    schema = said.parameters_json_schema if said.parameters_json_schema is not None else json_schema(said.parameters)
    return Tool(name=said.name, description=said.description or "", schema=schema or {})


def _tool_choice(said: Document, tools: list[Tool]) -> tuple[ToolChoice | None, tuple[Tool, ...]]:
    config = said.tool_config.function_calling_config if said.tool_config is not None else None
    config = config or _NONE
    allowed = config.allowed_function_names or []
    if config.mode == "ANY" and len(allowed) == 1:
        return ToolChoice(mode="named", name=allowed[0]), tuple(tools)
    if allowed:
        tools = [tool for tool in tools if tool.name in allowed]
    match config.mode:
        case None:
            return None, tuple(tools)
        case "ANY":
            return ToolChoice(mode="required"), tuple(tools)
        case "NONE":
            return ToolChoice(mode="none"), tuple(tools)
        case _:
            return ToolChoice(mode="auto"), tuple(tools)


def _format(config: GenerationConfig) -> Format | None:
    mime = config.response_mime_type or ""
    if mime in ("", "text/plain"):
        return None
    if mime != "application/json":
        raise _unsupported("generationConfig.responseMimeType", f"{mime!r} cannot be asked of this provider")
    schema = config.response_json_schema or json_schema(config.response_schema)
    return Format(kind="schema", name="answer", schema=schema) if schema else Format(kind="json")


def _thinking(said: ThinkingConfig | None) -> Thinking | None:
    if said is None:
        return None
    effort = (said.thinking_level or "").lower()
    if effort == "thinking_level_unspecified":
        effort = ""
    budget = said.thinking_budget
    return Thinking(effort=effort, budget_tokens=budget or None, show=said.include_thoughts, off=budget == 0)
