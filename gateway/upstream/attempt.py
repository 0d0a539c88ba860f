"""One attempt: ask one target, and come back at the commit point or with the right error.

Until the first content nothing has been promised to the client, so everything that can go wrong here still becomes a
correct status or another target's turn. An :class:`Attempt` owns the provider's connection: leaving its ``with`` block
closes it at once, which is what makes a provider stop generating.

Order rules: ``first_token`` runs from asking to the first content event and is a phase of the attempt's guard, so it
is bounded by the total time; within it, opening a connection has ``connect_s`` of its own. An answer that is generated
and not streamed shows nothing until its end, however healthy, and has ``answer_s`` for all of it. A stream that first
has to catch up with what the client already has (``upstream/repair.py``) is given a token's time for each read instead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType

import orjson
import trio
from attrs import define, evolve

from gateway.config import Timeouts
from gateway.core.errors import DeadlineExceeded, GatewayError, Retry, UpstreamError
from gateway.core.estimate import BYTES_PER_TOKEN, tokens_of
from gateway.core.facts import AttemptFact, Kind, Usage
from gateway.dialects.answer import Answer
from gateway.dialects.provider import BadAnswer
from gateway.dialects.resumed import Diverged
from gateway.dialects.sse import EventTooLong
from gateway.dialects.voice import AnswerStream, Asking, Whole
from gateway.flow.guard import LineGuard
from gateway.policy.classify import CLIENTS_OWN, DIVERGED, Health, judge, refused_by_provider
from gateway.policy.retry import retry_after_s, retry_delay_of_body
from gateway.upstream.errors import TransportError
from gateway.upstream.health import Lease
from gateway.upstream.raw import RawResponse, RawTransport
from gateway.upstream.targets import Target

MAX_ERROR_BYTES = 65_536
ERROR_BODY_S = 2.0  # how long the document behind a refusal's status is waited for
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_REASON_CHARS = 2_000
REUSE_WAIT_S = 0.25  # how long the end of a finished answer is waited for, so that its connection can be kept


class NotAsked:
    """In the place of a response, for what the gateway could answer by itself."""

    complete = True

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    def close(self) -> None:
        pass


@define(kw_only=True, slots=True)
class Attempt:
    """An answer that has begun (``stream``) or is whole (``whole``).

    Attributes:
        target: Who answers.
        fact: What is known of this attempt; the record has it, too.
        stream: What was understood of the stream so far; None for a whole answer.
        asked: What it was asked, until that is counted or known not to be needed.
        hung_up: Closed from outside, by who is about to cancel the task that reads it.
    """

    target: Target
    fact: AttemptFact
    response: RawResponse | NotAsked
    timeouts: Timeouts
    stream: AnswerStream | None = None
    whole: Whole | None = None
    lease: Lease | None = None
    asked: bytes = b""
    hung_up: bool = False
    _asked_tokens: int = 0
    _aside: RawResponse | None = None

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to read: it is whole, or broke off, or was closed."""
        return bool(self.fact.outcome) or self.is_whole

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer is here, and nothing of it is left to read."""
        stream = self.stream
        return stream is None or (stream.complete and stream.error is None and self.response.complete)

    @property
    def asked_tokens(self) -> int:
        """Of what it was asked, about."""
        if self.asked:
            self._asked_tokens, self.asked = tokens_of(self.asked), b""
        return self._asked_tokens

    def let_go_of_what_was_asked(self) -> None:
        """Count its tokens if that may be needed still. A whole answer that says what it cost needs no count."""
        needed = self.whole is None or self.whole.usage is None
        self._asked_tokens, self.asked = tokens_of(self.asked) if needed else 0, b""

    async def receive(self) -> bytes:
        """One network read of the stream; b"" at its end.

        Raises:
            UpstreamError: The connection broke.
        """
        try:
            return await self.response.receive()
        except trio.ClosedResourceError:
            await self._cancelled_if_hung_up()
            raise
        except TransportError as error:
            await self._cancelled_if_hung_up()
            raise _broken(self.target, error) from error

    async def _cancelled_if_hung_up(self) -> None:
        """A connection closed by :meth:`hang_up` is no provider's failure: wait for the cancellation that follows."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.hung_up:
            await trio.sleep_forever()

    async def finish_reading(self) -> None:
        """After the last event: take in what belongs to the same answer, so that the connection can serve again.

        Cancellation: as ever; the connection is closed by :meth:`close`.
        """
        if self.response.complete:
            return
        with trio.move_on_after(REUSE_WAIT_S), contextlib.suppress(TransportError, trio.ClosedResourceError):
            while await self.response.receive():
                pass

    def estimate(self, tokens: int) -> Usage:
        """Usage of a provider that reports none: what was asked, by its bytes if it did not say so, and ``tokens``."""
        said = self.stream.asked if self.stream is not None else None
        if said is not None:
            return evolve(said, completion_tokens=tokens, estimated=True)
        return Usage(prompt_tokens=self.asked_tokens, completion_tokens=tokens, estimated=True)

    def answer(self) -> Answer | None:
        """What was said, put together; None for answers without text, or too long to be kept."""
        if self.stream is not None:
            return self.stream.so_far()
        if self.whole is None or self.whole.answer is not None:
            return self.whole.answer if self.whole is not None else None
        try:
            return Answer.of(self.target.provider.dialect.read_whole(self.whole.body))
        except BadAnswer:
            return None  # what passes to the client unread need not be understood here

    def succeed(self) -> None:
        """The answer is whole. Sync; what comes after changes nothing."""
        if self.lease is not None and self.stream is not None and not self.fact.outcome:
            self._learn(self.lease, self.stream)
        self._end("ok", Health.GOOD)

    def _learn(self, lease: Lease, stream: AnswerStream) -> None:
        """How many tokens an event holds. Not of a continuation, whose events are only those that the client lacked."""
        usage = stream.billed
        if usage is not None and self.fact.kind is not Kind.CONTINUATION:
            lease.density.learn(usage.completion_tokens - usage.reasoning_tokens, stream.events)

    def broke(self, error: GatewayError) -> None:
        """The answer broke off after it had begun. Sync; as above."""
        self.fact.code = self.fact.code or error.code
        self._end("broken", judge(error).health if isinstance(error, DeadlineExceeded) else Health.FAILED)

    @property
    def tokens(self) -> int:
        """Of the stream so far, about: its events, by how many tokens one of this target's holds as a rule."""
        assert self.stream is not None
        return self._tokens_in(self.stream.events)

    def so_far(self) -> Usage:
        """What it cost up to here: as reported, else estimated from what was read."""
        if self.stream is not None:
            return self.stream.billed or self.estimate(self._tokens_in(self.stream.events + self.stream.repeated))
        if self.whole is not None:
            return self.whole.usage or self.estimate(-(-len(self.whole.body) // BYTES_PER_TOKEN))
        return self.estimate(0)

    def _tokens_in(self, events: int) -> int:
        return events if self.lease is None else round(events * self.lease.density.value)

    def lose(self) -> None:
        """Another attempt was faster by a hair. Sync."""
        self.fact.code, self.fact.usage = "outrun", self.so_far()
        self.close()

    def _end(self, outcome: str, health: Health) -> None:
        self.fact.outcome = self.fact.outcome or outcome
        if self.lease is not None:
            self.lease.end(health)

    def close(self) -> None:
        """Keep the connection if the answer was read to its end, else abort it. Sync, idempotent."""
        self.response.close()
        self._end("cancelled", Health.SILENT)

    def hang_up(self) -> None:
        """Close the connection from another task, which cancels the one that reads it soon after. Sync, idempotent."""
        self.hung_up = True
        self.close()

    def set_aside(self) -> None:
        """As :meth:`hang_up`, but keep the connection for :meth:`take_up`: the stream is read on by somebody else."""
        assert isinstance(self.response, RawResponse)
        self._aside = self.response.hand_over()
        self.hung_up = True

    def take_up(self) -> bool:
        """Go on with what was set aside, once the task that read it has ended; False if nothing was."""
        if self._aside is None:
            return False
        self.response, self._aside, self.hung_up = self._aside, None, False
        return True

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def begin(
    transport: RawTransport,
    target: Target,
    asking: Asking,
    fact: AttemptFact,
    guard: LineGuard,
    *,
    key: int,
    timeouts: Timeouts,
    read_whole: Callable[[bytes], Whole],
    hold: Callable[[Attempt], None],
) -> Attempt:
    """Ask a target and wait for its first content, or its whole answer.

    Args:
        asking: Path, body, and the stream that will read the answer.
        fact: Where this attempt's facts are noted.
        guard: In its phase ``first_token`` or ``answer``, and entered; later phases are set here.
        key: Which of the provider's keys is used.
        timeouts: Of the model that was asked for.
        read_whole: Understands an answer that is not streamed. Raises ``BadAnswer``.
        hold: Told the attempt as soon as its answer has begun, so that it can be closed from outside.

    Raises:
        UpstreamError: It could not be asked, refused, or sent no answer that is one.
        DeadlineExceeded: By the guard, ``first_token`` or ``answer``.

    Cancellation: the connection is closed before this returns control.
    """
    provider = target.provider
    path = provider.base_path + asking.path
    try:
        response = await transport.send(
            b"POST",
            provider.origin,
            path,
            provider.headers_for(key, path, asking),
            asking.body,
            connect_timeout_s=timeouts.connect_s,
            pool_timeout_s=timeouts.connect_s,
            guard=guard,
        )
    except TransportError as error:
        raise unreachable(target.name, error) from error
    guard.hold(response.close)
    attempt = Attempt(
        target=target,
        fact=fact,
        response=response,
        timeouts=timeouts,
        stream=asking.stream,
        asked=asking.body,
    )
    hold(attempt)
    try:
        fact.status = response.status
        if not 200 <= response.status < 300:
            raise await _refusal(attempt, response, asking)
        if asking.stream is not None:
            await _reach_content(attempt, asking.stream, guard, timeouts)
        else:
            attempt.whole = await _read_whole(attempt, read_whole)
    except BaseException:
        if 200 <= response.status < 300:
            fact.usage = attempt.so_far()  # it took the request on, and is paid for what it made of it
        attempt.close()
        raise
    attempt.let_go_of_what_was_asked()
    return attempt


async def _reach_content(attempt: Attempt, stream: AnswerStream, guard: LineGuard, timeouts: Timeouts) -> None:
    """Read until the first content event."""
    target = attempt.target
    while not stream.committed:
        data = await attempt.receive()
        if not data:
            raise _no_answer(target, "upstream_empty", "ended its stream before any content")
        try:
            stream.feed(data)
        except Diverged as error:
            raise _no_answer(target, DIVERGED, "gave another answer than the one that broke off") from error
        except (EventTooLong, BadAnswer) as error:
            raise _no_answer(target, "upstream_garbage", "sent no answer that its dialect allows") from error
        if stream.error is not None:
            raise _no_answer(target, "upstream_error", "reported an error instead of an answer")
        if stream.done and not stream.committed:
            raise _no_answer(target, "upstream_empty", "finished without any content")
        if stream.catching_up:
            guard.phase("stall", timeouts.stall_s)


async def _read_whole(attempt: Attempt, read_whole: Callable[[bytes], Whole]) -> Whole:
    """Read a non-streamed answer to its end and understand it."""
    body = await _read(attempt, MAX_ANSWER_BYTES)
    if body is None:
        raise _no_answer(attempt.target, "upstream_too_large", f"answered more than {MAX_ANSWER_BYTES} bytes")
    try:
        return read_whole(body)
    except BadAnswer as error:
        raise _no_answer(attempt.target, "upstream_garbage", "sent no answer that its dialect allows") from error


async def _read(attempt: Attempt, limit_bytes: int) -> bytes | None:
    """The body to its end; None when it is longer than ``limit_bytes``."""
    first = await attempt.receive()
    if attempt.response.complete:
        return first if len(first) <= limit_bytes else None
    pieces, size = [first], len(first)
    while data := await attempt.receive():
        pieces.append(data)
        size += len(data)
        if size > limit_bytes:
            return None
    return b"".join(pieces)


async def _refusal(attempt: Attempt, response: RawResponse, asking: Asking) -> UpstreamError:
    """What a refusal means; its status says so even if its document breaks off, or does not come."""
    target, body = attempt.target, b""
    with trio.move_on_after(ERROR_BODY_S), contextlib.suppress(UpstreamError):
        body = await _read(attempt, MAX_ERROR_BYTES) or b""
    provider = target.provider
    told = provider.scrub(body) if response.status in CLIENTS_OWN else b""
    reason = _reason(told)
    return refused_by_provider(
        response.status,
        target=target.name,
        retry_after_s=_come_back(response, body),
        code=provider.dialect.error_code(body) if told else "",
        reason=reason,
        body=told if reason and asking.passes else None,
    )


def _come_back(response: RawResponse, body: bytes) -> float | None:
    """When the provider says that asking again makes sense; seconds."""
    told = retry_after_s(response.headers, time.time(), status=response.status)
    return told if told is not None or not body else retry_delay_of_body(body)


def _reason(document: bytes) -> str:
    """The message of an error document; "" if it is none. All providers put it in one of three places."""
    try:
        found = orjson.loads(document) if document else None
    except ValueError:
        return ""
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return ""
    inner = found.get("error", found)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return message[:MAX_REASON_CHARS] if isinstance(message, str) else ""


def _no_answer(target: Target, code: str, what: str) -> UpstreamError:
    return UpstreamError(code, 502, f"{target.name} {what}", target=target.name, retry=Retry.UNSAFE)


def unreachable(name: str, error: TransportError) -> UpstreamError:
    """What a failure below HTTP means to the client; ``name`` is whom it happened with."""
    late = error.timed_out
    return UpstreamError(
        f"{error.kind}_timeout" if late else f"upstream_{error.kind}",
        504 if late else 502,
        f"{name} {_TROUBLE.get(error.kind, 'could not be asked')}",
        target=name,
        retry=Retry.SAFE if error.safe_to_resend or error.was_stale else Retry.UNSAFE,
    )


def _broken(target: Target, error: TransportError) -> UpstreamError:
    return UpstreamError(
        f"upstream_{error.kind}",
        502,
        f"{target.name} {_TROUBLE.get(error.kind, 'broke off')}",
        target=target.name,
        retry=Retry.UNSAFE,
    )


_TROUBLE = {
    "pool": "has no free connection (provider.max_connections)",
    "dns": "has a name that does not resolve (provider.base_url)",
    "connect": "could not be connected to",
    "tls": "failed the TLS handshake",
    "write": "closed the connection while it was asked",
    "read": "closed the connection before its answer was whole",
    "protocol": "did not speak HTTP/1.1",
}
