"""How many tokens a request has that its provider has not counted yet: a rule of thumb, for reservations and for what
nobody reports.

A token per four bytes of the document; of a medium (an image, a sound, a file, in base64) the length says little, so
each is :data:`TOKENS_PER_MEDIUM`: by its bytes, a photograph of a megabyte would be a third of a million tokens.

*Cost*: nothing for documents under :data:`MEDIA_FROM_BYTES`, two searches of a substring for larger ones: 16 MiB 20 ms.
"""

from __future__ import annotations

import string
from typing import Final

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_MEDIUM: Final = 1_500  # about an image of a megapixel, or a page of a PDF
MEDIA_FROM_BYTES: Final = 8_192
MAX_LOOKS: Final = 1_000  # what looks like a medium; further ones count by their bytes
_LEAST_BYTES: Final = 1_024  # a shorter one counts by its bytes
_MARKS: Final = (b";base64,", b'"data"')
_BASE64: Final = (string.ascii_letters + string.digits + "+/-_=\\").encode()


def tokens_of(document: bytes) -> int:
    """About how many tokens the document has as a prompt."""
    size = len(document)
    if size < MEDIA_FROM_BYTES:
        return -(-size // BYTES_PER_TOKEN)
    media = looked = 0
    for mark in _MARKS:
        at = document.find(mark)
        while at >= 0 and looked < MAX_LOOKS:
            length, at = _medium_at(document, at + len(mark))
            looked += 1
            if length:
                size -= length
                media += 1
            at = document.find(mark, at)
    return -(-size // BYTES_PER_TOKEN) + media * TOKENS_PER_MEDIUM


def _medium_at(document: bytes, at: int) -> tuple[int, int]:
    """How long the medium is that begins here or behind a colon and a quote; 0 for none. And where to go on."""
    if document[at - 1 : at] == b'"':
        colon = document[at : at + 8].lstrip()
        if not colon.startswith(b":") or not colon[1:].lstrip().startswith(b'"'):
            return 0, at
        at = document.index(b'"', at) + 1
    if document[at : at + _LEAST_BYTES].translate(None, _BASE64):
        return 0, at  # it ends soon, or is text
    end = document.find(b'"', at)
    return (end - at, end) if end >= 0 else (0, len(document))
