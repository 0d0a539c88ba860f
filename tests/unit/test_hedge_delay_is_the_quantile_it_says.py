"""Promise: the hedge delay is learnt exactly, within bounded memory, and hedging by it stays rare."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.hedge import WINDOW, HedgeDelay


def heavy_tailed(rng):
    """Seconds to the first token: half a second mostly, many times that for some."""
    return rng.lognormvariate(math.log(0.5), 0.8)


def test_nothing_is_said_until_enough_was_seen():
    delay = HedgeDelay(min_samples=20)
    for n in range(19):
        delay.observe(float(n))
        assert delay.delay_s() is None
    delay.observe(19.0)
    assert delay.delay_s() == 19.0
    assert (delay.statistics().samples, delay.statistics().delay_s) == (20, 19.0)


def test_the_delay_is_never_shorter_than_it_may_be():
    delay = HedgeDelay(min_samples=1, min_delay_s=0.05)
    delay.observe(0.001)
    assert delay.delay_s() == 0.05


@given(st.lists(st.floats(0.0, 100.0), max_size=3 * WINDOW), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_it_is_the_rank_of_the_last_samples(samples, quantile):
    delay = HedgeDelay(quantile, min_samples=1)
    for sample in samples:
        delay.observe(sample)
    lately = sorted(samples[-WINDOW:])
    assert delay.statistics().samples == len(lately) <= WINDOW
    if lately:
        rank = min(math.ceil(quantile * (len(lately) + 1)), len(lately))
        assert delay.delay_s() == lately[rank - 1]


@pytest.mark.parametrize(("samples", "off"), [(20, 0.03), (WINDOW, 0.01)])
def test_the_next_request_exceeds_it_as_often_as_it_says(samples, off):
    rng = random.Random(8)
    exceeded = 0
    for _ in range(4_000):
        delay = HedgeDelay(0.95)
        for _ in range(samples):
            delay.observe(rng.random())
        exceeded += rng.random() > delay.delay_s()
    assert exceeded / 4_000 == pytest.approx(0.05, abs=off)


def hedging(delay, first_s, second_s):
    """One request: what the client waited, and whether it was hedged. The delay learns as its module says."""
    after_s = delay.delay_s()
    if after_s is None or first_s <= after_s:
        delay.observe(first_s)
        return first_s, False
    waited_s = min(first_s, after_s + second_s)
    delay.observe(waited_s)
    return waited_s, True


def test_hedging_by_it_stays_rare_and_more_than_halves_the_tail():
    rng, delay = random.Random(2), HedgeDelay()
    plain, hedged, hedges = [], [], 0
    for n in range(20_000):
        first_s = heavy_tailed(rng) * (8 if rng.random() < 0.03 else 1)
        waited_s, was_hedged = hedging(delay, first_s, heavy_tailed(rng))
        if n >= WINDOW:
            plain.append(first_s)
            hedged.append(waited_s)
            hedges += was_hedged
    assert 0.03 < hedges / len(plain) < 0.07
    p99 = int(0.99 * len(plain))
    assert sorted(hedged)[p99] < sorted(plain)[p99] / 2


def test_it_follows_a_provider_that_becomes_slower_or_faster():
    rng, delay = random.Random(3), HedgeDelay()
    for factor in (1.0, 10.0, 0.5):
        hedges = [hedging(delay, factor * heavy_tailed(rng), factor * heavy_tailed(rng))[1] for _ in range(4_000)]
        assert sum(hedges[-2_000:]) / 2_000 < 0.07
