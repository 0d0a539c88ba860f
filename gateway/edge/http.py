"""The Quart app: every endpoint the gateway has, in one list.

Views are plain; what happens around them (nursery, client's leaving, sending) is in ``edge/connection.py``. An endpoint
that costs money is added with
:meth:`GatewayApp.add_exchange`: it goes through the door (``edge/door.py``) and gets the exchange.
The others are exempt from admission and answer when the line is full.

Who may see what: ``/healthz``, ``/readyz`` and the page are open; the lists of models want a key; ``/metrics`` wants a
key or a client on the same machine; the admin API (``edge/admin.py``) wants a key of its own. Without any key the
gateway listens on loopback only.

Errors have the shape of the dialect that the path belongs to: see :meth:`GatewayApp.error_document`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

import orjson
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from gateway import __version__
from gateway.core.errors import GatewayError, RequestError
from gateway.core.principal import Principal
from gateway.dialects.anthropic_voice import AnthropicVoice
from gateway.dialects.completions import CompletionsVoice
from gateway.dialects.count_tokens import CountTokensVoice
from gateway.dialects.embeddings import EmbeddingsVoice
from gateway.dialects.gemini_voice import METHODS, GeminiVoice, stream_type
from gateway.dialects.openai_chat import ChatVoice, error_document
from gateway.dialects.orchestrate import OrchestrateVoice
from gateway.dialects.responses_kept import deleted_document, document_of
from gateway.dialects.responses_voice import ResponsesVoice
from gateway.dialects.voice import Opening, Voice
from gateway.edge.admin import ADMIN_PATH
from gateway.edge.connection import RequestConnection
from gateway.edge.door import Door
from gateway.edge.endpoints import (
    ANTHROPIC_MESSAGES,
    GEMINI_GENERATE,
    Endpoint,
    Endpoints,
    ErrorDocument,
    ExchangeView,
    event_stream,
    name_of,
    split_pattern,
)
from gateway.edge.errors import error_reply
from gateway.edge.gate import Reply
from gateway.edge.head_fields import is_local, key_of
from gateway.edge.lifespan import GatewayLifespan
from gateway.edge.listing import (
    anthropic_list,
    anthropic_model,
    gemini_list,
    gemini_model,
    openai_list,
    openai_model,
)
from gateway.edge.sites import check_site
from gateway.exchange import Exchange
from gateway.instance import Gateway
from gateway.ui.pages import Page, Pages

ANTHROPIC_VERSION = "anthropic-version"  # the header by which its clients are known on paths that others use, too
GOOGLE_PATHS = "/v1beta/"
NOT_PASSED = "; a provider's own path is passed on once it is listed in provider.passthrough"


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
        self.endpoints = Endpoints()
        # Each of these has a default that cuts streams or bodies; ours stand in the configuration instead.
        self.config["RESPONSE_TIMEOUT"] = None
        self.config["BODY_TIMEOUT"] = gateway.config.server.body_timeout_s
        self.config["MAX_CONTENT_LENGTH"] = gateway.config.server.max_body_bytes
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        self.url_map.merge_slashes = False  # //v1 would be matched, with a redirect, past the door's exact paths
        _add_exchange_endpoints(self)
        _add_read_endpoints(self, gateway)
        _add_lists(self, gateway)
        _add_kept_responses(self, gateway)
        _add_pages(self, gateway)
        _add_admin(self)
        self.register_error_handler(Exception, partial(_on_error, self))
        self.door = Door(gateway, self.endpoints)

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """The ASGI app. A request goes to its connection at once: what Quart does before is a choice by type."""
        if scope["type"] == "http":
            return self.asgi_http_class(self, scope)(receive, send)
        return super().__call__(scope, receive, send)

    def add_exchange(
        self,
        path: str,
        view: ExchangeView,
        voice: Callable[[Opening], Voice],
        *,
        stream_type: Callable[[Opening], bytes] = event_stream,
        takes_google_key: bool = False,
    ) -> None:
        """Add a ``POST`` endpoint that goes through the door; Quart's routes know it as any other.

        Args:
            path: Exact, or a pattern with one ``{…}``; see :mod:`gateway.edge.endpoints`.
            voice: Makes the dialect of one request from its head.
            stream_type: The content type of a request's stream, where it is not always ``text/event-stream``.
            takes_google_key: See :class:`Endpoint`.
        """
        sample = path.replace("{model}", "model")
        endpoint = Endpoint(
            name=name_of(path),
            view=view,
            voice=voice,
            error=voice(Opening(path=sample)).error,
            stream_type=stream_type,
            takes_google_key=takes_google_key,
        )
        self.endpoints.add(path, endpoint)
        if "{" in path:
            before, after = split_pattern(path)
            path = f"{before}<path:rest>{after}"
        self.add_url_rule(path, f"POST {path}", cast("Any", view), methods=["POST"])

    def error_document(self) -> ErrorDocument:
        """The error document for the request that Quart is at: of its endpoint, or of whose path or header it is."""
        endpoint = self.endpoints.find(request.path)
        if endpoint is None and request.path.startswith(GOOGLE_PATHS):
            endpoint = self.endpoints.find(GEMINI_GENERATE.replace("{model}", "model"))
        elif endpoint is None and ANTHROPIC_VERSION in request.headers:
            endpoint = self.endpoints.find(ANTHROPIC_MESSAGES)
        return error_document if endpoint is None else endpoint.error


def _add_exchange_endpoints(app: GatewayApp) -> None:
    answer = Exchange.answer
    app.add_exchange("/v1/chat/completions", answer, lambda _: ChatVoice())
    app.add_exchange("/v1/orchestrate", answer, lambda _: OrchestrateVoice())
    app.add_exchange("/v1/responses", answer, lambda _: ResponsesVoice())
    app.add_exchange("/v1/completions", answer, lambda _: CompletionsVoice())
    app.add_exchange("/v1/embeddings", answer, lambda _: EmbeddingsVoice())
    app.add_exchange(ANTHROPIC_MESSAGES, answer, AnthropicVoice)
    app.add_exchange(f"{ANTHROPIC_MESSAGES}/count_tokens", answer, CountTokensVoice)
    for version in ("v1beta", "v1"):
        for method in METHODS:
            path = f"/{version}/models/{{model}}:{method}"
            app.add_exchange(path, answer, GeminiVoice, stream_type=stream_type, takes_google_key=True)


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
            _identify(gateway, "/metrics")
        body, content_type = gateway.metrics.expose(await gateway.peer_snapshots())
        return Response(body, content_type=content_type)


def _add_lists(app: GatewayApp, gateway: Gateway) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        rows = gateway.routes.listing(_identify(gateway))
        if ANTHROPIC_VERSION in request.headers:
            return _json(anthropic_list(rows, gateway.started_at))
        return _json(openai_list(rows, gateway.started_at))

    @app.get("/v1/models/<path:name>")
    async def model(name: str) -> Response:
        gateway.routes.resolve(name, _identify(gateway))
        if ANTHROPIC_VERSION in request.headers:
            return _json(anthropic_model(name, gateway.started_at))
        return _json(openai_model(name, "sluice", gateway.started_at))

    @app.get("/v1beta/models")
    async def gemini_models() -> Response:
        return _json(gemini_list(gateway.routes.listing(_identify(gateway))))

    @app.get("/v1beta/models/<path:name>")
    async def gemini_one(name: str) -> Response:
        gateway.routes.resolve(name, _identify(gateway))
        return _json(gemini_model(name))


def _add_kept_responses(app: GatewayApp, gateway: Gateway) -> None:
    @app.get("/v1/responses/<id>")
    async def retrieve(id: str) -> Response:
        data = await gateway.memory.find_response(_tenant(gateway), id)
        if data is None:
            raise _no_response(id)
        return Response(document_of(data), content_type="application/json")

    @app.delete("/v1/responses/<id>")
    async def delete(id: str) -> Response:
        if not await gateway.memory.delete_response(_tenant(gateway), id):
            raise _no_response(id)
        return _json(deleted_document(id))


def _no_response(id: str) -> RequestError:
    return RequestError("not_found", 404, f"Response with id '{id[:80]}' not found.", param="response_id")


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
            needs_key=not gateway.directory.is_open,
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


def _add_admin(app: GatewayApp) -> None:
    async def admin(rest: str = "") -> Response:
        body = cast("bytes", await request.get_data())
        return _response(await app.door.admin.answer(cast("dict[str, Any]", request.scope), body))

    methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
    for path in (ADMIN_PATH, f"{ADMIN_PATH}/", f"{ADMIN_PATH}/<path:rest>"):
        app.add_url_rule(path, f"admin {path}", admin, methods=methods)


def _identify(gateway: Gateway, endpoint: str = "") -> Principal:
    """Who asks. ``endpoint`` is for keys that are bound to some; the lists of models are open to every key."""
    key = _header("X-Api-Key")
    if request.path.startswith(GOOGLE_PATHS):
        key = key_of(dict(request.scope["headers"]), request.scope["query_string"])
    client = request.scope.get("client")
    is_open = gateway.directory.is_open
    principal = gateway.directory.identify(
        _header("Authorization"),
        key,
        local=is_local(client),
        client=client[0] if client else None,
        endpoint=endpoint,
    )
    if is_open:
        check_site(_header("Host"), _header("Origin"))
    return principal


def _tenant(gateway: Gateway) -> str:
    principal = _identify(gateway, "/v1/responses")
    return principal.key_id or principal.name


def _header(name: str) -> bytes | None:
    value = request.headers.get(name)
    return None if value is None else value.encode("latin-1")


async def _on_error(app: GatewayApp, error: Exception) -> Response:
    """Whatever a view raised, in the client's dialect; what is not ours to explain is a bare 500 and a log line."""
    document = app.error_document()
    if isinstance(error, HTTPException):
        status = error.code or 500
        code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(status, "invalid_request")
        hint = NOT_PASSED if status == 404 and request.path.startswith("/v1/") else ""
        known = RequestError(code, status, f"{request.method} {request.path}: {error.name.lower()}{hint}")
        response = _response(error_reply(known, document=document))
        allowed = getattr(error, "valid_methods", None)
        if allowed:
            response.headers["allow"] = ", ".join(sorted(allowed))
        return response
    if isinstance(error, GatewayError):
        return _response(error_reply(error, document=document))
    app.gateway.log.say("error", "internal_error", path=request.path, error=repr(error))
    failed = GatewayError("internal_error", 500, "the gateway failed; its log says why")
    return _response(error_reply(failed, document=document))


def _response(reply: Reply) -> Response:
    response = Response(reply.body, status=reply.status)
    for name, value in reply.headers:
        response.headers[name.decode()] = value.decode()
    return response


def _page(page: Page) -> Response:
    return _response(Reply(page.status, page.headers, page.body))


def _json(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status=status, headers=headers, content_type="application/json")
