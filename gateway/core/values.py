"""``value``: attrs' ``frozen`` for what is made anew with every request.

mypy treats such a class as frozen, which is what keeps it unchanged. At runtime it is an ordinary one: attrs makes a
frozen object with a call per attribute, two to three times the time (0.6 µs more for eight of them).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from attrs import frozen as value
else:
    from attrs import define

    value = partial(define, unsafe_hash=True)  # equal values have equal hashes, as frozen ones do
