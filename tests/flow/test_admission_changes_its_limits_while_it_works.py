"""Admission's limits can change at any time: nobody who was let in or in line is put out."""

from __future__ import annotations

from gateway.core.errors import Rejected
from gateway.flow.admission import Admission, Place


def entered(admission: Admission) -> Place:
    place = admission.try_enter()
    assert isinstance(place, Place)
    return place


async def test_more_permits_let_those_in_who_wait() -> None:
    admission = Admission(permits=1, queue=3, max_wait_s=5.0)
    first, second, third = (entered(admission) for _ in range(3))
    admission.resize(permits=2, queue=3, max_wait_s=5.0)
    assert [place.holds_permit for place in (first, second, third)] == [True, True, False]
    first.release()
    assert third.holds_permit


async def test_fewer_permits_hold_once_enough_came_back() -> None:
    admission = Admission(permits=3, queue=3, max_wait_s=5.0)
    running = [entered(admission) for _ in range(3)]
    waiting = entered(admission)
    admission.resize(permits=1, queue=3, max_wait_s=5.0)
    assert admission.statistics().in_flight == 3
    running[0].release()
    running[1].release()
    assert (admission.statistics().in_flight, waiting.holds_permit) == (1, False)
    running[2].release()
    assert waiting.holds_permit


async def test_a_shorter_line_keeps_who_stands_in_it_and_refuses_the_next() -> None:
    admission = Admission(permits=1, queue=3, max_wait_s=5.0)
    places = [entered(admission) for _ in range(4)]
    admission.resize(permits=1, queue=1, max_wait_s=5.0)
    refused = admission.try_enter()
    assert isinstance(refused, Rejected)
    assert refused.code == "queue_full"
    places[0].release()
    assert places[1].holds_permit
    assert admission.statistics().waiting == 2
