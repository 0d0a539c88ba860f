"""``POST /v1/responses`` as a :class:`~gateway.sim.request.ChatRequest`.

Items become OpenAI's chat messages; reasoning items carry nothing that this provider reads. Nothing is kept between
requests, so a ``previous_response_id`` is one that is not found.

Source: OpenAI API reference, "Responses"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sim.errors import ApiError
from gateway.sim.fields import boolean, invalid, missing, optional, read_model, whole, wrong
from gateway.sim.request import ChatRequest, Tool, text_of

_ROLES = ("user", "assistant", "system", "developer")
SAID_BACK = ("tools", "tool_choice", "text", "metadata")  # in the response, as they came


def read_response(body: Mapping[str, Any]) -> ChatRequest:
    """Check a request for a response.

    Raises:
        ApiError: 400, naming the field at fault in ``param``.
    """
    previous = body.get("previous_response_id")
    if previous is not None:
        message = f"Previous response with id '{previous}' not found."
        raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
    for name in SAID_BACK:
        _check_depth(body, name)
    instructions = optional(body, "instructions", str, "a string")
    system = [{"role": "system", "content": instructions}] if instructions else []
    tools, forced = _tools(body)
    reasoning = optional(body, "reasoning", dict, "an object") or {}
    return ChatRequest(
        model=read_model(body),
        messages=(*system, *_items(body)),
        stream=boolean(body, "stream", False),
        max_tokens=whole(body, "max_output_tokens", 1, 1_000_000_000),
        tools=tools,
        forced_tool=forced,
        parallel_tools=boolean(body, "parallel_tool_calls", True),
        schema=_schema(body),
        thinking=reasoning.get("summary") is not None,
        body=body,
    )


def _check_depth(body: Mapping[str, Any], name: str) -> None:
    """Refuse what can be read, but not written again."""
    try:
        orjson.dumps(body.get(name))
    except orjson.JSONEncodeError:
        raise invalid(name, "is nested too deeply") from None


def _items(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong("input", "a string or an array of items", given)
    made: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            raise wrong(where, "an object", item)
        kind = item.get("type", "message")
        if kind == "message":
            if item.get("role") not in _ROLES:
                raise invalid(f"{where}.role", f"has to be one of {', '.join(_ROLES)}", code="invalid_value")
            made.append({"role": item["role"], "content": item.get("content")})
        elif kind == "function_call":
            _add_call(made, item)
        elif kind == "function_call_output":
            output = text_of(item.get("output"))
            made.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind != "reasoning":
            raise invalid(f"{where}.type", f"is {kind!r}, which is not known here", code="invalid_value")
    if not made:
        raise invalid("input", "has no message", code="empty_array")
    return made


def _add_call(made: list[dict[str, Any]], item: dict[str, Any]) -> None:
    named = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": named}
    if made and made[-1]["role"] == "assistant":
        made[-1].setdefault("tool_calls", []).append(call)
    else:
        made.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _tools(body: Mapping[str, Any]) -> tuple[tuple[Tool, ...], str | None]:
    tools = []
    for index, tool in enumerate(optional(body, "tools", list, "an array of tools") or []):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise missing(f"tools[{index}].type")
        if tool["type"] != "function":
            continue
        if not isinstance(tool.get("name"), str):
            raise missing(f"tools[{index}].name")
        parameters = tool.get("parameters")
        tools.append(Tool(name=tool["name"], parameters=parameters if isinstance(parameters, dict) else {}))
    choice = body.get("tool_choice")
    if choice == "none":
        return (), None
    if choice in (None, "auto"):
        return tuple(tools), None
    if choice == "required":
        return tuple(tools), ""
    name = choice.get("name") if isinstance(choice, dict) else None
    if not isinstance(name, str) or all(tool.name != name for tool in tools):
        raise invalid("tool_choice", "has to be 'none', 'auto', 'required' or name one of 'tools'")
    return tuple(tools), name


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = optional(body, "text", dict, "an object") or {}
    wanted = text.get("format")
    if not isinstance(wanted, dict) or wanted.get("type") in (None, "text"):
        return None
    if wanted.get("type") == "json_object":
        return {}
    schema = wanted.get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise invalid("text.format", "has to be of type 'text', 'json_object' or 'json_schema' with a schema")
    return schema
