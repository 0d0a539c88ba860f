"""The ASGI lifespan: what the gateway owns for as long as it serves."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.edge.http import GatewayApp


class GatewayLifespan:
    """Enters the gateway at start-up and leaves it at shutdown, under any ASGI server."""

    def __init__(self, app: GatewayApp, scope: Any) -> None:
        self.app = app

    async def __call__(self, receive: Any, send: Any) -> None:
        await receive()  # lifespan.startup
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.app.gateway.running())
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})
