"""This process as a holder of slices with one keeper: tells what was used, gets what is needed, before it runs out.

A round (one ``settle``) happens ``REPORT_S`` after something was used, at once when a slice gets low (but not within
``LEAST_GAP_S`` of the one before), and every third of a lease otherwise. The request path only sets flags.

**The keeper is away** (a round failed): slices in hand go on being used, so nothing changes for requests until a slice
has run out or the lease is over; from then on each limit's ``on_failure`` decides. Rounds are tried again, once a
second at the latest, and the first that succeeds puts everything right: what was used meanwhile is told and charged.

**The lease is over** (counted from when the last round that succeeded was *sent*, so always before the keeper thinks
so): the slices are void and a new holder begins. What was in them is written off by the keeper; see
:mod:`gateway.policy.lease`.

**Shutdown**: what is unused is given back, within ``LEAVE_S``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable

import trio
from attrs import frozen

from gateway.core.limits import Claim, OnFailure
from gateway.quota.backend import LimitBackend
from gateway.quota.meter import Meter

REPORT_S = 0.1
LEAST_GAP_S = 0.01
LATE_S = 0.1  # a round that takes longer is waited for by nobody whose limit seemed used up
ROUND_S = 1.0  # what a round may take
LEAVE_S = 2.0
CLAIMS_PER_ROUND = 500
_PAUSES_S = (0.1, 0.2, 0.5, 1.0)


@frozen(kw_only=True, slots=True)
class LesseeStatistics:
    """A moment of a :class:`Lessee`.

    Attributes:
        is_away: Whether the last round failed.
        rounds: That succeeded so far.
        failures: That failed so far.
        lapses: Leases lost so far.
        holders: Processes with slices, as last told.
    """

    is_away: bool
    rounds: int
    failures: int
    lapses: int
    holders: int


class Lessee:
    """See the module.

    Args:
        lease_s: How long the keeper waits for a sign of life.
        on_failure: Of limits that do not say.
        say: Told when the keeper goes away or is back: level, event, and what more there is to say.
        on_round: Called when a round is done, well or badly.
        on_lease: Called when ``valid_until`` has changed.
    """

    def __init__(
        self,
        backend: LimitBackend,
        *,
        lease_s: float,
        on_failure: OnFailure,
        say: Callable[..., None],
        on_round: Callable[[], None],
        on_lease: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._lease_s = lease_s
        self.on_failure = on_failure
        self._say = say
        self._on_round, self._on_lease = on_round, on_lease
        self._holder = _new_holder()
        self._is_new = True
        self._active: dict[Meter, None] = {}
        self._something, self._urgent = trio.Event(), trio.Event()
        self._rounds = self._failures = self._in_a_row = 0
        self.lapses = 0  # leases lost so far: what was reserved at another count was reserved under another lease
        self._round_at = -math.inf  # when the last one ended
        self._sent_at = math.inf  # of the round that is under way
        self.valid_until = math.inf  # of the slices in hand; none before the first round
        self.is_away = False
        self.holders = 1

    # ── the request path ─────────────────────────────────────────────────────────────────────────────────────────

    def touch(self, meter: Meter) -> None:
        """Something was used: tell the keeper soon; at once if the slice is low."""
        if not meter.active:
            meter.active = True
            self._active[meter] = None
            self._something.set()
        if meter.avail < meter.low:
            self._urgent.set()

    def wake(self) -> None:
        self._something.set()
        self._urgent.set()

    def is_late(self, now: float) -> bool:
        """Whether the keeper takes long to answer."""
        return now > self._sent_at + LATE_S

    def lapse(self, meters: Iterable[Meter]) -> None:
        """The lease is over: every slice is void, and a new holder begins."""
        self.lapses += 1
        self._holder, self._is_new, self.valid_until = _new_holder(), True, math.inf
        self._on_lease()
        for meter in meters:
            if meter.lessee is self:
                meter.lapse()
                self.touch(meter)
        self.wake()

    # ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, meters: Callable[[], Iterable[Meter]]) -> None:
        """Keep the slices filled until cancelled; then give back what is unused.

        Args:
            meters: All there are, for when the lease is lost.
        """
        try:
            while True:
                await self._pause()
                await self.round(meters)
        finally:
            await self._leave(list(meters()))  # shields itself, for a bounded time

    async def round(self, meters: Callable[[], Iterable[Meter]]) -> None:
        """Tell and ask once, of everything that was touched."""
        self._something, self._urgent = trio.Event(), trio.Event()
        active = list(self._active)
        for first in range(0, max(len(active), 1), CLAIMS_PER_ROUND):
            if not await self._settle(active[first : first + CLAIMS_PER_ROUND], meters):
                break
        self._round_at = trio.current_time()
        self._on_round()

    async def _settle(self, active: list[Meter], meters: Callable[[], Iterable[Meter]]) -> bool:
        sent_at, holder = trio.current_time(), self._holder
        claims = [meter.claim(sent_at) for meter in active]
        self._sent_at = sent_at
        try:
            with trio.fail_after(ROUND_S):
                granted = await self._backend.settle(holder, self._lease_s, claims, new=self._is_new)
        except Exception as error:
            self._failed(error)
            return False
        finally:
            self._sent_at = math.inf
        if holder != self._holder:  # the lease ran out while this was under way
            return False
        if granted is None:
            self._say("warning", "limits lease lost", holder=holder)
            self.lapse(meters())
            return False
        self._is_new, self.valid_until, self.holders = False, sent_at + self._lease_s, granted.holders
        self._on_lease()
        self._rounds += 1
        self._in_a_row = 0
        if self.is_away:
            self.is_away = False
            self._say("info", "limits backend is back")
        now = trio.current_time()
        for meter, claim, grant in zip(active, claims, granted.grants, strict=True):
            meter.apply(claim, grant, now)
            if meter.is_at_rest(claim):
                meter.active = False
                del self._active[meter]
        return True

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._in_a_row += 1
        if not self.is_away:
            self.is_away = True
            self._say("error", "limits backend is away", error=f"{type(error).__name__}: {error}")

    async def _pause(self) -> None:
        if self.is_away:
            await trio.sleep(_PAUSES_S[min(self._in_a_row, len(_PAUSES_S)) - 1])
            return
        with trio.move_on_after(self._lease_s / 3):
            if not self._active:
                await self._something.wait()
            with trio.move_on_after(REPORT_S):
                await self._urgent.wait()
        await trio.sleep_until(self._round_at + LEAST_GAP_S)  # who has no slice yet waits for this round

    async def _leave(self, meters: list[Meter]) -> None:
        """Give everything back that no running request holds."""
        claims = []
        for meter in meters:
            if meter.lessee is self and (meter.granted or meter.used or meter.active):
                meter.returned += max(meter.avail, 0)
                meter.avail = min(meter.avail, 0)
                claims.append(_last(meter))
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            try:
                await self._backend.leave(self._holder, claims)
            except Exception as error:
                self._say("warning", "limits could not be given back", error=f"{type(error).__name__}: {error}")

    def statistics(self) -> LesseeStatistics:
        return LesseeStatistics(
            is_away=self.is_away,
            rounds=self._rounds,
            failures=self._failures,
            lapses=self.lapses,
            holders=self.holders,
        )


def _last(meter: Meter) -> Claim:
    return Claim(
        name=meter.name,
        amount=meter.amount,
        window_s=meter.window_s,
        used=meter.used,
        returned=meter.returned,
        target=meter.reserved,
    )


def _new_holder() -> str:
    return os.urandom(12).hex()
