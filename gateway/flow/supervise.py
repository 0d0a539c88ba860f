"""Background work with an owner: runs again when it fails, says so, and ends with its nursery.

A background task that raises would otherwise take the whole process with it, and one that swallows its error would stop
in silence. This does neither: the error is told, counted by whoever listens, and the task starts again after a pause
that doubles up to ``LONGEST_PAUSE_S``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0


async def supervised(
    run: Callable[[], Awaitable[None]], *, name: str, on_failure: Callable[[str, Exception], None]
) -> None:
    """Run ``run`` until it returns, again after each failure.

    Args:
        name: What to call it in ``on_failure``.
        on_failure: Told each failure; sync.

    Cancellation: passes through; nothing is restarted.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        began = trio.current_time()
        try:
            await run()
            return
        except Exception as error:
            on_failure(name, error)
        if trio.current_time() - began > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
