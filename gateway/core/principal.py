"""Who is asking: what identity found out about a request's key."""

from __future__ import annotations

import enum

from attrs import frozen


class Priority(enum.IntEnum):
    """A place class in the admission line; the lower number is served more often."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@frozen(kw_only=True, slots=True)
class Principal:
    """The owner of a request.

    Attributes:
        name: The key's name; safe for logs and metrics, never the secret.
        priority: The best priority this key may ask for.
        models: Models and assistants it may ask for, ``openai/*`` style prefixes too; empty means all.
    """

    name: str
    priority: Priority = Priority.NORMAL
    models: frozenset[str] = frozenset()

    def may_use(self, model: str) -> bool:
        return (
            not self.models
            or model in self.models
            or any(name.endswith("*") and model.startswith(name[:-1]) for name in self.models)
        )


ANONYMOUS = Principal(name="anonymous")
