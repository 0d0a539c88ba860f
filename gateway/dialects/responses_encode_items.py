"""The turns of a :class:`Call` as input items of OpenAI's Responses dialect; what has none stands in
``responses_encode``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.errors import RequestError
from gateway.dialects.call import Call, Marked, Media, Message, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from gateway.dialects.field_names import client_name
from gateway.dialects.provider import Quirks

Item = dict[str, Any]

FERNET = "gAAAA"  # how texts encrypted by OpenAI begin
_FILE_ENDINGS = {"application/pdf": "pdf", "text/plain": "txt", "text/markdown": "md", "text/csv": "csv"}


def input_items(call: Call, quirks: Quirks, dropped: dict[str, None]) -> list[Item]:
    """The items in order.

    Args:
        dropped: Takes the names of what is.

    Raises:
        RequestError: 400 ``unsupported_by_provider``.
    """
    making = _Making(call, quirks, dropped)
    for place, message in enumerate(call.messages):
        making.add(message, place)
    return making.items


class _Making:
    """Items in the making."""

    def __init__(self, call: Call, quirks: Quirks, dropped: dict[str, None]) -> None:
        self.items: list[Item] = []
        self._param = client_name(call.dialect, "messages")
        self._quirks = quirks
        self._dropped = dropped

    def add(self, message: Message, place: int) -> None:
        if message.name:
            self._dropped["name"] = None
        if any(isinstance(part, Marked) and part.cached for part in message.parts):
            self._dropped["cache_control"] = None
        if any(isinstance(part, Reasoning) and not _is_openais(part) for part in message.parts):
            self._dropped[f"{self._param}[{place}].reasoning"] = None
        if message.role == "assistant":
            self._add_answer(message.parts)
        else:
            self._add_asked(message)

    def _add_asked(self, message: Message) -> None:
        role = self._quirks.system_role if message.role == "system" else "user"
        rest: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                self.items.append(self._output(part))
            else:
                rest.append(part)
        if rest:
            content = [self._content(part) for part in rest]
            self.items.append({"type": "message", "role": role, "content": content})

    def _output(self, part: ToolResult) -> Item:
        if part.is_error:
            self._dropped["is_error"] = None
        plain = all(isinstance(piece, Text) for piece in part.content)
        content = [self._content(piece) for piece in part.content]
        output: Any = "\n".join(piece["text"] for piece in content) if plain else content
        return {"type": "function_call_output", "call_id": part.id, "output": output}

    def _content(self, part: Part) -> Item:
        if isinstance(part, Marked) and part.cached:
            self._dropped["cache_control"] = None
        match part:
            case Text() | Refusal() | Reasoning():
                return {"type": "input_text", "text": part.text}
            case Media(kind="image"):
                return self._image(part)
            case Media(kind="file"):
                return _file(part)
            case Media():
                raise self._unsupported(f"this provider takes no {part.kind}")
            case _:
                raise self._unsupported("a tool call stands in a message that is not the assistant's")

    def _image(self, part: Media) -> Item:
        made: Item = {"type": "input_image", "detail": part.detail or "auto"}
        if part.file_id:
            made["file_id"] = part.file_id
        else:
            made["image_url"] = _data_url(part, "image/png") if part.data else part.url
        return made

    def _add_answer(self, parts: Sequence[Part]) -> None:
        said: list[Item] = []
        for part in parts:
            if isinstance(part, Text):
                said.append({"type": "output_text", "text": part.text, "annotations": []})
            elif isinstance(part, Refusal):
                said.append({"type": "refusal", "refusal": part.text})
            else:
                said = self._say(said)
                self._add_made(part)
        self._say(said)

    def _say(self, said: list[Item]) -> list[Item]:
        """End a message of the assistant; the list for the next one."""
        if said:
            plain = len(said) == 1 and "text" in said[0]
            content: Any = said[0]["text"] if plain else said
            self.items.append({"type": "message", "role": "assistant", "content": content})
        return []

    def _add_made(self, part: Part) -> None:
        match part:
            case ToolCall():
                item = {"type": "function_call", "call_id": part.id, "name": part.name}
                self.items.append({**item, "arguments": part.arguments or "{}"})
            case Reasoning():
                self._think(part)
            case _:
                raise self._unsupported("the assistant's turn has something that is neither said nor called")

    def _think(self, part: Reasoning) -> None:
        """Thoughts that OpenAI encrypted; a summary and what it sums up may come as two parts of one id."""
        if not _is_openais(part):
            return
        known = part.id.startswith("rs_")
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        last = self.items[-1] if self.items else {}
        if known and last.get("type") == "reasoning" and last.get("id") == part.id:
            last["summary"] += summary
            if part.redacted:
                last["encrypted_content"] = part.redacted
            return
        item: Item = {"type": "reasoning", "summary": summary}
        if known:
            item["id"] = part.id
        if part.redacted:
            item["encrypted_content"] = part.redacted
        self.items.append(item)

    def _unsupported(self, why: str) -> RequestError:
        return RequestError("unsupported_by_provider", 400, f"{self._param}: {why}", param=self._param)


def _is_openais(part: Reasoning) -> bool:
    return part.id.startswith("rs_") or part.redacted.startswith(FERNET)


def _data_url(part: Media, mime: str) -> str:
    return f"data:{part.mime or mime};base64,{part.data}"


def _file(part: Media) -> Item:
    if part.file_id:
        return {"type": "input_file", "file_id": part.file_id}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    name = part.name or f"file.{_FILE_ENDINGS.get(part.mime, 'pdf')}"
    return {"type": "input_file", "filename": name, "file_data": _data_url(part, "application/pdf")}
