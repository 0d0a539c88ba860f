"""What a context loader is told, and what it gives back."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True, slots=True)
class Ask:
    """The part of a request that loaders may see.

    Attributes:
        input: The text of the last user message; what retrieval searches for.
        user: The client's ``user`` field: who the answer is for. None when the client named nobody.
        conversation: Id of the conversation, None for a single question.
        tenant: Name of the key that asks; conversations of different tenants never mix.
    """

    input: str
    user: str | None = None
    conversation: str | None = None
    tenant: str = ""


@frozen(kw_only=True, slots=True)
class Item:
    """One piece of context. ``source`` is what a person would look up: a file and heading, a table row, a URL."""

    text: str
    source: str


@frozen(kw_only=True, slots=True)
class LoaderNews:
    """A loader has started (``outcome`` is ""), or ended with ``outcome``."""

    loader: str
    kind: str
    outcome: str = ""
    ms: float = 0.0
    items: tuple[Item, ...] = ()
    chars: int = 0
    reason: str = ""
