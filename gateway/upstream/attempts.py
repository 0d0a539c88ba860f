"""All that is tried for one request: failover ∘ retry ∘ hedge ∘ health ∘ one attempt.

::

    first_answer   target after target, in order of preference          (failover)
      _pursue      the same target again, after a pause, if that is safe (retry: backoff, Retry-After, retry budget)
        _hedged    a second target beside a slow first one               (hedge: opt-in, from the retry budget)
          _once    a lease on the target (breaker, keys, adaptive limit), one attempt, the facts of it

    repair         the rest of a broken answer from another target       (continue or restart)

Every layer is one method that knows nothing of the ones above it. What a failure means is said in one place,
``policy/classify.py``; what it does to a target's health, by the lease.

Bounds: at most ``max_attempts`` targets are asked for one request, hedges and repairs included; retries, hedges and
anything else that asks the same provider again are paid from its retry budget. A pause never goes beyond the time left.

Cancellation: whatever runs is closed before control returns; leases end as "says nothing", so a client that leaves
trips no breaker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import trio

from gateway.config import Hedge
from gateway.core.errors import DeadlineExceeded, GatewayError, RequestError, Retry, UpstreamError
from gateway.core.estimate import tokens_of
from gateway.core.facts import AttemptFact, Kind, Record, Usage
from gateway.dialects.answer import Answer
from gateway.dialects.voice import Asking, Request, Voice
from gateway.flow.guard import Guard, LineGuard
from gateway.flow.hedge import hedged
from gateway.policy.classify import CONTEXT_TOO_LONG, DIVERGED, PREFILL_REFUSED, Health, judge
from gateway.policy.retry import Backoff
from gateway.upstream.attempt import Attempt, NotAsked, begin
from gateway.upstream.health import HealthBook, Lease, Unavailable
from gateway.upstream.raw import RawTransport
from gateway.upstream.repair import ask_for_the_rest, can_be_joined
from gateway.upstream.targets import Route, Target

IMPATIENT_S = 1.0  # a target that wants to be left alone for longer is left for another, if there is one

Failure = UpstreamError | DeadlineExceeded | RequestError


class Attempts:
    """One request's attempts.

    Args:
        total_at: When the request's time is over.
        guard: Makes a new guard with that deadline.
        line_guard: The same for what waits for a provider's connection.
        hold: Told each attempt whose answer has begun, so that it can be closed from outside.
        keep: What the client gets is wanted afterwards (a conversation, a repair).
    """

    def __init__(
        self,
        transport: RawTransport,
        book: HealthBook,
        route: Route,
        request: Request,
        voice: Voice,
        record: Record,
        *,
        total_at: float,
        guard: Callable[[], Guard],
        line_guard: Callable[[], LineGuard],
        hold: Callable[[Attempt], None],
        keep: bool,
    ) -> None:
        self._transport = transport
        self._book = book
        self._route = route
        self._rules = route.model
        self._request = request
        self._voice = voice
        self._record = record
        self._total_at = total_at
        self._guard, self._line_guard = guard, line_guard
        self._hold = hold
        self._keep = keep
        self._line: deque[Target] = deque()
        for stage in route.stages:
            self._line.extend(book.order(stage, route.model.balance))
        self._unavailable: list[Unavailable] = []
        self._failed: set[str] = set()  # providers that did, in a way that says something about them
        self._least_window = 0

    # ── up to the commit point ───────────────────────────────────────────────────────────────────────────────────

    async def first_answer(self) -> Attempt:
        """Target after target, until one begins to answer or none is left.

        Raises:
            GatewayError: The last target's failure, or the first reason why none could be asked.
        """
        failure: Failure | None = None
        kind = Kind.PRIMARY
        while (lease := self._next_free() or await self._first_to_come_free()) is not None:
            try:
                return await self._pursue(lease, kind)
            except (UpstreamError, DeadlineExceeded, RequestError) as error:
                if not self._may_try_another(lease.target, error):
                    raise
                if failure is None or not isinstance(error, RequestError):
                    failure = error
                kind = Kind.FAILOVER
        raise failure or self._nobody()

    def _may_try_another(self, target: Target, error: Failure) -> bool:
        if len(self._record.attempts) >= self._rules.max_attempts:
            return False
        if isinstance(error, RequestError):
            return error.code == "unsupported_by_provider"  # which another may support
        self._note_window(target, error)
        return judge(error).elsewhere

    def _note_window(self, target: Target, error: Failure) -> None:
        """What is too long for one window is too long for all that are no larger."""
        if error.code == CONTEXT_TOO_LONG:
            self._least_window = max(self._least_window, target.context_tokens + 1)

    def _next_free(self) -> Lease | None:
        """A hold on the next target that can be asked now; None when there is none."""
        while self._line:
            target = self._line.popleft()
            if target.context_tokens < self._least_window:
                continue
            entered = self._book.enter(target)
            if isinstance(entered, Unavailable):
                self._unavailable.append(entered)
            elif self._may_ask_again(entered):
                return entered
        return None

    def _may_ask_again(self, lease: Lease) -> bool:
        """Whether its provider may be asked: one that failed this request, only for what its retry budget has left."""
        provider = lease.target.provider
        if provider.name not in self._failed:
            return True
        if self._book.provider(provider).budget.try_take(trio.current_time()):
            return True
        lease.end(Health.SILENT)
        return False

    def _has_another(self) -> bool:
        """Whether there is another target that can be asked now."""
        return any(
            target.context_tokens >= self._least_window and self._book.would_take(target) for target in self._line
        )

    async def _first_to_come_free(self) -> Lease | None:
        """If some targets only have as many requests as they bear: the first of those, once it has room.

        Raises:
            DeadlineExceeded: The total time is over.
        """
        large = (one for one in self._unavailable if one.target.context_tokens >= self._least_window)
        saturated = next((one for one in large if one.why == "saturated"), None)
        if saturated is None:
            return None
        self._unavailable.remove(saturated)
        try:
            with self._guard() as guard:
                guard.phase("first_token", self._route.timeouts.first_token_s)
                entered = await self._book.wait_and_enter(saturated.target)
        except DeadlineExceeded as error:
            if error.stage == "total":
                raise
            entered = saturated
        if isinstance(entered, Unavailable):
            self._unavailable.append(entered)
        elif self._may_ask_again(entered):
            return entered
        return None

    def _nobody(self) -> GatewayError:
        """Why no target was asked: the one that can be asked soonest speaks for all."""
        if not self._unavailable:
            return UpstreamError(
                "upstream_unavailable", 503, "no target can be asked now", target="", retry=Retry.SAFE, retry_after_s=1
            )
        return min(self._unavailable, key=lambda one: one.for_s).error()

    async def _pursue(self, lease: Lease, kind: Kind) -> Attempt:
        """Ask one target, and again where that is safe, allowed and of use."""
        target, retries = lease.target, 0
        hedge = self._rules.hedge if kind is Kind.PRIMARY and self._line else None
        while True:
            try:
                if hedge is None or retries:
                    return await self._once(lease, kind)
                return await self._hedged(lease, kind, hedge)
            except (UpstreamError, DeadlineExceeded) as error:
                pause_s = self._pause_s(target, error, retries)
                if pause_s is None:
                    raise
                await self._sleep(pause_s)
                again = self._book.enter(target)
                if isinstance(again, Unavailable):
                    raise
            lease, kind, retries = again, Kind.RETRY, retries + 1

    def _pause_s(self, target: Target, error: UpstreamError | DeadlineExceeded, retries: int) -> float | None:
        """How long to wait before asking the same target again; None when it shall not be."""
        rules = self._rules.retry
        if not judge(error).again or retries >= rules.max or len(self._record.attempts) >= self._rules.max_attempts:
            return None
        pause_s = Backoff(base_s=rules.base_s, max_s=rules.max_s).delay_s(retries + 1, self._book.rng)
        told_s = error.retry_after_s
        if len(target.provider.keys) > 1 and judge(error).health is Health.LIMITED:
            told_s = self._book.key_wait_s(target)  # it is the key that is limited, and has been left out
            pause_s = pause_s if told_s else 0.0
        if told_s is not None:
            pause_s = max(pause_s, told_s)
            if pause_s > (IMPATIENT_S if self._has_another() else rules.max_s):
                return None
        now = trio.current_time()
        if now + pause_s >= self._total_at:
            return None
        return pause_s if self._book.of(target).provider.budget.try_take(now) else None

    async def _sleep(self, seconds: float) -> None:
        """Wait; a drain may end that."""
        with self._guard():
            await trio.sleep(seconds)

    async def _hedged(self, lease: Lease, kind: Kind, rules: Hedge) -> Attempt:
        """Ask a target; if it is slower than it usually is, the next one as well, and take who is first."""
        learnt = self._book.of(lease.target).hedge(rules, whole=not self._request.stream)
        delay_s = rules.delay_s if rules.delay_s is not None else learnt.delay_s()
        if delay_s is None:
            attempt = await self._once(lease, kind)
            if attempt.lease is not None:  # it was asked
                learnt.observe(attempt.fact.ttft_s)
            return attempt
        second: list[Lease] = []

        def may() -> bool:
            return self._take_second(lease.target, second)

        async def ask_second() -> Attempt:
            return await self._once(second[0], Kind.HEDGE)

        began = trio.current_time()
        try:
            won = await hedged(
                partial(self._once, lease, kind), ask_second, delay_s=delay_s, may=may, discard=Attempt.lose
            )
        except BaseException:
            for unused in second:
                unused.end(Health.SILENT)
            raise
        # How long the first was waited for in vain is a sample, too: without it the slow end of the distribution would
        # be forgotten, and the delay shrink with every hedge.
        outrun = won.fact.kind is Kind.HEDGE
        if won.lease is not None:
            learnt.observe(trio.current_time() - began if outrun else won.fact.ttft_s)
        self._note_asked(won.target)
        return won

    def _take_second(self, first: Target, second: list[Lease]) -> bool:
        """Whether a hedge is allowed; if so, its lease is in ``second``.

        The first target's provider pays: what it answers earns the hedges. Another provider's own successes would earn
        none, for as long as it is only asked when the first is slow.
        """
        if len(self._record.attempts) >= self._rules.max_attempts:
            return False
        for target in list(self._line):
            entered = self._book.enter(target)
            if isinstance(entered, Unavailable):
                continue
            if not self._book.of(first).provider.budget.try_take(trio.current_time()):
                entered.end(Health.SILENT)
                return False
            self._line.remove(target)
            second.append(entered)
            return True
        return False

    async def _once(self, lease: Lease, kind: Kind, asking: Asking | None = None) -> Attempt:
        """One attempt, with its facts and its lease."""
        target, voice, request = lease.target, self._voice, self._request
        dialect = target.provider.dialect
        fact = AttemptFact(target=target.name, label=target.label, kind=kind, began_at=lease.began_at)
        try:
            if asking is None:
                asking = voice.prepare(request, dialect, target.model, keep=self._keep or self._may_repair)
            if asking.ready is not None:
                lease.end(Health.SILENT)
                return Attempt(
                    target=target,
                    fact=fact,
                    response=NotAsked(),
                    timeouts=self._route.timeouts,
                    whole=asking.ready,
                )
            self._record.attempts.append(fact)
            self._note_asked(target)
            timeouts, guard = self._route.timeouts, self._line_guard()
            if asking.stream is None and asking.generates:
                guard.phase("answer", timeouts.answer_s, fact.began_at)
            else:
                guard.phase("first_token", timeouts.first_token_s, fact.began_at)
            with guard:
                attempt = await begin(
                    self._transport,
                    target,
                    asking,
                    fact,
                    guard,
                    key=lease.key,
                    timeouts=timeouts,
                    read_whole=partial(voice.read_whole, request, dialect),
                    hold=self._hold,
                )
        except (UpstreamError, DeadlineExceeded) as error:
            fact.outcome, fact.code = "failed", error.code
            if isinstance(error, DeadlineExceeded) and asking is not None:
                _has_read_the_prompt(fact, asking)
            health = judge(error).health
            if health in (Health.FAILED, Health.OVERLOADED):
                self._failed.add(target.provider.name)
            lease.end(health, error.retry_after_s)
            raise
        except BaseException:
            fact.outcome = "cancelled"
            if asking is not None:
                _has_read_the_prompt(fact, asking)
            lease.end(Health.SILENT)
            raise
        now = trio.current_time()
        fact.ttft_s = now - fact.began_at
        lease.answered(fact.ttft_s if asking.stream is not None else None, now)
        attempt.lease = lease
        self._record.dropped = asking.dropped
        return attempt

    def _note_asked(self, target: Target) -> None:
        self._record.target, self._record.target_label = target.name, target.label

    # ── after the commit point ───────────────────────────────────────────────────────────────────────────────────

    @property
    def may_go_on(self) -> bool:
        """Whether :meth:`repair` is worth asking for when the answer breaks off; if not, this need not be kept."""
        return self._rules.midstream != "error" and bool(self._line or self._unavailable)

    @property
    def _may_repair(self) -> bool:
        """Whether a broken stream could be repaired: so that it is kept while it passes."""
        return self._rules.midstream != "error" and bool(self._line)

    async def repair(self, broken: Attempt) -> Attempt | None:
        """Get the rest of a broken answer from the targets that are left.

        Returns:
            An attempt whose stream gives out what the client does not have; None when nobody could go on.

        Raises:
            DeadlineExceeded: The total time is over.
        """
        stream = broken.stream
        so_far = stream.so_far() if stream is not None else None
        if self._rules.midstream == "error" or so_far is None or not can_be_joined(so_far, self._request):
            return None
        self._failed.add(broken.target.provider.name)
        while len(self._record.attempts) < self._rules.max_attempts:
            lease = self._next_free() or await self._first_to_come_free()
            if lease is None:
                break
            found = await self._go_on(lease, so_far)
            if found is not None:
                return found
        self._note_asked(broken.target)  # whose answer it is, after all
        return None

    async def _go_on(self, lease: Lease, so_far: Answer) -> Attempt | None:
        """Ask one target for the rest, in the ways that the rules and its dialect allow."""
        target = lease.target
        tokens = self._record.tokens  # of all attempts so far
        ways = ["restart"]
        if target.provider.dialect.quirks.prefill and so_far.first.text.strip():
            ways.insert(0 if self._rules.midstream == "continue" else 1, "continue")
        for number, way in enumerate(ways):
            if number:
                if len(self._record.attempts) >= self._rules.max_attempts:
                    return None
                entered = self._book.enter(target)
                if isinstance(entered, Unavailable):
                    return None
                lease = entered
            try:
                asking = ask_for_the_rest(way, self._voice, self._request, target, so_far, tokens_before=tokens)
                return await self._once(lease, Kind.CONTINUATION, asking)
            except RequestError:
                lease.end(Health.SILENT)
            except UpstreamError as error:
                self._note_window(target, error)
                if error.code not in (PREFILL_REFUSED, DIVERGED):
                    return None
            except DeadlineExceeded as error:
                if error.stage == "total":
                    raise
                return None
        return None


def _has_read_the_prompt(fact: AttemptFact, asking: Asking) -> None:
    """Note what an attempt cost that was given up: it was asked, whether it had begun to answer or not."""
    if fact.usage is None:
        fact.usage = Usage(prompt_tokens=tokens_of(asking.body), estimated=True)
