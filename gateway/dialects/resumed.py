"""The rest of a broken answer, from another target, joined to what the client already has.

Two ways lead there. A target that was asked again from the start (*restart*) first repeats what the client has: that
part is swallowed as long as it is the same, letter by letter; if it differs, or ends before, the stream has
:class:`Diverged` and is of no use. A target that was given the partial answer as its own (*continue*) goes on at once;
only the white space at the seam may come twice, since it is not sent with a partial answer (Anthropic refuses it); as
much of it as the client has already is left out.

The writer is brought to where the client is by replaying what the client has into it, so that the answer keeps its id
and its open blocks. Thoughts of the second target are left out: they belong to words that the client has already.
"""

from __future__ import annotations

from attrs import evolve

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.events import Event, ReasoningDelta, Started, TextDelta, Used
from gateway.dialects.pairing import TranslatedStream
from gateway.dialects.provider import BadAnswer, Reader, Writer


class Diverged(BadAnswer):
    """The second answer does not begin with what the client already has."""


class ResumedStream(TranslatedStream):
    """A :class:`TranslatedStream` that gives out only what the client does not have.

    Args:
        so_far: What the client has; its first choice's text is what counts.
        repeats: The target was asked from the start and says it all again.
        tokens_before: What was counted so far; added to the reported usage where the target only counts its own part.
    """

    def __init__(self, reader: Reader, writer: Writer, so_far: Answer, *, repeats: bool, tokens_before: int) -> None:
        super().__init__(reader, writer, keep=True)
        replayed = so_far.events()
        writer.write(replayed)
        self._answer = Answer.of(replayed)
        text = so_far.first.text
        self._to_swallow = text if repeats else text[len(text.rstrip()) :]
        self._repeats = repeats
        self._tokens_before = 0 if repeats else tokens_before
        self._billed: Usage | None = None
        self._is_behind = True

    @property
    def billed(self) -> Usage | None:
        return self._billed

    def feed(self, data: bytes) -> bytes:
        left = len(self._to_swallow)
        self.catching_up = False
        given = super().feed(data)
        self.catching_up = self._is_behind and len(self._to_swallow) < left  # a keep-alive is no progress
        return given

    def fresh(self, events: list[Event]) -> list[Event]:
        """Those events, or parts, that the client does not have.

        Raises:
            Diverged: It can never be joined.
        """
        fresh: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta) and self._is_behind:
                event = self._swallow(event)
                if not event.text:
                    continue
            elif isinstance(event, ReasoningDelta):
                continue
            elif isinstance(event, Used):
                event = self._whole_usage(event)
            elif self._is_behind and not isinstance(event, Started):
                self._caught_up()
            fresh.append(event)
        return fresh

    def _swallow(self, event: TextDelta) -> TextDelta:
        expected, text = self._to_swallow, event.text
        self.repeated += self._repeats
        size = _same(expected, text)
        if size < min(len(expected), len(text)) and self._repeats:
            raise Diverged("the second answer is another one")
        self._to_swallow = expected[size:]
        if len(text) > size:
            self._is_behind = False
            return TextDelta(text[size:], event.choice, event.logprobs)
        return TextDelta("", event.choice)

    def _caught_up(self) -> None:
        """Something other than text comes: that is fine behind the text the client has, and only there."""
        if self._to_swallow and self._repeats:
            raise Diverged("the second answer ended before the first one broke off")
        self._is_behind = False

    def _whole_usage(self, event: Used) -> Used:
        usage = self._billed = event.usage
        if not self._tokens_before:
            return event
        tokens = usage.completion_tokens + self._tokens_before
        return Used(evolve(usage, completion_tokens=tokens, estimated=True))


def _same(expected: str, text: str) -> int:
    """How many characters both begin with."""
    size = min(len(expected), len(text))
    if text[:size] == expected[:size]:
        return size
    return next(place for place in range(size) if text[place] != expected[place])
