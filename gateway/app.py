"""The composition root: a configuration becomes a gateway that serves.

``app`` is the ASGI app for ``hypercorn -k trio gateway.app:app``: it reads the configuration when the server starts it,
not when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from gateway.config import Config, ConfigFaults, Source
from gateway.edge.http import GatewayApp
from gateway.edge.run import run
from gateway.instance import Gateway

__all__ = ["Gateway", "app", "make_app", "serve"]


def make_app(gateway: Gateway) -> GatewayApp:
    """The ASGI app of a gateway."""
    return GatewayApp(gateway)


def serve(config: Config, source: Source | None = None) -> int:
    """Run the gateway until SIGTERM or Ctrl+C; the exit code.

    Args:
        source: Where ``config`` was read, to be read again on SIGHUP and when it changes.
    """
    return run(config, source)


class _LazyApp:
    """An ASGI app that becomes the configured gateway when a server starts it."""

    def __init__(self) -> None:
        self._app: GatewayApp | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            try:
                self._app = make_app(_discover(os.environ.get("SLUICE_CONFIG")))
            except Exception as error:
                if scope["type"] != "lifespan":
                    raise
                # Raised, it would count as "this app has no lifespan", and the server would go on without a gateway.
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        await self._app(scope, receive, send)


def _discover(file: str | None) -> Gateway:
    """A gateway for the configuration as ``sluice serve`` finds it; it is read again when its file changes."""
    source = Source(path=Path(file) if file else Path("sluice.toml") if Path("sluice.toml").exists() else None)
    try:
        config = source.read(os.environ)
    except ConfigFaults as faults:
        with contextlib.suppress(OSError):
            sys.stderr.write("".join(f"{fault}\n" for fault in faults.faults))
        raise
    if config is None:
        raise RuntimeError(
            "nothing to serve: no sluice.toml here, no SLUICE_CONFIG, no provider key in the environment"
        )
    return Gateway(config, source=source)


app = _LazyApp()
