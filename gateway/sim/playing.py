"""Plays one answer to a client: waits, paces, and breaks off where the behaviour says so.

A paced stream sleeps once per token up to :data:`SLEEPS_PER_S` tokens per second and sends several tokens per sleep
beyond it; due times are absolute, so a late wake-up does not slow the stream down. An unpaced one writes
:data:`TOKENS_PER_WRITE` tokens at a time. The head goes out with the first token, as one write.

A keep-alive in a document is a newline before it, which JSON allows and DeepSeek sends.

Nothing here looks after the client's leaving: the connection's reader cancels whatever is being waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import orjson
import trio

from gateway.sim.behaviour import Behaviour
from gateway.sim.connection import Connection
from gateway.sim.errors import ApiError, Dialect, planned_error, planned_failure
from gateway.sim.stats import Tally
from gateway.sim.telling import Telling
from gateway.sim.wire import LAST_CHUNK, chunk, head

SLEEPS_PER_S = 250
TOKENS_PER_WRITE = 64


class Player:
    """Plays one answer; every method returns whether the connection may be kept."""

    def __init__(
        self,
        connection: Connection,
        tally: Tally,
        behaviour: Behaviour,
        dialect: Dialect,
        *,
        request_id: str,
        keep: bool,
    ) -> None:
        self._connection = connection
        self._tally = tally
        self._behaviour = behaviour
        self._dialect = dialect
        self._request_id = request_id
        self._headers = dialect.headers(request_id)
        self._keep = keep
        self._complete = False  # the stream's own end was written, not a fault's

    async def stream(self, telling: Telling, ttft_s: float) -> bool:
        """Play an answer as a stream."""
        early = await self._before_first_byte(ttft_s)
        if early is not None:
            return early
        plan = self._behaviour
        start = head(200, *self._headers, length=None, content_type=telling.content_type, keep=self._keep)
        if plan.error_first:
            await self._connection.send(start + chunk(telling.failure(planned_failure())) + LAST_CHUNK)
            return self._keep
        opening = telling.opening()
        if plan.slow_s or plan.pings_for_ever:
            await self._connection.send(start + (chunk(opening) if opening else b""))
            await self._wait(plan.slow_s or math.inf, telling.ping)
            start, opening = b"", b""
        per_write, interval_s = self._pace(telling.choices)
        due = trio.current_time()
        for data, tokens in self._writes(telling, opening, per_write):
            if interval_s == 0:
                await trio.lowlevel.checkpoint()
            elif tokens:
                await trio.sleep_until(due)
                due += interval_s
            await self._connection.send(start + data)
            self._tally.sent(tokens)
            start = b""
        if start:  # it breaks off before there was anything to write
            await self._connection.send(start)
        return await self._end_stream(telling)

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
            return await self.refuse(planned_failure())
        if plan.error_first:
            body, tokens = orjson.dumps(self._dialect.document(planned_failure(), self._request_id)), 0
        if plan.malformed_at is not None:
            body = body[: len(body) // 2]
        start = head(200, *self._headers, length=None if plan.pings_s else len(body), keep=self._keep)
        if plan.slow_s or plan.pings_for_ever:
            await self._connection.send(start)
            await self._wait(plan.slow_s or math.inf, b"\n")
            start = b""
        if ending is not None and ending[1] != "end":  # "end" shows in the document itself
            await self._connection.send(start + body[: len(body) // 2])
            return await self._break_off(ending[1], b"")
        if plan.pings_s:
            body = chunk(body) + LAST_CHUNK
        await self._connection.send(start + body)
        self._tally.sent(tokens)
        return self._keep

    async def refuse(self, error: ApiError) -> bool:
        """Send an error document."""
        body = orjson.dumps(self._dialect.document(error, self._request_id))
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
            return await self.refuse(planned_error(plan, self._dialect))
        if plan.reset:
            self._connection.reset()
            return False
        if plan.silence:
            await trio.sleep_forever()
        return None

    async def _wait(self, seconds: float, ping: bytes) -> None:
        """Wait, with keep-alives if they are asked for; ``ping`` may be empty, then there are none."""
        every_s = self._behaviour.pings_s
        end = trio.current_time() + seconds
        if not every_s or not ping:
            await trio.sleep_until(end)
            return
        while (left_s := end - trio.current_time()) > 0:
            await self._connection.send(chunk(ping))
            await trio.sleep(min(every_s, left_s))

    def _pace(self, choices: int) -> tuple[int, float]:
        """Tokens per write and seconds between writes."""
        tokens_per_s = self._behaviour.tokens_per_s
        if tokens_per_s <= 0:
            return TOKENS_PER_WRITE, 0.0
        ticks = max(1, math.ceil(tokens_per_s / SLEEPS_PER_S))
        return ticks * choices, ticks / tokens_per_s

    def _writes(self, telling: Telling, opening: bytes, per_write: int) -> Iterator[tuple[bytes, int]]:
        """What is written at a time, framed, with the number of tokens in it; the end included where there is one."""
        plan = self._behaviour
        limit = math.inf if plan.ending is None else plan.ending[0]
        broken = plan.malformed_at or 0
        batch, made, written = [opening] if opening else [], 0, 0
        for data, tokens in telling.events():
            if made + tokens > limit:
                break
            made += tokens
            batch.append(_broken(data) if broken and made - tokens < broken <= made else data)
            if made - written >= per_write:
                yield chunk(b"".join(batch)), made - written
                batch, written = [], made
        else:
            self._complete = made < limit
        if self._complete:
            times = 2 if plan.double_finish else 1
            batch += [telling.finish() * times, b"" if plan.no_done else telling.end_mark() * times]
            data = b"".join(batch)
            yield (chunk(data) if data else b"") + LAST_CHUNK, made - written
        elif batch:
            yield chunk(b"".join(batch)), made - written

    async def _end_stream(self, telling: Telling) -> bool:
        ending = self._behaviour.ending
        if self._complete or ending is None:
            return self._keep
        if ending[1] == "error":
            await self._connection.send(chunk(telling.failure(planned_failure())) + LAST_CHUNK)
            return self._keep
        if ending[1] == "end":
            await self._connection.send(LAST_CHUNK)
            return self._keep
        return await self._break_off(ending[1], telling.ping)

    async def _break_off(self, how: str, ping: bytes) -> bool:
        if how == "stall":
            await self._wait(math.inf, ping)
        elif how == "rst":
            self._connection.reset()
        return False


def _broken(event: bytes) -> bytes:
    return event[: len(event) // 2] + b"\n\n"
