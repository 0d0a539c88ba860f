"""One request, read top to bottom: the place where a newcomer starts.

::

    enter     a permit, or a place in the line and then a permit, or a refusal at once      flow/admission.py
    listen    the body, bounded in bytes and time; parsed and checked                       dialects/
    route     the name that was asked for → targets, in order of preference                 upstream/targets.py
    reserve   tokens and money that it may take, or a refusal                               accounts.py
    gather    an assistant's loaders, side by side under one budget                         context/
    ask       retries, hedges, failover, up to the commit point: the first content          upstream/attempts.py
    answer    whole, or relayed: reader → bounded channel → the connection's writer          flow/relay.py
    repair    a stream that breaks off is gone on with by another target                    upstream/attempts.py
    close     permit back, usage settled, one record told: always, and without an await     core/facts.py

Two tasks at most. Everything up to the commit point runs in the task that serves the connection's requests, one after
the other, inside the scope that is cancelled when the client leaves; so errors arrive bare and need no hand-over. A
streamed answer then has a second task, :meth:`Exchange._relay`, in a nursery of the same connection (see
``edge/connection.py``). Nothing here outlives that connection: when the client leaves, loaders, waiting, and the
provider's connection end in one unwind.

One :class:`Guard` gives each phase its deadline. A client that left is ``trio.Cancelled`` and no error: it reaches
:meth:`Exchange.__exit__` as such and is recorded as cancelled in the phase it had reached.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType

import trio

from gateway.accounts import Account
from gateway.config import Assistant
from gateway.context.assemble import assemble
from gateway.context.load import LoaderReport, LoaderStarted, check_required, load_context
from gateway.core.ask import Ask, LoaderNews
from gateway.core.errors import (
    DeadlineExceeded,
    GatewayError,
    Rejected,
    RequestError,
    StreamBroken,
    UpstreamError,
)
from gateway.core.facts import LoaderFact, Outcome, Phase, Record
from gateway.core.principal import Principal
from gateway.core.telling import chain_of
from gateway.core.values import value
from gateway.dialects.provider import BadAnswer
from gateway.dialects.responses_request import ResponsesRequest
from gateway.dialects.responses_voice import ResponsesVoice
from gateway.dialects.sse import EventTooLong
from gateway.dialects.voice import AnswerStream, Request, Voice
from gateway.flow.admission import Place
from gateway.flow.guard import Guard, LineGuard
from gateway.flow.relay import ClientStalled, Outlet, pump
from gateway.instance import Gateway
from gateway.policy.classify import CLIENTS_OWN
from gateway.upstream.attempt import Attempt
from gateway.upstream.attempts import Attempts
from gateway.upstream.targets import Route

BUDGET = "budget_exhausted"
MAX_FINISH_CHARS = 100  # of the provider's word for it
KEPT_CHARS = 131_072  # of an answer that a conversation remembers
AFTER_FINISH_S = 0.5  # how long a usage that was asked for may follow the finish reason


@value(kw_only=True, slots=True)
class Answer:
    """What the edge sends: a whole body, or a stream that ``run`` feeds into an outlet.

    Attributes:
        body: The whole body; None for a stream that is still coming in.
        events: Whether it is made of server-sent events.
        run: Runs in a task of the connection's nursery and closes the outlet at the end.
    """

    body: bytes | None = None
    events: bool = False
    run: Callable[[Outlet], Awaitable[None]] | None = None


class _Closing(list[Attempt]):
    """Attempts that are closed when the block is left. An ``ExitStack`` takes 800 bytes of every open stream."""

    def __init__(self, first: Attempt) -> None:
        super().__init__((first,))

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        for attempt in self:
            attempt.close()


class Exchange:
    """One request from the end of its headers to the last byte of its answer.

    A context manager that its connection enters; leaving it closes the record, whatever happened.
    """

    def __init__(
        self,
        gateway: Gateway,
        record: Record,
        place: Place,
        account: Account,
        principal: Principal,
        *,
        timeout_s: float = math.inf,
        conversation: str | None = None,
    ) -> None:
        self._gateway = gateway
        self._current = gateway.current  # what a reload of the configuration replaces, it replaces for the next request
        self._place = place
        self.account = account
        self._principal = principal
        total_s = self._current.config.timeouts.total_s
        self._total_at = record.received_at + min(timeout_s, total_s)
        own = timeout_s < total_s
        self._why_total = f"the request took longer than its {timeout_s:g} s (x-request-timeout-ms)" if own else ""
        self._conversation = conversation
        self._attempts: Attempts | None = None
        self._asked = b""  # the client's document, until its tokens are reserved
        self._tokens_before = 0  # relayed from attempts that broke off
        self._lines: list[Attempt] = []  # whose answers have begun
        self.record = record

    # ── the story ────────────────────────────────────────────────────────────────────────────────────────────────

    async def answer(self, listen: Callable[[], Awaitable[bytes]], voice: Voice) -> Answer:
        """Do what the client asks, up to the point where its status is fixed.

        Args:
            listen: Reads the request's body; raises ``RequestError`` when it is too large or too slow.
            voice: The client's dialect.

        Raises:
            GatewayError: Nothing was committed; the error's status is the right one.

        Cancellation: whatever was begun is closed before this returns control.
        """
        if not self._place.holds_permit:  # most got theirs with their headers
            await self._enter()
        request = await self._listen(listen, voice)
        if isinstance(request, ResponsesRequest) and request.wanted:
            request = await self._recall(request)
        route = self._route(request)
        asked, self._asked = self._asked, b""
        await self.account.reserve(route, self.record, asked)
        del asked  # which may be large, and the answer long
        if voice.speaks_early and request.stream and self._loads(request, route):
            return Answer(run=partial(self._tell, request, route, voice))
        attempt = await self._gather_and_ask(request, route, voice)
        if not attempt.is_whole:
            return Answer(events=True, run=partial(self._relay, attempt, request, voice))
        with attempt:
            self._settle(attempt)
            self._place.release(self.record.ended_at)
            return self._whole(attempt, request, voice)

    def _whole(self, attempt: Attempt, request: Request, voice: Voice) -> Answer:
        """The answer when all of it is here; a stream, too, if its end came with its beginning."""
        if attempt.stream is not None:
            beginning = voice.begins(self.record) + attempt.stream.first()
            return Answer(body=beginning + self._ending(attempt, request, voice), events=True)
        whole = attempt.whole
        assert whole is not None
        attempt.succeed()
        self._remember(attempt, request)
        self.record.phase = Phase.DONE
        self.account.price(self.record)
        body = whole.body if whole.retell is None or self.record.usage is None else whole.retell(self.record.usage)
        body = voice.whole(body, self.record)
        self._keep_response(request, voice)
        return Answer(body=body)

    @property
    def _tenant(self) -> str:
        """Whose memory this is: the key's id, for its name may be given to another one day."""
        return self._principal.key_id or self._principal.name

    async def _enter(self) -> None:
        """Wait for a permit."""
        self.record.phase = Phase.QUEUE
        await self._place.wait()
        self.record.queue_s = trio.current_time() - self.record.received_at

    async def _listen(self, listen: Callable[[], Awaitable[bytes]], voice: Voice) -> Request:
        self.record.phase = Phase.BODY
        body = await listen()
        self._asked = body
        request = voice.parse(body)
        self.record.max_tokens = request.max_tokens
        self._conversation = voice.conversation or self._conversation
        self.record.model = request.model
        self.record.stream = request.stream
        return request

    async def _recall(self, request: ResponsesRequest) -> Request:
        """The request, knowing the earlier responses that it refers to, as far as they are kept."""
        return request.with_kept(await self._gateway.memory.recall(self._tenant, request.wanted))

    def _keep_response(self, request: Request, voice: Voice) -> None:
        """Keep a whole response for who goes on from it. Sync."""
        if isinstance(voice, ResponsesVoice) and isinstance(request, ResponsesRequest):
            kept = voice.to_keep(request)
            if kept is not None:
                self._gateway.memory.keep_response(self._tenant, kept.id, kept.previous, kept.data)

    def _route(self, request: Request) -> Route:
        route = self._current.routes.resolve(request.model, self._principal)
        if route.assistant is not None:
            self.record.assistant = route.assistant.name
        else:
            self._conversation = None  # only assistants remember
        own_total_s = route.timeouts.total_s
        if self.record.received_at + own_total_s < self._total_at:
            self._total_at = self.record.received_at + own_total_s
            self._why_total = f"the request took longer than its {own_total_s:g} s (model.timeouts.total_s)"
        return route

    def _loads(self, request: Request, route: Route) -> bool:
        """Whether there is loading to tell of. Without any, the status can still wait for the model.

        Raises:
            RequestError: A required loader lacks a field; the last moment for this to be a status.
        """
        loaders = self._current.loaders[route.assistant.name] if route.assistant is not None else ()
        check_required(loaders, self._ask_of(request))
        return bool(loaders)

    async def _gather_and_ask(
        self, request: Request, route: Route, voice: Voice, tell: Callable[[bytes], None] | None = None
    ) -> Attempt:
        if route.assistant is not None:
            request = await self._gather(request, route.assistant, voice, tell)
        return await self._ask(request, route, voice)

    async def _gather(
        self, request: Request, assistant: Assistant, voice: Voice, tell: Callable[[bytes], None] | None
    ) -> Request:
        """Load what the assistant needs to know, and place it before the client's messages."""
        self.record.phase = Phase.CONTEXT
        began = trio.current_time()

        def observe(event: LoaderStarted | LoaderReport) -> None:
            news = _news(event)
            if news.outcome:
                self.record.loaders.append(LoaderFact(loader=news.loader, outcome=news.outcome, ms=news.ms))
            told = voice.context(news)
            if tell is not None:
                tell(told)

        context = await load_context(
            self._current.loaders[assistant.name],
            self._ask_of(request),
            budget_s=assistant.context_budget_s,
            deadline=self._total_at,
            observe=observe,
        )
        self.record.context_s = trio.current_time() - began
        return request.with_messages(assemble(assistant, context, request.messages()))

    def _ask_of(self, request: Request) -> Ask:
        """What loaders may see of the request."""
        return Ask(
            input=request.last_user_text,
            user=request.user,
            conversation=self._conversation,
            tenant=self._tenant,
        )

    async def _ask(self, request: Request, route: Route, voice: Voice) -> Attempt:
        """Whatever it takes to get an answer that begins."""
        record = self.record
        record.phase = Phase.UPSTREAM
        record.asked_at = trio.current_time()
        attempts = Attempts(
            self._gateway.transport,
            self._gateway.health,
            route,
            request,
            voice,
            record,
            total_at=self._total_at,
            guard=self._guard,
            line_guard=self._line_guard,
            hold=self._lines.append,
            keep=self._conversation is not None,
        )
        attempt = await attempts.first_answer()
        if attempts.may_go_on:
            self._attempts = attempts
        record.phase = Phase.STREAM
        record.first_token_at = attempt.fact.began_at + attempt.fact.ttft_s
        return attempt

    # ── after the commit point ───────────────────────────────────────────────────────────────────────────────────

    async def _tell(self, request: Request, route: Route, voice: Voice, outlet: Outlet) -> None:
        """The rest of the story for a voice that speaks early: what fails now is told in the stream."""
        self.record.status = 200
        pending: list[bytes] = []
        try:
            attempt = await self._gather_and_ask(request, route, voice, partial(_tell_now, outlet, pending))
        except GatewayError as error:
            with outlet:
                self.fail(error)
                self._place.release()
                await self._last_words(outlet, b"".join([*pending, voice.breaks(error)]))
            return
        except BaseException:
            outlet.close()
            raise
        await self._relay(attempt, request, voice, outlet, b"".join(pending))

    async def _relay(
        self, attempt: Attempt, request: Request, voice: Voice, outlet: Outlet, before: bytes = b""
    ) -> None:
        """Pass the stream on, from the commit point to its end; the upstream reader's task.

        Raises:
            ClientStalled: The client stopped reading; its connection is to be dropped.
        """
        assert attempt.stream is not None
        words = before + voice.begins(self.record) + attempt.stream.first()
        with outlet, self._gateway.pace, _Closing(attempt) as opened:
            try:
                while (trouble := await self._pass_on(attempt, words, outlet)) is not None:
                    repaired = await self._repair(attempt, trouble)
                    if repaired is None or repaired.stream is None:
                        ending = self._breaks(trouble, voice)
                        break
                    opened.append(repaired)
                    attempt, words = repaired, repaired.stream.first()
                else:
                    ending = self._ending(attempt, request, voice)
            except ClientStalled as error:
                self.record.code, self.record.detail = "client_stalled", str(error)
                self.record.outcome = Outcome.CANCELLED
                raise
            except trio.BrokenResourceError:
                return  # the writer is gone, and why is its to tell: the client has left, as a rule
            finally:
                # Sync, and before anything that may wait for the client: what the provider's part held is free now.
                self._place.release()
                self._settle(attempt)
            await self._last_words(outlet, ending)
            outlet.close()  # the client's answer ends here; its provider's connection may yet be worth keeping
            if self.record.phase is Phase.DONE:
                await attempt.finish_reading()

    async def _pass_on(self, attempt: Attempt, words: bytes, outlet: Outlet) -> GatewayError | None:
        """Relay one attempt's stream until it ends; says why it is not whole, if it is not."""
        stream = attempt.stream
        assert stream is not None
        try:
            with self._line_guard() as guard:
                guard.hold(attempt.response.close)
                await outlet.put(words, guard=guard, last=stream.complete)
                if not stream.complete:
                    await pump(
                        attempt.receive,
                        stream.feed,
                        self._enough(attempt, stream),
                        outlet,
                        guard,
                        stall_s=self._patience(attempt, stream),
                        pace=self._gateway.pace,
                    )
            if not stream.complete and self._spent(attempt):
                return StreamBroken(BUDGET, "the answer was ended: the budget that was set aside for it is used up")
            if not stream.complete:
                stream.eof()
        except (GatewayError, EventTooLong, BadAnswer) as error:
            if stream.finished:
                return None  # said so, and then neither its own end nor the connection's: it is whole all the same
            if isinstance(error, GatewayError):
                return error
            broken = StreamBroken("upstream_garbage", f"{attempt.target.name} sent what its dialect does not allow")
            broken.__cause__ = error
            return broken
        if stream.error is not None:
            what = "reported an error in the middle of its answer"
            return StreamBroken("upstream_error", f"{attempt.target.name} {what}")
        if not stream.finished:
            return StreamBroken("upstream_cut", f"{attempt.target.name} ended its answer before it was whole")
        return None

    def _enough(self, attempt: Attempt, stream: AnswerStream) -> Callable[[], bool]:
        """Whether to read on: until the stream's end, or that of the money for it."""
        if not self.account.stops:
            return lambda: stream.complete or stream.error is not None
        return lambda: stream.complete or stream.error is not None or self._spent(attempt)

    def _spent(self, attempt: Attempt) -> bool:
        return self.account.stops and self.account.exhausted(self._tokens_before + attempt.tokens)

    def _patience(self, attempt: Attempt, stream: AnswerStream) -> Callable[[], float]:
        """How long the stream may be silent from now on. Keep-alives put that off, but only up to a limit."""
        timeouts = attempt.timeouts
        heard, quiet_since = stream.events, math.inf

        def patience() -> float:
            nonlocal heard, quiet_since
            if stream.finished:
                return AFTER_FINISH_S
            if stream.events != heard:
                heard, quiet_since = stream.events, math.inf
                return timeouts.stall_s
            now = trio.current_time()
            quiet_since = min(quiet_since, now)
            return max(min(timeouts.stall_s, quiet_since + timeouts.keepalive_s - now), 0.0)

        return patience

    async def _repair(self, broken: Attempt, trouble: GatewayError) -> Attempt | None:
        """Another target's continuation of an answer that broke off; None if there is none."""
        self._settle(broken)
        broken.broke(trouble)
        broken.close()
        over = trouble.code == BUDGET or (isinstance(trouble, DeadlineExceeded) and trouble.stage == "total")
        if over or self._attempts is None:
            return None
        repaired = None
        with contextlib.suppress(GatewayError):  # what the client is told is why the answer broke off
            repaired = await self._attempts.repair(broken)
        if repaired is not None:
            self._tokens_before = self.record.tokens
        return repaired

    def _ending(self, attempt: Attempt, request: Request, voice: Voice) -> bytes:
        """How a stream that is whole is ended for the client."""
        stream = attempt.stream
        assert stream is not None
        self._settle(attempt)
        attempt.succeed()
        self._remember(attempt, request)
        self.record.phase = Phase.DONE
        self.account.price(self.record)
        ending = stream.end(self.record.usage) + voice.ends(self.record)
        self._keep_response(request, voice)
        return ending

    def _breaks(self, error: Exception, voice: Voice) -> bytes:
        """The error event of a stream that cannot be whole any more."""
        if not isinstance(error, StreamBroken):
            code = error.code if isinstance(error, GatewayError) else "upstream_garbage"
            cause, error = error, StreamBroken(code, f"the answer broke off: {error}")
            error.__cause__ = cause
        self.fail(error)
        return voice.breaks(error)

    async def _last_words(self, outlet: Outlet, words: bytes) -> None:
        """Send the end of a stream, as long as the client takes anything at all."""
        if not words:
            return
        with contextlib.suppress(trio.BrokenResourceError):
            await outlet.put(words, last=True)

    def _guard(self) -> Guard:
        return Guard(self._total_at, self._gateway.guards, why_total=self._why_total)

    def _line_guard(self) -> LineGuard:
        return LineGuard(self._total_at, self._gateway.guards, why_total=self._why_total)

    def hang_up(self) -> None:
        """Close the providers' connections now, in this very step; the cancellation that unwinds the rest follows.

        A stream of a provider that would be paid in full anyway may be set aside instead, to hear what it cost.
        """
        for attempt in self._lines:
            if attempt.hung_up:
                continue  # the server says so for each sign of it: a write that fails, an end that is read
            if self.record.phase is Phase.STREAM and not attempt.ended and self._gateway.drains.reserve(attempt):
                attempt.set_aside()
            else:
                attempt.hang_up()

    # ── the facts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, attempt: Attempt) -> None:
        """Note what the answer cost: as reported, else estimated from what was relayed. Sync, idempotent."""
        record, stream, whole = self.record, attempt.stream, attempt.whole
        record.ended_at = trio.current_time()
        if stream is not None:
            record.finish_reason = stream.finish_reason[:MAX_FINISH_CHARS] or (BUDGET if record.code == BUDGET else "")
            attempt.fact.usage = attempt.so_far()
            record.tokens = self._tokens_before + attempt.tokens
            record.usage = stream.usage or attempt.estimate(record.tokens)
        elif whole is not None:
            record.finish_reason = whole.finish_reason[:MAX_FINISH_CHARS]
            record.usage = attempt.fact.usage = attempt.so_far()

    def _remember(self, attempt: Attempt, request: Request) -> None:
        """Keep a whole answer with its question for the conversation's next turn."""
        if self._conversation is None:
            return
        answer = attempt.answer()
        if answer is not None and answer.first.text:
            text = answer.first.text[:KEPT_CHARS]
            self._gateway.memory.remember(self._tenant, self._conversation, request.last_user_text, text)

    def fail(self, error: GatewayError) -> None:
        """Note the error that the client is told."""
        record = self.record
        record.code = error.code
        record.detail = chain_of(error)
        record.outcome = outcome_of(error)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.release()
        self._attempts = None  # they know us: a cycle would keep all of this until a garbage collection
        record = self.record
        close_record(record, error)
        for aside in self._lines:
            if aside.take_up():
                self._gateway.drains.take(aside, partial(self._tell_drained, aside, record.ended_at))
                return
        self._close()

    def _close(self) -> None:
        """Settle the account and tell the record; nothing changes it any more."""
        try:
            self.account.close(self.record)
        finally:
            self._gateway.observe(self.record)

    def _tell_drained(self, attempt: Attempt, ended_at: float) -> None:
        """Close the record of a stream that was read on after its client had left."""
        attempt.fact.outcome = "drained"
        delivered = self.record.tokens
        self._settle(attempt)
        self.record.tokens = delivered
        self.record.ended_at = ended_at
        self._close()


def close_record(record: Record, error: BaseException | None) -> None:
    """Say how a request ended whose record does not say so yet; ``error`` is what ends it. Sync."""
    record.ended_at = trio.current_time()
    if record.outcome is None:
        if error is None:
            record.outcome = Outcome.OK if record.phase is Phase.DONE else Outcome.CANCELLED
        elif isinstance(error, Exception):
            record.outcome = Outcome.FAILED
            record.code, record.detail = record.code or "internal_error", chain_of(error)
            record.status = record.status or 500
        else:
            record.outcome = Outcome.CANCELLED
    if record.outcome is Outcome.CANCELLED:
        record.code = record.code or "client_left"


def outcome_of(error: GatewayError) -> Outcome:
    if isinstance(error, Rejected):
        return Outcome.REFUSED
    if isinstance(error, StreamBroken):
        return Outcome.BROKEN
    callers_own = isinstance(error, RequestError) or (
        isinstance(error, UpstreamError) and error.http_status in CLIENTS_OWN
    )
    return Outcome.INVALID if callers_own else Outcome.FAILED


def _tell_now(outlet: Outlet, pending: list[bytes], words: bytes) -> None:
    """Give words on their way without waiting; what finds no room goes in front of the next."""
    pending.append(words)
    with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
        outlet.put_nowait(b"".join(pending))
        pending.clear()


def _news(event: LoaderStarted | LoaderReport) -> LoaderNews:
    if isinstance(event, LoaderStarted):
        return LoaderNews(loader=event.loader, kind=event.kind)
    return LoaderNews(
        loader=event.loader,
        kind=event.kind,
        outcome=event.outcome,
        ms=round(event.ms, 1),
        items=event.items,
        chars=event.chars,
        reason=event.detail,
    )
