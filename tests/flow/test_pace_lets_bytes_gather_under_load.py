"""Coalescing: nobody waits while the loop is in time, everybody waits a bounded while when it lags."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.flow.pace import LAGGING_S, LONGEST_WAIT_S, LOTS, TICK_S, Pace


def make_it_lag(pace):
    for _ in range(20):
        pace._note(10 * LAGGING_S)
    assert pace.lagging


async def test_nobody_waits_while_the_loop_is_in_time(autojump_clock):
    pace = Pace()
    with pace:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace.run)
            await trio.sleep(10 * TICK_S)
            before = trio.current_time()
            await pace.gather()
            assert trio.current_time() == before
            assert pace.statistics().waits == 0
            nursery.cancel_scope.cancel()


async def test_a_wait_is_never_longer_than_the_longest(autojump_clock):
    pace = Pace()
    waited = []

    async def read(offset_s):
        await trio.sleep(offset_s)
        before = trio.current_time()
        await pace.gather()
        waited.append(trio.current_time() - before)

    with pace:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace.run)
            await wait_all_tasks_blocked()
            make_it_lag(pace)
            for i in range(20):
                nursery.start_soon(read, i * TICK_S / 20)
            await trio.sleep(2 * LONGEST_WAIT_S)
            nursery.cancel_scope.cancel()
    assert len(waited) == 20
    assert min(waited) > 0
    assert max(waited) <= LONGEST_WAIT_S + 1e-9
    assert max(waited) > LONGEST_WAIT_S - 2 * TICK_S


async def test_a_lag_that_is_over_lets_everybody_go(autojump_clock):
    pace = Pace()
    with pace:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pace.run)
            await wait_all_tasks_blocked()
            make_it_lag(pace)
            await trio.sleep(40 * TICK_S)  # virtual time is always punctual
            assert not pace.lagging
            nursery.cancel_scope.cancel()


async def test_without_streams_nothing_ticks(autojump_clock):
    pace = Pace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pace.run)
        await wait_all_tasks_blocked()
        ticks = pace._opened
        await trio.sleep(100 * TICK_S)
        assert pace._opened == ticks
        with pace:
            await trio.sleep((LOTS - 0.5) * TICK_S)
            assert pace._opened != ticks
        nursery.cancel_scope.cancel()


def test_a_real_lag_is_noticed():
    """A clock that is moved by hand: the loop was asked to wake in a tick and comes a quarter of a second late."""
    clock = MockClock()

    async def main():
        pace = Pace()
        with pace:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pace.run)
                for _ in range(3):
                    await wait_all_tasks_blocked()
                    clock.jump(TICK_S + 0.25)
                await wait_all_tasks_blocked()
                assert pace.lagging
                assert pace.statistics().lag_s > LAGGING_S
                nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
