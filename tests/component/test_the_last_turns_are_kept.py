"""A conversation's turn that was answered is kept, though the gateway ends the moment after."""

from __future__ import annotations

from pathlib import Path

import trio

from gateway.config import Config
from gateway.config.tree import Store as StoreSettings
from gateway.instance import LAST_TURNS_S, Gateway
from gateway.store.sqlite import Store


async def test_a_turn_that_waits_when_the_gateway_ends_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/turns.db"
    async with Gateway(Config(store=StoreSettings(url=url))).running() as gateway:
        gateway.memory.remember("tenant", "talk", "why?", "because")
    async with Store.open(url) as store:
        turns = await store.conversations.recent("tenant", "talk", 10)
    assert [(turn.role, turn.text) for turn in turns] == [("user", "why?"), ("assistant", "because")]


async def test_a_store_that_hangs_does_not_keep_the_gateway_from_ending(tmp_path: Path) -> None:
    began = trio.current_time()
    with trio.fail_after(LAST_TURNS_S + 10):
        async with Gateway(Config(store=StoreSettings(url=f"sqlite:///{tmp_path}/turns.db"))).running() as gateway:
            store = gateway.store
            assert store is not None
            store.conversations.append = _hang  # type: ignore[method-assign]
            gateway.memory.remember("tenant", "talk", "why?", "because")
    assert trio.current_time() - began >= LAST_TURNS_S


async def _hang(*_: object) -> None:
    await trio.sleep_forever()
