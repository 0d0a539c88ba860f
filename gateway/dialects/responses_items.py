"""Items of a Responses request as turns of a :class:`Call`; what has no counterpart stands in ``responses_call``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import Media, Message, Part, Reasoning, Refusal, Role, Text, ToolCall, ToolResult
from gateway.dialects.responses_marks import unmarked
from gateway.dialects.responses_shapes import CallItem, ContentPart, ItemHead, MessageItem, OutputItem, ReasoningItem

T = TypeVar("T")

_head = msgspec.json.Decoder(ItemHead)
_message = msgspec.json.Decoder(MessageItem)
_call = msgspec.json.Decoder(CallItem)
_output = msgspec.json.Decoder(OutputItem)
_reasoning = msgspec.json.Decoder(ReasoningItem)


class Conversation:
    """Items in, turns out.

    Args:
        extra: Takes the names of what is dropped.
        items: What an ``item_reference`` may refer to.

    Attributes:
        system: Instructions before the first turn.
    """

    def __init__(self, extra: dict[str, Any], items: Mapping[str, msgspec.Raw]) -> None:
        self._extra = extra
        self._items = items
        self._turns: list[tuple[Role, str, list[Part]]] = []  # role, what joins turns, parts
        self._names: dict[str, str] = {}  # of the functions that were called, by the call's id
        self._signature = ""  # of the call that comes next
        self.system: list[Text] = []

    def messages(self) -> tuple[Message, ...]:
        return tuple(Message(role=role, parts=tuple(parts)) for role, _, parts in self._turns)

    def add(self, said: str | Sequence[msgspec.Raw]) -> None:
        """The client's own input.

        Raises:
            RequestError: Names the item.
        """
        if isinstance(said, str):
            self._turns.append(("user", "", [Text(text=said)] if said else []))
            return
        for place, raw in enumerate(said):
            self._add(raw, f"input[{place}]", refer=True)

    def add_kept(self, kept: Sequence[msgspec.Raw]) -> None:
        """Items of earlier responses; what only their provider understands is dropped, and named."""
        for place, raw in enumerate(kept):
            head = _head.decode(raw)
            if _kind(head) in _READERS or head.type == "item_reference":
                self._add(raw, f"previous_response_id[{place}]", refer=True)
            else:
                self._extra[f"previous_response_id: {head.type}"] = True

    def _add(self, raw: msgspec.Raw, param: str, *, refer: bool) -> None:
        head = _decode(_head, raw, param)
        kind = _kind(head)
        if kind == "item_reference":
            self._refer(head.id or "", param, refer=refer)
            return
        read = _READERS.get(kind)
        if read is None:
            raise unsupported(f"{param}.type", f"{kind} items are understood only by the provider that made them")
        read(self, raw, param)

    def _refer(self, id: str, param: str, *, refer: bool) -> None:
        found = self._items.get(id)
        if found is None or not refer:
            what = f"item '{id[:80]}' is not kept here; send the item itself"
            raise RequestError("item_not_found", 404, f"{param}.id: {what}", param=f"{param}.id")
        self._add(found, param, refer=False)

    def _join(self, role: Role, join: str, parts: list[Part]) -> None:
        """Add to the last turn, if it is of the same making, else begin one."""
        if self._turns and join and self._turns[-1][:2] == (role, join):
            self._turns[-1][2].extend(parts)
        else:
            self._turns.append((role, join, parts))

    def add_message(self, raw: msgspec.Raw, param: str) -> None:
        item = _decode(_message, raw, param)
        parts = _parts(item.content, f"{param}.content")
        if item.role == "assistant":
            self._join("assistant", "assistant", parts)
        elif item.role == "user":
            self._join("user", "", parts)
        elif self._turns or not all(isinstance(part, Text) for part in parts):
            self._join("system", "", parts)
        else:
            self.system += [part for part in parts if isinstance(part, Text)]

    def add_call(self, raw: msgspec.Raw, param: str) -> None:
        item = _decode(_call, raw, param)
        self._names[item.call_id] = item.name
        signature, self._signature = self._signature, ""
        call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments, signature=signature)
        self._join("assistant", "assistant", [call])

    def add_output(self, raw: msgspec.Raw, param: str) -> None:
        item = _decode(_output, raw, param)
        content = tuple(part for part in _parts(item.output, f"{param}.output") if isinstance(part, Text | Media))
        result = ToolResult(id=item.call_id, name=self._names.get(item.call_id, ""), content=content)
        self._join("user", "outputs", [result])

    def add_reasoning(self, raw: msgspec.Raw, param: str) -> None:
        item = _decode(_reasoning, raw, param)
        text = "\n\n".join(piece.text for piece in item.summary or ()) or "".join(
            piece.text for piece in item.content or ()
        )
        kind, value = unmarked(item.encrypted_content or "")
        if kind == "call":
            self._signature = value
            return
        if not text and not value:
            return  # kept by the provider under its id: nothing in it for others
        if kind is None:
            thought = Reasoning(text=text, redacted=value, id=item.id or "")
        elif kind == "redacted":
            thought = Reasoning(text=text, redacted=value)
        else:
            thought = Reasoning(text=text, signature=value)
        self._join("assistant", "assistant", [thought])


_READERS = {
    "message": Conversation.add_message,
    "function_call": Conversation.add_call,
    "function_call_output": Conversation.add_output,
    "reasoning": Conversation.add_reasoning,
}


def _kind(head: ItemHead) -> str:
    if head.type is not None:
        return head.type
    return "message" if head.role is not None else "item_reference"


def _decode(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw, param: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(param, error) from None


def _parts(said: str | list[ContentPart], param: str) -> list[Part]:
    if isinstance(said, str):
        return [Text(text=said)] if said else []
    parts: list[Part] = []
    for place, each in enumerate(said):
        part = each.read()
        if part is None:
            where = f"{param}[{place}]"
            raise RequestError("invalid_request", 400, f"{where}: has neither data, nor URL, nor file_id", param=where)
        if not (isinstance(part, Text | Refusal) and not part.text):
            parts.append(part)
    return parts


def invalid(param: str, error: msgspec.ValidationError) -> RequestError:
    """What msgspec says of a field, as a 400 that names it."""
    what, _, path = str(error).partition(" - at `$")
    param += path.rstrip("`")
    if param.endswith(".type") and what.startswith("Invalid value"):
        return unsupported(param, f"{what}; it has no counterpart in the provider's dialect")
    return RequestError("invalid_request", 400, f"{param}: {what}", param=param)


def unsupported(param: str, why: str) -> RequestError:
    return RequestError("unsupported_by_provider", 400, f"{param}: {why}", param=param)
