"""Promise: who waits is served in order, for a bounded time, and gives its place up the moment it is cancelled."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.core.errors import Rejected
from gateway.core.principal import Priority
from gateway.flow.admission import Admission, Place


def enter(admission: Admission, priority: Priority = Priority.NORMAL, deadline: float = math.inf) -> Place:
    place = admission.try_enter(priority, deadline)
    assert isinstance(place, Place)
    return place


def assert_nobody_there(admission: Admission) -> None:
    now = admission.statistics()
    assert (now.in_flight, now.waiting) == (0, 0)


async def test_a_permit_that_is_held_costs_no_checkpoint(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=0, max_wait_s=1)
    with enter(admission) as place, trio.testing.assert_no_checkpoints():
        await place.wait()


async def test_twenty_work_and_the_others_follow_in_order(autojump_clock: MockClock):
    admission = Admission(permits=20, queue=100, max_wait_s=100)
    began: list[int] = []
    most = 0

    async def work(n: int, place: Place) -> None:
        nonlocal most
        with place:
            await place.wait()
            began.append(n)
            most = max(most, admission.statistics().in_flight)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for n in range(120):
            nursery.start_soon(work, n, enter(admission))
        await wait_all_tasks_blocked()
        assert sorted(began) == list(range(20))
        refusal = admission.try_enter()
        assert isinstance(refusal, Rejected)
        assert refusal.code == "queue_full"
    assert trio.current_time() == pytest.approx(6.0)
    assert most == 20
    for wave in range(6):
        assert sorted(began[20 * wave : 20 * wave + 20]) == list(range(20 * wave, 20 * wave + 20))
    assert_nobody_there(admission)
    assert admission.statistics().service_s == pytest.approx(1.0)


async def test_waiting_ends_with_a_refusal_after_max_wait(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=1, max_wait_s=5)
    with enter(admission):
        began = trio.current_time()
        with enter(admission) as place, pytest.raises(Rejected) as caught:
            await place.wait()
        assert trio.current_time() - began == pytest.approx(5)
        assert (caught.value.code, caught.value.http_status) == ("queue_timeout", 429)
        assert caught.value.public_message.startswith("no free worker within 5.0 s (admission.max_wait_s = 5)")
        assert caught.value.retry_after_s is not None
        assert admission.statistics().waiting == 0
        assert admission.statistics().left == 0  # refused, not left
    assert_nobody_there(admission)


async def test_waiting_ends_with_the_requests_own_deadline_if_that_is_nearer(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=1, max_wait_s=5)
    with enter(admission):
        began = trio.current_time()
        with enter(admission, deadline=began + 2) as place, pytest.raises(Rejected) as caught:
            await place.wait()
        assert trio.current_time() - began == pytest.approx(2)
        assert caught.value.code == "queue_timeout"
        assert "x-request-timeout-ms" in caught.value.public_message


async def test_who_is_cancelled_in_line_gives_the_place_up_at_once(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=2, max_wait_s=60)
    order: list[str] = []

    async def work(name: str, place: Place) -> None:
        with place:
            await place.wait()
            order.append(name)

    running = enter(admission)
    leaving, staying = enter(admission), enter(admission)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(work, "staying", staying)
            async with trio.open_nursery() as inner:
                inner.start_soon(work, "leaving", leaving)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert admission.statistics().waiting == 1
        assert admission.statistics().left == 1
        with enter(admission):
            running.release()
            await wait_all_tasks_blocked()
    assert order == ["staying"]
    assert_nobody_there(admission)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_permit_granted_in_the_step_of_the_cancellation_goes_to_the_next(
    autojump_clock: MockClock, cancel_first: bool
):
    admission = Admission(permits=1, queue=2, max_wait_s=60)
    running, leaving, staying = enter(admission), enter(admission), enter(admission)
    scope = trio.CancelScope()
    served = trio.Event()

    async def leave() -> None:
        with scope, leaving:
            await leaving.wait()
            await trio.lowlevel.checkpoint()
            raise AssertionError("it was cancelled")

    async def stay() -> None:
        with staying:
            await staying.wait()
            served.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        nursery.start_soon(stay)
        await wait_all_tasks_blocked()
        if cancel_first:
            scope.cancel()
            running.release()
        else:
            running.release()
            assert leaving.holds_permit
            scope.cancel()
        with trio.fail_after(1):
            await served.wait()
    assert scope.cancelled_caught
    assert_nobody_there(admission)


async def test_a_permit_granted_at_the_very_deadline_is_kept_or_passed_on_but_never_lost(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=2, max_wait_s=5)
    ends: list[str] = []

    async def hold(place: Place) -> None:
        with place:
            await trio.sleep(5)

    async def wait(place: Place) -> None:
        with place:
            try:
                await place.wait()
                ends.append("served")
            except Rejected as refusal:
                ends.append(refusal.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, enter(admission))
        nursery.start_soon(wait, enter(admission))
        nursery.start_soon(wait, enter(admission))
    assert len(ends) == 2
    assert set(ends) <= {"served", "queue_timeout"}
    assert_nobody_there(admission)


async def test_a_place_that_was_never_waited_for_is_given_back_by_its_block(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=1, max_wait_s=5)
    with enter(admission):
        with enter(admission):
            assert admission.statistics().waiting == 1
        assert admission.statistics().waiting == 0
    assert_nobody_there(admission)


async def test_a_permit_granted_before_anybody_waits_for_it_is_there(autojump_clock: MockClock):
    admission = Admission(permits=1, queue=1, max_wait_s=5)
    running = enter(admission)
    with enter(admission) as place:
        running.release()
        with trio.fail_after(0.1):
            await place.wait()
        assert place.holds_permit


async def test_under_overload_what_is_done_stays_what_can_be_done(autojump_clock: MockClock):
    """Four times as many come as can be served: as many are served as ever, and nobody waits longer than allowed."""
    admission = Admission(permits=10, queue=50, max_wait_s=5)
    waited: list[float] = []
    done = refused = 0

    async def request() -> None:
        nonlocal done, refused
        place = admission.try_enter()
        if isinstance(place, Rejected):
            refused += 1
            return
        with place:
            began = trio.current_time()
            try:
                await place.wait()
            except Rejected:
                refused += 1
                return
            waited.append(trio.current_time() - began)
            await trio.sleep(1)
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(1_200):  # 40 a second for 30 s, where 10 a second can be served
            nursery.start_soon(request)
            await trio.sleep(1 / 40)
    assert done + refused == 1_200
    assert done >= 10 * 30
    assert max(waited) <= 5.0
    assert_nobody_there(admission)
