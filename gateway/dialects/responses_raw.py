"""Items of a Responses request as bytes: looked at where the gateway must, and changed as little as it can."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects.responses_marks import MARK, response_of


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    id: str | None = None
    encrypted_content: str | None = None


_item = msgspec.json.Decoder(_Item)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_input = msgspec.json.Decoder(str | list[msgspec.Raw] | None)
_text = msgspec.json.Decoder(str | None)
_encode = msgspec.json.Encoder().encode


def items_of(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """``input`` as items; a text is a user's message."""
    said = _raw_input.decode(raw)
    if isinstance(said, str):
        return [msgspec.Raw(_encode({"type": "message", "role": "user", "content": said}))]
    return list(said or ())


def reference_in(raw: msgspec.Raw) -> str:
    """The id in an ``item_reference``, "" for any other item."""
    item = _item.decode(raw)
    return item.id or "" if item.role is None and item.type in (None, "item_reference") else ""


def for_provider(raw: msgspec.Raw) -> msgspec.Raw | None:
    """An item for a provider of this dialect: without the gateway's ids; None for another provider's thoughts."""
    item = _item.decode(raw)
    ours = response_of(item.id or "") is not None
    if item.type == "reasoning" and (ours or (item.encrypted_content or "").startswith(MARK)):
        return None
    if not ours or item.type == "item_reference":
        return raw
    fields = _fields.decode(raw)
    return msgspec.Raw(_encode({name: value for name, value in fields.items() if name not in ("id", "status")}))


def role_of(fields: dict[str, msgspec.Raw]) -> str:
    if "role" in fields:
        return _text.decode(fields["role"]) or ""
    kind = _text.decode(fields.get("type", b"null")) or ""
    return "user" if kind.endswith("_output") else "assistant"


def is_instruction(message: dict[str, Any]) -> bool:
    """Whether it is the gateway's own system message: the client's have their content as bytes, and stay."""
    return message["role"] == "system" and isinstance(message.get("content"), str)


def without_lent_role(message: dict[str, Any]) -> dict[str, Any]:
    """The item as it was before it was lent a role."""
    kind = message.get("type")
    if kind is None:
        lent = "content" not in message
    else:
        lent = bytes(kind) != b'"message"' if isinstance(kind, msgspec.Raw) else False
    return {name: value for name, value in message.items() if name != "role"} if lent else message
