"""The trail of what operators changed: a row before a change is made, and how it ended once it was.

So nothing is changed without a trace: where the row cannot be written, the change is not made. A row that still says
``begun`` is of a change that was cut off (the client left, or the process died); whether it was made is for the keys to
tell. Rows are never changed afterwards, and are deleted by age alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from gateway.store.sql import Session, SqlStore

BEGUN: Final = "begun"
_COLUMNS: Final = ("id", "at_s", "who", "client", "action", "subject", "outcome")
_ADD = "INSERT INTO audit (at_s, who, client, action, subject, outcome) VALUES (?, ?, ?, ?, ?, ?) RETURNING id"
_END = "UPDATE audit SET subject = ?, outcome = ? WHERE id = ? AND outcome = ?"
_PRUNE = "DELETE FROM audit WHERE at_s < ?"
_LIST = f"SELECT {', '.join(_COLUMNS)} FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
_NEWEST = 2**62


class Audit:
    """The trail in a store.

    Args:
        now: Seconds since the epoch.
    """

    def __init__(self, sql: SqlStore, now: Callable[[], float] = time.time) -> None:
        self._sql = sql
        self._now = now

    async def begin(self, *, who: str, client: str, action: str, subject: str, keep_days: int) -> int:
        """Note a change that is about to be made, and forget rows older than ``keep_days``. Returns the row's id.

        Raises: StoreError; then the change must not be made.
        *Cancellation*: the row is there or not; no change was made.
        """
        at_s = self._now()

        def work(session: Session) -> int:
            session.run(_PRUNE, (at_s - keep_days * 86_400,))
            [(row,)] = session.rows(_ADD, (at_s, who, client, action, subject, BEGUN))
            return int(row)

        return await self._sql.write(work)

    async def end(self, row: int, *, subject: str, outcome: str) -> None:
        """Say how it ended. Raises: StoreError."""
        await self._sql.write(lambda session: session.run(_END, (subject, outcome, row, BEGUN)))

    async def list(self, *, before: int | None, limit: int) -> list[dict[str, Any]]:
        """The newest rows, from before the row of that id on. Raises: StoreError."""
        values = (before if before is not None else _NEWEST, limit)
        rows = await self._sql.read(lambda session: session.rows(_LIST, values))
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
