"""The conversation of a :class:`Call` as Gemini's ``systemInstruction`` and ``contents``.

Turns of one role that follow each other become one: Gemini wants them to take turns, and all results of one turn's
calls together. Instructions in the middle of a conversation move to ``systemInstruction``, in their order.

===================================  ==================================================================================
in a call                            here
===================================  ==================================================================================
media as data                        ``inlineData``; without a type the commonest of its kind is said
media by URL                         ``fileData``, fetched by Google; its type is guessed from the name's ending
file ids                             ``fileData`` for Google's own (``files/…``); others refused, 400
``image_url.detail``, names          dropped and named
media in a tool's result             follow the results in the same turn: not every model takes them inside
a tool's result                      ``response: {"output": …}``, or ``{"error": …}``; JSON objects and lists as such
a result without a tool's name       gets it from the earlier call with its id; refused, 400, if there is none
arguments that are no JSON object    refused, 400
refusals                             text
thoughts                             dropped and named: Gemini asks for none of them, and refuses others' signatures
a signature of Google's without a    back to the text before it (or else behind it): that is how Gemini 3 signs texts
thought
a call's signature                   ``thoughtSignature``
calls without one                    from Gemini 3 on the first of a turn gets :data:`UNSIGNED`, without which a
                                     conversation that another model began would be refused
``cached`` marks                     dropped, named ``cache_control``: Gemini caches by itself
===================================  ==================================================================================

Source: Gemini API reference, "Content"; guides "Function calling", "Thought signatures", "File input methods".
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import (
    Call,
    Marked,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from gateway.dialects.field_names import client_name
from gateway.dialects.signatures import googles

UNSIGNED = "skip_thought_signature_validator"  # documented, for calls that Gemini itself did not make
_COMMON_MIMES = {"image": "image/jpeg", "audio": "audio/wav", "video": "video/mp4", "file": "application/pdf"}
_ENDINGS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
}
_decode = msgspec.json.Decoder().decode


class Turns:
    """Makes the turns of one call.

    Args:
        signs: The model refuses the first call of a turn without a signature.

    Attributes:
        system: Parts of ``systemInstruction``.
        contents: The turns.
        dropped: What had no counterpart.

    Raises:
        RequestError: 400 ``unsupported_by_provider`` or ``invalid_request``.
    """

    def __init__(self, call: Call, *, signs: bool) -> None:
        self.system: list[dict[str, Any]] = [{"text": text.text} for text in call.system if text.text]
        self.contents: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self._dialect = call.dialect
        self._field = client_name(call.dialect, "messages")
        self._signs = signs
        self._names = _names_of(call.messages)
        if any(text.cached for text in call.system):
            self.dropped.append("cache_control")
        for place, message in enumerate(call.messages):
            self._add(message, f"{self._field}[{place}]")

    def _add(self, message: Message, param: str) -> None:
        self._leave_out(message, param)
        if message.role == "system":
            self.system += [{"text": part.text} for part in message.parts if isinstance(part, Text) and part.text]
            return
        if message.role == "assistant":
            role, parts = "model", self._said(message, param)
        else:
            role, parts = "user", self._asked(message)
        if not parts:
            return
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"] += parts
        else:
            self.contents.append({"role": role, "parts": parts})

    def _leave_out(self, message: Message, param: str) -> None:
        """Name what has no counterpart."""
        if message.name:
            self.dropped.append(f"{param}.name")
        for part in message.parts:
            inner = part.content if isinstance(part, ToolResult) else ()
            for each in (part, *inner):
                if isinstance(each, Marked) and each.cached:
                    self.dropped.append("cache_control")
                if isinstance(each, Media) and each.detail not in ("", "auto"):
                    self.dropped.append(f"{param}.detail")
                if isinstance(each, Media) and each.name:
                    self.dropped.append(f"{param}.{client_name(self._dialect, 'filename')}")
            if isinstance(part, Reasoning) and (part.text or part.redacted or not googles(part.signature)):
                self.dropped.append(f"{param}.reasoning")

    def _asked(self, message: Message) -> list[dict[str, Any]]:
        """A user's turn; results come first."""
        results: list[dict[str, Any]] = []
        rest: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                results.append(self._result(part))
                rest += [self._media(piece) for piece in part.content if isinstance(piece, Media)]
            else:
                rest += self._part(part)
        return results + rest

    def _said(self, message: Message, param: str) -> list[dict[str, Any]]:
        """A turn of the model's, with signatures where they belong."""
        parts: list[dict[str, Any]] = []
        waiting = ""
        for part in message.parts:
            if isinstance(part, ToolResult):
                raise RequestError("invalid_request", 400, f"{param}: a result is the user's to give", param=param)
            if isinstance(part, Reasoning):
                signature = googles(part.signature)
                if signature and not part.text:
                    last = parts[-1] if parts else {}
                    if "text" in last and "thoughtSignature" not in last:
                        last["thoughtSignature"] = signature
                    else:
                        waiting = signature
                continue
            made = self._part(part)
            if made and waiting and "text" in made[0]:
                made[0]["thoughtSignature"], waiting = waiting, ""
            parts += made
        first = next((part for part in parts if "functionCall" in part), None)
        if self._signs and first is not None:
            first.setdefault("thoughtSignature", UNSIGNED)
        return parts

    def _part(self, part: Part) -> list[dict[str, Any]]:
        match part:
            case Text() | Refusal():
                return [{"text": part.text}] if part.text else []
            case Media():
                return [self._media(part)]
            case ToolCall():
                return [self._call(part)]
            case _:
                return []

    def _call(self, part: ToolCall) -> dict[str, Any]:
        called: dict[str, Any] = {"name": part.name, "args": self._arguments(part)}
        if part.id:
            called["id"] = part.id
        made: dict[str, Any] = {"functionCall": called}
        if part.signature:
            made["thoughtSignature"] = part.signature
        return made

    def _arguments(self, part: ToolCall) -> msgspec.Raw:
        """The arguments as they are: numbers keep their digits."""
        text = part.arguments.strip() or "{}"
        if not isinstance(_json(text), dict):
            why = f"the arguments of the call of {part.name!r} are no JSON object"
            raise RequestError("invalid_request", 400, f"{self._field}: {why}", param=self._field)
        return msgspec.Raw(text.encode())

    def _result(self, part: ToolResult) -> dict[str, Any]:
        name = part.name or self._names.get(part.id, "")
        if not name:
            why = f"the result {part.id!r} belongs to no earlier call, and this provider wants the tool's name"
            raise RequestError("invalid_request", 400, f"{self._field}: {why}", param=self._field)
        text = "\n".join(piece.text for piece in part.content if isinstance(piece, Text))
        value: Any = msgspec.Raw(text.encode()) if isinstance(_json(text), dict | list) else text
        made: dict[str, Any] = {"name": name, "response": {"error" if part.is_error else "output": value}}
        if part.id:
            made["id"] = part.id
        return {"functionResponse": made}

    def _media(self, part: Media) -> dict[str, Any]:
        if part.data:
            return {"inlineData": {"mimeType": part.mime or _COMMON_MIMES[part.kind], "data": part.data}}
        if part.file_id and "files/" not in part.file_id:
            why = f"the file {part.file_id!r} is another provider's; send its data or URL"
            raise RequestError("unsupported_by_provider", 400, f"{self._field}: {why}", param=self._field)
        uri = part.url or part.file_id
        ending = uri.partition("?")[0].rpartition(".")[2].lower()
        mime = part.mime or _ENDINGS.get(ending, "")
        return {"fileData": {"mimeType": mime, "fileUri": uri} if mime else {"fileUri": uri}}


def _names_of(messages: tuple[Message, ...]) -> dict[str, str]:
    """The tools that were called, by the calls' ids."""
    return {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}


def _json(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
