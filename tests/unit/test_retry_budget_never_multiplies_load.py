"""Promise: extra attempts stay a share of what succeeds, plus a few, whatever happens and however fast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.retry_budget import RetryBudget
from gateway.policy.window import SLOTS, SlidingSum


def storm(budget, *, requests, per_second, now=100.0, retries=2):
    """How many attempts are made for requests of which none succeeds."""
    attempts = 0
    for n in range(requests):
        attempts += 1
        for _ in range(retries):
            if not budget.try_take(now + n / per_second):
                break
            attempts += 1
    return attempts


@given(per_second=st.floats(min_value=1e-4, max_value=1e6))
def test_a_provider_that_refuses_everything_sees_few_more_requests_at_any_rate(per_second):
    assert storm(RetryBudget(), requests=500, per_second=per_second) == 510


@given(per_second=st.floats(min_value=0.5, max_value=1e5), before=st.integers(0, 2_000))
def test_what_succeeded_before_an_outage_buys_its_share_and_no_more(per_second, before):
    budget = RetryBudget()
    for n in range(before):
        budget.succeeded(100.0 + n / 1_000)
    extra = storm(budget, requests=500, per_second=per_second, now=100.0 + before / 1_000) - 500
    assert extra <= 10 + 0.2 * before


STEPS = st.lists(
    st.tuples(st.sampled_from(["succeeded", "take", "take"]), st.sampled_from([0.0, 0.001, 0.1, 1.0, 30.0])),
    max_size=300,
)


@given(STEPS, st.sampled_from([0.0, 0.1, 0.2, 0.29, 1.0]), st.integers(0, 12), st.sampled_from([0.0, 0.1, 5.0]))
def test_the_bound_holds_for_any_history(steps, ratio, floor, floor_per_s):
    budget = RetryBudget(ratio, floor=floor, floor_per_s=floor_per_s)
    now = began = 1_000.0
    taken = successes = 0
    for what, later_s in steps:
        now += later_s
        if what == "take":
            in_hand = budget.statistics(now).in_hand
            allowed = budget.try_take(now)
            assert allowed == (in_hand >= 1)
            taken += allowed
        else:
            budget.succeeded(now)
            successes += 1
        assert taken <= floor + ratio * successes + min(successes, floor_per_s * (now - began)) + 1e-6
    told = budget.statistics(now)
    assert (told.taken, told.taken + told.refused) == (taken, sum(what == "take" for what, _ in steps))


def test_one_success_in_five_pays_for_one_retry():
    budget = RetryBudget(0.2, floor=0)
    for _ in range(4):
        budget.succeeded(100.0)
        assert not budget.try_take(100.0)
    budget.succeeded(100.0)
    assert budget.try_take(100.0)
    assert not budget.try_take(100.0)


def test_successes_are_forgotten_after_the_window():
    budget = RetryBudget(1.0, floor=0, window_s=10)
    for _ in range(50):
        budget.succeeded(100.0)
    assert budget.statistics(108.9).in_hand == 50
    assert budget.statistics(111.0).in_hand == 0
    assert not budget.try_take(111.0)


def test_a_quiet_gateway_can_retry_for_ever():
    budget = RetryBudget()
    for minute in range(1_000):
        assert budget.try_take(60.0 * minute)
        budget.succeeded(60.0 * minute + 1)
    assert budget.statistics(60_000.0).in_hand >= 9


def test_what_was_spent_comes_back_by_successes_slowly():
    budget = RetryBudget(0.0, floor=10, floor_per_s=0.1)
    storm(budget, requests=10, per_second=1e6)
    assert budget.statistics(10_000.0).in_hand == 0  # no success, nothing back
    for n in range(1_000):
        budget.succeeded(10_000.0 + n / 1_000)
    assert budget.statistics(10_001.0).in_hand == 1  # of a thousand successes in one second
    for n in range(1, 91):
        budget.succeeded(10_001.0 + n)
    assert budget.statistics(10_091.0).in_hand == pytest.approx(10, abs=1)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(min_value=-2.0, max_value=4.0, allow_nan=False)),
        max_size=100,
    )
)
def test_a_sliding_sum_is_what_was_added_and_not_taken_lately(steps):
    slot_s = 1.0
    window, now, newest = SlidingSum(SLOTS * slot_s), 50.0, 50
    slots: dict[int, int] = {}
    for added, wanted, later_s in steps:
        now += later_s
        newest = max(newest, int(now // slot_s)) if slots else int(now // slot_s)
        slots.setdefault(newest, 0)
        window.add(added, now)
        slots[newest] += added
        lately = {slot: amount for slot, amount in sorted(slots.items()) if slot > newest - SLOTS}
        assert window.total(now) == sum(lately.values())
        taken = window.take(wanted, now)
        assert taken == min(wanted, sum(lately.values()))
        for slot in lately:
            part = min(taken, slots[slot])
            slots[slot] -= part
            taken -= part
        assert taken == 0
