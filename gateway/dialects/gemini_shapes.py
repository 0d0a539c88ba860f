"""The shapes of a Gemini request, checked as they are decoded; what they mean is in ``gemini_call``.

Google reads JSON as protocol buffers do, and so is this: names in camelCase or snake_case, numbers also as text and
whole ones as ``40.0``, base64 in either alphabet, and where a list has one entry, the entry alone. :func:`camel` makes
one spelling of that, but for the maps whose keys are the client's own.

Source: Gemini API reference, "Content", "GenerationConfig", "Tool"; ProtoJSON format; the types of Google's Python
client.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from gateway.dialects.call import Media, MediaKind

# Maps of the client's own, or schemas, which ``gemini_schema`` reads.
_OWN = frozenset(
    {"args", "response", "parameters", "responseSchema", "parametersJsonSchema", "responseJsonSchema", "labels"}
)
_REPEATED = frozenset({"contents", "parts", "tools", "functionDeclarations", "stopSequences", "allowedFunctionNames"})
_SNAKE = re.compile(r"_+([a-z0-9])")
_GOOGLES_FILE = "generativelanguage.googleapis.com/"


def camel(value: Any) -> Any:
    """The same document with all names in camelCase, and lists where lists belong."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for name, inner in value.items():
        name = camel_name(name)
        inner = inner if name in _OWN else camel(inner)
        made[name] = [inner] if name in _REPEATED and isinstance(inner, dict | str) else inner
    return made


def camel_name(name: str) -> str:
    """``generation_config`` → ``generationConfig``."""
    return _SNAKE.sub(lambda found: found[1].upper(), name) if "_" in name else name


def standard_base64(data: str) -> str:
    """Base64 in the standard alphabet, padded: clients of Google's use the one for URLs."""
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4)


class Shape(msgspec.Struct, kw_only=True, rename="camel"):
    """What all have in common: names in camelCase."""


class Blob(Shape):
    data: str
    mime_type: str = ""
    display_name: str | None = None

    def read(self) -> Media:
        name = self.display_name or ""
        return Media(kind=_kind(self.mime_type), mime=self.mime_type, data=standard_base64(self.data), name=name)


class FileData(Shape):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None

    def read(self) -> Media:
        mime, name = self.mime_type or "", self.display_name or ""
        if _GOOGLES_FILE in self.file_uri or self.file_uri.startswith("files/"):
            return Media(kind=_kind(mime), mime=mime, file_id=self.file_uri, name=name)
        return Media(kind=_kind(mime), mime=mime, url=self.file_uri, name=name)


def _kind(mime: str) -> MediaKind:
    match mime.partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
        case _:
            return "file"


class FunctionCall(Shape):
    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class ResultPart(Shape):
    inline_data: Blob | None = None
    file_data: FileData | None = None


class FunctionResponse(Shape):
    name: str
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: list[ResultPart] | None = None


class Part(Shape):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None


class Content(Shape):
    parts: list[Part] | None = None
    role: Literal["user", "model", "function", "system", ""] | None = None


class FunctionDeclaration(Shape):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class FunctionCallingConfig(Shape):
    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(Shape):
    function_calling_config: FunctionCallingConfig | None = None


class ThinkingConfig(Shape):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(Shape):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_modalities: list[str] | None = None
    thinking_config: ThinkingConfig | None = None


class Document(Shape):
    """The request; its tools are read one by one, since each kind has a field of its own."""

    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: ToolConfig | None = None
    generation_config: GenerationConfig | None = None
    cached_content: str | None = None
    service_tier: str | None = None
