"""GCRA against counting by brute force: no window holds more than it may, and nothing is refused for nothing."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.gcra import Gcra

GAPS_MS = st.lists(st.integers(0, 3_000), min_size=1, max_size=120)


def passed(amount, burst, gaps_ms):
    gcra, now, times = Gcra(amount, 10.0, burst=burst), 0, []
    for gap in gaps_ms:
        now += gap
        if gcra.take(now / 1000) == 0.0:
            times.append(now / 1000)
    return times


@given(amount=st.integers(1, 50), burst=st.integers(1, 10), gaps_ms=GAPS_MS)
def test_no_window_holds_more_than_burst_and_rate_allow(amount, burst, gaps_ms):
    times = passed(amount, burst, gaps_ms)
    interval_s = 10.0 / amount
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            most = math.floor((times[last] - begin) / interval_s + 1e-6) + burst
            assert last - first + 1 <= most


@given(amount=st.integers(1, 50), gaps_ms=GAPS_MS)
def test_without_a_burst_no_window_of_its_own_holds_more_than_the_amount(amount, gaps_ms):
    times = passed(amount, 1, gaps_ms)
    assert all(sum(1 for t in times if begin <= t < begin + 10.0 - 1e-6) <= amount for begin in times)


@given(amount=st.integers(1, 50), burst=st.integers(1, 10), gaps_ms=GAPS_MS)
def test_the_time_it_says_to_wait_is_the_least_that_helps(amount, burst, gaps_ms):
    gcra, now = Gcra(amount, 10.0, burst=burst), 0.0
    for gap in gaps_ms:
        now += gap / 1000
        wait_s = gcra.take(now)
        if wait_s:
            assert gcra.take(now + wait_s - 0.001) > 0.0 or wait_s <= 0.001
            assert gcra.take(now + wait_s) == 0.0
            return


def test_more_units_than_the_burst_pass_when_nothing_is_outstanding_and_are_paid_for():
    gcra = Gcra(10, 10.0, burst=2)
    assert gcra.take(0.0, 5) == 0.0
    assert gcra.take(0.0) > 0.0
    assert gcra.take(4.0) == 0.0
