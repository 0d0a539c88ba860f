"""Promise: ``Retry-After`` and "that cannot be done in time" come from what was measured, and from nothing else."""

import pytest

from gateway.policy.throughput import SETTLED, SMOOTHING, WINDOW, Throughput


def departing(*, every_s: float, service_s: float, times: int, until: float = 100.0) -> Throughput:
    seen = Throughput()
    for n in range(times):
        seen.departed(until - (times - 1 - n) * every_s, service_s)
    return seen


def test_nothing_measured_says_nothing():
    seen = Throughput()
    assert not seen.settled
    assert seen.service_s == 0
    assert seen.per_second(100.0, 20) == 0
    assert seen.wait_s(50, 100.0, 20) == 0
    assert seen.retry_after_s(100, 100.0, 20, least_s=1.0, most_s=60.0) == 1.0


def test_a_few_departures_are_no_measurement_yet():
    assert not departing(every_s=1, service_s=1, times=SETTLED - 1).settled
    assert departing(every_s=1, service_s=1, times=SETTLED).settled


def test_a_wait_is_the_line_divided_by_the_rate():
    seen = departing(every_s=0.1, service_s=0.1, times=WINDOW)
    assert seen.per_second(100.0, 1) == pytest.approx(10.0, rel=0.02)
    assert seen.wait_s(50, 100.0, 1) == pytest.approx(5.0, rel=0.02)


def test_an_idle_pause_does_not_make_the_rate_look_low():
    seen = departing(every_s=0.1, service_s=0.5, times=WINDOW)
    assert seen.per_second(100.0 + 3_600, 20) == pytest.approx(20 / 0.5)


def test_the_rate_follows_the_load_within_one_window():
    seen = departing(every_s=1.0, service_s=1.0, times=WINDOW)
    for n in range(WINDOW):
        seen.departed(100.0 + 0.01 * (n + 1), 1.0)
    assert seen.per_second(100.0 + 0.01 * WINDOW, 1) == pytest.approx(100.0, rel=0.02)


def test_the_service_time_follows_slowly_and_begins_with_the_first():
    seen = Throughput()
    seen.departed(1.0, 10.0)
    assert seen.service_s == 10.0
    seen.departed(2.0, 0.0)
    assert seen.service_s == pytest.approx(10.0 * (1 - SMOOTHING))


def test_departures_in_the_same_instant_divide_by_nothing():
    seen = departing(every_s=0.0, service_s=0.0, times=WINDOW)
    assert seen.per_second(100.0, 20) == 0
    assert seen.retry_after_s(100, 100.0, 20, least_s=1.0, most_s=60.0) == 1.0


def test_each_refused_client_gets_a_later_slot_and_nobody_more_than_the_most():
    seen = departing(every_s=0.1, service_s=0.1, times=WINDOW)
    after = [seen.retry_after_s(100, 100.0, 1, least_s=1.0, most_s=60.0) for _ in range(1_000)]
    assert after == sorted(after)
    assert after[0] == pytest.approx(10.1, rel=0.02)
    assert after[100] - after[0] == pytest.approx(10.0, rel=0.02)
    assert after[-1] == 60.0


def test_promises_of_long_ago_are_forgotten():
    seen = departing(every_s=0.1, service_s=0.1, times=WINDOW)
    for _ in range(1_000):
        seen.retry_after_s(100, 100.0, 1, least_s=1.0, most_s=60.0)
    assert seen.retry_after_s(0, 200.0, 1, least_s=1.0, most_s=60.0) == 1.0
