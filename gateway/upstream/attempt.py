"""One attempt: ask one target, and come back at the commit point or with the right error.

Until the first content nothing has been promised to the client, so everything that can go wrong here still becomes a
correct status or another target's turn. An :class:`Attempt` owns the provider's connection: leaving its ``with`` block
closes it at once, which is what makes a provider stop generating.

Order rules: ``first_token`` runs from asking to the first content event and is a phase of the exchange's guard, so it
is bounded by the total time; within it, opening a connection has ``connect_s`` of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import isnan
from types import TracebackType

import orjson
import trio
from attrs import define, frozen

from gateway.config import Timeouts
from gateway.core.errors import Retry, UpstreamError
from gateway.core.facts import Record
from gateway.dialects.chat_stream import BadAnswer, ChatStream, read_answer
from gateway.dialects.openai_chat import ChatRequest
from gateway.dialects.sse import EventTooLong
from gateway.flow.guard import Guard
from gateway.policy.classify import refused_by_provider
from gateway.upstream.errors import TransportError
from gateway.upstream.raw import RawResponse, RawTransport
from gateway.upstream.targets import Target

MAX_ERROR_BYTES = 65_536
MAX_ANSWER_BYTES = 64 * 1024 * 1024
REUSE_WAIT_S = 0.25  # how long the end of a finished answer is waited for, so that its connection can be kept


@frozen(kw_only=True, slots=True)
class Caller:
    """What every attempt needs."""

    transport: RawTransport
    timeouts: Timeouts


@define(kw_only=True, slots=True)
class Attempt:
    """An answer that has begun (``stream``) or is whole (``body``).

    Attributes:
        target: Who answers.
        stream: What was understood of the stream so far; None for a whole answer.
        first: What the client gets first: the preamble and the first content. Or the whole answer.
        hung_up: Closed from outside, by who is about to cancel the task that reads it.
    """

    target: Target
    response: RawResponse
    stream: ChatStream | None = None
    first: bytes = b""
    hung_up: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer is in ``first``, and nothing of it is left to read."""
        stream = self.stream
        return stream is None or (stream.done and stream.error is None and self.response.complete)

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

    def close(self) -> None:
        """Keep the connection if the answer was read to its end, else abort it. Sync, idempotent."""
        self.response.close()

    def hang_up(self) -> None:
        """Close the connection from another task, which cancels the one that reads it soon after. Sync, idempotent."""
        self.hung_up = True
        self.close()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def begin(
    caller: Caller,
    target: Target,
    request: ChatRequest,
    body: bytes,
    guard: Guard,
    record: Record,
    hold: Callable[[Attempt], None],
) -> Attempt:
    """Ask ``target`` and wait for its first content, or its whole answer.

    Args:
        body: The request as the provider shall get it.
        guard: Entered by the exchange; its phases are set here.
        hold: Told the attempt as soon as its answer has begun, so that it can be closed from outside.

    Raises:
        UpstreamError: It could not be asked, refused, or sent no answer that is one.
        DeadlineExceeded: By the guard, ``connect`` or ``first_token``.

    Cancellation: the connection is closed before this returns control.
    """
    record.target, record.target_label = target.name, target.label
    record.attempts += 1
    record.upstream_status = 0
    guard.phase("first_token", caller.timeouts.first_token_s)
    provider = target.provider
    try:
        response = await caller.transport.send(
            b"POST",
            provider.origin,
            provider.base_path + b"/chat/completions",
            provider.headers,
            body,
            connect_timeout_s=caller.timeouts.connect_s,
            pool_timeout_s=caller.timeouts.connect_s,
        )
    except TransportError as error:
        raise _unreachable(target, error) from error
    attempt = Attempt(target=target, response=response)
    hold(attempt)
    try:
        record.upstream_status = response.status
        if not 200 <= response.status < 300:
            raise await _refusal(attempt)
        if request.stream:
            attempt.stream = ChatStream(want_usage=request.include_usage, choices=request.n)
            await _reach_content(attempt, attempt.stream)
        else:
            await _read_whole(attempt, record)
    except BaseException:
        attempt.close()
        raise
    return attempt


async def _reach_content(attempt: Attempt, stream: ChatStream) -> None:
    """Read until the first content event."""
    target = attempt.target
    while not attempt.first:
        data = await attempt.receive()
        if not data:
            raise _no_answer(target, "upstream_empty", "ended its stream before any content")
        try:
            attempt.first = stream.feed(data)
        except EventTooLong as error:
            raise _no_answer(target, "upstream_garbage", "sent no server-sent events") from error
        if stream.error is not None:
            raise _no_answer(target, "upstream_error", "reported an error instead of an answer")
        if stream.done and not attempt.first:
            raise _no_answer(target, "upstream_empty", "finished without any content")


async def _read_whole(attempt: Attempt, record: Record) -> None:
    """Read a non-streamed answer to its end and note what it cost."""
    body = await _read(attempt, MAX_ANSWER_BYTES)
    if body is None:
        raise _no_answer(attempt.target, "upstream_too_large", f"answered more than {MAX_ANSWER_BYTES} bytes")
    try:
        record.usage, record.finish_reason = read_answer(body)
    except BadAnswer as error:
        raise _no_answer(attempt.target, "upstream_garbage", "sent an answer that is no chat completion") from error
    attempt.first = body


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


async def _refusal(attempt: Attempt) -> UpstreamError:
    response, target = attempt.response, attempt.target
    try:
        body = await _read(attempt, MAX_ERROR_BYTES)
    except UpstreamError:
        body = None
    return refused_by_provider(
        response.status,
        target=target.name,
        retry_after_s=_seconds(response.header(b"retry-after")),
        body=target.provider.scrub(body) if body and _is_error_document(body) else None,
    )


def _is_error_document(body: bytes) -> bool:
    try:
        document = orjson.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "error" in document


def _seconds(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return None if isnan(seconds) else min(max(seconds, 0.0), 86_400.0)


def _no_answer(target: Target, code: str, what: str) -> UpstreamError:
    return UpstreamError(code, 502, f"{target.name} {what}", target=target.name, retry=Retry.UNSAFE)


def _unreachable(target: Target, error: TransportError) -> UpstreamError:
    late = error.timed_out
    return UpstreamError(
        f"{error.kind}_timeout" if late else f"upstream_{error.kind}",
        504 if late else 502,
        f"{target.name} {_TROUBLE.get(error.kind, 'could not be asked')}",
        target=target.name,
        retry=Retry.SAFE if error.safe_to_resend else Retry.UNSAFE,
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
