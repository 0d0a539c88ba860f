"""``generateContent`` as a :class:`~gateway.sim.request.ChatRequest`, checked the way Google checks it.

Contents become OpenAI's messages, a function response one of its own. Names may be in camelCase or in snake_case, as
Google's JSON allows; schemas are in OpenAPI's form (types in capitals) or JSON schema. The model is in the path.

Source: Gemini API reference, "generateContent", "Function calling", "Thinking", "Structured output".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sim.errors import ApiError
from gateway.sim.fields import kind_of
from gateway.sim.request import ChatRequest, Tool

_MAX_CANDIDATES = 8


def read_contents(body: Mapping[str, Any], model: str, *, stream: bool) -> ChatRequest:
    """Check a request for content.

    Raises:
        ApiError: 400, with the field at fault in its message.
    """
    config = _object(body, "generationConfig")
    tools, forced = _tools(body)
    stop = _get(config, "stopSequences") or []
    return ChatRequest(
        model=model,
        messages=(*_system(body), *_contents(body)),
        stream=stream,
        choices=_whole(config, "candidateCount", _MAX_CANDIDATES) or 1,
        max_tokens=_whole(config, "maxOutputTokens", 1_000_000_000),
        stop=tuple(one for one in stop if isinstance(one, str) and one) if isinstance(stop, list) else (),
        tools=tools,
        forced_tool=forced,
        schema=_schema(config),
        thinking=_get(_object(config, "thinkingConfig"), "includeThoughts") is True,
        body=body,
    )


def read_texts(body: Mapping[str, Any], *, many: bool) -> list[tuple[str, int]]:
    """The texts to embed, each with the number of dimensions asked for.

    Raises:
        ApiError: 400.
    """
    requests = body.get("requests") if many else [body]
    if not isinstance(requests, list) or not requests:
        raise _fault("requests", "should not be empty")
    texts = []
    for one in requests:
        if not isinstance(one, dict):
            raise _fault("requests", f"should hold objects, but one is {kind_of(one)}")
        text = "".join(str(part.get("text") or "") for part in _parts(_object(one, "content"), "content"))
        texts.append((text, _whole(one, "outputDimensionality", 4_096) or 768))
    return texts


def _system(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = _object(body, "systemInstruction")
    return [{"role": "system", "content": _parts(given, "systemInstruction")}] if given else []


def _contents(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = body.get("contents")
    if not isinstance(given, list) or not given:
        raise _fault("contents", "is not specified")
    made: list[dict[str, Any]] = []
    for index, content in enumerate(given):
        where = f"contents[{index}]"
        role = content.get("role", "user") if isinstance(content, dict) else None
        if role not in ("user", "model", "function"):
            raise ApiError(400, "Please use a valid role: user, model.", param=f"{where}.role")
        parts = _parts(content, where)
        if not parts:
            raise _fault(f"{where}.parts", "must not be empty")
        made += _of_model(parts) if role == "model" else _of_user(parts)
    return made


def _of_user(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    said = []
    for part in parts:
        response = _get(part, "functionResponse")
        if isinstance(response, dict):
            output = orjson.dumps(response.get("response")).decode()
            name = response.get("id") or response.get("name")
            made.append({"role": "tool", "tool_call_id": name, "content": output})
        else:
            said.append(part if "text" in part else {"type": next(iter(part), "part")})
    return made + ([{"role": "user", "content": said}] if said else [])


def _of_model(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls = []
    for part in parts:
        call = _get(part, "functionCall")
        if isinstance(call, dict):
            named = {"name": call.get("name"), "arguments": orjson.dumps(call.get("args")).decode()}
            calls.append({"id": call.get("id") or call.get("name"), "type": "function", "function": named})
    text = "".join(str(part.get("text") or "") for part in parts if part.get("thought") is not True)
    return [{"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}]


def _parts(content: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    parts = content.get("parts")
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list) or any(not isinstance(part, dict) for part in parts):
        raise _fault(f"{where}.parts", f"should be an array of parts, but is {kind_of(parts)}")
    return parts


def _tools(body: Mapping[str, Any]) -> tuple[tuple[Tool, ...], str | None]:
    tools: list[Tool] = []
    groups = body.get("tools")
    if groups is not None and not isinstance(groups, list):
        raise _fault("tools", f"should be an array, but is {kind_of(groups)}")
    for index, group in enumerate(groups or []):
        declared = _get(group, "functionDeclarations") if isinstance(group, dict) else None
        for one in declared if isinstance(declared, list) else ():
            if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                raise _fault(f"tools[{index}].function_declarations.name", "[FIELD_INVALID] is required")
            schema = _get(one, "parametersJsonSchema") or one.get("parameters")
            tools.append(Tool(name=one["name"], parameters=_lowered(schema) if isinstance(schema, dict) else {}))
    config = _object(_object(body, "toolConfig"), "functionCallingConfig")
    mode = str(config.get("mode", "AUTO")).upper()
    if mode == "NONE":
        return (), None
    if mode != "ANY":
        return tuple(tools), None
    allowed = _get(config, "allowedFunctionNames") or [tool.name for tool in tools]
    tools = [tool for tool in tools if isinstance(allowed, list) and tool.name in allowed]
    if not tools:
        raise _fault("tool_config", "Function calling mode is ANY, but no declared function is allowed")
    return tuple(tools), tools[0].name if len(tools) == 1 else ""


def _schema(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    schema = _get(config, "responseJsonSchema") or _get(config, "responseSchema")
    if isinstance(schema, dict):
        return _lowered(schema)  # type: ignore[no-any-return]
    return {} if _get(config, "responseMimeType") == "application/json" else None


def _lowered(schema: Any) -> Any:
    """The schema with its types in small letters; OpenAPI writes them in capitals."""
    if isinstance(schema, list):
        return [_lowered(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else _lowered(value)
        for name, value in schema.items()
    }


def _get(body: Mapping[str, Any], name: str) -> Any:
    """A field under its name in camelCase, or in snake_case."""
    found = body.get(name)
    if found is not None:
        return found
    return body.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _get(body, name)
    if found is not None and not isinstance(found, dict):
        raise _fault(name, f"should be an object, but is {kind_of(found)}")
    return found or {}


def _whole(body: Mapping[str, Any], name: str, most: int) -> int | None:
    value = _get(body, name)
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise _fault(name, f"should be a whole number from 1 to {most}")
    return value


def _fault(where: str, problem: str) -> ApiError:
    return ApiError(400, f"* GenerateContentRequest.{where}: {problem}", param=where)
