"""Plays one answer to a client: waits, paces, and breaks off where the behaviour says so.

A paced stream sleeps once per token up to :data:`SLEEPS_PER_S` tokens per second and sends several tokens per sleep
beyond it; due times are absolute, so a late wake-up does not slow the stream down. An unpaced one writes
:data:`TOKENS_PER_WRITE` tokens at a time. The head goes out with the first token, as one write.

Nothing here looks after the client's leaving: the connection's reader cancels whatever is being waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import orjson
import trio

from gateway.sim.behaviour import Behaviour
from gateway.sim.connection import Connection
from gateway.sim.request import ApiError
from gateway.sim.stats import Counters
from gateway.sim.wire import DONE, LAST_CHUNK, Completion, chunk, error_event, head

SLEEPS_PER_S = 250
TOKENS_PER_WRITE = 64

_EVENT_STREAM = "text/event-stream; charset=utf-8"
_FAILED = "The simulated provider fails here because it was told to."


class Player:
    """Plays one answer; every method returns whether the connection may be kept."""

    def __init__(
        self, connection: Connection, counters: Counters, behaviour: Behaviour, *, request_id: str, keep: bool
    ) -> None:
        self._connection = connection
        self._counters = counters
        self._behaviour = behaviour
        self._headers = (("x-request-id", f"req_{request_id}"), ("openai-version", "2020-10-01"))
        self._keep = keep
        self._complete = False  # the stream's own end was written, not a fault's

    async def stream(self, completion: Completion, ttft_s: float) -> bool:
        """Play a completion as server-sent events."""
        early = await self._before_first_byte(ttft_s)
        if early is not None:
            return early
        start = head(200, *self._headers, length=None, content_type=_EVENT_STREAM, keep=self._keep)
        if self._behaviour.slow_s:
            await self._connection.send(start + chunk(completion.opening()))
            await trio.sleep(self._behaviour.slow_s)
            start, opening = b"", b""
        else:
            opening = completion.opening()
        per_write, interval_s = self._pace(completion.request.choices)
        due = trio.current_time()
        for data, tokens in self._writes(completion, opening, per_write):
            if interval_s == 0:
                await trio.lowlevel.checkpoint()
            elif tokens:
                await trio.sleep_until(due)
                due += interval_s
            await self._connection.send(start + data)
            self._counters.sent(tokens)
            start = b""
        return await self._end_stream(completion)

    async def document(self, body: bytes, ttft_s: float, *, tokens: int = 0, per_choice: int = 0) -> bool:
        """Play an answer that is one JSON document, after the time its tokens would have taken.

        Args:
            tokens: Tokens in the document, for the statistics.
            per_choice: Tokens of one choice: choices are made side by side.
        """
        early = await self._before_first_byte(ttft_s)
        if early is not None:
            return early
        plan = self._behaviour
        ending = plan.ending if plan.ending is None or plan.ending[0] <= per_choice else None
        made = per_choice if ending is None else ending[0]
        if plan.tokens_per_s:
            await trio.sleep(made / plan.tokens_per_s)
        if ending is not None and ending[1] == "error":
            return await self.refuse(ApiError(500, _FAILED, kind="server_error", code="server_error"))
        if plan.malformed_at is not None:
            body = body[: len(body) // 2]
        start = head(200, *self._headers, length=len(body), keep=self._keep)
        if plan.slow_s:
            await self._connection.send(start)
            await trio.sleep(plan.slow_s)
            start = b""
        if ending is not None:
            await self._connection.send(start + body[: len(body) // 2])
            return await self._break_off(ending[1])
        await self._connection.send(start + body)
        self._counters.sent(tokens)
        return self._keep

    async def refuse(self, error: ApiError) -> bool:
        """Send an error document."""
        body = orjson.dumps(error.document)
        await self._connection.send(
            head(error.status, *self._headers, *error.headers, length=len(body), keep=self._keep) + body
        )
        return self._keep

    async def _before_first_byte(self, ttft_s: float) -> bool | None:
        """Wait for the first byte; not None if the answer is over by then."""
        plan = self._behaviour
        if ttft_s > 0:
            await trio.sleep(ttft_s)
        if plan.status is not None:
            return await self.refuse(_fault_error(plan.status, plan.retry_after_s))
        if plan.reset:
            self._connection.reset()
            return False
        if plan.silence:
            await trio.sleep_forever()
        return None

    def _pace(self, choices: int) -> tuple[int, float]:
        """Tokens per write and seconds between writes."""
        tokens_per_s = self._behaviour.tokens_per_s
        if tokens_per_s <= 0:
            return TOKENS_PER_WRITE, 0.0
        ticks = max(1, math.ceil(tokens_per_s / SLEEPS_PER_S))
        return ticks * choices, ticks / tokens_per_s

    def _writes(self, completion: Completion, opening: bytes, per_write: int) -> Iterator[tuple[bytes, int]]:
        """What is written at a time, framed, with the number of tokens in it; the end included where there is one."""
        plan = self._behaviour
        limit = math.inf if plan.ending is None else plan.ending[0]
        batch, made, written = [opening] if opening else [], 0, 0
        for data, tokens in completion.events():
            if made + tokens > limit:
                break
            made += tokens
            batch.append(_broken(data) if tokens and made == plan.malformed_at else data)
            if made - written == per_write:
                yield chunk(b"".join(batch)), per_write
                batch, written = [], made
        if made < limit:
            self._complete = True
            batch += [completion.closing(), b"" if plan.no_done else DONE]
            yield chunk(b"".join(batch)) + LAST_CHUNK, made - written
        elif batch:
            yield chunk(b"".join(batch)), made - written

    async def _end_stream(self, completion: Completion) -> bool:
        ending = self._behaviour.ending
        if self._complete or ending is None:
            return self._keep
        if ending[1] == "error":
            await self._connection.send(chunk(error_event(_FAILED)) + LAST_CHUNK)
            return self._keep
        return await self._break_off(ending[1])

    async def _break_off(self, how: str) -> bool:
        if how == "stall":
            await trio.sleep_forever()
        return False


def _broken(event: bytes) -> bytes:
    return event[: len(event) // 2] + b"\n\n"


def _fault_error(status: int, retry_after_s: float | None) -> ApiError:
    kind, code = {
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }.get(status, ("server_error", "server_error") if status >= 500 else ("invalid_request_error", None))
    headers = () if retry_after_s is None else (("retry-after", f"{retry_after_s:g}"),)
    return ApiError(status, f"{_FAILED} (status={status})", kind=kind, code=code, headers=headers)
