"""Background work that fails is told, started again after a pause that grows, and ends with its nursery."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.flow.supervise import FIRST_PAUSE_S, LONGEST_PAUSE_S, supervised


class Work:
    """Fails ``failures`` times, each after ``lasting_s``, then returns."""

    def __init__(self, failures: float, lasting_s: float = 0.0) -> None:
        self.starts: list[float] = []
        self.told: list[tuple[str, str]] = []
        self._failures = failures
        self._lasting_s = lasting_s

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        await trio.sleep(self._lasting_s)
        if len(self.starts) <= self._failures:
            raise ValueError(f"failure {len(self.starts)}")

    def failed(self, name: str, error: Exception) -> None:
        self.told.append((name, str(error)))

    @property
    def pauses_s(self) -> list[float]:
        return [b - a - self._lasting_s for a, b in zip(self.starts, self.starts[1:], strict=False)]


async def test_work_that_returns_is_not_started_again(autojump_clock: trio.testing.MockClock) -> None:
    work = Work(0)
    await supervised(work.run, name="w", on_failure=work.failed)
    assert (len(work.starts), work.told) == (1, [])


async def test_each_failure_is_told_with_its_name(autojump_clock: trio.testing.MockClock) -> None:
    work = Work(2)
    await supervised(work.run, name="prune", on_failure=work.failed)
    assert work.told == [("prune", "failure 1"), ("prune", "failure 2")]


async def test_the_pause_doubles_up_to_its_limit(autojump_clock: trio.testing.MockClock) -> None:
    work = Work(12)
    await supervised(work.run, name="w", on_failure=work.failed)
    expected = [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(12)]
    assert work.pauses_s == pytest.approx(expected)


async def test_work_that_held_for_long_starts_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    work = Work(5, lasting_s=LONGEST_PAUSE_S + 1)
    await supervised(work.run, name="w", on_failure=work.failed)
    assert work.pauses_s == pytest.approx([FIRST_PAUSE_S] * 5)


@pytest.mark.parametrize("after_s", [0.05, 5.0])
async def test_it_ends_with_its_nursery_at_work_or_in_a_pause(
    autojump_clock: trio.testing.MockClock, after_s: float
) -> None:
    work = Work(float("inf"), lasting_s=0.1)
    with trio.move_on_after(after_s) as scope:
        await supervised(work.run, name="w", on_failure=work.failed)
    assert scope.cancelled_caught
    assert len(work.told) <= len(work.starts)


async def test_what_is_no_exception_of_the_work_passes_through(autojump_clock: trio.testing.MockClock) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await supervised(interrupted, name="w", on_failure=lambda name, error: None)
