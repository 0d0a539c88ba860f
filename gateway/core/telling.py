"""What may be said of an error in the log: never what a client or a provider wrote.

Our own errors and the system's say no more than they have to; of a wrong field only its place is told, for what stands
there may be of the prompt. An error that nobody foresaw may quote whatever it stumbled over, so of those only the kind
is told, and where they came from.
"""

from __future__ import annotations

import traceback
from typing import Final

from gateway.core.errors import RequestError

MAX_PATH_CHARS: Final = 200  # of a wrong field's place
_LONGEST: Final = 5  # links of a chain of causes


def chain_of(error: BaseException) -> str:
    """An error and its causes on one line."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _LONGEST:
        parts.append(_said(cause))
        cause = cause.__cause__
    return " ← ".join(parts)


def trace_of(error: BaseException) -> str:
    """Where it came from, with all that led to it: as Python prints it, but for what foreign errors say."""
    lines: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        lines += [trace_of(before), "", "which led to:", ""]
    lines += [line.rstrip("\n") for line in traceback.format_tb(error.__traceback__)]
    lines.append(_said(error))
    if isinstance(error, BaseExceptionGroup):
        for number, inner in enumerate(error.exceptions, 1):
            lines += [f"  {number}: {line}" for line in trace_of(inner).split("\n")]
    return "\n".join(lines)


def _said(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, RequestError) and error.param:
        return f"{kind.__name__}: at {error.param[:MAX_PATH_CHARS]}"
    if isinstance(error, OSError) or kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return f"{kind.__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{kind.__name__} in {frames[0].name}, {frames[0].filename}:{frames[0].lineno}" if frames else kind.__name__
