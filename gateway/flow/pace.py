"""Coalescing under load: when the loop lags, streams let their bytes gather before they are read.

A stream that is read for every token costs two task switches, a read and a write per token. While there is time to
spare that is the right thing to do. When there is not, reading less often costs less per token, and the kernel's
buffer keeps the bytes meanwhile: cost per token falls as load rises, and what would have become an overload becomes a
delay of at most ``LONGEST_WAIT_S``.

:meth:`Pace.run` measures how late the loop wakes it. Above ``LAGGING_S`` every reader parks before its next read, in
one of a ring of lots of which one is opened every ``TICK_S``: one timer for all streams, and they do not all wake in
the same pass. Below ``RELAXED_S`` nobody waits and :meth:`gather` costs a comparison.

What has been read is sent on at once; the wait comes before a read. So neither the first token, which is read before
there is a relay, nor the end of a stream is ever held here; the end may be read one wait late like any other bytes.

Source: interrupt coalescing in network adapters; measured by ``python -m benchmarks --scenario paced-saturated``.
"""

from __future__ import annotations

import trio
from attrs import frozen

TICK_S = 0.0125
LOTS = 4
LONGEST_WAIT_S = TICK_S * LOTS
LAGGING_S = 0.010
RELAXED_S = 0.003
SMOOTHING = 0.3


@frozen(kw_only=True, slots=True)
class PaceStatistics:
    """A moment of a :class:`Pace`.

    Attributes:
        lag_s: How late the loop wakes its tasks, smoothed.
        lagging: Whether readers wait.
        parked: How many do now.
        waits: Waits so far.
    """

    lag_s: float
    lagging: bool
    parked: int
    waits: int


class Pace:
    """One per process; :meth:`run` is a background task of the gateway's."""

    def __init__(self) -> None:
        self._lots = [trio.lowlevel.ParkingLot() for _ in range(LOTS)]
        self._opened = 0
        self._streams = 0
        self._someone = trio.Event()
        self._lag_s = 0.0
        self._waits = 0
        self.lagging = False

    def __enter__(self) -> Pace:
        """A stream begins; the lag is measured while there is any."""
        self._streams += 1
        if self._streams == 1:
            self._someone.set()
        return self

    def __exit__(self, *_: object) -> None:
        self._streams -= 1

    async def gather(self) -> None:
        """Let bytes gather, if the loop lags: for at most ``LONGEST_WAIT_S``.

        Cancellation: as ever. Cost: no checkpoint when the loop does not lag.
        """
        if self.lagging:
            self._waits += 1
            await self._lots[self._opened].park()  # the one just opened is the last to open again

    async def run(self) -> None:
        """Measure the lag and open the lots in turn, until cancelled; sleeps while there is no stream."""
        while True:
            if not self._streams:
                self._relax()
                self._someone = trio.Event()
                await self._someone.wait()
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            self._note(trio.current_time() - due)
            self._opened = (self._opened + 1) % LOTS
            self._lots[self._opened].unpark_all()

    def _note(self, late_s: float) -> None:
        self._lag_s += SMOOTHING * (late_s - self._lag_s)
        if self._lag_s > LAGGING_S:
            self.lagging = True
        elif self._lag_s < RELAXED_S:
            self.lagging = False

    def _relax(self) -> None:
        self._lag_s = 0.0
        self.lagging = False
        for lot in self._lots:
            lot.unpark_all()

    def statistics(self) -> PaceStatistics:
        return PaceStatistics(
            lag_s=self._lag_s, lagging=self.lagging, parked=sum(len(lot) for lot in self._lots), waits=self._waits
        )
