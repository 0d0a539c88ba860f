"""A clock for tests of patience over real sockets: time passes only while everybody waits, and a hundred times faster.

A limit of 30 s costs 0.3 s here, so what is tested are the numbers that people configure. And a machine that stands
still for a second makes nobody late: what computing takes, or waiting for a processor, or an answer that lies ready in
a socket, takes no time at all on this clock. It goes on to the next deadline when the event loop has waited for that
deadline's share of real time and nothing whatever has happened meanwhile. Client, gateway and provider live in one
event loop, so whoever is waited for in that time is really waiting, too. While a task has work done in a thread, the
clock stands still.

Limits: what reads the machine's own clock (dates, idle connections) knows nothing of this one. Who asks it for the time
again and again without ever waiting asks for ever.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio

RATE = 100.0
LEAST_WAIT_S = 0.001  # what the kernel rounds up to; less than that is owed, and waited for later
_WAITS_FOR_A_THREAD = inspect.unwrap(trio.to_thread.run_sync).__code__


class PatientClock(trio.abc.Clock, trio.abc.Instrument):
    """See the module. To be given to :func:`trio.run` as its clock and as an instrument."""

    def __init__(self) -> None:
        self._now = 0.0
        self._next = math.inf  # the deadline that the loop waits for, if it does
        self._wait_s = math.inf  # its share of real time, and what was owed
        self._owed_s = 0.0
        self._began = 0.0
        self._waits = False
        self._quiet = False  # nothing has happened since the loop began to wait
        self._waited = False  # to the end
        self._stepped: set[trio.lowlevel.Task] = set()  # since it was last looked who waits for a thread
        self._in_threads: set[trio.lowlevel.Task] = set()

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        if self._waited:
            self._waited = False
            if self._quiet and not self._threads_work():
                self._now = max(self._now, self._next)
                self._owed_s = self._wait_s if self._wait_s < LEAST_WAIT_S else 0.0
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        self._waits, self._next = True, deadline
        self._wait_s = self._owed_s + max(deadline - self._now, 0.0) / RATE
        if self._in_threads:
            return max(self._wait_s, LEAST_WAIT_S)
        return self._wait_s if self._wait_s >= LEAST_WAIT_S else 0.0

    def _threads_work(self) -> bool:
        for task in self._stepped:
            frames = (frame.f_code for frame, _ in task.iter_await_frames())
            if _WAITS_FOR_A_THREAD in frames:
                self._in_threads.add(task)
            else:
                self._in_threads.discard(task)
        self._stepped.clear()
        return bool(self._in_threads)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._stepped.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._stepped.discard(task)
        self._in_threads.discard(task)

    def before_io_wait(self, timeout: float) -> None:
        self._waits = self._waits and (timeout >= self._wait_s or self._wait_s < LEAST_WAIT_S)
        self._began, self._quiet = time.monotonic(), True

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._quiet = False

    def after_io_wait(self, timeout: float) -> None:
        self._waited = self._waits and time.monotonic() - self._began >= timeout
        self._waits = False


def run(
    test: Callable[[], Awaitable[Any]], *, clock: trio.abc.Clock | None = None, instruments: Iterable[Any] = ()
) -> Any:
    """:func:`trio.run` by this clock, unless the test has another; for ``pytest.mark.trio(run=run)``."""
    if clock is not None:
        return trio.run(test, clock=clock, instruments=instruments)
    patient = PatientClock()
    return trio.run(test, clock=patient, instruments=[*instruments, patient])
