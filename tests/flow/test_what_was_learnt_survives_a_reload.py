"""After a reload a provider's health goes on if its settings are the same; old requests never mix with new ones."""

from __future__ import annotations

import pytest

from gateway import config
from gateway.config import Secret, Target
from gateway.core.principal import ANONYMOUS
from gateway.policy.classify import Health
from gateway.upstream.health import HealthBook, Lease, Unavailable
from gateway.upstream.targets import Routes
from gateway.upstream.targets import Target as Ready

FAILS = config.Breaker(consecutive=1)


def routes(*keys: str, weight: float = 1.0, breaker: config.Breaker = FAILS) -> Routes:
    """Freshly made, as each reading of a file makes them."""
    provider = config.Provider(
        name="p", base_url="http://127.0.0.1:1", api_keys=tuple(map(Secret, keys)), breaker=breaker
    )
    model = config.Model(name="m", targets=(Target(provider="p", model="x", weight=weight),))
    return Routes([provider], [model], [], config.Timeouts())


def target(made: Routes) -> Ready:
    return made.resolve("m", ANONYMOUS).targets[0]


def fail(book: HealthBook, at: Ready) -> None:
    lease = book.enter(at)
    assert isinstance(lease, Lease)
    lease.end(Health.FAILED)


async def test_the_same_settings_keep_breaker_and_budget() -> None:
    book, old, new = HealthBook(), routes("k"), routes("k", weight=2.0)
    fail(book, target(old))
    before = book.of(target(old))
    book.keep(new.providers)
    assert book.of(target(new)) is before
    assert book.of(target(old)) is before
    assert isinstance(book.enter(target(new)), Unavailable)


async def test_other_settings_begin_afresh_and_old_requests_stay_apart() -> None:
    book, old, new = HealthBook(), routes("k1"), routes("k1", "k2")
    fail(book, target(old))
    book.keep(new.providers)
    assert isinstance(book.enter(target(old)), Unavailable)
    leases = [book.enter(target(new)) for _ in range(2)]
    assert [lease.key for lease in leases if isinstance(lease, Lease)] == [0, 1]
    fail(book, target(new))
    assert book.of(target(new)) is not book.of(target(old))


async def test_an_old_request_that_asks_first_does_not_shape_the_new_ones() -> None:
    book, old, new = HealthBook(), routes("k1", "k2"), routes("k1")
    book.keep(new.providers)
    for _ in range(4):
        lease = book.enter(target(old))
        assert isinstance(lease, Lease)
        lease.end(Health.GOOD)
    assert len({book.enter(target(new)).key for _ in range(4)}) == 1  # type: ignore[union-attr]
    assert book.of(target(new)).provider.settings is target(new).provider.settings


async def test_a_provider_that_is_gone_is_no_longer_told_of() -> None:
    book, old = HealthBook(), routes("k")
    fail(book, target(old))
    book.keep([])
    assert book.states() == []
    assert isinstance(book.enter(target(old)), Unavailable)
    assert book.states() == []


@pytest.mark.parametrize("how", ["weighted", "least_loaded"])
async def test_a_target_without_weight_is_asked_last(how: str) -> None:
    provider = config.Provider(name="p", base_url="http://127.0.0.1:1")
    targets = (Target(provider="p", model="none", weight=0.0), Target(provider="p", model="all"))
    model = config.Model(name="m", targets=targets, balance=how)  # type: ignore[arg-type]
    made = Routes([provider], [model], [], config.Timeouts())
    [stage] = made.resolve("m", ANONYMOUS).stages
    book = HealthBook()
    assert {tuple(one.model for one in book.order(stage, how)) for _ in range(30)} == {("all", "none")}
