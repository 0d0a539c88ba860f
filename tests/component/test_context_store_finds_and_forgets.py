"""Promise: questions find passages whatever they contain, and conversations are remembered within their bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.store.conversations import ConversationLimits, Conversations, Turn
from gateway.store.database import MEMORY, Database
from gateway.store.documents import FileState, Passage
from gateway.store.sqlite import Store

STATE = FileState(mtime_ns=1, size_bytes=1, digest=b"x")
PAGES = {
    "care.md": [
        Passage(heading="Care › Cleaning", body="Rinse the basket and wipe the wand after every use."),
        Passage(heading="Care › Descaling", body="Do not use vinegar. The programme takes 22 minutes."),
    ],
    "returns.md": [Passage(heading="Returns", body="Send it back within 30 days of delivery, cleaned.")],
}


async def filled(store: Store, collection: str = "default") -> None:
    await store.documents.put(collection, {path: (STATE, passages) for path, passages in PAGES.items()})


async def test_the_best_passage_comes_first_with_the_way_to_it() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await filled(store)
        found = await store.documents.search("default", "Can I use vinegar for descaling?", 2)
        assert found[0].source == "care.md › Care › Descaling"
        assert found[0].score > found[-1].score
        assert len(found) == 2


async def test_words_are_found_in_other_forms_and_accents() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await filled(store)
        assert (await store.documents.search("default", "rinsing baskéts", 1))[0].heading == "Care › Cleaning"


async def test_a_search_stays_in_its_collection() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await filled(store, "one")
        assert await store.documents.search("two", "vinegar", 5) == []
        assert len(await store.documents.search("one", "vinegar", 5)) == 1


async def test_replaced_and_removed_passages_are_found_no_more() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await filled(store)
        await store.documents.put("default", {"care.md": (STATE, [Passage(heading="", body="lemon")])})
        assert await store.documents.search("default", "vinegar", 5) == []
        await store.documents.remove("default", ["care.md"])
        assert await store.documents.search("default", "lemon", 5) == []
        assert await store.documents.count("default") == 1


@settings(max_examples=60, deadline=None)
@given(question=st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from('ab"*():^{}-+,. ANDORNT\0')))
async def test_no_question_is_a_syntax_error(question: str) -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await filled(store)
        await store.documents.search("default", question, 3)
        found = await store.documents.search("default", f"vinegar {question[:50]}", 3)
        assert "care.md › Care › Descaling" in [one.source for one in found]


async def test_profiles_are_put_all_or_none(tmp_path: Path) -> None:
    async with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        await store.profiles.put({"anna": {"plan": "gold", "points": 3}, "ben": {}})
        await store.profiles.put({"ben": {"plan": "free"}})
        assert await store.profiles.get("anna") == {"plan": "gold", "points": 3}
        assert await store.profiles.get("ben") == {"plan": "free"}
        assert await store.profiles.get("eve") is None


def turns(*texts: str) -> list[Turn]:
    return [Turn(role="user" if number % 2 == 0 else "assistant", text=text) for number, text in enumerate(texts)]


async def test_the_last_turns_come_oldest_first_and_only_to_their_tenant() -> None:
    async with Store.open("sqlite:///:memory:") as store:
        talk = store.conversations
        await talk.append("shop", "c1", turns("one", "two"))
        await talk.append("shop", "c1", turns("three", "four"))
        await talk.append("rival", "c1", turns("theirs"))
        assert [turn.text for turn in await talk.recent("shop", "c1", 3)] == ["two", "three", "four"]
        assert [turn.role for turn in await talk.recent("shop", "c1", 2)] == ["user", "assistant"]
        assert await talk.recent("shop", "c2", 3) == []
        await talk.forget("shop", "c1")
        assert await talk.recent("shop", "c1", 3) == []
        assert len(await talk.recent("rival", "c1", 3)) == 1


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (ConversationLimits(turns=3), ["bbbb", "cccc", "dddd"]),
        (ConversationLimits(chars=9), ["cccc", "dddd"]),
        (ConversationLimits(chars=1), ["dddd"]),
        (ConversationLimits(turn_chars=2), ["aa", "bb", "cc", "dd"]),
    ],
)
async def test_a_conversation_keeps_its_newest_turns_within_its_limits(
    limits: ConversationLimits, kept: list[str]
) -> None:
    async with Store.open("sqlite:///:memory:", limits=limits) as store:
        await store.conversations.append("k", "other", turns("eeee"))
        await store.conversations.append("k", "c", turns("aaaa", "bbbb", "cccc", "dddd"))
        assert [turn.text for turn in await store.conversations.recent("k", "c", 99)] == kept
        assert len(await store.conversations.recent("k", "other", 99)) == 1


async def test_old_turns_are_forgotten_wherever_they_are() -> None:
    clock = [1_000.0]
    database = Database(MEMORY)
    talk = Conversations(database, ConversationLimits(age_s=100), now=lambda: clock[0])
    await talk.append("k", "old", turns("one"))
    clock[0] = 1_101.0
    assert await talk.recent("k", "old", 9) == []  # not shown even before it is pruned
    await talk.append("k", "new", turns("two"))
    left = await database.read(lambda connection: connection.execute("SELECT count(*) FROM turn").get)
    assert left == 1
    await database.aclose()
