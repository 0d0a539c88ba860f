"""One request, read top to bottom: the place where a newcomer starts.

::

    enter     a permit, or a place in the line and then a permit, or a refusal at once      flow/admission.py
    listen    the body, bounded in bytes and time; parsed and checked                       dialects/
    route     the name that was asked for → targets, in order of preference                 upstream/targets.py
    gather    an assistant's loaders, side by side under one budget                         context/
    ask       target after target, up to the commit point: the first content                upstream/attempt.py
    answer    whole, or relayed: reader → bounded channel → the connection's writer          flow/relay.py
    close     permit back, usage settled, one record told: always, and without an await     core/facts.py

Two tasks at most. Everything up to the commit point runs in the request's own task, inside the scope that the ASGI
connection cancels when the client leaves; so errors arrive bare and need no hand-over. A streamed answer then has a
second task, :meth:`Exchange._relay`, in a nursery of the same connection (see ``edge/connection.py``). Nothing here
outlives that connection: when the client leaves, loaders, waiting, and the provider's connection end in one unwind.

One :class:`Guard` gives each phase its deadline. A client that left is ``trio.Cancelled`` and no error: it reaches
:meth:`Exchange.__exit__` as such and is recorded as cancelled in the phase it had reached.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any

import trio
from attrs import frozen

from gateway.config import Assistant
from gateway.context.assemble import assemble
from gateway.context.load import LoaderReport, LoaderStarted, check_required, load_context
from gateway.core.ask import Ask, LoaderNews
from gateway.core.errors import (
    DeadlineExceeded,
    GatewayError,
    Rejected,
    RequestError,
    Retry,
    StreamBroken,
    UpstreamError,
)
from gateway.core.facts import LoaderFact, Outcome, Phase, Record, Usage
from gateway.core.principal import Principal
from gateway.dialects.chat_stream import DONE
from gateway.dialects.openai_chat import ChatRequest
from gateway.dialects.sse import EventTooLong
from gateway.dialects.transcript import Transcript
from gateway.dialects.voice import Voice
from gateway.flow.admission import Place
from gateway.flow.guard import Guard
from gateway.flow.relay import ClientStalled, Outlet, pump
from gateway.instance import Gateway
from gateway.policy.classify import CLIENTS_OWN
from gateway.upstream.attempt import Attempt, begin
from gateway.upstream.targets import Route

AFTER_FINISH_S = 1.0  # how long usage and [DONE] may follow a finish reason


@frozen(kw_only=True, slots=True)
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


class Exchange:
    """One request from the end of its headers to the last byte of its answer.

    A context manager that its connection enters; leaving it closes the record, whatever happened.
    """

    def __init__(
        self,
        gateway: Gateway,
        record: Record,
        place: Place,
        principal: Principal,
        *,
        timeout_s: float = math.inf,
        conversation: str | None = None,
    ) -> None:
        self._gateway = gateway
        self._place = place
        self._principal = principal
        total_s = gateway.config.timeouts.total_s
        self._total_at = record.received_at + min(timeout_s, total_s)
        own = timeout_s < total_s
        self._why_total = f"the request took longer than its {timeout_s:g} s (x-request-timeout-ms)" if own else ""
        self._conversation = conversation
        self._transcript: Transcript | None = None
        self._line: Attempt | None = None
        self._asked_bytes = 0  # of the request as the provider got it
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
        await self._enter()
        request = await self._listen(listen, voice)
        route = self._route(request)
        if voice.speaks_early and request.stream and self._loads(request, route):
            return Answer(run=partial(self._tell, request, route, voice))
        attempt = await self._gather_and_ask(request, route, voice)
        if not attempt.is_whole:
            return Answer(events=True, run=partial(self._relay, attempt, request, voice))
        with attempt:
            self._place.release()
            return self._whole(request, attempt, voice)

    def _whole(self, request: ChatRequest, attempt: Attempt, voice: Voice) -> Answer:
        """The answer when all of it is here; a stream, too, if its end came with its beginning."""
        record = self.record
        if self._transcript is not None:
            read = self._transcript.read_block if request.stream else self._transcript.read_whole
            read(attempt.first)
        if request.stream:
            beginning = voice.begins(record) + voice.events(attempt.first)
            return Answer(body=beginning + self._ending(attempt, request, voice), events=True)
        self._settle(attempt)
        self._remember(request)
        record.phase = Phase.DONE
        return Answer(body=voice.whole(attempt.first, record))

    async def _enter(self) -> None:
        """Hold a permit. Most requests got theirs with their headers, and pass."""
        if not self._place.holds_permit:
            self.record.phase = Phase.QUEUE
            await self._place.wait()
            self.record.queue_s = trio.current_time() - self.record.received_at

    async def _listen(self, listen: Callable[[], Awaitable[bytes]], voice: Voice) -> ChatRequest:
        self.record.phase = Phase.BODY
        request = voice.parse(await listen())
        self._conversation = voice.conversation or self._conversation
        self.record.model = request.model
        self.record.stream = request.stream
        return request

    def _route(self, request: ChatRequest) -> Route:
        route = self._gateway.routes.resolve(request.model, self._principal)
        if route.assistant is not None:
            self.record.assistant = route.assistant.name
            if self._conversation is not None:
                self._transcript = Transcript()
        return route

    def _loads(self, request: ChatRequest, route: Route) -> bool:
        """Whether there is loading to tell of. Without any, the status can still wait for the model.

        Raises:
            RequestError: A required loader lacks a field; the last moment for this to be a status.
        """
        loaders = self._gateway.loaders[route.assistant.name] if route.assistant is not None else ()
        check_required(loaders, self._ask_of(request))
        return bool(loaders)

    async def _gather_and_ask(
        self, request: ChatRequest, route: Route, voice: Voice, tell: Callable[[bytes], None] | None = None
    ) -> Attempt:
        messages = None
        if route.assistant is not None:
            messages = await self._gather(request, route.assistant, voice, tell)
        return await self._ask(request, route, messages)

    async def _gather(
        self, request: ChatRequest, assistant: Assistant, voice: Voice, tell: Callable[[bytes], None] | None
    ) -> list[dict[str, Any]]:
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
            self._gateway.loaders[assistant.name],
            self._ask_of(request),
            budget_s=assistant.context_budget_s,
            deadline=self._total_at,
            observe=observe,
        )
        self.record.context_s = trio.current_time() - began
        return assemble(assistant, context, request.messages())

    def _ask_of(self, request: ChatRequest) -> Ask:
        """What loaders may see of the request."""
        return Ask(
            input=request.last_user_text,
            user=request.user,
            conversation=self._conversation,
            tenant=self._principal.name,
        )

    async def _ask(self, request: ChatRequest, route: Route, messages: list[dict[str, Any]] | None) -> Attempt:
        """Target after target, until one begins to answer or none is left."""
        gateway, record = self._gateway, self.record
        record.phase = Phase.UPSTREAM
        record.asked_at = trio.current_time()
        for target in route.targets:
            body = request.encode(
                model=target.model, usage_in_stream=target.provider.usage_in_stream, messages=messages
            )
            self._asked_bytes = len(body)
            try:
                with self._guard() as guard:
                    attempt = await begin(gateway.caller, target, request, body, guard, record, self._hold_line)
            except (UpstreamError, DeadlineExceeded) as error:
                if target is route.targets[-1] or not _worth_another_target(error):
                    raise
            else:
                break
        record.phase = Phase.STREAM
        record.first_token_at = trio.current_time()
        return attempt

    # ── after the commit point ───────────────────────────────────────────────────────────────────────────────────

    async def _tell(self, request: ChatRequest, route: Route, voice: Voice, outlet: Outlet) -> None:
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
        self, attempt: Attempt, request: ChatRequest, voice: Voice, outlet: Outlet, before: bytes = b""
    ) -> None:
        """Pass the stream on, from the commit point to its end; the upstream reader's task.

        Raises:
            ClientStalled: The client stopped reading; its connection is to be dropped.
        """
        stream = attempt.stream
        assert stream is not None

        stall_s = self._gateway.config.timeouts.stall_s

        def transform(data: bytes) -> bytes:
            block = stream.feed(data)
            if block and self._transcript is not None:
                self._transcript.read_block(block)
            return voice.events(block) if block else b""

        with outlet, attempt, self._gateway.pace:
            try:
                with self._guard() as guard:
                    if self._transcript is not None:
                        self._transcript.read_block(attempt.first)
                    first = before + voice.begins(self.record) + voice.events(attempt.first)
                    await outlet.put(first, guard=guard, last=stream.done)
                    if not stream.done:
                        await pump(
                            attempt.receive,
                            transform,
                            lambda: stream.done or stream.error is not None,
                            outlet,
                            guard,
                            stall_s=lambda: AFTER_FINISH_S if stream.finished else stall_s,
                            pace=self._gateway.pace,
                        )
                ending = self._ending(attempt, request, voice)
            except (GatewayError, EventTooLong) as error:
                # A finish reason and then neither [DONE] nor an end: the answer is whole all the same.
                ending = self._ending(attempt, request, voice) if stream.finished else self._breaks(error, voice)
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

    def _ending(self, attempt: Attempt, request: ChatRequest, voice: Voice) -> bytes:
        """How a stream that the provider ended is ended for the client."""
        stream = attempt.stream
        assert stream is not None
        if stream.error is not None:
            return self._breaks(
                StreamBroken("upstream_error", f"{attempt.target.name} reported an error in the middle of its answer"),
                voice,
            )
        if not stream.finished:
            return self._breaks(
                StreamBroken("upstream_cut", f"{attempt.target.name} ended its answer before it was whole"), voice
            )
        self._settle(attempt)
        self._remember(request)
        self.record.phase = Phase.DONE
        missing = b"" if stream.done else voice.events(DONE)
        return missing + voice.ends(self.record)

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

    def _hold_line(self, attempt: Attempt) -> None:
        self._line = attempt

    def hang_up(self) -> None:
        """Close the provider's connection now, in this very step; the cancellation that unwinds the rest follows."""
        if self._line is not None:
            self._line.hang_up()

    # ── the facts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, attempt: Attempt) -> None:
        """Note what the answer cost: as reported, else estimated from what was relayed. Sync, idempotent."""
        record, stream = self.record, attempt.stream
        record.ended_at = trio.current_time()
        if stream is not None:
            record.events = stream.events
            record.finish_reason = stream.finish_reason
            record.usage = stream.usage
        if record.usage is None:
            record.usage = Usage(
                prompt_tokens=-(-self._asked_bytes // 4),
                completion_tokens=record.events if stream is not None else -(-len(attempt.first) // 4),
                estimated=True,
            )

    def _remember(self, request: ChatRequest) -> None:
        """Keep a whole answer with its question for the conversation's next turn."""
        if self._transcript is not None and self._conversation is not None and self._transcript.text:
            self._gateway.remember(
                self._principal.name, self._conversation, request.last_user_text, self._transcript.text
            )

    def fail(self, error: GatewayError) -> None:
        """Note the error that the client is told."""
        record = self.record
        record.code = error.code
        record.detail = _chain(error)
        record.outcome = outcome_of(error)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.release()
        record = self.record
        record.ended_at = trio.current_time()
        if record.outcome is None:
            if error is None:
                record.outcome = Outcome.OK if record.phase is Phase.DONE else Outcome.CANCELLED
            elif isinstance(error, Exception):
                record.outcome = Outcome.FAILED
                # Not its repr, which of some errors holds the text that they are about.
                record.code, record.detail = record.code or "internal_error", f"{type(error).__name__}: {error}"
                record.status = record.status or 500
            else:
                record.outcome = Outcome.CANCELLED
        if record.outcome is Outcome.CANCELLED:
            record.code = record.code or "client_left"
        self._gateway.observe(record)


def outcome_of(error: GatewayError) -> Outcome:
    if isinstance(error, Rejected):
        return Outcome.REFUSED
    if isinstance(error, StreamBroken):
        return Outcome.BROKEN
    callers_own = isinstance(error, RequestError) or (
        isinstance(error, UpstreamError) and error.http_status in CLIENTS_OWN
    )
    return Outcome.INVALID if callers_own else Outcome.FAILED


def _chain(error: BaseException) -> str:
    """An error and its causes on one line, for the log."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < 5:
        parts.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__
    return " ← ".join(parts)


def _worth_another_target(error: GatewayError) -> bool:
    """Whether the next target may do better; the total time being over, none can."""
    if isinstance(error, UpstreamError):
        return error.retry is not Retry.NEVER
    return isinstance(error, DeadlineExceeded) and error.stage != "total"


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
