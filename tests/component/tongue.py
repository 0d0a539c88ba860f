"""The clients' dialects, as plain documents: how each asks the same question, and how its answers are read.

A :class:`Tongue` writes one :class:`Question` as its dialect's request and reads the answer, streamed or whole, into
one :class:`Said`; so a test can hold any client against any provider. Nothing of the gateway's own readers and writers
is used here: what a client sees is judged from outside.

Sources: the API references of OpenAI (chat completions, responses, legacy completions), Anthropic (messages) and
Google (generateContent).
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from attrs import frozen

from tests.component.stage import Heard

TOOL = "weather"
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


@frozen(kw_only=True)
class Call:
    """A tool call as a client has it."""

    id: str
    name: str
    arguments: dict[str, Any]


@frozen(kw_only=True)
class Question:
    """What is asked, in no dialect.

    Attributes:
        turns: Role (``user`` or ``assistant``) and text.
        tool: Offer the tool :data:`TOOL`.
        called, result: The tool's call of an earlier answer, and what it returned.
    """

    turns: tuple[tuple[str, str], ...] = (("user", "How do I descale it?"),)
    system: str = ""
    tool: bool = False
    called: Call | None = None
    result: str = ""
    max_tokens: int | None = None
    stop: str = ""


@frozen(kw_only=True)
class Said:
    """An answer as a client has it.

    Attributes:
        ids: All that its parts carry; one, if all is well.
        ended: Its last word is there: a whole document, or the end of the stream as the dialect wants it.
        error: The error event that a stream ended with.
    """

    text: str
    ids: frozenset[str] = frozenset()
    calls: tuple[Call, ...] = ()
    finish: str = ""
    tokens: tuple[int, int] | None = None
    ended: bool = False
    error: Any = None


def arguments(text: str) -> dict[str, Any]:
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def turns_of(question: Question) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in question.turns]


class Tongue:
    """One client dialect.

    Attributes:
        full: It has system texts, turns and tools; otherwise one text is all that can be asked.
        finishes: What it calls the reasons ``stop``, ``length`` and ``tool``.
    """

    name: ClassVar[str]
    full: ClassVar[bool] = True
    finishes: ClassVar[dict[str, str]] = {"stop": "stop", "length": "length", "tool": "tool_calls"}

    def path(self, model: str, *, stream: bool) -> str:
        raise NotImplementedError

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        raise NotImplementedError

    def whole(self, document: Any) -> Said:
        raise NotImplementedError

    def streamed(self, heard: Heard) -> Said:
        raise NotImplementedError

    def said(self, heard: Heard, *, stream: bool) -> Said:
        """The answer to a request that was not refused."""
        assert (heard.status, heard.whole) == (200, True), heard.body
        return self.streamed(heard) if stream else self.whole(heard.json())

    def refusal(self, heard: Heard) -> str:
        """The message of an error document, whose shape is the dialect's."""
        error = heard.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["message"])
