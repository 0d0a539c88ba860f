"""What tokens cost, exactly: whole micro-dollars out of exact prices, unknown ones never free.

Prices come from genai-prices, a table that is part of its package and needs no network, with the configuration's
``[prices]`` over it. Dollars per 10^6 tokens are micro-dollars per token, so a price is kept as a whole number of
10^-18 micro-dollars (the table has 18 decimals at most), a request's cost is added up exactly and rounded once, half
up. Prices that depend on the prompt's length (for all of its tokens, above a threshold), on the date or on the time of
day are known to the table; those are looked up again every minute. Not priced: searches, audio, images, batch and
priority tiers; nor, by ``[prices]``, that a cache write is kept for an hour.

Which provider of the table one of ours is: found by its address, else by its preset, else by its name; what fits none
(a server of one's own, any on this machine's loopback) has no price and needs one in ``[prices]``. Cached tokens
without a price of their own cost what others cost.

*Cost*: a look-up in memory and 6 multiplications, 1.9 µs; the first one of a model 0.2 ms; the very first imports the
table, 0.3 s: call :meth:`Prices.learn` in a thread before that.
Source: genai-prices' ``types.py``: cliffs of tiers, prices of cached tokens as parts of the prompt's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attrs import evolve, frozen

from gateway.config import Config, Price, Provider
from gateway.config.presets import presets
from gateway.core.facts import AttemptFact, Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

SCALE: Final = 10**18
MAX_KEPT: Final = 10_000  # models; a wildcard lets clients name any
_HALF = SCALE // 2
_FOREVER_S = float("inf")
_DATED_S = 60.0  # prices with dates and times are looked up again at each full minute
_PARTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "output_reasoning")


@frozen(kw_only=True, slots=True)
class Rates:
    """Prices from one length of prompt on, each in 10^-18 micro-dollars per token.

    Attributes:
        above_tokens: They hold for prompts that are longer; the last ones of a model for all that are left.
        request: Per request.
    """

    above_tokens: int = 0
    input: int
    output: int
    cached: int
    cache_write: int
    long_cache_write: int
    reasoning: int
    request: int = 0


@frozen(kw_only=True, slots=True)
class Known:
    """What is known of a model's price.

    Attributes:
        rates: Those for the longest prompts first; none for an unknown model.
        version: ``genai-prices/0.2.3``, ``config/1a2b3c4d``, "" for an unknown model.
        until_s: When to look again, in seconds since the epoch.
    """

    rates: tuple[Rates, ...] = ()
    version: str = ""
    until_s: float = _FOREVER_S

    def micro_usd(self, usage: Usage) -> int | None:
        """The cost, rounded half up to a micro-dollar; None if it is unknown."""
        if not self.rates:
            return None
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        rates = self._rates_of(prompt)
        total = prompt * rates.input + completion * rates.output + rates.request
        if usage.cached_tokens or usage.cache_write_tokens:
            cached = min(usage.cached_tokens, prompt)
            written = min(usage.cache_write_tokens, prompt - cached)
            long = min(usage.long_cache_write_tokens, written)
            total += cached * rates.cached + (written - long) * rates.cache_write + long * rates.long_cache_write
            total -= (cached + written) * rates.input
        if usage.reasoning_tokens:
            total += min(usage.reasoning_tokens, completion) * (rates.reasoning - rates.output)
        return (total + _HALF) // SCALE

    def estimate_micro_usd(self, prompt_tokens: int, completion_tokens: int) -> tuple[int, int] | None:
        """What a prompt will cost that is yet to be sent, nothing of it cached; and the same with an answer to it."""
        if not self.rates:
            return None
        rates = self._rates_of(prompt_tokens)
        asked = prompt_tokens * rates.input + rates.request + _HALF
        return asked // SCALE, (asked + completion_tokens * rates.output) // SCALE

    def _rates_of(self, prompt_tokens: int) -> Rates:
        for rates in self.rates:
            if prompt_tokens > rates.above_tokens:
                break
        return rates

    def more_micro_usd(self, usage: Usage, completion_tokens: int) -> int:
        """What so many tokens more in the answer would have cost; 0 if that is unknown."""
        longer = evolve(usage, completion_tokens=usage.completion_tokens + completion_tokens)
        return (self.micro_usd(longer) or 0) - (self.micro_usd(usage) or 0)


UNKNOWN: Final = Known()


class Prices:
    """The prices of a configuration's providers.

    Args:
        config: Its providers and ``[prices]``.
        on_unknown: Told once of each ``provider/model`` without a price, but for servers on this machine.
        now: Seconds since the epoch.
    """

    def __init__(
        self, config: Config, on_unknown: Callable[[str], None] = lambda _: None, now: Callable[[], float] = time.time
    ) -> None:
        self._own: Mapping[str, Price] = config.prices
        self._own_version = _version_of(config.prices)
        self._providers = {provider.name: provider for provider in config.provider}
        self._named = [(target.provider, target.model) for model in config.model for target in model.targets]
        self._on_unknown = on_unknown
        self._now = now
        self._kept: dict[str, Known] = {}
        self._found: dict[str, ModelInfo | None] = {}

    def learn(self) -> None:
        """Look up the models of the configuration. Blocks for 0.4 s the first time; for a thread."""
        for provider, model in self._named:
            if not model.endswith("*"):
                self._look_up(f"{provider}/{model}")

    def cost_of(self, fact: AttemptFact) -> int | None:
        """What an attempt cost, None if that is unknown; looked up once for each usage."""
        usage = fact.usage
        if usage is None:
            return 0
        if fact.priced is None or fact.priced[0] is not usage:
            known = self.of(fact.target)
            fact.priced = usage, known.micro_usd(usage), known.version
        return fact.priced[1]

    def dearest_micro_usd(
        self, targets: Sequence[str], prompt_tokens: int, completion_tokens: int
    ) -> tuple[int, int] | None:
        """The dearest :meth:`Known.estimate_micro_usd` of ``provider/model`` targets; None if no price is known."""
        if len(targets) == 1:
            return self.of(targets[0]).estimate_micro_usd(prompt_tokens, completion_tokens)
        costs = [self.of(target).estimate_micro_usd(prompt_tokens, completion_tokens) for target in targets]
        known = [cost for cost in costs if cost is not None]
        if len(known) < 2:
            return known[0] if known else None
        return max(asked for asked, _ in known), max(whole for _, whole in known)

    def of(self, target: str) -> Known:
        """What is known of the price of a ``provider/model`` now; :data:`UNKNOWN` without rates."""
        known = self._kept.get(target)
        if known is None or (known.until_s != _FOREVER_S and known.until_s <= self._now()):
            known = self._look_up(target)
        return known

    def _look_up(self, target: str) -> Known:
        known = self._own_price(target) or self._listed(target)
        if target not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
                self._found.clear()
            settings = self._providers.get(target.partition("/")[0])
            if not known.rates and not (settings is not None and _is_here(settings)):
                self._on_unknown(target)
        self._kept[target] = known
        return known

    def _own_price(self, target: str) -> Known | None:
        price = self._own.get(target)
        if price is None:
            return None
        paid = (price.input_usd_per_mtok, price.output_usd_per_mtok)
        asked, answered = (_whole(Decimal(str(usd))) for usd in paid)
        cached, written = (
            asked if usd is None else _whole(Decimal(str(usd)))
            for usd in (price.cached_usd_per_mtok, price.cache_write_usd_per_mtok)
        )
        rates = Rates(
            input=asked,
            output=answered,
            cached=cached,
            cache_write=written,
            long_cache_write=written,
            reasoning=answered,
        )
        return Known(rates=(rates,), version=self._own_version)

    def _listed(self, target: str) -> Known:
        """The price in genai-prices' table, which takes 13 MB: read only for a provider that it may know."""
        provider, _, model = target.partition("/")
        settings = self._providers.get(provider)
        if settings is None or _is_here(settings):
            return UNKNOWN
        import genai_prices
        from genai_prices.types import ModelPrice

        if target not in self._found:
            self._found[target] = _find(settings, model)
        info = self._found[target]
        if info is None:
            return UNKNOWN
        now_s = self._now()
        rates = _rates(info.get_prices(datetime.fromtimestamp(now_s, UTC)))
        until_s = _FOREVER_S if isinstance(info.prices, ModelPrice) else (now_s // _DATED_S + 1) * _DATED_S
        return Known(rates=rates, version=f"genai-prices/{genai_prices.__version__}" if rates else "", until_s=until_s)


def _is_here(provider: Provider) -> bool:
    """Whether it is a server of this machine's own, which no table knows; not if it stands for one that is not."""
    preset = presets().get(provider.preset) if provider.preset else None
    if preset is not None and not _is_loopback(preset.base_url):
        return False
    return _is_loopback(provider.base_url)


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _find(provider: Provider, model: str) -> ModelInfo | None:
    """The table's entry of one of a provider's models."""
    from genai_prices.data_snapshot import get_snapshot

    table = get_snapshot()
    for name, address in ((None, provider.base_url), (provider.preset, None), (provider.name, None)):
        if name or address:
            with suppress(LookupError):
                return table.find_provider_model(model, None, name, address)[1]
    return None


def _rates(price: ModelPrice) -> tuple[Rates, ...]:
    """The prices from each length of prompt on; none if the model is not paid by tokens."""
    parts: dict[str, Any] = {name: getattr(price, f"{name}_mtok", None) for name in _PARTS}
    if parts["input"] is None and parts["output"] is None:
        return ()
    per_request = getattr(price, "requests_kcount", None)
    starts = {0} | {tier.start for one in parts.values() for tier in getattr(one, "tiers", ())}
    return tuple(_rates_above(parts, per_request, start) for start in sorted(starts, reverse=True))


def _rates_above(parts: Mapping[str, Any], per_request: Any, start: int) -> Rates:
    asked, answered = _at(parts["input"], start), _at(parts["output"], start)
    base = asked or Decimal(0)
    written = _or(_at(parts["cache_write"], start), base)
    return Rates(
        above_tokens=start,
        input=_whole(base),
        output=_whole(answered or Decimal(0)),
        cached=_whole(_or(_at(parts["cache_read"], start), base)),
        cache_write=_whole(written),
        long_cache_write=_whole(_or(_at(parts["cache_write_1h"], start), written)),
        reasoning=_whole(_or(_at(parts["output_reasoning"], start), answered or Decimal(0))),
        request=_whole((_at(per_request, start) or Decimal(0)) * 1_000),
    )


def _at(price: Any, start: int) -> Decimal | None:
    """A price for prompts above ``start`` tokens."""
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= start]
    found: Decimal = reached[-1] if reached else price.base
    return found


def _or(price: Decimal | None, other: Decimal) -> Decimal:
    return other if price is None else price


def _whole(usd_per_mtok: Decimal) -> int:
    return int((usd_per_mtok * SCALE).to_integral_value())


def _version_of(prices: Mapping[str, Price]) -> str:
    text = repr(sorted(prices.items()))
    return f"config/{hashlib.sha256(text.encode()).hexdigest()[:8]}"
