"""A response as the gateway keeps it: what ``previous_response_id`` and ``item_reference`` mean to other providers.

Kept are the client's own items of one turn and the whole response document; the turns before it are other kept
responses, which ``previous`` leads to. What assistants add (their instructions, what loaders found) is not kept: it is
made anew for each turn. ``held`` says that a provider of this dialect answered and was asked to store the response, so
that it knows the id, too.

``GET /v1/responses/{id}`` is answered by :func:`document_of`, ``DELETE`` by :func:`deleted_document`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen


class _Stored(msgspec.Struct, frozen=True):
    response: msgspec.Raw
    input: list[msgspec.Raw]
    held: bool = False


class _Head(msgspec.Struct):
    id: str = ""
    output: list[msgspec.Raw] = []


class _ItemId(msgspec.Struct):
    id: str | None = None


_stored = msgspec.json.Decoder(_Stored)
_head = msgspec.json.Decoder(_Head)
_item = msgspec.json.Decoder(_ItemId)
_encode = msgspec.json.Encoder().encode


@frozen(kw_only=True, slots=True)
class ToKeep:
    """What the store is to be given.

    Attributes:
        id: The response's, as the client has it.
        previous: The response it goes on from.
        data: JSON; opaque to the store.
    """

    id: str
    previous: str | None
    data: bytes


@frozen(kw_only=True, slots=True)
class KeptResponse:
    """One kept turn. ``input`` and ``output``: items as JSON."""

    id: str
    input: tuple[msgspec.Raw, ...]
    output: tuple[msgspec.Raw, ...]
    held: bool

    @classmethod
    def of(cls, data: bytes) -> KeptResponse:
        """What :func:`keep` made.

        Raises:
            msgspec.MsgspecError: It is something else.
        """
        stored = _stored.decode(data)
        head = _head.decode(stored.response)
        return cls(id=head.id, input=tuple(stored.input), output=tuple(head.output), held=stored.held)

    def items(self) -> dict[str, msgspec.Raw]:
        """The items that have an id."""
        named = ((_item.decode(raw).id, raw) for raw in (*self.input, *self.output))
        return {id: raw for id, raw in named if id}


def keep(document: bytes, items: list[msgspec.Raw], *, previous: str | None, held: bool) -> ToKeep | None:
    """A response and what was asked, for the store; None if the document has no id."""
    try:
        id = _head.decode(document).id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not id:
        return None
    stored: dict[str, Any] = {"response": msgspec.Raw(document), "input": items, "held": held}
    return ToKeep(id=id, previous=previous, data=_encode(stored))


def document_of(data: bytes) -> bytes:
    """The response document of what was kept."""
    return bytes(_stored.decode(data).response)


def deleted_document(id: str) -> dict[str, Any]:
    return {"id": id, "object": "response", "deleted": True}
