"""What a client asked for, checked the way a provider checks it.

Only what the simulator acts on is read; everything else in the body is accepted unseen, so that a gateway in front may
pass through fields that are newer than this file. ``body`` keeps the whole document for those who want it back (echo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from attrs import field, frozen

MAX_CHOICES = 128
MAX_INPUTS = 2_048
MAX_DIMENSIONS = 4_096

_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


class ApiError(Exception):
    """A refusal with the status and error document a provider would send."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self._error = {"message": message, "type": kind, "param": param, "code": code}

    @property
    def document(self) -> dict[str, Any]:
        return {"error": self._error}


@frozen(kw_only=True, slots=True)
class Tool:
    """A function the model may call. ``parameters`` is its JSON schema."""

    name: str
    parameters: Mapping[str, Any]


@frozen(kw_only=True, slots=True)
class ChatRequest:
    """A checked ``POST /v1/chat/completions``.

    Attributes:
        forced_tool: Name the client insists on, ``""`` for "any of them", None when the model decides.
        schema: JSON schema of the answer; ``{}`` is any JSON object, None is text.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    stream: bool
    include_usage: bool
    choices: int
    max_tokens: int | None
    stop: tuple[str, ...]
    top_logprobs: int | None
    tools: tuple[Tool, ...]
    forced_tool: str | None
    parallel_tools: bool
    schema: Mapping[str, Any] | None
    service_tier: str
    body: Mapping[str, Any] = field(repr=False)


@frozen(kw_only=True, slots=True)
class EmbeddingRequest:
    """A checked ``POST /v1/embeddings``; inputs given as token ids are texts of their numbers."""

    model: str
    inputs: tuple[str, ...]
    base64: bool
    dimensions: int


def read_document(raw: bytes) -> dict[str, Any]:
    """Decode a request body.

    Raises:
        ApiError: 400, it is no JSON object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}.") from error
    if not isinstance(body, dict):
        raise ApiError(400, f"The request body has to be a JSON object, but is {_kind(body)}.")
    return body


def read_model(body: Mapping[str, Any]) -> str:
    """The model's name.

    Raises:
        ApiError: 400, there is none.
    """
    model = body.get("model")
    if model is None or model == "":
        raise _missing("model")
    if not isinstance(model, str):
        raise _wrong("model", "a string", model)
    return model


def read_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Check a chat completion request.

    Raises:
        ApiError: 400, naming the field at fault in ``param``.
    """
    stream = _boolean(body, "stream", False)
    options = _optional(body, "stream_options", dict, "an object")
    if options is not None and not stream:
        raise _invalid("stream_options", "is only allowed together with 'stream': true")
    limit = _whole(body, "max_completion_tokens", 1, 1_000_000_000)
    if limit is None:
        limit = _whole(body, "max_tokens", 1, 1_000_000_000)
    tools, forced = _tools(body)
    top = _whole(body, "top_logprobs", 0, 20)
    if top is not None and not _boolean(body, "logprobs", False):
        raise _invalid("top_logprobs", "needs 'logprobs': true")
    tier = body.get("service_tier")
    return ChatRequest(
        model=read_model(body),
        messages=_messages(body),
        stream=stream,
        include_usage=bool(options and options.get("include_usage") is True),
        choices=_whole(body, "n", 1, MAX_CHOICES) or 1,
        max_tokens=limit,
        stop=_stop(body),
        top_logprobs=(top or 0) if _boolean(body, "logprobs", False) else None,
        tools=tools,
        forced_tool=forced,
        parallel_tools=_boolean(body, "parallel_tool_calls", True),
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
        raise _missing("input")
    many = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not 1 <= len(many) <= MAX_INPUTS:
        raise _invalid("input", f"has {len(many)} texts; send 1 to {MAX_INPUTS}")
    for index, one in enumerate(many):
        if one == "" or not (isinstance(one, str) or _is_tokens(one)):
            raise _invalid(f"input[{index}]", "has to be a text that is not empty, or a list of token ids")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise _invalid("encoding_format", "has to be 'float' or 'base64'", code="invalid_value")
    return EmbeddingRequest(
        model=model,
        inputs=tuple(one if isinstance(one, str) else " ".join(map(str, one)) for one in many),
        base64=encoding == "base64",
        dimensions=_whole(body, "dimensions", 1, MAX_DIMENSIONS) or 1_536,
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
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _wrong("messages", "an array of objects", messages)
    if not messages:
        raise _invalid("messages", "is empty; send at least one message", code="empty_array")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _wrong(where, "an object", message)
        if "role" not in message:
            raise _missing(f"{where}.role")
        if message["role"] not in _ROLES:
            raise _invalid(f"{where}.role", f"has to be one of {', '.join(_ROLES)}", code="invalid_value")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise _wrong(f"{where}.content", "a string or an array of parts", content)
        if content is None and message["role"] != "assistant":
            raise _missing(f"{where}.content")
    return tuple(messages)


def _tools(body: Mapping[str, Any]) -> tuple[tuple[Tool, ...], str | None]:
    tools = []
    for index, tool in enumerate(_optional(body, "tools", list, "an array of tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _missing(f"tools[{index}].function.name")
        parameters = function.get("parameters")
        tools.append(Tool(name=function["name"], parameters=parameters if isinstance(parameters, dict) else {}))
    choice = body.get("tool_choice")
    if choice is not None and choice != "none" and not tools:
        raise _invalid("tool_choice", "is only allowed when 'tools' are given")
    if choice == "none":
        return (), None
    if choice in (None, "auto"):
        return tuple(tools), None
    if choice == "required":
        return tuple(tools), ""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or all(tool.name != name for tool in tools):
        raise _invalid("tool_choice", "has to be 'none', 'auto', 'required' or name one of 'tools'")
    return tuple(tools), name


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = _optional(body, "response_format", dict, "an object")
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return {}
    outer = wanted.get("json_schema")
    if wanted.get("type") != "json_schema" or not isinstance(outer, dict):
        raise _invalid("response_format", "has to be of type 'text', 'json_object' or 'json_schema' with a schema")
    schema = outer.get("schema")
    return schema if isinstance(schema, dict) else {}


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    many = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if len(many) > 4 or any(not isinstance(one, str) for one in many):
        raise _invalid("stop", "has to be a string or an array of up to 4 strings")
    return tuple(one for one in many if one)


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _boolean(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _optional(body, name, bool, "a boolean")
    return default if value is None else bool(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise _wrong(name, "an integer", value)
    if not low <= value <= high:
        code = "integer_below_min_value" if value < low else "integer_above_max_value"
        raise _invalid(name, f"is {value}, but has to be from {low} to {high}", code=code)
    return value


def _optional(body: Mapping[str, Any], name: str, kind: type, wanted: str) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise _wrong(name, wanted, value)
    return value


def _missing(param: str) -> ApiError:
    return ApiError(400, f"'{param}' is missing.", param=param, code="missing_required_parameter")


def _wrong(param: str, wanted: str, value: object) -> ApiError:
    return ApiError(400, f"'{param}' has to be {wanted}, but is {_kind(value)}.", param=param, code="invalid_type")


def _invalid(param: str, problem: str, *, code: str | None = None) -> ApiError:
    return ApiError(400, f"'{param}' {problem}.", param=param, code=code)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
