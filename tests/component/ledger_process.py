"""A process that writes entries into a ledger and says which, until it is killed: ``URL FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio
from ledgers import record, running

EVERY_S = 0.005


async def main(url: str, folder: Path) -> None:
    async with running(url, folder, flush_s=0.5) as (ledger, _):
        number = 0
        while True:
            ledger.write(record(number))
            print(number, time.time(), flush=True)
            number += 1
            await trio.sleep(EVERY_S)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
