"""Opaque signatures in the one place that a Responses item has for them, and the items' ids.

Other providers prove their thoughts with signatures, have encrypted thoughts of their own, or sign tool calls.
A client of this dialect hands back ``reasoning`` items as it got them, so all three travel as ``encrypted_content``
under a mark that says what they are; a tool call's signature is a reasoning item without text right before the call.
Encrypted content without a mark is OpenAI's own.

Ids are made from the response's, so that an ``item_reference`` says which response holds the item.
"""

from __future__ import annotations

import re
import uuid
from typing import Final, Literal

Kind = Literal["signature", "redacted", "call"]

MARK: Final = "sluice:"
RESPONSE_PREFIX: Final = "resp_"
_KINDS: Final[dict[str, Kind]] = {"s": "signature", "r": "redacted", "c": "call"}
_LETTERS: Final = {kind: letter for letter, kind in _KINDS.items()}
_ITEM: Final = re.compile(r"(?:msg|rs|fc)_([0-9a-f]{32})[0-9a-f]{4}")


def marked(kind: Kind, value: str) -> str:
    """``value`` as encrypted content."""
    return f"{MARK}{_LETTERS[kind]}:{value}"


def unmarked(content: str) -> tuple[Kind | None, str]:
    """What the encrypted content is; None for OpenAI's own."""
    if not content.startswith(MARK):
        return None, content
    letter, _, value = content[len(MARK) :].partition(":")
    return _KINDS.get(letter), value


def new_response_id() -> str:
    return RESPONSE_PREFIX + uuid.uuid4().hex


def item_id(prefix: Literal["msg", "rs", "fc"], response_id: str, index: int) -> str:
    """The id of the item at ``index`` of the response's output; the same for the same arguments."""
    known = response_id.removeprefix(RESPONSE_PREFIX)
    base = known if re.fullmatch(r"[0-9a-f]{32}", known) else uuid.uuid5(uuid.NAMESPACE_OID, response_id).hex
    return f"{prefix}_{base}{index:04x}"


def response_of(item: str) -> str | None:
    """Which response of ours holds the item; None if the id is not one of ours."""
    found = _ITEM.fullmatch(item)
    return RESPONSE_PREFIX + found[1] if found else None
