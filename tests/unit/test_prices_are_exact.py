"""Promise: what tokens cost is exact to the micro-dollar, and what is not known is never free."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from attrs import define
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice
from genai_prices.types import Usage as ListedUsage
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, Model, Price, Provider, Target
from gateway.core.facts import Usage
from gateway.ledger.prices import MAX_KEPT, Prices

OPENAI = Provider(name="main", base_url="https://api.openai.com/v1")
ANTHROPIC = Provider(name="claude", preset="anthropic", base_url="http://proxy.example/anthropic")
OWN = Provider(name="own", base_url="http://10.0.0.1/v1")
MILLION = 1_000_000
AN_HOUR = Usage(prompt_tokens=MILLION, cache_write_tokens=MILLION, long_cache_write_tokens=MILLION)


def prices(**known: Price) -> Prices:
    return Prices(Config(provider=(OPENAI, ANTHROPIC, OWN), prices={f"own/{name}": one for name, one in known.items()}))


def price(asked: float, answered: float, cached: float | None = None, written: float | None = None) -> Price:
    return Price(
        input_usd_per_mtok=asked,
        output_usd_per_mtok=answered,
        cached_usd_per_mtok=cached,
        cache_write_usd_per_mtok=written,
    )


@pytest.mark.parametrize(
    ("paid", "usage", "micro_usd"),
    [
        (price(2.0, 8.0), Usage(prompt_tokens=1_000, completion_tokens=100), 2_800),
        (price(2.0, 8.0, 0.5), Usage(prompt_tokens=1_000, cached_tokens=400), 1_400),
        (price(2.0, 8.0), Usage(prompt_tokens=1_000, cached_tokens=400), 2_000),
        (price(2.0, 8.0, 0.5, 2.5), Usage(prompt_tokens=1_000, cached_tokens=400, cache_write_tokens=100), 1_450),
        (price(2.0, 8.0), Usage(completion_tokens=100, reasoning_tokens=60), 800),
        (price(0.15, 0.6), Usage(prompt_tokens=3), 0),  # 0.45
        (price(0.5, 0.0), Usage(prompt_tokens=1), 1),  # 0.5 is rounded up
        (price(0.1, 0.0), Usage(prompt_tokens=4), 0),  # 0.4
        (price(0.0, 0.0), Usage(prompt_tokens=MILLION), 0),
        (price(0.1, 0.2), Usage(prompt_tokens=1_000_000_000, completion_tokens=1_000_000_000), 300_000_000),
        (price(1.0, 1.0), Usage(prompt_tokens=10, cached_tokens=90), 10),  # a provider that counts wrongly
    ],
)
def test_a_request_costs_what_its_tokens_cost(paid: Price, usage: Usage, micro_usd: int) -> None:
    assert prices(m=paid).of("own/m").micro_usd(usage) == micro_usd


@pytest.mark.parametrize(
    ("provider", "model", "usage", "listed"),
    [
        ("main", "gpt-4o-mini", Usage(prompt_tokens=MILLION), "input_mtok"),
        ("main", "gpt-4o-mini", Usage(completion_tokens=MILLION), "output_mtok"),
        ("main", "gpt-4o-mini", Usage(prompt_tokens=MILLION, cached_tokens=MILLION), "cache_read_mtok"),
        ("claude", "claude-haiku-4-5", Usage(prompt_tokens=MILLION, cache_write_tokens=MILLION), "cache_write_mtok"),
        ("claude", "claude-haiku-4-5", AN_HOUR, "cache_write_1h_mtok"),
    ],
)
def test_the_table_is_found_by_address_or_preset(provider: str, model: str, usage: Usage, listed: str) -> None:
    name = {"main": "openai", "claude": "anthropic"}[provider]
    info = get_snapshot().find_provider_model(model, None, name, None)[1]
    assert isinstance(info.prices, ModelPrice)
    expected = int(getattr(info.prices, listed) * MILLION)
    assert prices().of(f"{provider}/{model}").micro_usd(usage) == expected > 0
    assert prices().of(f"{provider}/{model}").version.startswith("genai-prices/")


def test_the_whole_table_is_priced_as_its_authors_do() -> None:
    """For every model that is paid by tokens, short prompts and long ones; to the micro-dollar."""
    checked = 0
    for listed in get_snapshot().providers:
        ours = Prices(Config(provider=(Provider(name=listed.id, base_url="http://elsewhere.example/v1"),)))
        for info in listed.models:
            if listed.find_model(info.id, all_providers=get_snapshot().providers) is not info:
                continue
            for asked in (1_000, 1_000_003):
                usage = Usage(
                    prompt_tokens=asked,
                    completion_tokens=777,
                    cached_tokens=300,
                    cache_write_tokens=200,
                    long_cache_write_tokens=50,
                    reasoning_tokens=100,
                )
                cost = ours.of(f"{listed.id}/{info.id}").micro_usd(usage)
                if cost is None:
                    continue
                theirs = info.calc_price(_listed(asked), listed).total_price * MILLION
                assert abs(theirs - cost) <= Decimal("0.5000001"), (listed.id, info.id)
                checked += 1
    assert checked > 1_000


def _listed(asked: int) -> ListedUsage:
    return ListedUsage(
        input_tokens=asked,
        output_tokens=777,
        cache_read_tokens=300,
        cache_write_tokens=200,
        cache_write_1h_tokens=50,
        output_reasoning_tokens=100,
    )


def test_what_is_not_known_has_no_price_and_is_told_once() -> None:
    told: list[str] = []
    unknown = Prices(Config(provider=(OPENAI, OWN)), told.append)
    for _ in range(3):
        assert unknown.of("own/m").micro_usd(Usage(prompt_tokens=1)) is None
        assert unknown.of("main/no-such-model").micro_usd(Usage(prompt_tokens=1)) is None
        assert unknown.of("gone/gpt-4o-mini").micro_usd(Usage(prompt_tokens=1)) is None
    assert told == ["own/m", "main/no-such-model", "gone/gpt-4o-mini"]
    assert unknown.of("own/m").version == ""
    assert unknown.dearest_micro_usd(["own/m", "main/no-such-model"], 1, 1) is None


def test_names_that_clients_make_up_are_not_kept_for_ever() -> None:
    made_up = prices()
    for number in range(MAX_KEPT + 10):
        made_up.of(f"gone/{number}")
    assert len(made_up._kept) <= MAX_KEPT


@pytest.mark.parametrize(
    ("preset", "url", "is_told"),
    [
        ("", "http://127.0.0.1:1/v1", False),
        ("ollama", "http://localhost:11434/v1", False),
        ("vllm", "http://[::1]:8000/v1", False),
        ("vllm", "http://10.0.0.7:8000/v1", True),
        ("openai", "http://127.0.0.1:1/v1", True),  # a proxy in front of it
        ("azure", "http://127.0.0.1:1", True),
    ],
)
def test_of_a_server_on_this_machine_no_price_is_missed(preset: str, url: str, is_told: bool) -> None:
    told: list[str] = []
    config = Config(provider=(Provider(name="some", preset=preset, base_url=url),))
    assert Prices(config, told.append).of("some/no-such-model").micro_usd(Usage(prompt_tokens=1)) is None
    assert bool(told) is is_told


def test_ones_own_price_goes_over_the_table_and_has_its_version() -> None:
    config = Config(provider=(OPENAI,), prices={"main/gpt-4o-mini": price(7.0, 9.0)})
    assert Prices(config).of("main/gpt-4o-mini").micro_usd(Usage(prompt_tokens=MILLION)) == 7 * MILLION
    changed = Prices(Config(provider=(OPENAI,), prices={"main/gpt-4o-mini": price(7.0, 9.5)}))
    versions = {Prices(config).of("main/gpt-4o-mini").version, changed.of("main/gpt-4o-mini").version}
    assert len(versions) == 2
    assert all(version.startswith("config/") for version in versions)


def test_an_estimate_is_of_the_dearest_target_that_may_be_asked() -> None:
    known = prices(cheap=price(1.0, 1.0), dear=price(1.0, 5.0))
    assert known.of("own/dear").estimate_micro_usd(100, 10) == (100, 150)
    assert known.dearest_micro_usd(["own/cheap", "own/dear", "own/unknown"], 100, 10) == (100, 150)


@define
class Clock:
    at_s: float

    def __call__(self) -> float:
        return self.at_s


def test_prices_by_the_time_of_day_are_those_of_the_minute() -> None:
    """deepseek-chat is cheaper from 16:30 to 0:30 UTC."""
    clock = Clock(1_800_000_000.0 // 86_400 * 86_400 + 12 * 3_600)  # noon
    listed = Prices(Config(provider=(Provider(name="deepseek", base_url="https://api.deepseek.com"),)), now=clock)
    info = get_snapshot().find_provider_model("deepseek-chat", None, "deepseek", None)[1]
    assert isinstance(info.prices, list)
    usage = Usage(prompt_tokens=MILLION)
    noon = listed.of("deepseek/deepseek-chat").micro_usd(usage)
    clock.at_s += 5 * 3_600
    evening = listed.of("deepseek/deepseek-chat").micro_usd(usage)
    wanted = {int(one.prices.input_mtok * MILLION) for one in info.prices}  # type: ignore[operator, union-attr]
    assert {noon, evening} == wanted
    assert len(wanted) == 2


def test_configured_models_are_known_before_the_first_request() -> None:
    targets = (Target(provider="main", model="gpt-4o-mini"), Target(provider="main", model="*"))
    told: list[str] = []
    known = Prices(Config(provider=(OPENAI,), model=(Model(name="chat", targets=targets),)), told.append)
    known.learn()
    assert list(known._kept) == ["main/gpt-4o-mini"]
    assert told == []


AMOUNTS = st.integers(0, 10**12).map(lambda number: number / 10**6)
TOKENS = st.integers(0, 10**9)


@settings(max_examples=200, deadline=None)
@given(paid=st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS), counts=st.tuples(TOKENS, TOKENS, TOKENS, TOKENS))
def test_any_cost_is_the_exact_one_rounded_once(
    paid: tuple[float, float, float, float], counts: tuple[int, int, int, int]
) -> None:
    cached, written, rest, answered = counts
    usage = Usage(
        prompt_tokens=cached + written + rest,
        completion_tokens=answered,
        cached_tokens=cached,
        cache_write_tokens=written,
    )
    exact = [Fraction(str(one)) for one in paid]
    total = rest * exact[0] + answered * exact[1] + cached * exact[2] + written * exact[3]
    rounded = (total + Fraction(1, 2)).__floor__()
    assert prices(m=price(*paid)).of("own/m").micro_usd(usage) == rounded
    decimal = Decimal(total.numerator) / Decimal(total.denominator)
    assert abs(decimal.quantize(Decimal(1), ROUND_HALF_UP) - rounded) <= 1
