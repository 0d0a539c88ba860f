"""The shapes of an Anthropic request, checked as they are decoded; what they mean is in ``anthropic_call``.

A field that is not named here is dropped, and named as such.

Source: Anthropic API reference, "Messages", and the types of Anthropic's Python client.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.dialects.call import DEFAULT_TTL, Media, Reasoning, Text, Tool, Ttl

VERSION = "2023-06-01"  # of the API: the last that knows the sampling parameters, which older models take


class Base64Source(msgspec.Struct, tag="base64", tag_field="type"):
    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag="url", tag_field="type"):
    url: str


class FileSource(msgspec.Struct, tag="file", tag_field="type"):
    file_id: str


class TextSource(msgspec.Struct, tag="text", tag_field="type"):
    data: str
    media_type: str = "text/plain"


class CacheControl(msgspec.Struct):
    type: str = "ephemeral"
    ttl: Literal["5m", "1h"] | None = None


class Marked(msgspec.Struct, kw_only=True):
    cache_control: CacheControl | None = None

    @property
    def cached(self) -> Ttl:
        if self.cache_control is None:
            return ""
        return self.cache_control.ttl or DEFAULT_TTL


class TextBlock(Marked, tag="text", tag_field="type", kw_only=True):
    text: str

    def read(self) -> list[Text | Media]:
        return [Text(text=self.text, cached=self.cached)]


class ImageBlock(Marked, tag="image", tag_field="type", kw_only=True):
    source: Base64Source | UrlSource | FileSource

    def read(self) -> list[Text | Media]:
        match self.source:
            case Base64Source():
                mime, data = self.source.media_type, self.source.data
                return [Media(kind="image", mime=mime, data=data, cached=self.cached)]
            case UrlSource():
                return [Media(kind="image", url=self.source.url, cached=self.cached)]
            case FileSource():
                return [Media(kind="image", file_id=self.source.file_id, cached=self.cached)]


class ContentSource(msgspec.Struct, tag="content", tag_field="type"):
    content: str | list[TextBlock | ImageBlock]


class DocumentBlock(Marked, tag="document", tag_field="type", kw_only=True):
    """A document; text in it is text for everybody, since few dialects take it as a file."""

    source: Base64Source | TextSource | ContentSource | UrlSource | FileSource
    title: str | None = None
    context: str | None = None

    def read(self) -> list[Text | Media]:
        name = self.title or ""
        about: list[Text | Media] = [Text(text=self.context)] if self.context else []
        match self.source:
            case Base64Source(media_type, data):
                return [*about, Media(kind="file", mime=media_type, data=data, name=name, cached=self.cached)]
            case UrlSource(url):
                return [*about, Media(kind="file", url=url, name=name, cached=self.cached)]
            case FileSource(file_id):
                return [*about, Media(kind="file", file_id=file_id, name=name, cached=self.cached)]
            case TextSource(data):
                return self._told([Text(text=data, cached=self.cached)])
            case ContentSource(content):
                if isinstance(content, str):
                    return self._told([Text(text=content, cached=self.cached)])
                return self._told([part for block in content for part in block.read()])

    def _told(self, parts: list[Text | Media]) -> list[Text | Media]:
        heading = "\n".join(line for line in (self.title, self.context) if line)
        return [Text(text=heading), *parts] if heading else parts


class SearchResultBlock(Marked, tag="search_result", tag_field="type", kw_only=True):
    """Something found by the client: its title, place and words become text."""

    source: str
    title: str
    content: list[TextBlock]

    def read(self) -> list[Text | Media]:
        words = "\n".join([self.title, self.source, *(block.text for block in self.content)])
        marks = (block.cached for block in (self, *self.content))
        return [Text(text=words, cached=next((mark for mark in marks if mark), ""))]


class ThinkingBlock(msgspec.Struct, tag="thinking", tag_field="type"):
    thinking: str
    signature: str = ""

    def read(self) -> list[Reasoning]:
        return [Reasoning(text=self.thinking, signature=self.signature)]


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking", tag_field="type"):
    data: str

    def read(self) -> list[Reasoning]:
        return [Reasoning(redacted=self.data)]


class ToolUseBlock(Marked, tag="tool_use", tag_field="type", kw_only=True):
    id: str
    name: str
    input: dict[str, msgspec.Raw]


ResultContent = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock


class ToolResultBlock(Marked, tag="tool_result", tag_field="type", kw_only=True):
    tool_use_id: str
    content: str | list[ResultContent] | None = None
    is_error: bool | None = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


class Turn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ClientTool(Marked, kw_only=True):
    """A tool; one with a ``type`` but ``custom`` is run by the provider."""

    type: str | None = None
    name: str = ""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None

    def read(self) -> Tool:
        return Tool(
            name=self.name,
            description=self.description or "",
            schema=self.input_schema or {},
            strict=self.strict,
            cached=self.cached,
        )


class Choice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingConfig(msgspec.Struct):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class SchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: SchemaFormat | None = None


class Metadata(msgspec.Struct):
    user_id: str | None = None
