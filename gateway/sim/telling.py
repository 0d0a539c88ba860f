"""One answer in the bytes of one dialect: the interface between what is said and how it is played.

A :class:`Telling` gives the pieces of a stream, or the whole document; the player (``sim/playing.py``) paces them and
breaks off. Nothing here waits or knows of sockets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gateway.sim.errors import ApiError


class Telling(Protocol):
    """An answer, ready to be told.

    Attributes:
        choices: Answers that are made side by side.
        stream: The client asked for a stream.
        content_type: Of the stream.
        ping: A keep-alive in the stream; b"" where there is none.
        tokens: Tokens of all choices.
        each: Tokens of one choice.
    """

    @property
    def choices(self) -> int: ...
    @property
    def stream(self) -> bool: ...
    @property
    def content_type(self) -> str: ...
    @property
    def ping(self) -> bytes: ...
    @property
    def tokens(self) -> int: ...
    @property
    def each(self) -> int: ...

    def opening(self) -> bytes:
        """The preamble: what comes before any content."""
        ...

    def events(self) -> Iterator[tuple[bytes, int]]:
        """The events of the content, each with the number of tokens in it."""
        ...

    def finish(self) -> bytes:
        """How the answer ends: the finish reason, and usage if it is to be told."""
        ...

    def end_mark(self) -> bytes:
        """What says that nothing follows; b"" where the dialect has no such thing."""
        ...

    def failure(self, error: ApiError) -> bytes:
        """The event that says that the answer failed."""
        ...

    def document(self) -> bytes:
        """The answer in one piece."""
        ...
