"""The shapes of an OpenAI Responses request, checked as they are decoded; what they mean is in ``responses_call``.

A field that is not named here is not looked at.

Source: the types of OpenAI's Python client; OpenAI API reference, "Create a model response".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.dialects.call import DEFAULT_TTL, Format, Media, Part, Refusal, Text, Tool, Ttl
from gateway.dialects.chat_shapes import AUDIO_MIMES, AudioData, split_url


class Breakpoint(msgspec.Struct, kw_only=True):
    prompt_cache_breakpoint: dict[str, Any] | None = None

    @property
    def cached(self) -> Ttl:
        return DEFAULT_TTL if self.prompt_cache_breakpoint else ""


class InputText(Breakpoint, tag="input_text", tag_field="type", kw_only=True):
    text: str

    def read(self) -> Part | None:
        return Text(text=self.text, cached=self.cached)


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    text: str

    def read(self) -> Part | None:
        return Text(text=self.text)


class InputImage(Breakpoint, tag="input_image", tag_field="type", kw_only=True):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None

    def read(self) -> Part | None:
        detail = "" if self.detail in (None, "auto") else self.detail or ""
        if self.file_id:
            return Media(kind="image", file_id=self.file_id, detail=detail, cached=self.cached)
        if not self.image_url:
            return None
        mime, data, url = split_url(self.image_url)
        return Media(kind="image", mime=mime, data=data, url=url, detail=detail, cached=self.cached)


class InputFile(Breakpoint, tag="input_file", tag_field="type", kw_only=True):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None

    def read(self) -> Part | None:
        name = self.filename or ""
        if self.file_id:
            return Media(kind="file", file_id=self.file_id, name=name, cached=self.cached)
        if self.file_url:
            return Media(kind="file", url=self.file_url, name=name, cached=self.cached)
        if not self.file_data:
            return None
        mime, data, url = split_url(self.file_data)
        if url:
            data, url = url, ""  # bare base64
        return Media(kind="file", mime=mime, data=data, name=name, cached=self.cached)


class InputAudio(msgspec.Struct, tag="input_audio", tag_field="type"):
    input_audio: AudioData

    def read(self) -> Part | None:
        said = self.input_audio
        return Media(kind="audio", mime=AUDIO_MIMES.get(said.format, f"audio/{said.format}"), data=said.data)


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    refusal: str

    def read(self) -> Part | None:
        return Refusal(text=self.refusal)


ContentPart = InputText | OutputText | InputImage | InputFile | InputAudio | RefusalPart


class ItemHead(msgspec.Struct):
    """What tells an item's kind; a message may come without ``type``, and so may a reference."""

    type: str | None = None
    role: str | None = None
    id: str | None = None


class MessageItem(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]


class CallItem(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class OutputItem(msgspec.Struct):
    call_id: str
    output: str | list[ContentPart]


class Piece(msgspec.Struct):
    text: str = ""


class ReasoningItem(msgspec.Struct):
    id: str | None = None
    summary: list[Piece] | None = None
    content: list[Piece] | None = None
    encrypted_content: str | None = None


class FunctionTool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def read(self) -> Tool:
        return Tool(
            name=self.name, description=self.description or "", schema=self.parameters or {}, strict=self.strict
        )


class NamedTool(msgspec.Struct, tag="function", tag_field="type"):
    name: str


class AllowedTool(msgspec.Struct):
    name: str
    type: Literal["function"] = "function"


class AllowedTools(msgspec.Struct, tag="allowed_tools", tag_field="type"):
    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class TextFormat(msgspec.Struct, tag="text", tag_field="type"):
    def read(self) -> Format:
        return Format(kind="text")


class JsonFormat(msgspec.Struct, tag="json_object", tag_field="type"):
    def read(self) -> Format:
        return Format(kind="json")


class SchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type", kw_only=True):
    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None

    def read(self) -> Format:
        schema = {"description": self.description, **self.schema} if self.description else self.schema
        return Format(kind="schema", name=self.name, schema=schema, strict=self.strict)


class TextConfig(msgspec.Struct):
    format: TextFormat | JsonFormat | SchemaFormat | None = None
    verbosity: str | None = None
