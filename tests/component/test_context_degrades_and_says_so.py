"""Promise: an assistant's configured loaders work together on a real store, and without it the answer goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import (
    Assistant,
    ContextRules,
    ConversationLoader,
    HttpLoader,
    ProfileLoader,
    RetrievalLoader,
)
from gateway.context.assemble import assemble
from gateway.context.build import build_loaders
from gateway.context.index import index_folder
from gateway.context.load import load_context
from gateway.core.ask import Ask
from gateway.core.errors import ContextFailed
from gateway.store.conversations import Turn
from gateway.store.sqlite import Store
from gateway.upstream.transport import Transport, make_client

ASK = Ask(input="May I use vinegar for descaling?", user="anna", conversation="c1", tenant="shop")
QUESTION = [{"role": "user", "content": ASK.input}]


def support(*, required: bool = False) -> Assistant:
    loaders = (
        RetrievalLoader(name="docs", top_k=2, required=required, timeout_s=5),
        ProfileLoader(name="profile", timeout_s=5),
        ConversationLoader(name="earlier", max_turns=2, timeout_s=5),
    )
    return Assistant(name="support", model="chat", system="Docs: {docs}\nUser: {profile}", loader=loaders)


async def test_documents_profile_and_earlier_turns_reach_the_model(tmp_path: Path) -> None:
    (tmp_path / "care.md").write_text("# Descaling\n\nNever with vinegar: it attacks the seals.")
    assistant = support()
    async with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        await index_folder(store, "default", tmp_path)
        await store.profiles.put({"anna": {"name": "Anna", "cups": 3}})
        turns = [Turn(role="user", text="old"), Turn(role="assistant", text="older"), Turn(role="user", text="hello")]
        await store.conversations.append("shop", "c1", [*turns, Turn(role="assistant", text="hi Anna")])
        loaders = build_loaders(assistant, store=store, client=None, rules=ContextRules())
        context = await load_context(loaders, ASK, budget_s=5)
    assert [(report.kind, report.outcome) for report in context.reports] == [
        ("retrieval", "loaded"),
        ("profile", "loaded"),
        ("context", "loaded"),
    ]
    system, *rest = assemble(assistant, context, QUESTION)
    assert '<source name="care.md › Descaling">\nNever with vinegar' in system["content"]
    assert '<source name="profile of anna">\nname: Anna\ncups: 3\n' in system["content"]
    assert [message["content"] for message in rest] == ["hello", "hi Anna", ASK.input]


async def test_without_its_store_an_assistant_answers_and_says_what_is_missing(tmp_path: Path) -> None:
    assistant = support()
    async with Store.open(f"sqlite:///{tmp_path}/nowhere/x.db") as store:
        loaders = build_loaders(assistant, store=store, client=None, rules=ContextRules())
        context = await load_context(loaders, ASK, budget_s=5)
    assert [(report.outcome, report.detail) for report in context.reports] == [
        ("failed", "the store cannot be opened")
    ] * 3
    system = assemble(assistant, context, QUESTION)[0]["content"]
    assert system.count("(not available)") == 2
    assert "nowhere" not in system
    assert "nowhere does not exist" in str(context.reports[0].error)


async def test_without_its_store_a_required_loader_fails_the_request_by_name(tmp_path: Path) -> None:
    async with Store.open(f"sqlite:///{tmp_path}/nowhere/x.db") as store:
        loaders = build_loaders(support(required=True), store=store, client=None, rules=ContextRules())
        with pytest.raises(ContextFailed) as caught:
            await load_context(loaders, ASK, budget_s=5)
    message = "required context loader 'docs' failed: the store cannot be opened"
    assert (caught.value.public_message, caught.value.http_status) == (message, 502)


async def test_what_nobody_knows_is_empty_and_no_failure() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        loaders = build_loaders(support(), store=store, client=None, rules=ContextRules())
        context = await load_context(loaders, ASK, budget_s=5)
    assert [report.outcome for report in context.reports] == ["empty"] * 3


async def test_an_http_loader_that_cannot_work_is_named_when_it_is_built() -> None:
    rules = HttpLoader(name="orders", url="http://api.test/", pointer="x")
    assistant = Assistant(name="support", model="chat", loader=(rules,))
    async with Store.open("sqlite:///:memory:") as store, make_client(Transport()) as client:
        with pytest.raises(ValueError, match="assistant 'support', loader 'orders': kind http needs an HTTP client"):
            build_loaders(assistant, store=store, client=None, rules=ContextRules())
        with pytest.raises(ValueError, match=r"assistant 'support', loader 'orders': the pointer 'x' must be empty or"):
            build_loaders(assistant, store=store, client=client, rules=ContextRules())
