"""One structured line per request, and the process's own messages.

The exchange hands over its closed record and goes on; a background task renders what has gathered and writes it in
pieces, in a thread of its own limiter. So a request pays for an append, and a log file on a slow disk, or a pipe that
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
MAX_BATCH_LINES = 500  # rendered in one go: 1 to 2 ms of the loop's time
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
        self._second = 0
        self._second_text = "1970-01-01T00:00:00"
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
            await self._write_waiting()

    async def drain(self, timeout_s: float = 1.0) -> None:
        """Write what is left, for at most ``timeout_s``, also when cancelled: the end of a process must be told."""
        with trio.CancelScope(deadline=trio.current_time() + timeout_s, shield=True):
            await self._write_waiting()

    async def _write_waiting(self) -> None:
        while self._waiting:
            await self._write(self._take())

    def _take(self) -> tuple[bytes, int]:
        lines = []
        for _ in range(min(len(self._waiting), MAX_BATCH_LINES)):
            at, level, what = self._waiting.popleft()
            line: dict[str, Any] = {"timestamp": self._stamp(at), "level": level}
            if isinstance(what, Record):
                _fields(what, line)
            else:
                line.update(what)
            lines.append(self._render(line))
        return b"".join(lines), len(lines)

    def _stamp(self, at: float) -> str:
        """ISO 8601 with milliseconds; the seconds are formatted once, which is most of the cost."""
        second = int(at)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{int((at - second) * 1000):03d}Z"

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


def _fields(record: Record, line: dict[str, Any]) -> None:
    """Write a record into its line; what does not apply is left out.

    A line of a refusal takes 2 µs of the loop's time. Going through a table of names takes three times as long, and
    reading an enumeration's ``value``, which is a descriptor in Python, twice as long as ``_value_``.
    """
    line["event"] = "request"
    line["request_id"] = record.request_id
    line["endpoint"] = record.endpoint
    line["key"] = record.principal
    if record.outcome is not None:
        line["outcome"] = record.outcome._value_
    line["phase"] = record.phase._value_
    if record.status:
        line["status"] = record.status
    if record.code:
        line["code"] = record.code
    if record.model:
        _model_fields(record, line)
    elif record.path:
        _passed_fields(record, line)
    for name, seconds in (
        ("queue_ms", record.queue_s),
        ("context_ms", record.context_s),
        ("ttft_ms", record.ttft_s),
        ("total_ms", record.total_s),
    ):
        if seconds and (ms := _ms(seconds)):
            line[name] = ms
    if record.finish_reason:
        line["finish_reason"] = record.finish_reason
    if record.detail:
        line["detail"] = record.detail
    if record.loaders:
        line["loaders"] = {fact.loader: f"{fact.outcome} {fact.ms:.0f}ms" for fact in record.loaders}
    if record.usage is not None:
        line["tokens_in"] = record.usage.prompt_tokens
        line["tokens_out"] = record.usage.completion_tokens
        line["tokens_estimated"] = record.usage.estimated


def _model_fields(record: Record, line: dict[str, Any]) -> None:
    line["model"] = record.model
    if record.assistant:
        line["assistant"] = record.assistant
    if record.target:
        line["target"] = record.target
    if record.attempts:
        line["attempts"] = len(record.attempts)
        if record.attempts[-1].status:
            line["upstream_status"] = record.attempts[-1].status
    if record.stream:
        line["stream"] = True


def _passed_fields(record: Record, line: dict[str, Any]) -> None:
    line["target"] = record.target
    line["path"] = record.path
    if record.upstream_status:
        line["upstream_status"] = record.upstream_status
    line["bytes_in"] = record.bytes_in
    line["bytes_out"] = record.bytes_out


def _ms(seconds: float) -> float:
    return round(seconds * 10_000) / 10 if math.isfinite(seconds) else 0.0


def _as_json(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _make_console() -> Callable[[dict[str, Any]], bytes]:
    import structlog

    renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(2), sort_keys=False)

    def render(fields: dict[str, Any]) -> bytes:
        return (str(renderer(None, "", fields)) + "\n").encode()

    return render
