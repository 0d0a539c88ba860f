"""Promise: whether a request may run, has to wait or is refused is decided at once, in order, at a constant cost."""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.errors import Rejected
from gateway.core.principal import Priority
from gateway.flow.admission import MOST_RETRY_S, Admission, Place
from gateway.policy.throughput import SETTLED

HIGH, NORMAL, LOW = Priority


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def admission(*, permits: int = 1, queue: int = 100, max_wait_s: float = 5.0) -> tuple[Admission, Clock]:
    clock = Clock()
    return Admission(permits=permits, queue=queue, max_wait_s=max_wait_s, clock=clock), clock


def enter(line: Admission, priority: Priority = NORMAL, deadline: float = float("inf")) -> Place:
    place = line.try_enter(priority, deadline)
    assert isinstance(place, Place)
    return place


def refused(line: Admission, priority: Priority = NORMAL, deadline: float = float("inf")) -> Rejected:
    refusal = line.try_enter(priority, deadline)
    assert isinstance(refusal, Rejected)
    assert refusal.http_status == 429
    return refusal


def measure(line: Admission, clock: Clock, service_s: float, times: int = SETTLED) -> None:
    """Let ``times`` requests run for ``service_s`` each, one after the other."""
    for _ in range(times):
        with enter(line):
            clock.now += service_s


def served_order(line: Admission, running: Place, names: dict[Place, str]) -> list[str]:
    """Let one after the other run and end; who was it?"""
    order = []
    while names:
        running.release()
        [running] = [place for place in names if place.holds_permit]
        order.append(names.pop(running))
    running.release()
    return order


def test_permits_then_places_then_refusals():
    line, _ = admission(permits=20, queue=100)
    places = [enter(line) for _ in range(120)]
    assert [place.holds_permit for place in places] == [True] * 20 + [False] * 100
    assert line.is_full
    refusal = refused(line)
    assert refusal.code == "queue_full"
    assert refusal.public_message == (
        "queue full: 100 waiting (admission.queue), 20 in flight (admission.workers); retry after 1 s"
    )
    now = line.statistics()
    assert (now.in_flight, now.waiting, now.admitted, now.refused) == (20, 100, 20, {"queue_full": 1})


def test_a_freed_permit_goes_to_the_next_in_line_before_any_newcomer():
    line, _ = admission(permits=1, queue=2)
    running, first, second = enter(line), enter(line), enter(line)
    running.release()
    assert first.holds_permit
    newcomer = enter(line)
    assert not newcomer.holds_permit
    first.release()
    assert second.holds_permit
    assert not newcomer.holds_permit


def test_without_a_queue_the_one_beyond_the_permits_is_refused():
    line, _ = admission(permits=2, queue=0)
    first, second = enter(line), enter(line)
    assert refused(line).code == "queue_full"
    first.release()
    assert not line.is_full
    assert enter(line).holds_permit
    second.release()


def test_releasing_twice_gives_one_permit_back():
    line, _ = admission(permits=1, queue=2)
    running, first, second = enter(line), enter(line), enter(line)
    running.release()
    running.release()
    with running:
        pass
    assert first.holds_permit
    assert not second.holds_permit
    assert line.statistics().in_flight == 1


def test_who_leaves_the_line_is_overtaken_by_nobody_else():
    line, _ = admission(permits=1, queue=3)
    running, first, second, third = (enter(line) for _ in range(4))
    second.release()
    assert line.statistics().left == 1
    running.release()
    first.release()
    assert third.holds_permit
    assert not second.holds_permit


@pytest.mark.parametrize("seen_before", [0, 1, 1_000])
def test_priorities_that_wait_together_share_permits_8_to_3_to_1(seen_before: int):
    line, _ = admission(permits=1, queue=1_000)
    for _ in range(seen_before):  # what one class got while it was alone is no debt
        running, waiting = enter(line, LOW), enter(line, LOW)
        running.release()
        waiting.release()
    running = enter(line)
    names = {enter(line, priority): priority.name for _ in range(80) for priority in Priority}
    order = served_order(line, running, names)[:120]
    assert order.count("HIGH") == pytest.approx(80, abs=1)
    assert order.count("NORMAL") == pytest.approx(30, abs=1)
    assert order.count("LOW") == pytest.approx(10, abs=1)
    assert all("LOW" in order[start : start + 14] for start in range(107))


def test_within_a_priority_the_first_come_is_the_first_served():
    line, _ = admission(permits=1, queue=1_000)
    running = enter(line)
    names = {enter(line, priority): f"{priority.name} {n}" for n in range(20) for priority in Priority}
    order = served_order(line, running, names)
    for priority in Priority:
        assert [name for name in order if name.startswith(priority.name)] == [f"{priority.name} {n}" for n in range(20)]


def test_a_flood_of_high_priority_does_not_starve_low():
    line, _ = admission(permits=1, queue=100)
    running = enter(line, HIGH)
    flood = deque(enter(line, HIGH) for _ in range(50))
    for _ in range(500):
        running.release()
        running = flood.popleft()
        flood.append(enter(line, HIGH))
    low, turns = enter(line, LOW), 0
    while not low.holds_permit:
        running.release()
        turns += 1
        if not low.holds_permit:
            running = flood.popleft()
            flood.append(enter(line, HIGH))
    assert turns <= 12  # of eight, three and one, the one comes at the latest as the twelfth


def test_a_deadline_that_cannot_be_met_is_refused_on_entry():
    line, clock = admission(permits=2, queue=10)
    measure(line, clock, 2.0)
    with enter(line):  # one permit is taken, one is free
        refusal = refused(line, deadline=clock.now + 1.9)
        assert refusal.code == "deadline_unmeetable"
        assert refusal.public_message.startswith(
            "the request's deadline is 1.9 s away (x-request-timeout-ms), but waiting and answering take about 2.0 s"
        )
        with enter(line, deadline=clock.now + 2.1):
            # Both permits are taken, one leaves every second: two in line wait 1 s and 2 s, and then run for 2 s.
            assert line.statistics().per_second == pytest.approx(1.0)
            assert refused(line, deadline=clock.now + 2.9).code == "deadline_unmeetable"
            with enter(line, deadline=clock.now + 3.1):
                assert refused(line, deadline=clock.now + 3.9).code == "deadline_unmeetable"
    assert line.statistics().refused == {"deadline_unmeetable": 3}


def test_a_bad_measurement_is_not_the_last_one():
    """If nobody is let in, nothing is measured any more: who finds the gateway idle gets a try."""
    line, clock = admission(permits=20, queue=100)
    measure(line, clock, 60.0)
    for _ in range(60):
        with enter(line, deadline=clock.now + 10.0):
            clock.now += 0.1
    assert line.statistics().service_s < 1.0
    with enter(line):
        assert enter(line, deadline=clock.now + 10.0).holds_permit


def test_nobody_is_refused_for_what_was_not_measured():
    line, clock = admission(permits=2, queue=10)
    measure(line, clock, 100.0, times=SETTLED - 1)
    with enter(line):
        assert enter(line, deadline=clock.now + 0.001).holds_permit


def test_a_line_that_would_take_more_than_twice_the_allowed_wait_is_refused_on_entry():
    line, clock = admission(permits=1, queue=100, max_wait_s=5.0)
    measure(line, clock, 1.0)
    running = enter(line)
    waiting = [enter(line) for _ in range(10)]
    refusal = refused(line)
    assert refusal.code == "queue_timeout"
    assert "the wait would be about 11.0 s, more than admission.max_wait_s = 5" in refusal.public_message
    for place in [running, *waiting]:
        place.release()


def test_refused_clients_are_spread_over_the_drain_rate():
    line, clock = admission(permits=10, queue=100)
    measure(line, clock, 1.0, times=64)  # so ten permits let ten leave in a second
    places = [enter(line) for _ in range(10)]
    places += [enter(line) for _ in range(100)]
    after = [refused(line).retry_after_s for _ in range(100)]
    assert after[0] == pytest.approx(10.1)
    assert [round(later - earlier, 3) for earlier, later in pairwise(after)] == [0.1] * 99
    assert max(refused(line).retry_after_s for _ in range(1_000)) == MOST_RETRY_S
    for place in reversed(places):
        place.release()


def test_statistics_tell_what_is_and_what_was():
    line, clock = admission(permits=1, queue=5)
    measure(line, clock, 0.5, times=2)
    running = enter(line)
    waiting = [enter(line, priority) for priority in (HIGH, LOW, LOW)]
    waiting[1].release()
    now = line.statistics()
    assert now.permits == 1
    assert now.queue == 5
    assert now.in_flight == 1
    assert now.waiting == 2
    assert now.waiting_by_priority == {"high": 1, "normal": 0, "low": 1}
    assert now.admitted == 3
    assert now.left == 1
    assert now.service_s == 0.5
    assert now.per_second == pytest.approx(2.0)
    running.release()


def test_entering_and_leaving_cost_the_same_however_long_the_line_is():
    def cost_s(length: int) -> float:
        line, _ = admission(permits=1, queue=length, max_wait_s=1e9)
        places = [enter(line) for _ in range(length + 1)]
        began = time.thread_time()
        for place in places:
            place.release()
        return (time.thread_time() - began) / length

    short = min(cost_s(500) for _ in range(10))
    long = min(cost_s(60_000) for _ in range(2))
    assert long < 4 * short, f"{short * 1e6:.1f} µs in a line of 500, {long * 1e6:.1f} µs in one of 60,000"


class AdmissionKeepsItsBounds(RuleBasedStateMachine):
    """Whatever happens in whatever order; the model is a plain list per priority."""

    PERMITS, QUEUE = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.line, self.clock = admission(permits=self.PERMITS, queue=self.QUEUE, max_wait_s=3.0)
        self.running: list[Place] = []
        self.lines: dict[Priority, list[Place]] = {priority: [] for priority in Priority}
        self.ended = 0
        self.refusals = 0

    @rule(priority=st.sampled_from(Priority), patience_s=st.sampled_from([0.0, 0.5, 5.0, 1e9]))
    def somebody_comes(self, priority: Priority, patience_s: float) -> None:
        free = len(self.running) < self.PERMITS
        room = sum(map(len, self.lines.values())) < self.QUEUE
        place = self.line.try_enter(priority, self.clock.now + patience_s)
        if isinstance(place, Rejected):
            self.refusals += 1
            assert 1.0 <= place.retry_after_s <= MOST_RETRY_S
            assert place.code == ("queue_full" if not free and not room else place.code)
            if patience_s == 1e9 and place.code == "deadline_unmeetable":
                raise AssertionError("somebody with all the time in the world was told that it does not do")
        elif free:
            assert place.holds_permit
            self.running.append(place)
        else:
            assert room
            assert not place.holds_permit
            self.lines[priority].append(place)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def somebody_ends(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.running))
        place.release()
        self.running.remove(place)
        self.ended += 1
        self._see_who_was_next()

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data(), timed_out=st.booleans())
    def somebody_gives_up_waiting(self, data: st.DataObject, timed_out: bool) -> None:
        place = data.draw(st.sampled_from([place for line in self.lines.values() for place in line]))
        if timed_out:
            assert self.line.give_up(place).code == "queue_timeout"
            self.refusals += 1
        place.release()
        self.lines[place.priority].remove(place)

    @rule(seconds=st.sampled_from([0.01, 1.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    def _see_who_was_next(self) -> None:
        granted = [(line, place) for line in self.lines.values() for place in line if place.holds_permit]
        assert len(granted) == (1 if any(self.lines.values()) else 0)
        for line, place in granted:
            assert line[0] is place, "not the first of its priority"
            line.remove(place)
            self.running.append(place)

    @invariant()
    def the_bounds_hold_and_nobody_is_lost(self) -> None:
        now = self.line.statistics()
        waiting = sum(map(len, self.lines.values()))
        assert now.in_flight == len(self.running) <= self.PERMITS
        assert now.waiting == waiting <= self.QUEUE
        assert now.waiting == sum(now.waiting_by_priority.values())
        assert not waiting or len(self.running) == self.PERMITS, "somebody waits beside a free permit"
        assert now.admitted == len(self.running) + self.ended
        assert sum(now.refused.values()) == self.refusals
        assert self.line.is_full == (len(self.running) == self.PERMITS and waiting == self.QUEUE)

    def teardown(self) -> None:
        for place in [place for line in self.lines.values() for place in line] + self.running:
            place.release()
        now = self.line.statistics()
        assert (now.in_flight, now.waiting) == (0, 0)


TestAdmissionKeepsItsBounds = AdmissionKeepsItsBounds.TestCase
TestAdmissionKeepsItsBounds.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
