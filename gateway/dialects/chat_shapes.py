"""The shapes of an OpenAI chat request, checked as they are decoded; what they mean is in ``chat_call``.

A field that is not named here is dropped, and named as such. Those that clients of compatible providers send are
(``reasoning``, ``thinking``, ``video_url``, ``prefix``); see the table in ``chat_call``.

Source: the types of OpenAI's Python client; OpenRouter, Mistral and DeepSeek API references.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.dialects.call import DEFAULT_TTL, Media, Part, Reasoning, Refusal, Text, Tool, Ttl

AUDIO_MIMES = {"wav": "audio/wav", "mp3": "audio/mpeg"}  # input_audio.format


class CacheControl(msgspec.Struct):
    type: str = ""
    ttl: Literal["5m", "1h"] | None = None


class Breakpoint(msgspec.Struct):
    """OpenAI's own mark; its ``ttl`` has other values than anybody else's."""

    mode: str = ""


class Cached(msgspec.Struct, kw_only=True):
    cache_control: CacheControl | None = None
    prompt_cache_breakpoint: Breakpoint | None = None

    @property
    def cached(self) -> Ttl:
        if self.cache_control is not None:
            return self.cache_control.ttl or DEFAULT_TTL
        return DEFAULT_TTL if self.prompt_cache_breakpoint is not None else ""


class TextPart(Cached, tag="text", tag_field="type", kw_only=True):
    text: str

    def read(self) -> Part:
        return Text(text=self.text, cached=self.cached)


class ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class ImagePart(Cached, tag="image_url", tag_field="type", kw_only=True):
    image_url: ImageUrl

    def read(self) -> Part:
        mime, data, url = split_url(self.image_url.url)
        detail = self.image_url.detail or ""
        return Media(kind="image", mime=mime, data=data, url=url, detail=detail, cached=self.cached)


class VideoPart(Cached, tag="video_url", tag_field="type", kw_only=True):
    video_url: ImageUrl

    def read(self) -> Part:
        mime, data, url = split_url(self.video_url.url)
        return Media(kind="video", mime=mime, data=data, url=url, cached=self.cached)


class AudioData(msgspec.Struct):
    data: str
    format: str


class AudioPart(Cached, tag="input_audio", tag_field="type", kw_only=True):
    input_audio: AudioData

    def read(self) -> Part:
        mime = AUDIO_MIMES.get(self.input_audio.format, f"audio/{self.input_audio.format}")
        return Media(kind="audio", mime=mime, data=self.input_audio.data, cached=self.cached)


class FileData(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Cached, tag="file", tag_field="type", kw_only=True):
    file: FileData

    def read(self) -> Part | None:
        name = self.file.filename or ""
        if self.file.file_id:
            return Media(kind="file", file_id=self.file.file_id, name=name, cached=self.cached)
        if not self.file.file_data:
            return None
        if not self.file.file_data.startswith(("data:", "https://", "http://")):
            return Media(kind="file", data=self.file.file_data, name=name, cached=self.cached)
        mime, data, url = split_url(self.file.file_data)
        return Media(kind="file", mime=mime, data=data, url=url, name=name, cached=self.cached)


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    refusal: str

    def read(self) -> Part:
        return Refusal(text=self.refusal)


class ThinkingText(msgspec.Struct):
    text: str = ""


class ThinkingPart(msgspec.Struct, tag="thinking", tag_field="type"):
    thinking: str | list[ThinkingText]

    def read(self) -> Part:
        said = self.thinking
        return Reasoning(text=said if isinstance(said, str) else "".join(piece.text for piece in said))


ContentPart = TextPart | ImagePart | VideoPart | AudioPart | FilePart | RefusalPart | ThinkingPart


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class Google(msgspec.Struct, frozen=True):
    thought_signature: str = ""


class ExtraContent(msgspec.Struct, frozen=True):
    google: Google = Google()


class ChatToolCall(msgspec.Struct, kw_only=True):
    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction
    extra_content: ExtraContent | None = None


class ReasoningDetail(msgspec.Struct):
    """One of OpenRouter's ``reasoning_details``."""

    type: str = ""
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    id: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    prefix: bool | None = None
    audio: Any = None
    function_call: Any = None


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Cached, kw_only=True):
    type: Literal["function"] = "function"
    function: ToolFunction

    def read(self) -> Tool:
        said = self.function
        return Tool(
            name=said.name,
            description=said.description or "",
            schema=said.parameters or {},
            strict=said.strict,
            cached=self.cached,
        )


class ToolName(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct, tag="function", tag_field="type"):
    function: ToolName


class AllowedTool(msgspec.Struct):
    function: ToolName


class Allowed(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class AllowedTools(msgspec.Struct, tag="allowed_tools", tag_field="type"):
    allowed_tools: Allowed


class TextFormat(msgspec.Struct, tag="text", tag_field="type"):
    pass


class JsonFormat(msgspec.Struct, tag="json_object", tag_field="type"):
    pass


class JsonSchema(msgspec.Struct, kw_only=True):
    name: str
    schema: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    json_schema: JsonSchema


def split_url(url: str) -> tuple[str, str, str]:
    """``(mime, data, url)``: a ``data:`` URL with base64 gives the first two, any other the last."""
    if not url.startswith("data:"):
        return "", "", url
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        return "", "", url
    return head.removesuffix(";base64").partition(";")[0], data, ""
