"""How many tokens an event of a stream holds: one as a rule, but some providers send several at once.

Learnt from whole streams, whose tokens their provider counted; it makes tokens of the events of one that broke off or
was left, which nobody counted. Tokens that are counted and never sent (thoughts that are kept back) are left out by the
caller, or a short answer to a hard question would make all later ones dear.

A stream counts by its length, and a tenth less with each one after it, so a change of the provider's habits is followed
within some twenty streams. At least 1: an event without a token is none.

Limits: one figure for all streams of a target; 1 before the first of them is whole.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 0.9
MOST: Final = 100.0


class TokensPerEvent:
    """Of one target. Cost: O(1)."""

    __slots__ = ("_events", "_tokens")

    def __init__(self) -> None:
        self._tokens = self._events = 0.0

    def learn(self, tokens: int, events: int) -> None:
        """Take in a whole stream."""
        if tokens > 0 and events > 0:
            self._tokens = KEPT * self._tokens + tokens
            self._events = KEPT * self._events + events

    @property
    def value(self) -> float:
        return min(max(self._tokens / self._events, 1.0), MOST) if self._events else 1.0
