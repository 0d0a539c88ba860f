"""Promise: equal targets get their shares, slow and busy ones less, and every order names each target once."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.balance import least_loaded, order, weighted_order
from gateway.policy.ewma import UNKNOWN_LOAD, PeakEwma


def no_loads():
    raise AssertionError("loads are worked out for least_loaded only")


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 7.5]), max_size=8), st.integers(0, 1_000))
def test_every_order_names_each_target_once(weights, seed):
    rng, all_of_them = random.Random(seed), list(range(len(weights)))
    assert sorted(weighted_order(weights, rng)) == all_of_them
    assert sorted(least_loaded(weights, rng)) == all_of_them
    assert order("order", weights, no_loads, rng) == all_of_them
    for balance in ("weighted", "least_loaded"):
        assert sorted(order(balance, weights, lambda: weights, rng)) == all_of_them


def test_first_places_are_shared_out_by_weight():
    rng = random.Random(11)
    orders = [tuple(order("weighted", [6.0, 3.0, 1.0], no_loads, rng)) for _ in range(20_000)]
    firsts = Counter(each[0] for each in orders)
    assert [firsts[n] / 20_000 for n in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.015)
    seconds_after_0 = Counter(each[1] for each in orders if each[0] == 0)
    assert seconds_after_0[1] / seconds_after_0.total() == pytest.approx(0.75, abs=0.015)


def test_a_target_of_weight_0_is_only_for_failures():
    rng = random.Random(3)
    for _ in range(200):
        assert weighted_order([0.0, 1.0, 0.0, 2.0], rng)[2:] == [0, 2]


def test_the_less_loaded_of_two_goes_first_and_the_rest_follow_by_load():
    rng = random.Random(5)
    firsts = Counter()
    for _ in range(3_000):
        first, *rest = least_loaded([3.0, 1.0, 2.0], rng)
        firsts[first] += 1
        assert rest == [n for n in (1, 2, 0) if n != first]
    assert 0 not in firsts  # the most loaded loses against either other
    assert firsts[1] / 3_000 == pytest.approx(2 / 3, abs=0.04)


def test_targets_of_equal_load_share_the_first_place():
    rng = random.Random(6)
    firsts = Counter(least_loaded([1.0, 1.0, 1.0, 1.0], rng)[0] for _ in range(8_000))
    assert all(firsts[n] / 8_000 == pytest.approx(0.25, abs=0.03) for n in range(4))


def test_a_slow_answer_counts_at_once_and_is_forgotten_slowly():
    ewma = PeakEwma(decay_s=10)
    ewma.observe(0.2, 100.0)
    ewma.observe(4.0, 100.1)
    assert ewma.value_s(100.1) == 4.0
    for n in range(1, 101):
        ewma.observe(0.2, 100.1 + n / 10)
    assert 0.2 + 3.8 * 0.3 < ewma.value_s(110.1) < 0.2 + 3.8 * 0.45  # about 1/e after one decay time
    for n in range(1, 401):
        ewma.observe(0.2, 110.1 + n / 10)
    assert ewma.value_s(150.1) == pytest.approx(0.2, abs=0.05)


def test_a_target_that_is_not_asked_gets_its_chance_again():
    ewma = PeakEwma(decay_s=10)
    ewma.observe(4.0, 100.0)
    assert ewma.load(0, 100.0) == 4.0
    assert ewma.load(0, 160.0) < 0.01


def test_load_is_time_multiplied_by_who_is_there_already():
    ewma = PeakEwma()
    ewma.observe(0.5, 100.0)
    assert [ewma.load(n, 100.0) for n in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert (ewma.statistics(100.0).value_s, ewma.statistics(100.0).samples) == (0.5, 1)


def test_an_unknown_target_is_tried_by_one_request_not_by_all():
    ewma = PeakEwma()
    assert ewma.load(0, 100.0) == 0.0
    assert ewma.load(1, 100.0) > UNKNOWN_LOAD
    assert ewma.load(2, 100.0) > ewma.load(1, 100.0)


@given(st.lists(st.tuples(st.floats(0.001, 60.0), st.floats(0.0, 100.0)), min_size=1, max_size=50))
def test_the_average_stays_within_what_was_observed(samples):
    ewma, now = PeakEwma(), 0.0
    for value, later_s in samples:
        now += later_s
        ewma.observe(value, now)
        lowest, highest = min(v for v, _ in samples), max(v for v, _ in samples)
        assert lowest * (1 - 1e-9) <= ewma.value_s(now) <= highest * (1 + 1e-9)
        assert ewma.value_s(now) >= value * (1 - 1e-9)  # never below the newest


def test_a_target_ten_times_slower_gets_a_small_share():
    """Two targets, open loop, answers after 0.1 s and 1 s: least_loaded keeps the slow one nearly idle."""
    rng, ewmas = random.Random(9), [PeakEwma(), PeakEwma()]
    ttft_s, busy_until, asked = [0.1, 1.0], [[], []], Counter()
    for n in range(4_000):
        now = n * 0.02
        for target in (0, 1):
            for end in [end for end in busy_until[target] if end <= now]:
                busy_until[target].remove(end)
                ewmas[target].observe(ttft_s[target], end)
        loads = [ewmas[target].load(len(busy_until[target]), now) for target in (0, 1)]
        first = least_loaded(loads, rng)[0]
        asked[first] += 1
        busy_until[first].append(now + ttft_s[first])
    assert 0 < asked[1] / 4_000 < 0.15
