"""``POST /v1/messages`` as a :class:`~gateway.sim.request.ChatRequest`, checked the way Anthropic checks it.

Messages become OpenAI's: tool results in a user's message are messages of their own before it. Of what is strict at
Anthropic this is strict, too, where a gateway that translates can go wrong: ``max_tokens`` is required, the version
header is, a thinking block has to come back with its signature (:func:`sign`), and a last message of the assistant must
neither end in white space nor be without thoughts while thinking is on.

Source: Anthropic API reference, "Messages", "Extended thinking", "Structured outputs", "Errors".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.sim.errors import ApiError
from gateway.sim.fields import boolean, optional, read_model, whole
from gateway.sim.request import ChatRequest, Tool, text_of

_MAX = 1_000_000_000


def read_messages(body: Mapping[str, Any], *, counting: bool = False) -> ChatRequest:
    """Check a request for a message.

    Args:
        counting: It only wants its tokens counted, so it needs no ``max_tokens``.

    Raises:
        ApiError: 400, with the path of the field at fault in its message.
    """
    max_tokens = whole(body, "max_tokens", 1, _MAX)
    if max_tokens is None and not counting:
        raise _fault("max_tokens", "Field required")
    thinking = (optional(body, "thinking", dict, "an object") or {}).get("type") in ("enabled", "adaptive")
    tools, forced, parallel = _tools(body)
    stop = optional(body, "stop_sequences", list, "an array") or []
    return ChatRequest(
        model=read_model(body),
        messages=(*_system(body), *_messages(body, thinking)),
        stream=boolean(body, "stream", False),
        max_tokens=max_tokens,
        stop=tuple(one for one in stop if isinstance(one, str) and one.strip()),
        tools=tools,
        forced_tool=forced,
        parallel_tools=parallel,
        schema=_schema(body),
        thinking=thinking,
        body=body,
    )


def sign(thought: str) -> str:
    """The signature that goes with a thought and has to come back with it."""
    return base64.b64encode(hashlib.sha256(b"simulated" + thought.encode()).digest()).decode()


def _system(body: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    system = body.get("system")
    if system is None:
        return ()
    if not isinstance(system, (str, list)):
        raise _fault("system", "Input should be a valid string or an array of text blocks")
    return ({"role": "system", "content": text_of(system)},)


def _messages(body: Mapping[str, Any], thinking: bool) -> list[dict[str, Any]]:
    given = body.get("messages")
    if given is None:
        raise _fault("messages", "Field required")
    if not isinstance(given, list) or not given:
        raise _fault("messages", "at least one message is required")
    made: list[dict[str, Any]] = []
    for index, message in enumerate(given):
        where = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise _fault(f"{where}.role", "Input should be 'user' or 'assistant'")
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list) or any(not isinstance(one, dict) or "type" not in one for one in blocks):
            raise _fault(f"{where}.content", "Input should be a valid string or an array of content blocks")
        made += _of_user(blocks) if message["role"] == "user" else _of_assistant(blocks, where)
    _check_end(given[-1], thinking, f"messages.{len(given) - 1}")
    return made


def _of_user(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    results = [
        {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text_of(block.get("content"))}
        for block in blocks
        if block["type"] == "tool_result"
    ]
    said = [block for block in blocks if block["type"] != "tool_result"]
    return results + ([{"role": "user", "content": said}] if said or not results else [])


def _of_assistant(blocks: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    calls = []
    for index, block in enumerate(blocks):
        if block["type"] == "thinking" and block.get("signature") != sign(str(block.get("thinking"))):
            raise _fault(f"{where}.content.{index}", "Invalid `signature` in `thinking` block")
        if block["type"] == "tool_use":
            arguments = orjson.dumps(block.get("input")).decode()
            named = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": named})
    text = "".join(str(block.get("text") or "") for block in blocks if block["type"] == "text")
    return [{"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}]


def _check_end(last: dict[str, Any], thinking: bool, where: str) -> None:
    if last["role"] != "assistant":
        return
    content = last["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not blocks:
        return
    text = blocks[-1].get("text")
    if blocks[-1]["type"] == "text" and isinstance(text, str) and text != text.rstrip():
        raise _fault("messages", "final assistant content cannot end with trailing whitespace")
    if thinking and blocks[0]["type"] not in ("thinking", "redacted_thinking"):
        raise _fault(
            f"{where}.content.0.type",
            f"Expected `thinking` or `redacted_thinking`, but found `{blocks[0]['type']}`."
            " When `thinking` is enabled, a final `assistant` message must start with a thinking block",
        )


def _tools(body: Mapping[str, Any]) -> tuple[tuple[Tool, ...], str | None, bool]:
    tools = []
    for index, tool in enumerate(optional(body, "tools", list, "an array of tools") or []):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise _fault(f"tools.{index}.name", "Field required")
        if tool.get("type", "custom") == "custom":
            if not isinstance(tool.get("input_schema"), dict):
                raise _fault(f"tools.{index}.input_schema", "Field required")
            tools.append(Tool(name=tool["name"], parameters=tool["input_schema"]))
    choice = optional(body, "tool_choice", dict, "an object") or {"type": "auto"}
    kind = choice.get("type")
    parallel = choice.get("disable_parallel_tool_use") is not True
    if kind == "none":
        return (), None, parallel
    if kind == "tool":
        name = choice.get("name")
        if all(tool.name != name for tool in tools):
            raise _fault("tool_choice.name", f"Tool '{name}' not found in provided tools")
        return tuple(tools), str(name), parallel
    if kind not in ("auto", "any"):
        raise _fault("tool_choice.type", "Input should be 'auto', 'any', 'tool' or 'none'")
    if kind == "any" and not tools:
        raise _fault("tool_choice", "may only be specified while providing tools")
    return tuple(tools), "" if kind == "any" else None, parallel


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    config = optional(body, "output_config", dict, "an object") or {}
    wanted = config.get("format", body.get("output_format"))
    if not isinstance(wanted, dict):
        return None
    schema = wanted.get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise _fault("output_config.format", "has to be of type 'json_schema' with a schema")
    return schema


def _fault(where: str, problem: str) -> ApiError:
    return ApiError(400, f"{where}: {problem}", param=where)
