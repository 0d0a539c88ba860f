"""A server process for the tests of signals and workers.

``python -m tests.component.server_process WORKERS FILE`` prints its URL. ``/stream`` ends once FILE exists.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import Any

import trio

from gateway.config import Server
from gateway.edge.serve import run_workers, serve, until_signal
from gateway.edge.sockets import bind, url_of
from tests.component.server_peer import app_of, say

Message = dict[str, Any]
CONFIG = Server(bind="127.0.0.1:0", drain_timeout_s=20.0)


class App:
    """Readiness, the process's number, and a stream."""

    def __init__(self) -> None:
        self.draining = False

    def drain(self) -> None:
        self.draining = True

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] == "/pid":
            await say(send, b"%d" % os.getpid())
        elif scope["path"] == "/readyz":
            await say(send, b"", status=503 if self.draining else 200)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            while not await trio.Path(sys.argv[2]).exists():
                await trio.sleep(0.01)  # another process makes it
            await send({"type": "http.response.body", "body": b"last"})


async def main(sockets: list[socket.socket], index: int, count: int) -> None:
    shutdown = trio.Event()
    app = App()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_signal, shutdown, nursery.cancel_scope)
        await serve(app_of(app), CONFIG, sockets=sockets, shutdown=shutdown, on_drain=app.drain)
        nursery.cancel_scope.cancel()


def work(sockets: list[socket.socket], index: int, count: int) -> None:
    trio.run(main, sockets, index, count)


if __name__ == "__main__":
    workers = int(sys.argv[1])
    if workers == 1:
        listening = bind(CONFIG)
        print(url_of(listening[0], tls=False), flush=True)
        trio.run(partial(main, listening, 0, 1))
    else:
        config = Server(bind="127.0.0.1:0", drain_timeout_s=20.0, workers=workers)
        sys.exit(run_workers(config, work, listening=lambda urls: print(urls[0], flush=True)))
