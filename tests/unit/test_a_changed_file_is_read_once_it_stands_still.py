"""A configuration file that is being written is not read: two looks have to see the same change first."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from gateway.config import Config, ConfigFaults, Source
from gateway.config.source import Stamp
from gateway.reload import Reloads

NOW, LATER = (1, 1, 1, 1), (1, 1, 2, 1)


@define(kw_only=True)
class Scripted(Source):
    """A file whose states are told, look by look; the last one stays. It is always a wrong one."""

    states: list[Stamp | None]
    looks: list[Stamp | None] = field(factory=list)
    read_after: list[int] = field(factory=list)
    enough: threading.Event = field(factory=threading.Event)

    def news(self) -> Stamp | None:
        self.looks.append(self.states.pop(0) if len(self.states) > 1 else self.states[0])
        if len(self.looks) == 20:
            self.enough.set()
        return self.looks[-1]

    def read(self, environ: Mapping[str, str]) -> Config | None:
        self.read_after.append(len(self.looks))
        raise ConfigFaults([])


async def looked_at(states: list[Stamp | None], monkeypatch: Any) -> list[int]:
    """After which looks the file was read."""
    monkeypatch.setattr("gateway.reload.LOOK_EVERY_S", 0.02)
    source = Scripted(path=Path("sluice.toml"), states=states)
    reloads = Reloads(source, Config(), share=(0, 1), apply=lambda _: (), tell=lambda *_: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloads.run)
        await trio.to_thread.run_sync(source.enough.wait)
        nursery.cancel_scope.cancel()
    return source.read_after


async def test_a_file_that_goes_on_changing_is_not_read(monkeypatch: Any) -> None:
    assert await looked_at([None, *[NOW, LATER] * 10], monkeypatch) == []


async def test_a_changed_file_is_read_once_it_stands_still_and_once_only(monkeypatch: Any) -> None:
    [look] = await looked_at([None, NOW, LATER, LATER, LATER], monkeypatch)
    assert look >= 4


async def test_a_file_that_is_gone_for_a_look_is_seen_anew(monkeypatch: Any) -> None:
    [look] = await looked_at([NOW, None, NOW, NOW], monkeypatch)
    assert look >= 4


async def test_a_state_that_comes_back_after_another_was_read_is_read_again(monkeypatch: Any) -> None:
    assert len(await looked_at([NOW, NOW, NOW, NOW, None, NOW, NOW], monkeypatch)) == 2
