"""One structured line per request, and the process's own messages.

The exchange hands over its closed record and goes on; a background task renders what has gathered and writes it in one
piece, in a thread of its own limiter. So a request pays for an append, and a log file on a slow disk, or a pipe that
nobody reads, delays nobody: beyond ``MAX_LINES`` waiting lines the oldest are dropped and counted, and the count is a
metric (``sluice_log_lines_dropped``).

Lines hold names, numbers and ids. Never a prompt, an answer, a header or a key.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import trio

from gateway.config import Log
from gateway.core.facts import Outcome, Record

MAX_LINES = 20_000
FLUSH_EVERY_S = 0.1
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
LEVEL_OF = {Outcome.FAILED: "error", Outcome.BROKEN: "error", Outcome.REFUSED: "warning"}


class LogSink:
    """Gathers lines and writes them to a file descriptor.

    Args:
        settings: Level and format.
        fd: Where to write; 2 is standard error.
        clock: Wall clock, seconds since the epoch.
    """

    def __init__(self, settings: Log, *, fd: int = 2, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._threshold = LEVELS[settings.level]
        self._requests = settings.requests
        self._fd = fd
        self._clock = clock
        self._waiting: deque[tuple[float, str, Record | dict[str, Any]]] = deque()
        self._limiter = trio.CapacityLimiter(1)
        self._render = _as_json if settings.format == "json" else _make_console()
        self.dropped = 0

    def request(self, record: Record) -> None:
        """Queue the line of a closed record. Sync; renders nothing."""
        if self._requests:
            level = LEVEL_OF.get(record.outcome, "info") if record.outcome is not None else "error"
            self._append(level, record)

    def say(self, level: str, event: str, **about: Any) -> None:
        """Queue a message of the process itself; ``event`` is a short constant, details go into ``about``."""
        self._append(level, {"event": event, **about})

    def _append(self, level: str, what: Record | dict[str, Any]) -> None:
        if LEVELS[level] < self._threshold:
            return
        if len(self._waiting) >= MAX_LINES:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((self._clock(), level, what))

    async def run(self) -> None:
        """Write what gathers, until cancelled. What is left then is for :meth:`drain`."""
        while True:
            await trio.sleep(FLUSH_EVERY_S)
            if self._waiting:
                await self._write(self._take())

    async def drain(self, timeout_s: float = 1.0) -> None:
        """Write what is left, for at most ``timeout_s``, also when cancelled: the end of a process must be told."""
        with trio.CancelScope(deadline=trio.current_time() + timeout_s, shield=True):
            if self._waiting:
                await self._write(self._take())

    def _take(self) -> tuple[bytes, int]:
        lines = []
        while self._waiting:
            at, level, what = self._waiting.popleft()
            fields = _fields(what) if isinstance(what, Record) else what
            stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            lines.append(self._render({"timestamp": stamp, "level": level, **fields}))
        return b"".join(lines), len(lines)

    async def _write(self, batch: tuple[bytes, int]) -> None:
        data, lines = batch
        try:
            await trio.to_thread.run_sync(_write_all, self._fd, data, limiter=self._limiter, abandon_on_cancel=True)
        except OSError:
            self.dropped += lines  # a full disk or a closed pipe; the metric tells


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _fields(record: Record) -> dict[str, Any]:
    """A record as one flat line; what does not apply is left out."""
    usage = record.usage
    fields: dict[str, Any] = {
        "event": "request",
        "request_id": record.request_id,
        "endpoint": record.endpoint,
        "key": record.principal,
        "outcome": record.outcome.value if record.outcome else "",
        "phase": record.phase.value,
        "status": record.status,
        "code": record.code,
        "model": record.model,
        "assistant": record.assistant,
        "target": record.target,
        "attempts": record.attempts,
        "upstream_status": record.upstream_status,
        "stream": record.stream,
        "queue_ms": _ms(record.queue_s),
        "context_ms": _ms(record.context_s),
        "ttft_ms": _ms(record.ttft_s),
        "total_ms": _ms(record.total_s),
        "finish_reason": record.finish_reason,
        "detail": record.detail,
    }
    if record.loaders:
        fields["loaders"] = {fact.loader: f"{fact.outcome} {fact.ms:.0f}ms" for fact in record.loaders}
    if usage is not None:
        fields["tokens_in"] = usage.prompt_tokens
        fields["tokens_out"] = usage.completion_tokens
        fields["tokens_estimated"] = usage.estimated
    return {name: value for name, value in fields.items() if value not in ("", 0, None)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1) if math.isfinite(seconds) else 0.0


def _as_json(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _make_console() -> Callable[[dict[str, Any]], bytes]:
    import structlog

    renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(2), sort_keys=False)

    def render(fields: dict[str, Any]) -> bytes:
        return (str(renderer(None, "", fields)) + "\n").encode()

    return render
