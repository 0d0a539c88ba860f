"""Reading on where the client has left: for providers that bill an aborted stream in full anyway.

With ``on_disconnect = "cancel"`` a provider's connection is closed in the step that sees the client leave. Some
providers go on generating and bill all of it; from those (``"drain"``) it is worth hearing what it cost. The rest of
the stream is read here, within bounds of time, tokens and streams per provider, by tasks of the gateway's own nursery;
the request that began it is over, its admission permit free. Its record is told when the drain is.

Limits: ``provider.drain_max_s``, ``drain_max_tokens``, ``drain_max_streams``; beyond the last a stream is cancelled.
Only streams that had begun are drained. At the end of the process drains are cut, and what was read is what is known.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.core.errors import UpstreamError
from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import EventTooLong
from gateway.upstream.attempt import Attempt
from gateway.upstream.health import HealthBook, ProviderHealth


class Drains:
    """All streams of this process that are read on."""

    def __init__(self, book: HealthBook) -> None:
        self._book = book
        self._nursery: trio.Nursery | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._places: dict[int, ProviderHealth] = {}  # by attempt; a reload may put another in the provider's place
        self.active = 0

    async def run(self) -> None:
        """Own the drains, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def stop(self) -> None:
        """Read on no further: those that run now end with what they know. Sync."""
        for scope in self._scopes:
            scope.cancel()

    def reserve(self, attempt: Attempt) -> bool:
        """Whether this attempt's stream is to be read on; if so, a place is taken for it: once. Sync."""
        provider, stream = attempt.target.provider, attempt.stream
        if not provider.drains or self._nursery is None or stream is None or not stream.committed:
            return False
        health = self._book.provider(provider)
        if health.drains >= provider.settings.drain_max_streams or stream.events >= provider.settings.drain_max_tokens:
            return False
        health.drains += 1
        self._places[id(attempt)] = health
        self.active += 1
        return True

    def take(self, attempt: Attempt, tell: Callable[[], None]) -> None:
        """Read on what :meth:`reserve` said yes to. ``tell`` is called once, at the end, whatever it is. Sync."""
        if self._nursery is None:
            self._end(attempt, tell)
        else:
            self._nursery.start_soon(self._drain, attempt, tell)

    async def _drain(self, attempt: Attempt, tell: Callable[[], None]) -> None:
        settings, stream = attempt.target.provider.settings, attempt.stream
        assert stream is not None
        scope = trio.move_on_after(settings.drain_max_s)
        self._scopes.add(scope)
        try:
            with scope:
                while not stream.complete and stream.error is None and stream.events < settings.drain_max_tokens:
                    data = await attempt.receive()
                    if not data:
                        stream.eof()
                        break
                    stream.feed(data)
        except (UpstreamError, EventTooLong, BadAnswer):
            pass  # what it cost up to here is known
        finally:
            self._scopes.discard(scope)
            self._end(attempt, tell)

    def _end(self, attempt: Attempt, tell: Callable[[], None]) -> None:
        attempt.close()
        self._places.pop(id(attempt)).drains -= 1
        self.active -= 1
        tell()
