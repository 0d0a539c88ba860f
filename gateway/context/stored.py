"""The three loaders that read our own store: documents, profiles, earlier turns.

Each is a thin step from a request to one bounded query; the store stops the query when the loader is cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.config import ConversationLoader, ProfileLoader, RetrievalLoader
from gateway.core.ask import Ask, Item
from gateway.store.conversations import Conversations
from gateway.store.documents import Documents
from gateway.store.profiles import Profiles


class Retrieval:
    """The passages of a collection that match the question best."""

    def __init__(self, rules: RetrievalLoader, documents: Documents) -> None:
        self.rules = rules
        self._documents = documents

    async def load(self, ask: Ask) -> Sequence[Item]:
        """One item per passage, best first; its source is "file › heading"."""
        found = await self._documents.search(self.rules.collection, ask.input, self.rules.top_k)
        return [Item(text=passage.body, source=passage.source) for passage in found]


class UserProfile:
    """What the profile table knows of the request's user."""

    def __init__(self, rules: ProfileLoader, profiles: Profiles) -> None:
        self.rules = rules
        self._profiles = profiles

    async def load(self, ask: Ask) -> Sequence[Item]:
        """One item with a line "field: value" per field; nothing for an unknown user."""
        if not ask.user:
            return []
        profile = await self._profiles.get(ask.user)
        if profile is None:
            return []
        text = "\n".join(f"{name}: {_shown(value)}" for name, value in profile.items())
        return [Item(text=text, source=f"profile of {ask.user}")]


class EarlierTurns:
    """The last turns of the request's conversation."""

    def __init__(self, rules: ConversationLoader, conversations: Conversations) -> None:
        self.rules = rules
        self._conversations = conversations

    async def load(self, ask: Ask) -> Sequence[Item]:
        """One item per turn, oldest first; its source is the role, ``user`` or ``assistant``."""
        if not ask.conversation:
            return []
        turns = await self._conversations.recent(ask.tenant, ask.conversation, self.rules.max_turns)
        return [Item(text=turn.text, source=turn.role) for turn in turns]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
