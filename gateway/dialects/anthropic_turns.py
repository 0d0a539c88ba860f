"""The conversation of a :class:`Call` as Anthropic's ``system`` and ``messages``.

The API wants turns of user and assistant, tool results at the beginning of the turn that follows the calls, and no
empty text. So neighbours of one role are merged, results are put first, what is empty is left out, and the white space
at the end of a last assistant turn (a prefill) is taken off. Identifiers of tool calls keep only the characters that
the API allows, in calls and results alike.

What a conversation may have and this dialect has not:

==================================  ==================================================================================
system message in the middle        moved to ``system`` (newest models alone take one in place, under rules of place)
only system messages                the last of them is asked as the user's
``messages[].name``                 dropped and named
thoughts without a signature, or    dropped and named: the API takes back only what it has signed
with Google's
OpenAI's encrypted thoughts         dropped and named (their id begins with ``rs_``)
a refusal                           becomes text
``image_url.detail``, image names   dropped and named
sound, video                        refused, 400
files but PDF and plain text        refused, 400
more than four ``cache_control``    the last four stay: the API refuses more
==================================  ==================================================================================

Source: Anthropic API reference, "Messages"; guides "Vision", "PDF support", "Handle tool calls", "Prompt caching".
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec
from attrs import Factory, define

from gateway.core.errors import RequestError
from gateway.dialects.call import DEFAULT_TTL, Call, Media, Message, Reasoning, Refusal, Text, ToolCall, ToolResult, Ttl
from gateway.dialects.field_names import client_name
from gateway.dialects.signatures import is_googles

Block = dict[str, Any]

MOST_CACHE_MARKS = 4
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_MAGIC = {  # the first characters of a file in base64
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "JVBERi0": "application/pdf",
}
_arguments = msgspec.json.Decoder(dict[str, Any])


@define(slots=True)
class Turns:
    """``system`` and ``messages`` in the making.

    Attributes:
        dropped: What was left out, by the client's names; a dictionary for its order and speed.
    """

    call: Call
    system: list[Block] = Factory(list)
    messages: list[Block] = Factory(list)
    dropped: dict[str, None] = Factory(dict)

    @classmethod
    def of(cls, call: Call) -> Turns:
        """Translate the conversation.

        Raises:
            RequestError: 400, naming what has no counterpart.
        """
        turns = cls(call)
        for text in call.system:
            turns.system += turns._text(text)
        for place, message in enumerate(call.messages):
            turns._add(message, f"{client_name(call.dialect, 'messages')}[{place}]")
        turns._settle()
        return turns

    def _add(self, message: Message, param: str) -> None:
        if message.name:
            self.drop(f"{param}.name")
        blocks = [block for part in message.parts for block in self._blocks(part, param)]
        if message.role == "system":
            self.system += blocks
        elif blocks and self.messages and self.messages[-1]["role"] == message.role:
            self.messages[-1]["content"] += blocks
        elif blocks:
            self.messages.append({"role": message.role, "content": blocks})

    def _settle(self) -> None:
        """What can only be seen when all turns are there."""
        if not self.messages and self.system:
            self.messages.append({"role": "user", "content": [self.system.pop()]})
        for message in self.messages:
            if message["role"] == "user":
                message["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == "assistant" and last["content"][-1]["type"] == "text":
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()

    def drop(self, name: str) -> None:
        """Note that a field of the client's was left out."""
        self.dropped[name] = None

    @property
    def acts_without_thoughts(self) -> bool:
        """Whether the last assistant turn called tools and has no thoughts: then a budget for thoughts is refused."""
        for message in reversed(self.messages):
            if message["role"] == "assistant":
                kinds = [block["type"] for block in message["content"]]
                return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")
        return False

    def _blocks(self, part: Any, param: str) -> list[Block]:
        match part:
            case Text():
                return self._text(part)
            case Refusal():
                return self._text(Text(text=part.text))
            case Media():
                return [self._media(part, param)]
            case ToolCall():
                return [self._tool_use(part, param)]
            case ToolResult():
                return [self._tool_result(part, param)]
            case Reasoning():
                return self._reasoning(part, param)
        raise AssertionError(part)

    def _text(self, part: Text) -> list[Block]:
        return [marked({"type": "text", "text": part.text}, part.cached)] if part.text.strip() else []

    def _reasoning(self, part: Reasoning, param: str) -> list[Block]:
        if part.redacted and not part.id.startswith("rs_"):
            return [{"type": "redacted_thinking", "data": part.redacted}]
        if part.signature and not part.redacted and not is_googles(part.signature):
            return [{"type": "thinking", "thinking": part.text, "signature": part.signature}]
        self.drop(f"{param}.reasoning")
        return []

    def _tool_use(self, part: ToolCall, param: str) -> Block:
        try:
            given = _arguments.decode(part.arguments.strip() or "{}")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            param = f"{param}.tool_calls"
            raise RequestError(
                "invalid_request", 400, f"{param}: the arguments of {part.id!r} are no JSON object", param=param
            ) from None
        block = {"type": "tool_use", "id": safe_id(part.id), "name": part.name, "input": given}
        return marked(block, part.cached)

    def _tool_result(self, part: ToolResult, param: str) -> Block:
        block: Block = {"type": "tool_result", "tool_use_id": safe_id(part.id)}
        content = [block for piece in part.content for block in self._blocks(piece, param)]
        if content:
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return marked(block, part.cached)

    def _media(self, part: Media, param: str) -> Block:
        if part.detail not in ("", "auto"):
            self.drop(f"{param}.detail")
        mime = part.mime or next((mime for magic, mime in _MAGIC.items() if part.data.startswith(magic)), "")
        if part.kind == "image" or (part.kind == "file" and mime.startswith("image/")):
            block = {"type": "image", "source": _source(part, mime, param)}
            if part.name:
                self.drop(f"{param}.{client_name(self.call.dialect, 'filename')}")
        elif part.kind == "file":
            block = {"type": "document", "source": _source(part, mime or "application/pdf", param)}
            if part.name:
                block["title"] = part.name
        else:
            raise unsupported(param, f"{part.kind} has no counterpart in Anthropic's messages")
        return marked(block, part.cached)


def _source(part: Media, mime: str, param: str) -> Block:
    if part.url:
        return {"type": "url", "url": part.url}
    if part.file_id:
        return {"type": "file", "file_id": part.file_id}
    if mime.startswith("text/"):
        try:
            text = base64.b64decode(part.data, validate=True).decode()
        except (binascii.Error, ValueError):
            raise RequestError("invalid_request", 400, f"{param}: no text in UTF-8 and base64", param=param) from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    if not mime:
        raise RequestError("invalid_request", 400, f"{param}: say the image's media type", param=param)
    if not mime.startswith("image/") and mime != "application/pdf":
        raise unsupported(param, f"a file of type {mime} has no counterpart; send PDF or plain text")
    return {"type": "base64", "media_type": mime, "data": part.data}


def unsupported(param: str, why: str) -> RequestError:
    """The 400 for what has no counterpart and must not be lost."""
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)


def marked(block: Block, cached: Ttl) -> Block:
    """The block, with the mark for the cache if it has one."""
    if not cached:
        return block
    mark = {"type": "ephemeral"} if cached == DEFAULT_TTL else {"type": "ephemeral", "ttl": cached}
    return {**block, "cache_control": mark}


def limit_marks(tools: list[Block], turns: Turns) -> None:
    """Leave the last :data:`MOST_CACHE_MARKS` of all marks, in the order of the prompt: tools, system, messages."""
    blocks = [*tools, *turns.system]
    for message in turns.messages:
        for block in message["content"]:
            inner = block.get("content", ()) if block["type"] == "tool_result" else ()
            blocks += [*inner, block]
    marks = [block for block in blocks if "cache_control" in block]
    for block in marks[:-MOST_CACHE_MARKS]:
        del block["cache_control"]


def safe_id(id: str) -> str:
    """A tool call's id with the characters that the API allows; the same for the call and its result."""
    return _NOT_IN_ID.sub("_", id)
