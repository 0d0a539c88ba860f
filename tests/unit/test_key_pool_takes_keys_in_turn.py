"""Promise: keys are used evenly, a key that cools is left out, and comes back."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.key_pool import KeyPool


def test_keys_are_used_in_turn():
    pool = KeyPool(3)
    assert [pool.pick(0.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_key_that_cools_is_left_out_until_it_is_good_again():
    pool = KeyPool(3)
    pool.cool(1, 100.0, 30.0)
    assert [pool.pick(129.9) for _ in range(4)] == [0, 2, 0, 2]
    assert [pool.pick(130.0) for _ in range(3)] == [0, 1, 2]


def test_all_cooling_is_none_and_tells_the_soonest():
    pool = KeyPool(2)
    pool.cool(0, 100.0, 30.0)
    pool.cool(1, 100.0, 10.0)
    assert pool.pick(100.0) is None
    assert pool.soonest_s(104.0) == 6.0
    told = pool.statistics(104.0)
    assert (told.keys, told.cooling, told.soonest_s, told.cooled) == (2, 2, 6.0, 2)
    assert pool.pick(110.0) == 1
    assert pool.soonest_s(110.0) == 0.0


def test_a_shorter_cooling_does_not_end_a_longer_one():
    pool = KeyPool(1)
    pool.cool(0, 100.0, 60.0)
    pool.cool(0, 101.0, 1.0)
    assert pool.pick(103.0) is None
    assert pool.soonest_s(103.0) == 57.0


def test_a_pool_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one key"):
        KeyPool(0)


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, 50.0])), max_size=30))
def test_never_a_cooling_key_and_in_the_end_all_of_them_evenly(keys, coolings):
    pool, now, until = KeyPool(keys), 0.0, [0.0] * keys
    for index, for_s in coolings:
        now += 0.5
        pool.cool(index % keys, now, for_s)
        until[index % keys] = max(until[index % keys], now + for_s)
        picked = pool.pick(now)
        if picked is None:
            assert min(until) > now
        else:
            assert until[picked] <= now
    counts = Counter(pool.pick(now + 60.0) for _ in range(10 * keys))
    assert counts == dict.fromkeys(range(keys), 10)
