"""Promise: a target that fails is asked by few, its recovery is noticed soon, and a lost probe blocks nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.breaker import Breaker, State, Verdict


def opened(at=100.0, **settings):
    breaker = Breaker(**settings)
    for _ in range(5):
        breaker.failed(at, breaker.admit(at))
    assert breaker.state(at) is State.OPEN
    return breaker


def probe_of(breaker, now):
    verdict = breaker.admit(now)
    assert verdict.allowed
    assert verdict.probe
    return verdict


def test_five_failures_in_a_row_open_it_and_a_success_between_does_not():
    breaker = Breaker()
    for n in range(12):
        verdict = breaker.admit(100.0)
        assert verdict == Verdict(allowed=True)
        if n % 5 == 4:
            breaker.succeeded(100.0, verdict)
        else:
            breaker.failed(100.0, verdict)
    assert breaker.state(100.0) is State.CLOSED
    for _ in range(3):
        breaker.failed(100.0, breaker.admit(100.0))
    told = breaker.statistics(100.0)
    assert (told.state, told.consecutive, told.opened, told.why) == (State.OPEN, 5, 1, "5 failures in a row")
    refused = breaker.admit(101.0)
    assert (refused.allowed, refused.probe, refused.wait_s) == (False, False, 4.0)


def test_half_of_twenty_open_it():
    breaker = Breaker()
    for n in range(20):
        assert breaker.state(100.0) is State.CLOSED
        verdict = breaker.admit(100.0 + n)
        (breaker.failed if n % 2 else breaker.succeeded)(100.0 + n, verdict)
    told = breaker.statistics(119.0)
    assert (told.state, told.requests, told.failures) == (State.OPEN, 20, 10)
    assert told.why == "50% of the requests of the last 30 s failed"


def test_failures_of_long_ago_are_no_ratio():
    breaker = Breaker(consecutive=100)
    for n in range(19):
        breaker.failed(100.0 + n / 10, breaker.admit(100.0))
    for n in range(10):
        breaker.failed(140.0 + n, breaker.admit(140.0))
    assert breaker.state(150.0) is State.CLOSED


def test_one_probe_at_a_time_and_its_success_closes():
    breaker = opened()
    assert breaker.state(104.9) is State.OPEN
    assert breaker.state(105.0) is State.HALF_OPEN
    probe = probe_of(breaker, 105.0)
    for _ in range(100):
        assert not breaker.admit(106.0).allowed
    breaker.succeeded(107.0, probe)
    assert breaker.state(107.0) is State.CLOSED
    assert all(breaker.admit(107.0).allowed for _ in range(100))
    assert breaker.statistics(107.0).failures == 0


def test_each_probe_that_fails_doubles_the_time_up_to_the_most():
    breaker, now, waits = opened(), 105.0, []
    for _ in range(5):
        breaker.failed(now, probe_of(breaker, now))
        waits.append(breaker.statistics(now).wait_s)
        now += waits[-1]
    assert waits == [10.0, 15.0, 15.0, 15.0, 15.0]


def test_a_breaker_that_opens_again_soon_goes_on_with_the_longer_time_and_later_begins_anew():
    breaker = opened()
    breaker.succeeded(105.0, probe_of(breaker, 105.0))
    for _ in range(5):
        breaker.failed(110.0, breaker.admit(110.0))
    assert breaker.statistics(110.0).wait_s == 10.0
    breaker.succeeded(120.0, probe_of(breaker, 120.0))
    for _ in range(5):
        breaker.failed(151.0, breaker.admit(151.0))
    assert breaker.statistics(151.0).wait_s == 5.0


def test_what_began_before_it_opened_says_nothing_of_the_probe():
    breaker = Breaker()
    old = [breaker.admit(100.0) for _ in range(10)]
    for verdict in old[:5]:
        breaker.failed(100.0, verdict)
    breaker.succeeded(101.0, old[5])
    assert breaker.state(101.0) is State.OPEN
    probe = probe_of(breaker, 105.0)
    breaker.succeeded(105.0, old[6])
    breaker.failed(105.0, old[7])
    breaker.released(105.0, old[8])
    assert not breaker.admit(105.0).allowed
    breaker.succeeded(106.0, probe)
    breaker.failed(106.0, old[9])
    assert breaker.statistics(106.0).consecutive == 0


def test_a_cancelled_probe_makes_room_for_the_next_but_not_for_a_stream_of_them():
    breaker = opened()
    breaker.released(105.5, probe_of(breaker, 105.0))
    assert not breaker.admit(109.9).allowed
    breaker.released(140.0, probe_of(breaker, 110.0))
    probe_of(breaker, 140.0)
    assert breaker.statistics(140.0).probes == 3
    assert breaker.statistics(140.0).opened == 1


def test_a_probe_that_is_never_heard_of_blocks_nothing_for_ever():
    breaker = opened(probe_s=60.0)
    lost = probe_of(breaker, 105.0)
    assert breaker.admit(164.0) == Verdict(allowed=False, wait_s=1.0)
    second = probe_of(breaker, 165.0)
    breaker.failed(166.0, lost)
    assert breaker.state(166.0) is State.HALF_OPEN
    breaker.succeeded(167.0, second)
    assert breaker.state(167.0) is State.CLOSED


def test_answers_that_take_longer_than_a_probe_may_close_it_all_the_same():
    breaker = opened(probe_s=60.0)
    slow = [probe_of(breaker, now) for now in (105.0, 165.0)]
    breaker.succeeded(195.0, slow[0])
    assert breaker.state(195.0) is State.CLOSED
    breaker.failed(200.0, slow[1])
    assert breaker.statistics(200.0).consecutive == 1


def test_a_late_success_counts_for_nothing_once_a_later_probe_has_failed():
    breaker = opened(probe_s=60.0)
    slow = [probe_of(breaker, now) for now in (105.0, 165.0)]
    breaker.failed(170.0, slow[1])
    breaker.succeeded(171.0, slow[0])
    assert breaker.state(171.0) is State.OPEN


def test_a_probe_that_waited_for_long_in_vain_is_followed_at_once():
    breaker = opened()
    breaker.failed(112.0, probe_of(breaker, 105.0))  # open for 10 s from 105 on
    assert breaker.statistics(112.0).wait_s == 3.0
    breaker.failed(145.0, probe_of(breaker, 115.0))  # 15 s are over
    probe_of(breaker, 145.0)


def test_a_tripped_breaker_is_open_for_as_long_as_it_was_told():
    breaker = Breaker()
    pending = breaker.admit(100.0)
    breaker.trip(100.0, 300.0, "status 401: the key is not accepted")
    breaker.trip(101.0, 10.0, "shorter")
    breaker.succeeded(102.0, pending)
    told = breaker.statistics(102.0)
    assert (told.state, told.why, told.opened) == (State.OPEN, "status 401: the key is not accepted", 1)
    assert breaker.admit(399.0) == Verdict(allowed=False, wait_s=1.0)
    breaker.succeeded(400.0, probe_of(breaker, 400.0))
    assert breaker.state(400.0) is State.CLOSED


def test_a_probe_that_succeeds_and_then_breaks_off_counts_as_both():
    breaker = opened()
    probe = probe_of(breaker, 105.0)
    breaker.succeeded(105.0, probe)
    breaker.failed(106.0, probe)
    assert breaker.statistics(106.0).consecutive == 1


def test_an_hour_of_outage_costs_few_requests_and_its_end_is_noticed():
    breaker, now, asked, served_at = Breaker(), 0.0, 0, None
    while served_at is None:
        verdict = breaker.admit(now)
        if verdict.allowed and now < 3_600:
            asked += 1
            breaker.failed(now, verdict)
        elif verdict.allowed:
            breaker.succeeded(now, verdict)
            served_at = now
        now += 0.05
    assert asked <= 5 + 3_600 / 15 + 2
    assert served_at - 3_600 <= 15.1


RESULTS = st.sampled_from(["succeeded", "failed", "released", "lost", "trip"])


@given(
    st.lists(st.tuples(RESULTS, st.sampled_from([0.0, 0.5, 3.0, 20.0]), st.integers(0, 3)), max_size=150),
    st.integers(1, 3),
)
def test_never_two_probes_and_never_closed_for_ever(steps, consecutive):
    """Whatever is done with verdicts, in whatever order, in the end a working target is used again."""
    breaker, now = Breaker(consecutive=consecutive), 0.0
    held, last_probe_at = [], -1e9
    for what, later_s, which in steps:
        now += later_s
        verdict = breaker.admit(now)
        assert verdict.allowed == (verdict.wait_s == 0)
        if verdict.probe:
            assert now - last_probe_at >= 5.0
            last_probe_at = now
        if verdict.allowed:
            held.append(verdict)
        if what == "trip":
            breaker.trip(now, 100.0, "told to")
        elif held and what != "lost":
            getattr(breaker, what)(now, held.pop(which % len(held)))
    for _ in range(200):
        now += 1.0
        verdict = breaker.admit(now)
        if verdict.allowed:
            breaker.succeeded(now, verdict)
    assert breaker.state(now) is State.CLOSED


@pytest.mark.parametrize("n", range(3))
def test_results_handed_back_twice_close_nothing_that_is_open(n):
    breaker = Breaker()
    verdict = breaker.admit(0.0)
    for _ in range(5 + n):
        breaker.failed(0.0, verdict)
    breaker.succeeded(0.0, verdict)
    assert breaker.statistics(0.0).opened == 1
    assert breaker.state(0.0) is State.OPEN
