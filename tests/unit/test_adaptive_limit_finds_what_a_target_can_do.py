"""Promise: the limit stays within its bounds, comes down under overload, and comes back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.adaptive import AdaptiveLimit, Release


def fill(limit):
    while limit.try_acquire():
        pass


def rounds(limit, *, times, now, ttft_s=0.5, round_s=1.0, outcome=Release.SUCCESS):
    """The limit is used fully, and all end a round later; returns the time afterwards."""
    for _ in range(times):
        fill(limit)
        now += round_s
        for _ in range(limit.in_flight):
            limit.release(outcome, ttft_s, now)
    return now


def test_no_more_are_in_flight_than_the_limit():
    limit = AdaptiveLimit(floor=1, ceiling=10, start=3)
    assert [limit.try_acquire() for _ in range(5)] == [True, True, True, False, False]
    limit.release(Release.IGNORED, None, 100.0)
    assert limit.limit == 3
    assert limit.try_acquire()
    assert not limit.try_acquire()


def test_it_doubles_per_round_until_something_is_refused_and_then_adds_one():
    limit = AdaptiveLimit(floor=1, ceiling=1_000, start=10)
    now = rounds(limit, times=3, now=100.0)
    assert limit.limit == pytest.approx(10 * 1.5**3, rel=0.3)  # only while half of it is in use
    fill(limit)
    before = limit.limit
    limit.release(Release.DROPPED, None, now + 10)
    assert limit.limit == int(before * 0.7)
    while limit.in_flight:
        limit.release(Release.IGNORED, None, now + 10)
    cut = limit.limit
    rounds(limit, times=10, now=now + 10)
    assert cut + 3 <= limit.limit <= cut + 10


def test_what_is_refused_for_the_same_reason_cuts_once():
    limit = AdaptiveLimit(floor=1, ceiling=100, start=100)
    fill(limit)
    for _ in range(50):
        limit.release(Release.DROPPED, None, 100.0)
    assert (limit.limit, limit.statistics().cuts) == (70, 1)
    limit.release(Release.DROPPED, None, 100.9)
    assert limit.limit == 70
    limit.release(Release.DROPPED, None, 101.0)
    assert limit.limit == 49


def test_what_is_ignored_or_unused_changes_nothing():
    limit = AdaptiveLimit(floor=1, ceiling=100, start=20)
    for n in range(1_000):
        assert limit.try_acquire()
        limit.release(Release.SUCCESS if n % 2 else Release.IGNORED, 0.5, 100.0 + n)
    assert limit.limit == 20


def test_first_tokens_that_come_late_shrink_it_and_good_ones_bring_it_back():
    limit = AdaptiveLimit(floor=5, ceiling=100, start=100)
    now = rounds(limit, times=60, now=100.0, ttft_s=0.5)
    assert limit.limit == 100
    now = rounds(limit, times=10, now=now, ttft_s=5.0)
    assert 5 <= limit.limit < 60
    shrunk = limit.limit
    now = rounds(limit, times=20, now=now, ttft_s=0.5)
    assert shrunk + 5 <= limit.limit <= shrunk + 20  # not more than one per round
    rounds(limit, times=150, now=now, ttft_s=0.5)
    assert limit.limit == 100


def test_it_does_not_grow_while_first_tokens_come_late():
    limit, now = AdaptiveLimit(floor=1, ceiling=100, start=12), 100.0
    for _ in range(200):  # learns the usual time without being in use
        now += 0.2
        assert limit.try_acquire()
        limit.release(Release.SUCCESS, 0.5, now)
    assert limit.statistics().usual_ttft_s == pytest.approx(0.5)
    seen = []
    for _ in range(100):  # a place that is given back is taken at once
        fill(limit)
        now += 0.1
        limit.release(Release.SUCCESS, 1.15, now)
        seen.append(limit.limit)
    late = seen[25:80]  # from the first sample that has nothing else in it, until those times become the usual ones
    assert late == sorted(late, reverse=True)
    assert late[-1] < late[0]


def test_what_was_learnt_under_overload_is_unlearnt_soon():
    limit = AdaptiveLimit(floor=5, ceiling=100, start=100)
    now = rounds(limit, times=100, now=100.0, ttft_s=8.0)
    assert limit.statistics().usual_ttft_s == pytest.approx(8.0)
    rounds(limit, times=25, now=now, ttft_s=0.5)
    assert limit.statistics().usual_ttft_s < 1.1


def test_times_that_vary_less_than_the_tolerance_shrink_nothing():
    rng, limit = random.Random(1), AdaptiveLimit(floor=5, ceiling=100, start=100)
    now = 100.0
    for _ in range(300):
        now = rounds(limit, times=1, now=now, ttft_s=rng.uniform(0.4, 0.7))
    assert limit.limit == 100


def test_a_provider_that_became_slower_for_good_is_used_fully_again():
    limit = AdaptiveLimit(floor=5, ceiling=100, start=100)
    now = rounds(limit, times=60, now=100.0, ttft_s=0.5)
    rounds(limit, times=400, now=now, ttft_s=3.0)
    assert limit.limit == 100


def test_a_capacity_is_found_and_kept_to():
    """A target that refuses the 51st: at least four fifths of it are used, and few requests are refused."""
    limit, now, used, refused, asked = AdaptiveLimit(floor=1, ceiling=500, start=20), 0.0, [], 0, 0
    for n in range(600):
        fill(limit)
        now += 1.0
        accepted = min(limit.in_flight, 50)
        for k in range(limit.in_flight):
            limit.release(Release.SUCCESS if k < accepted else Release.DROPPED, 0.5, now)
            if n >= 100:
                asked += 1
                refused += k >= accepted
        if n >= 100:
            used.append(accepted)
    assert sum(used) / len(used) > 0.8 * 50
    assert refused / asked < 0.02


def test_a_target_that_queues_is_not_given_all_that_there_is():
    """First tokens come later the longer its line is: the first late ones end the doubling."""
    limit, now, seen = AdaptiveLimit(floor=1, ceiling=2_000, start=10), 0.0, []
    for _ in range(120):
        fill(limit)
        ttft_s = 0.5 * max(1.0, limit.in_flight / 40)
        now = rounds(limit, times=1, now=now, ttft_s=ttft_s)
        seen.append(limit.limit)
    assert 40 < max(seen) < 160


def test_a_slow_sample_is_no_brake_for_ever_when_none_follows():
    limit = AdaptiveLimit(floor=5, ceiling=100, start=50)
    now = rounds(limit, times=20, now=100.0, ttft_s=0.5)
    now = rounds(limit, times=2, now=now, ttft_s=5.0)
    shrunk = limit.limit
    rounds(limit, times=30, now=now, ttft_s=None)
    assert limit.limit > shrunk


@pytest.mark.parametrize(("floor", "start", "ceiling"), [(0, 1, 1), (2, 1, 3), (1, 4, 3)])
def test_bounds_that_make_no_sense_are_refused(floor, start, ceiling):
    with pytest.raises(ValueError, match="floor <= start <= ceiling"):
        AdaptiveLimit(floor=floor, ceiling=ceiling, start=start)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "acquire", *Release]),
        st.none() | st.floats(0.0, 1e4),
        st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    ),
    max_size=200,
)


@given(EVENTS, st.integers(1, 4), st.integers(0, 4), st.integers(0, 20))
def test_within_bounds_whatever_happens_and_back_at_the_ceiling_afterwards(events, floor, above, more):
    start = floor + above
    ceiling = start + more
    limit, now = AdaptiveLimit(floor=floor, ceiling=ceiling, start=start), 0.0
    for event, ttft_s, later_s in events:
        now += later_s
        if event == "acquire":
            before, room = limit.in_flight, limit.in_flight < limit.limit
            assert limit.try_acquire() == room
            assert limit.in_flight == before + room
        elif limit.in_flight:
            limit.release(event, ttft_s, now)
        assert floor <= limit.limit <= ceiling
    while limit.in_flight:
        limit.release(Release.IGNORED, None, now)
    rounds(limit, times=900, now=now)
    assert limit.limit == ceiling
