"""Make an assistant's loaders from its configuration; the one place that knows which class serves which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from gateway import config
from gateway.context.http_loader import Http
from gateway.context.load import Loader
from gateway.context.stored import EarlierTurns, Retrieval, UserProfile
from gateway.context.template import TemplateError
from gateway.store.sqlite import Store

if TYPE_CHECKING:
    import httpx


def build_loaders(
    assistant: config.Assistant, *, store: Store, client: httpx.AsyncClient | None, rules: config.ContextRules
) -> tuple[Loader, ...]:
    """The loaders of ``assistant`` in the order of the configuration; they open nothing yet.

    Args:
        assistant: Whose.
        store: Serves the kinds ``retrieval``, ``profile`` and ``context``.
        client: Serves ``http``; may be None if no loader is of that kind.
        rules: The hosts that ``http`` loaders may reach.

    Raises:
        ValueError: An ``http`` loader cannot work as it is configured; names the assistant and the loader.
    """
    return tuple(_build(assistant.name, loader, store, client, rules) for loader in assistant.loader)


def _build(
    assistant: str, loader: config.Loader, store: Store, client: httpx.AsyncClient | None, rules: config.ContextRules
) -> Loader:
    match loader:
        case config.RetrievalLoader():
            return Retrieval(loader, store.documents)
        case config.ProfileLoader():
            return UserProfile(loader, store.profiles)
        case config.ConversationLoader():
            return EarlierTurns(loader, store.conversations)
        case config.HttpLoader():
            if client is None:
                raise ValueError(f"assistant '{assistant}', loader '{loader.name}': kind http needs an HTTP client")
            try:
                return Http(loader, client, rules)
            except TemplateError as error:
                raise ValueError(f"assistant '{assistant}', loader '{loader.name}': {error}") from error
    assert_never(loader)
