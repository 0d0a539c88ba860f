"""The Quart app: every endpoint the gateway has, in one list.

Views are plain; what happens around them (nursery, client's leaving, sending) is in ``edge/connection.py``. An endpoint
that costs money is made with :func:`exchange_view`: it goes through the door (``edge/door.py``) and gets the exchange.
The others are exempt from admission and answer when the line is full.

Who may see what: ``/healthz``, ``/readyz`` and the page are open; ``/v1/models`` wants a key; ``/metrics`` wants a key
or a client on the same machine. Without any key the gateway listens on loopback only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import orjson
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from gateway import __version__
from gateway.core.errors import GatewayError, RequestError
from gateway.core.principal import Principal
from gateway.dialects.openai_chat import ChatVoice
from gateway.dialects.orchestrate import OrchestrateVoice
from gateway.dialects.voice import Voice
from gateway.edge.connection import ExchangeView, RequestConnection
from gateway.edge.door import Door, is_local
from gateway.edge.errors import error_reply
from gateway.edge.gate import Reply
from gateway.edge.lifespan import GatewayLifespan
from gateway.edge.sites import check_site
from gateway.exchange import Answer, Exchange
from gateway.instance import Gateway
from gateway.ui.pages import Page, Pages

Listen = Callable[[], Awaitable[bytes]]


class NoWebSocket:
    """No endpoint here speaks WebSocket: closed before it is accepted, which servers answer with 403."""

    def __init__(self, app: QuartTrio, scope: Any) -> None:
        pass

    async def __call__(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1008})


class GatewayApp(QuartTrio):
    """Quart with our connection class, and the endpoints of one gateway."""

    asgi_http_class = RequestConnection
    asgi_lifespan_class = GatewayLifespan  # type: ignore[assignment]
    asgi_websocket_class = NoWebSocket  # type: ignore[assignment]

    def __init__(self, gateway: Gateway) -> None:
        super().__init__("gateway", static_folder=None, template_folder=None)
        self.gateway = gateway
        self.exchange_views: dict[str, tuple[ExchangeView, Callable[[], Voice]]] = {}
        # Each of these has a default that cuts streams or bodies; ours stand in the configuration instead.
        self.config["RESPONSE_TIMEOUT"] = None
        self.config["BODY_TIMEOUT"] = gateway.config.server.body_timeout_s
        self.config["MAX_CONTENT_LENGTH"] = gateway.config.server.max_body_bytes
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        self.url_map.merge_slashes = False  # //v1 would be matched, with a redirect, past the door's exact paths
        _add_exchange_endpoints(self)
        _add_read_endpoints(self, gateway)
        _add_pages(self, gateway)
        self.register_error_handler(Exception, partial(_on_error, gateway))
        self.door = Door(gateway, frozenset(self.exchange_views))

    def add_exchange(self, path: str, view: ExchangeView, voice: Callable[[], Voice]) -> None:
        """Add a ``POST`` endpoint that goes through the door; Quart's routes know it as any other."""
        self.add_url_rule(path, view.__name__, cast("Any", view), methods=["POST"])
        self.exchange_views[path] = (view, voice)


def _add_exchange_endpoints(app: GatewayApp) -> None:
    async def chat_completions(exchange: Exchange, listen: Listen, voice: Voice) -> Answer:
        return await exchange.answer(listen, voice)

    async def orchestrate(exchange: Exchange, listen: Listen, voice: Voice) -> Answer:
        return await exchange.answer(listen, voice)

    app.add_exchange("/v1/chat/completions", chat_completions, ChatVoice)
    app.add_exchange("/v1/orchestrate", orchestrate, OrchestrateVoice)


def _add_read_endpoints(app: GatewayApp, gateway: Gateway) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "alive", "version": __version__})

    @app.get("/readyz")
    async def readyz() -> Response:
        why_not = gateway.why_not_ready()
        if why_not is None:
            return _json({"status": "ready"})
        return _json({"status": why_not}, status=503, headers={"retry-after": "1"})

    @app.get("/metrics")
    async def metrics() -> Response:
        if not is_local(request.scope.get("client")):
            _identify(gateway)
        body, content_type = gateway.metrics.expose(await gateway.peer_snapshots())
        return Response(body, content_type=content_type)

    @app.get("/v1/models")
    async def models() -> Response:
        principal = _identify(gateway)
        data = [
            {
                "id": name,
                "object": "model",
                "created": gateway.started_at,
                "owned_by": owner,
                "sluice": {"kind": kind},
            }
            for name, kind, owner in gateway.routes.listing(principal)
        ]
        return _json({"object": "list", "data": data})

    @app.get("/v1/models/<path:name>")
    async def model(name: str) -> Response:
        principal = _identify(gateway)
        gateway.routes.resolve(name, principal)
        return _json({"id": name, "object": "model", "created": gateway.started_at, "owned_by": "sluice"})


def _add_pages(app: GatewayApp, gateway: Gateway) -> None:
    pages: list[Pages] = []

    def loaded() -> Pages:
        if not pages:
            pages.append(Pages())  # read on first use: a gateway that nobody looks at does not need them
        return pages[0]

    @app.get("/")
    async def playground() -> Response:
        etag = request.headers.get("If-None-Match")
        page = loaded().playground(
            demo=gateway.demo is not None,
            version=__version__,
            needs_key=not gateway.keyring.is_open,
            users=gateway.demo.users if gateway.demo else (),
            questions=gateway.demo.questions if gateway.demo else (),
            if_none_match=etag.encode() if etag else None,
        )
        return _page(page)

    @app.get("/static/<name>")
    async def static_file(name: str) -> Response:
        page = loaded().static(name)
        if page is None:
            raise RequestError("not_found", 404, "there is no such file")
        return _page(page)

    @app.get("/demo/provider")
    async def demo_provider() -> Response:
        if gateway.demo is None:
            raise RequestError("not_found", 404, "only the demo shows its provider")
        return _json(gateway.demo.provider_statistics())


def _identify(gateway: Gateway) -> Principal:
    principal = gateway.keyring.identify(
        _header("Authorization"), _header("X-Api-Key"), local=is_local(request.scope.get("client"))
    )
    if gateway.keyring.is_open:
        check_site(_header("Host"), _header("Origin"))
    return principal


def _header(name: str) -> bytes | None:
    value = request.headers.get(name)
    return None if value is None else value.encode("latin-1")


async def _on_error(gateway: Gateway, error: Exception) -> Response:
    """Whatever a view raised, in OpenAI's shape; what is not ours to explain is a bare 500 and a log line."""
    if isinstance(error, HTTPException):
        status = error.code or 500
        code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(status, "invalid_request")
        reply = error_reply(RequestError(code, status, f"{request.method} {request.path}: {error.name.lower()}"))
        response = _response(reply)
        allowed = getattr(error, "valid_methods", None)
        if allowed:
            response.headers["allow"] = ", ".join(sorted(allowed))
        return response
    if isinstance(error, GatewayError):
        return _response(error_reply(error))
    gateway.log.say("error", "internal_error", path=request.path, error=repr(error))
    return _response(error_reply(GatewayError("internal_error", 500, "the gateway failed; its log says why")))


def _response(reply: Reply) -> Response:
    response = Response(reply.body, status=reply.status)
    for name, value in reply.headers:
        response.headers[name.decode()] = value.decode()
    return response


def _page(page: Page) -> Response:
    return _response(Reply(page.status, page.headers, page.body))


def _json(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status=status, headers=headers, content_type="application/json")
