"""Promises of virtual keys: shown once, never readable again; revoked everywhere within 2 s; a dead store keeps known
keys working and says why a new one is not known; a rotated key overlaps. On SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import services
import trio
import trio.testing
from attrs import define, evolve, field

from gateway.config import Config, Identity, Organisation, Secret, Team
from gateway.config import Store as StoreTable
from gateway.core.errors import Rejected, RequestError
from gateway.core.limits import LimitRule
from gateway.core.principal import Principal
from gateway.identity.directory import Directory
from gateway.identity.pepper import PREFIX, PepperError, find_pepper, make_pepper, new_key, pepper_file
from gateway.store.keys import KeyRefused, Keys, StoredKey
from gateway.store.sqlite import Store


@define
class Clock:
    """Both clocks of a directory, set by the test."""

    at_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at_s


@define
class World:
    """A store with keys, and directories as several processes have them."""

    config: Config
    keys: Keys
    clock: Clock
    said: list[str] = field(factory=list)

    def directory(self) -> Directory:
        def say(level: str, event: str, **fields: Any) -> None:
            self.said.append(event)

        return Directory(self.config, self.keys, say=say, now=self.clock, clock=self.clock)

    async def create(self, name: str = "dev", **fields: Any) -> str:
        secret, prefix = new_key()
        pepper = make_pepper(self.config)
        digest = pepper.digest(secret.encode()).hex()
        key = StoredKey(name=name, **fields)
        await self.keys.create(key, digest=digest, prefix=prefix, pepper_check=pepper.check)
        return secret

    async def rotate(self, name: str, overlap_s: float) -> str:
        secret, prefix = new_key()
        pepper = make_pepper(self.config)
        digest = pepper.digest(secret.encode()).hex()
        await self.keys.rotate(name, digest=digest, prefix=prefix, pepper_check=pepper.check, overlap_s=overlap_s)
        return secret


@asynccontextmanager
async def world(url: str, **tables: Any) -> AsyncIterator[World]:
    config = Config(store=StoreTable(url=url), **tables)
    clock = Clock()
    async with Store.open(url, local_url="sqlite:///:memory:") as store:
        yield World(config, Keys(store.sql, now=clock), clock)


Urls = Callable[[], tuple[str, dict[str, Any]]]


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """A new database, and the pepper's table that goes with it."""
    if request.param == "sqlite":
        return lambda: (f"sqlite:///{tmp_path}/sluice.db", {})
    server: services.Postgres = request.getfixturevalue("postgres")
    return lambda: (server.new_database(), {"identity": Identity(pepper=Secret("0123456789abcdef-pepper"))})


def ask(directory: Directory, secret: str, **where: Any) -> Principal:
    return directory.identify(b"Bearer " + secret.encode(), **where)


def refusal(directory: Directory, secret: str, **where: Any) -> tuple[int, str]:
    with pytest.raises((RequestError, Rejected)) as caught:
        ask(directory, secret, **where)
    return caught.value.http_status, caught.value.code


async def test_a_key_is_known_with_all_it_may_do(urls: Urls) -> None:
    url, tables = urls()
    team = Team(name="search", org="acme", tpm=9_000, models=("chat",))
    organisation = Organisation(name="acme", budget_usd=12.5, period="day")
    async with world(url, team=(team,), organisation=(organisation,), **tables) as here:
        secret = await here.create(
            team="search", models=("chat", "openai/*"), rpm=5, budget_micro_usd=1_000_001, priority="high",
            networks=("10.0.0.0/8", "2001:db8::/32"), endpoints=("/v1/chat/completions",), assistants=("help",),
        )  # fmt: skip
        directory = here.directory()
        await directory.refresh()
        found = ask(directory, secret, client="10.1.2.3", endpoint="/v1/chat/completions")
        assert (found.name, found.team, found.org, found.priority.name) == ("dev", "search", "acme", "HIGH")
        assert found.may_use("chat")
        assert not found.may_use("openai/gpt")
        owner = f"dev#{found.key_id.removeprefix('key_')[:12]}"
        assert found.limits == (
            LimitRule(scope="key", owner=owner, kind="rpm", amount=5),
            LimitRule(scope="key", owner=owner, kind="usd", amount=1_000_001, period="month"),
            LimitRule(scope="team", owner="search", kind="tpm", amount=9_000),
            LimitRule(scope="org", owner="acme", kind="usd", amount=12_500_000, period="day"),
        )
        assert ask(directory, secret, client="::ffff:10.1.2.3") is found
        assert refusal(directory, secret, client="192.0.2.1") == (403, "network_not_allowed")
        assert refusal(directory, secret, client=None) == (403, "network_not_allowed")
        inside = {"client": "2001:db8::1", "endpoint": "/v1/embeddings"}
        assert refusal(directory, secret, **inside) == (403, "endpoint_not_allowed")
        # A reload gives its teams to the keys that are known already.
        directory.configure(evolve(here.config, team=()))
        assert ask(directory, secret, client="10.1.2.3").may_use("openai/gpt")


async def test_nothing_in_the_store_is_a_key_or_its_plain_digest(urls: Urls, tmp_path: Path) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        secret = await here.create()
        prefix, hidden = secret.removeprefix(PREFIX).split("-")
        [stored] = await here.keys.list()
        rows = await here.keys._sql.read(lambda session: session.rows("SELECT * FROM key_secret"))
        assert prefix in str(rows)
        assert hidden not in str(rows)
        assert hidden not in repr(stored)
        assert hashlib.sha256(secret.encode()).hexdigest() not in str(rows)
        assert stored.secrets[0].digest not in repr(stored)
        directory = here.directory()
        await directory.refresh()
        assert secret not in repr(ask(directory, secret))
        for name in os.listdir(tmp_path):
            assert hidden.encode() not in await trio.Path(tmp_path / name).read_bytes()


async def test_keys_that_differ_in_one_character_are_not_known(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        secret = await here.create()
        directory = here.directory()
        await directory.refresh()
        assert refusal(directory, secret[:-1] + ("a" if secret[-1] != "a" else "b")) == (401, "invalid_api_key")
        assert refusal(directory, secret + "a") == (401, "invalid_api_key")
        assert refusal(directory, secret[: len(PREFIX) + 9]) == (401, "invalid_api_key")


async def test_a_revoked_key_is_refused_in_every_process_within_2_s(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here, trio.open_nursery() as nursery:
        secret = await here.create()
        processes = [here.directory() for _ in range(3)]
        for directory in processes:
            nursery.start_soon(directory.run)
        with trio.fail_after(5):
            while any(directory.statistics().keys == 0 for directory in processes):
                await trio.sleep(0.01)
        await here.keys.revoke("dev")
        with trio.fail_after(2):
            for directory in processes:
                while directory.statistics().keys:
                    await trio.sleep(0.01)
        assert [refusal(directory, secret) for directory in processes] == [(401, "invalid_api_key")] * 3
        nursery.cancel_scope.cancel()


async def test_what_did_not_change_is_not_read_again(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        await here.create()
        directory = here.directory()
        for _ in range(3):
            await directory.refresh()
        assert directory.statistics().loads == 1
        await here.create("second")
        await directory.refresh()
        assert (directory.statistics().loads, directory.statistics().keys) == (2, 2)


async def test_a_rotated_key_works_with_both_secrets_for_the_overlap_only(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        old = await here.create(rpm=7)
        new = await here.rotate("dev", overlap_s=60)
        directory = here.directory()
        await directory.refresh()
        assert ask(directory, old) == ask(directory, new)
        here.clock.at_s += 59.9
        assert ask(directory, old).name == "dev"
        here.clock.at_s += 0.2
        assert refusal(directory, old) == (401, "expired_api_key")
        await directory.refresh()
        assert ask(directory, new).limits[0].amount == 7
        newest = await here.rotate("dev", overlap_s=0)
        await directory.refresh()
        assert refusal(directory, new) == (401, "invalid_api_key")
        assert ask(directory, newest).key_id == (await here.keys.list())[0].id
        assert len((await here.keys.list())[0].secrets) == 1


async def test_a_key_expires_without_the_store(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        secret = await here.create(expires_s=here.clock.at_s + 10)
        directory = here.directory()
        await directory.refresh()
        assert ask(directory, secret).expires_at == here.clock.at_s + 10
        here.clock.at_s += 10
        assert refusal(directory, secret) == (401, "expired_api_key")


async def test_names_are_unique_among_the_living_and_a_missing_one_is_said(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        first = await here.create()
        with pytest.raises(KeyRefused, match="there is a key called 'dev'"):
            await here.create()
        await here.keys.revoke("dev")
        second = await here.create()
        assert first != second
        with pytest.raises(KeyRefused, match="no key called 'other'"):
            await here.rotate("other", 0)
        assert [key.revoked_s is None for key in await here.keys.list()].count(True) == 1


async def test_many_at_once_never_lose_a_change(urls: Urls) -> None:
    url, tables = urls()
    async with world(url, **tables) as here:
        make_pepper(here.config)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(here.create, f"key {number}")
        snapshot = await here.keys.load()
        assert (snapshot.version, len(snapshot.keys)) == (10, 10)


async def test_with_the_wrong_pepper_nothing_is_made_and_keys_are_503_not_401(postgres: services.Postgres) -> None:
    url = postgres.new_database()
    async with world(url, identity=Identity(pepper=Secret("the right pepper"))) as here:
        secret = await here.create()
        wrong = World(evolve(here.config, identity=Identity(pepper=Secret("the wrong pepper"))), here.keys, here.clock)
        with pytest.raises(KeyRefused, match="pepper is not the one"):
            await wrong.create("other")
        assert (await here.keys.load()).version == 1
        directory = wrong.directory()
        await directory.refresh()
        assert refusal(directory, secret) == (503, "identity_unavailable")
        assert wrong.said == ["key_store_away"]


async def test_while_the_store_is_away_known_keys_work_for_the_grace_and_new_ones_are_503(
    postgres: services.Postgres,
) -> None:
    url = postgres.new_database()
    rules = Identity(pepper=Secret("0123456789abcdef"), grace_s=3600)
    async with world(url, identity=rules) as here:
        known = await here.create()
        directory = here.directory()
        assert refusal(directory, known) == (503, "identity_unavailable")  # not loaded yet
        await directory.refresh()
        unknown = await here.create("unknown")
        await trio.to_thread.run_sync(postgres.kill)
        for _ in range(3):
            await directory.refresh()
        assert ask(directory, known).name == "dev"
        with pytest.raises(Rejected, match="the key store is away, and this key is not among those known") as caught:
            ask(directory, unknown)
        assert (caught.value.http_status, caught.value.retry_after_s) == (503, 1.0)
        assert directory.gauges()["sluice_key_store_down"] == {(): 1.0}
        here.clock.at_s += 3600
        assert ask(directory, known).name == "dev"
        here.clock.at_s += 1
        assert refusal(directory, known) == (503, "identity_unavailable")
        await trio.to_thread.run_sync(postgres.start)
        await directory.refresh()
        assert (ask(directory, known).name, ask(directory, unknown).name) == ("dev", "unknown")
        assert here.said == ["key_store_away", "key_store_back"]  # once each
        assert directory.gauges()["sluice_key_store_down"] == {(): 0.0}


async def test_a_store_that_hangs_does_not_answer_for_itself(postgres: services.Postgres) -> None:
    """Nobody has noticed yet that the store is away: silence alone makes an unknown key a 503."""
    async with world(postgres.new_database(), identity=Identity(pepper=Secret("0123456789abcdef"))) as here:
        await here.create()
        directory = here.directory()
        await directory.refresh()
        other, _ = new_key()
        assert refusal(directory, other) == (401, "invalid_api_key")
        here.clock.at_s += 3.1
        assert refusal(directory, other) == (503, "identity_unavailable")


async def test_the_first_key_ends_the_time_without_keys(tmp_path: Path) -> None:
    async with world(f"sqlite:///{tmp_path}/sluice.db") as here:
        directory = here.directory()
        await directory.refresh()
        assert directory.is_open
        assert directory.identify(None, local=True).name == "anonymous"
        with pytest.raises(RequestError, match="answers this machine only"):
            directory.identify(None, local=False)
        assert not (tmp_path / "sluice.db").exists()  # nobody asked for keys, nobody opened the store
        secret = await here.create()
        await directory.refresh()
        assert not directory.is_open
        assert ask(directory, secret, local=False).name == "dev"
        with pytest.raises(RequestError, match="no API key"):
            directory.identify(None, local=True)


async def test_a_directory_that_gets_its_store_later_is_closed_from_then_on(tmp_path: Path) -> None:
    async with world(f"sqlite:///{tmp_path}/sluice.db") as here:
        secret = await here.create()
        directory = Directory(here.config)
        directory.attach(here.keys)
        assert not directory.is_open
        assert refusal(directory, secret) == (503, "identity_unavailable")
        await directory.refresh()
        assert ask(directory, secret).name == "dev"


async def test_the_pepper_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    config = Config(store=StoreTable(url=f"sqlite:///{tmp_path}/sluice.db"))
    assert find_pepper(config) is None
    checks = set()
    async with trio.open_nursery() as nursery:

        async def make() -> None:
            checks.add((await trio.to_thread.run_sync(make_pepper, config)).check)

        for _ in range(8):
            nursery.start_soon(make)
    assert len(checks) == 1
    path = pepper_file(config)
    assert path is not None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["sluice.pepper"]
    path.chmod(0o640)
    with pytest.raises(PepperError, match="chmod 600"):
        find_pepper(config)
    # Somebody might have changed it: nobody is let in without a key for that.
    assert not Directory(config, keys=object()).is_open  # type: ignore[arg-type]


async def test_postgresql_needs_a_configured_pepper() -> None:
    with pytest.raises(PepperError, match=r"identity\.pepper is not set"):
        make_pepper(Config(store=StoreTable(url="postgresql://localhost/x")))


async def test_a_look_that_began_before_a_key_was_made_does_not_undo_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_none, go_on = threading.Event(), threading.Event()

    def slow_find(config: Config) -> Any:
        """The first look for a pepper, which finds none and takes its time to say so."""
        pepper = find_pepper(config)
        if pepper is None and not found_none.is_set():
            found_none.set()
            go_on.wait(10)
        return pepper

    async with world(f"sqlite:///{tmp_path}/sluice.db") as here, trio.open_nursery() as nursery:
        directory = here.directory()
        monkeypatch.setattr("gateway.identity.directory.find_pepper", slow_find)
        nursery.start_soon(directory.refresh)
        assert await trio.to_thread.run_sync(found_none.wait, 10)
        secret = await here.create()
        nursery.start_soon(directory.refresh)
        await trio.testing.wait_all_tasks_blocked(0.2)
        go_on.set()
        with trio.fail_after(10):
            while directory.statistics().version < 0:
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert ask(directory, secret).name == "dev"
