"""An answer that is kept while it passes: cheap to add to, put together only when somebody asks.

Blocks of events are kept as they are and read into an :class:`Answer` from time to time, so that a long answer costs
its text and not its framing. What grows beyond ``max_chars`` is given up: a repair or a conversation does without.
"""

from __future__ import annotations

from gateway.dialects.answer import Answer
from gateway.dialects.events import Event, Failed, Finished, Used
from gateway.dialects.provider import Reader

READ_EVERY_BYTES = 32_768
MAX_KEPT_CHARS = 1_048_576


class Kept:
    """What a client got so far.

    Args:
        reader: Of the dialect in which the blocks are.
        max_chars: Longest answer that is kept.
    """

    __slots__ = ("_answer", "_blocks", "_bytes", "_max_chars", "_reader", "_too_long")

    def __init__(self, reader: Reader, max_chars: int = MAX_KEPT_CHARS) -> None:
        self._reader = reader
        self._max_chars = max_chars
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._answer = Answer()
        self._too_long = False

    def add(self, block: bytes) -> None:
        """Keep a block of whole events."""
        self._blocks.append(block)
        self._bytes += len(block)
        if self._bytes > READ_EVERY_BYTES:
            self._read()

    def answer(self) -> Answer | None:
        """All that was added; None if it was too long. The answer is the keeper's own: not to be changed."""
        self._read()
        return None if self._too_long else self._answer

    def _read(self) -> None:
        data = b"".join(self._blocks)
        self._blocks.clear()
        self._bytes = 0
        if data and not self._too_long:
            self._too_long = not take_in(self._answer, self._reader.feed(data), self._max_chars)


def take_in(answer: Answer, events: list[Event], max_chars: int) -> bool:
    """Add what was said, not how it ended; False once the answer is longer than ``max_chars``."""
    for event in events:
        if not isinstance(event, Finished | Used | Failed):
            answer.add(event)
    answer.compact()
    return answer.chars <= max_chars
