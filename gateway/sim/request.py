"""What a client asked for, checked the way a provider checks it.

Only what the simulator acts on is read; everything else in the body is accepted unseen, so that a gateway in front may
pass through fields that are newer than this file. ``body`` keeps the whole document for those who want it back (echo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gateway.sim.fields import boolean, invalid, missing, optional, read_model, whole, wrong

MAX_CHOICES = 128
MAX_INPUTS = 2_048
MAX_DIMENSIONS = 4_096

_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


@frozen(kw_only=True, slots=True)
class Tool:
    """A function the model may call. ``parameters`` is its JSON schema."""

    name: str
    parameters: Mapping[str, Any]


@frozen(kw_only=True, slots=True)
class ChatRequest:
    """A checked request for an answer, of any dialect; messages are in OpenAI's form.

    Attributes:
        forced_tool: Name the client insists on, ``""`` for "any of them", None when the model decides.
        schema: JSON schema of the answer; ``{}`` is any JSON object, None is text.
        thinking: The client wants to see thoughts.
        body: The document as it came.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    forced_tool: str | None = None
    parallel_tools: bool = True
    schema: Mapping[str, Any] | None = None
    thinking: bool = False
    service_tier: str = "default"
    body: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def partial(self) -> str:
        """The text of a last message of the assistant, which is to be gone on from; "" if there is none."""
        last = self.messages[-1]
        if last.get("role") != "assistant" or last.get("tool_calls"):
            return ""
        content = last.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))


@frozen(kw_only=True, slots=True)
class EmbeddingRequest:
    """A checked ``POST /v1/embeddings``; inputs given as token ids are texts of their numbers."""

    model: str
    inputs: tuple[str, ...]
    base64: bool
    dimensions: int


def read_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Check a chat completion request.

    Raises:
        ApiError: 400, naming the field at fault in ``param``.
    """
    stream = boolean(body, "stream", False)
    options = optional(body, "stream_options", dict, "an object")
    if options is not None and not stream:
        raise invalid("stream_options", "is only allowed together with 'stream': true")
    limit = whole(body, "max_completion_tokens", 1, 1_000_000_000)
    if limit is None:
        limit = whole(body, "max_tokens", 1, 1_000_000_000)
    tools, forced = _tools(body)
    top = whole(body, "top_logprobs", 0, 20)
    if top is not None and not boolean(body, "logprobs", False):
        raise invalid("top_logprobs", "needs 'logprobs': true")
    tier = body.get("service_tier")
    return ChatRequest(
        model=read_model(body),
        messages=_messages(body),
        stream=stream,
        include_usage=bool(options and options.get("include_usage") is True),
        choices=whole(body, "n", 1, MAX_CHOICES) or 1,
        max_tokens=limit,
        stop=_stop(body),
        top_logprobs=(top or 0) if boolean(body, "logprobs", False) else None,
        tools=tools,
        forced_tool=forced,
        parallel_tools=boolean(body, "parallel_tool_calls", True),
        schema=_schema(body),
        service_tier=tier if isinstance(tier, str) and tier != "auto" else "default",
        body=body,
    )


def read_embedding(body: Mapping[str, Any]) -> EmbeddingRequest:
    """Check an embedding request.

    Raises:
        ApiError: 400, naming the field at fault in ``param``.
    """
    model = read_model(body)
    given = body.get("input")
    if given is None:
        raise missing("input")
    many = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not 1 <= len(many) <= MAX_INPUTS:
        raise invalid("input", f"has {len(many)} texts; send 1 to {MAX_INPUTS}")
    for index, one in enumerate(many):
        if one == "" or not (isinstance(one, str) or _is_tokens(one)):
            raise invalid(f"input[{index}]", "has to be a text that is not empty, or a list of token ids")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format", "has to be 'float' or 'base64'", code="invalid_value")
    return EmbeddingRequest(
        model=model,
        inputs=tuple(one if isinstance(one, str) else " ".join(map(str, one)) for one in many),
        base64=encoding == "base64",
        dimensions=whole(body, "dimensions", 1, MAX_DIMENSIONS) or 1_536,
    )


def text_of(content: object) -> str:
    """The text in a message's content; parts that are no text are named in brackets."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    found = []
    for part in content:
        if isinstance(part, dict):
            text = part.get("text")
            found.append(text if isinstance(text, str) else f"[{part.get('type')}]")
    return "\n".join(found)


def _messages(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong("messages", "an array of objects", messages)
    if not messages:
        raise invalid("messages", "is empty; send at least one message", code="empty_array")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong(where, "an object", message)
        if "role" not in message:
            raise missing(f"{where}.role")
        if message["role"] not in _ROLES:
            raise invalid(f"{where}.role", f"has to be one of {', '.join(_ROLES)}", code="invalid_value")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise wrong(f"{where}.content", "a string or an array of parts", content)
        if content is None and message["role"] != "assistant":
            raise missing(f"{where}.content")
    return tuple(messages)


def _tools(body: Mapping[str, Any]) -> tuple[tuple[Tool, ...], str | None]:
    tools = []
    for index, tool in enumerate(optional(body, "tools", list, "an array of tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise missing(f"tools[{index}].function.name")
        parameters = function.get("parameters")
        tools.append(Tool(name=function["name"], parameters=parameters if isinstance(parameters, dict) else {}))
    choice = body.get("tool_choice")
    if choice is not None and choice != "none" and not tools:
        raise invalid("tool_choice", "is only allowed when 'tools' are given")
    if choice == "none":
        return (), None
    if choice in (None, "auto"):
        return tuple(tools), None
    if choice == "required":
        return tuple(tools), ""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or all(tool.name != name for tool in tools):
        raise invalid("tool_choice", "has to be 'none', 'auto', 'required' or name one of 'tools'")
    return tuple(tools), name


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = optional(body, "response_format", dict, "an object")
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return {}
    outer = wanted.get("json_schema")
    if wanted.get("type") != "json_schema" or not isinstance(outer, dict):
        raise invalid("response_format", "has to be of type 'text', 'json_object' or 'json_schema' with a schema")
    schema = outer.get("schema")
    return schema if isinstance(schema, dict) else {}


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    many = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if len(many) > 4 or any(not isinstance(one, str) for one in many):
        raise invalid("stop", "has to be a string or an array of up to 4 strings")
    return tuple(one for one in many if one)


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)
