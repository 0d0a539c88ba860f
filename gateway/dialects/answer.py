"""An answer put together from its events: what was said so far, block by block.

It is what whole answers are written from, what a conversation remembers, and what a repair goes on from: fed to a fresh
writer, :meth:`Answer.events` brings that writer to where the client already is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import Factory, define

from gateway.core.facts import Usage
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)

MOST_PIECES = 64  # of a block that is kept while it grows


@define(slots=True)
class TextBlock:
    pieces: list[str] = Factory(list)
    logprobs: list[Any] = Factory(list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@define(slots=True)
class RefusalBlock:
    pieces: list[str] = Factory(list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@define(slots=True)
class ReasoningBlock:
    pieces: list[str] = Factory(list)
    signature: str = ""
    redacted: str = ""
    id: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@define(slots=True)
class ToolBlock:
    index: int
    id: str
    name: str
    signature: str = ""
    pieces: list[str] = Factory(list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


Block = TextBlock | RefusalBlock | ReasoningBlock | ToolBlock


@define(slots=True)
class Choice:
    """One of ``n`` answers: its blocks in order."""

    blocks: list[Block] = Factory(list)
    finished: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))

    @property
    def refusal(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, RefusalBlock))

    @property
    def reasoning(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, ReasoningBlock))

    @property
    def tools(self) -> list[ToolBlock]:
        return [block for block in self.blocks if isinstance(block, ToolBlock)]


@define(slots=True)
class Answer:
    """See the module. Not bounded: who feeds it bounds the answer."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: dict[int, Choice] = Factory(dict)
    usage: Usage | None = None
    failed: Failed | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Answer:
        answer = cls()
        for event in events:
            answer.add(event)
        return answer

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case TextDelta():
                block = self._block(event.choice, TextBlock)
                block.pieces.append(event.text)
                if event.logprobs:
                    block.logprobs.extend(event.logprobs)
            case ArgumentsDelta():
                tools = self.choice(event.choice).tools
                found = next((tool for tool in reversed(tools) if tool.index == event.index), None)
                if found is not None:
                    found.pieces.append(event.text)
            case ToolCallStarted():
                self.choice(event.choice).blocks.append(ToolBlock(event.index, event.id, event.name, event.signature))
            case ReasoningDelta():
                self._add_reasoning(event)
            case RefusalDelta():
                self._block(event.choice, RefusalBlock).pieces.append(event.text)
            case Started():
                self.id, self.model = event.id or self.id, event.model or self.model
                self.created = event.created or self.created
            case Finished():
                self.choice(event.choice).finished = event
            case Used():
                self.usage = event.usage
            case Failed():
                self.failed = event

    def choice(self, index: int) -> Choice:
        """The choice of that index, begun if it is new."""
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = Choice()
        return found

    @property
    def first(self) -> Choice:
        """The first choice; empty if there is none."""
        return self.choices.get(0) or Choice()

    def events(self) -> list[Event]:
        """Events that make this answer again, one per block; what came apart comes together."""
        made: list[Event] = [Started(self.id, self.model, self.created)]
        for index, choice in sorted(self.choices.items()):
            for block in choice.blocks:
                made.extend(_events_of(block, index))
            if choice.finished is not None:
                made.append(choice.finished)
        if self.usage is not None:
            made.append(Used(self.usage))
        if self.failed is not None:
            made.append(self.failed)
        return made

    @property
    def chars(self) -> int:
        """Characters of all blocks; cheap after :meth:`compact`."""
        return sum(len(piece) for choice in self.choices.values() for block in choice.blocks for piece in block.pieces)

    def compact(self) -> None:
        """Join the pieces of each block: a piece costs sixty bytes beside its text."""
        for choice in self.choices.values():
            for block in choice.blocks:
                if len(block.pieces) > MOST_PIECES:
                    block.pieces[:] = ["".join(block.pieces)]

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        blocks = self.choice(event.choice).blocks
        last = blocks[-1] if blocks else None
        open_ = isinstance(last, ReasoningBlock) and not (last.signature or last.redacted)
        if event.redacted or not isinstance(last, ReasoningBlock) or not open_ or last.id != (event.id or last.id):
            last = ReasoningBlock(redacted=event.redacted, id=event.id)
            blocks.append(last)
        if event.text:
            last.pieces.append(event.text)
        last.signature = event.signature or last.signature
        last.id = event.id or last.id

    def _block(self, choice: int, kind: Any) -> Any:
        """The block that is being written, if it is of this kind, else a new one."""
        blocks = self.choice(choice).blocks
        if not blocks or not isinstance(blocks[-1], kind):
            blocks.append(kind())
        return blocks[-1]


def _events_of(block: Block, choice: int) -> list[Event]:
    match block:
        case TextBlock():
            return [TextDelta(block.text, choice, block.logprobs or None)]
        case RefusalBlock():
            return [RefusalDelta(block.text, choice)]
        case ReasoningBlock():
            return [ReasoningDelta(block.text, block.signature, block.redacted, choice, block.id)]
        case ToolBlock():
            start = ToolCallStarted(block.index, block.id, block.name, choice, block.signature)
            return [start, ArgumentsDelta(block.index, block.arguments, choice)]
