"""Two attempts: the first success wins, a fast error does not stop the healthy one, and nothing is left running."""

import pytest
import trio

from gateway.flow.hedge import hedged


class Run:
    """Attempts that note what became of them."""

    def __init__(self):
        self.ended = []
        self.discarded = []

    def attempt(self, name, seconds, error=None):
        async def run():
            try:
                await trio.sleep(seconds)
                if error is not None:
                    raise error
                self.ended.append((name, "done"))
                return name
            except trio.Cancelled:
                self.ended.append((name, "cancelled"))
                raise

        return run

    async def race(self, first, second, *, delay_s=1.0, may=lambda: True):
        return await hedged(first, second, delay_s=delay_s, may=may, discard=self.discarded.append)


async def test_a_quick_first_is_alone(autojump_clock):
    run = Run()
    began = trio.current_time()
    assert await run.race(run.attempt("a", 0.5), run.attempt("b", 0)) == "a"
    assert run.ended == [("a", "done")]
    assert trio.current_time() - began == pytest.approx(0.5)


async def test_the_faster_wins_and_the_slower_has_ended(autojump_clock):
    run = Run()
    began = trio.current_time()
    assert await run.race(run.attempt("a", 10), run.attempt("b", 0.5)) == "b"
    assert trio.current_time() - began == pytest.approx(1.5)
    assert sorted(run.ended) == [("a", "cancelled"), ("b", "done")]


async def test_a_failing_hedge_leaves_the_first_alone(autojump_clock):
    run = Run()
    assert await run.race(run.attempt("a", 3), run.attempt("b", 0.1, ValueError("b"))) == "a"


async def test_a_first_that_fails_late_leaves_the_hedge_alone(autojump_clock):
    run = Run()
    assert await run.race(run.attempt("a", 2, ValueError("a")), run.attempt("b", 3)) == "b"


async def test_a_first_that_fails_before_the_delay_is_not_hedged(autojump_clock):
    run = Run()
    with pytest.raises(ValueError, match="a"):
        await run.race(run.attempt("a", 0.5, ValueError("a")), run.attempt("b", 0))
    assert run.ended == []


async def test_both_failing_is_the_firsts_failure(autojump_clock):
    run = Run()
    with pytest.raises(ValueError, match="a") as caught:
        await run.race(run.attempt("a", 2, ValueError("a")), run.attempt("b", 3, KeyError("b")))
    assert isinstance(caught.value.__context__, KeyError)


async def test_without_leave_there_is_no_second(autojump_clock):
    run = Run()
    assert await run.race(run.attempt("a", 5), run.attempt("b", 0), may=lambda: False) == "a"
    assert run.ended == [("a", "done")]


async def test_a_tie_discards_one(autojump_clock):
    run = Run()
    won = await run.race(run.attempt("a", 2), run.attempt("b", 1))
    assert [won, *run.discarded] in (["a"], ["b"], ["a", "b"], ["b", "a"])
    assert {name for name, how in run.ended if how == "done"} == {won, *run.discarded}


async def test_cancelled_from_outside_leaves_nothing(autojump_clock):
    for after_s in (0, 0.5, 1, 1.5, 1.9999, 2):
        run = Run()
        with trio.move_on_after(after_s) as scope:
            await run.race(run.attempt("a", 2), run.attempt("b", 1))
        begun = 2 if after_s >= 1 else 1
        if scope.cancelled_caught:
            assert len(run.ended) <= begun
            assert {name for name, how in run.ended if how == "done"} == set(run.discarded)
