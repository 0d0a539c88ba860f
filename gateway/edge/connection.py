"""One request as Quart's ASGI connection: its nursery, the client's leaving, and the bytes out.

Quart's view returns before a body is sent, so a nursery opened in a view is too short for a stream, and one in a
response generator is illegal. It belongs here, into the class that Quart lets us set (``asgi_http_class``).

* A gated request has an exchange (see ``edge/door.py``). Its view gets the exchange and gives back an ``Answer``; a
  stream's reader runs in a nursery of :meth:`RequestConnection._send_stream`, next to the writer, and both end as one.
* Who notices that the client left: our own server cancels the app itself and says so by the ASGI extension
  ``sluice.cancel``. Under any other server a watcher does, in :meth:`RequestConnection._run_watched`; that costs a
  nursery and a task per request, and the body is gathered by it.
* A request that is passed through has a passage instead of an exchange (see ``passthrough.py``); it runs the same way,
  but its body is handed on as it comes.
* A gated request skips what it does not use of Quart: request object, session, signals, context variables. Its path is
  matched by Quart's own routes (once, when the app is made); everything else goes Quart's ordinary way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import trio
from quart_trio.asgi import TrioASGIHTTPConnection

from gateway.core.errors import GatewayError, RequestError, StreamBroken
from gateway.dialects.field_names import in_a_header
from gateway.dialects.voice import Opening
from gateway.edge.bodies import GatheredBody, Message, PassedBody, Receive, next_message, read_body
from gateway.edge.door import ENDPOINT_KEY, OPENING_KEY, STATE_KEY
from gateway.edge.endpoints import EVENT_STREAM, Endpoint, ErrorDocument
from gateway.edge.errors import Headers, error_reply
from gateway.edge.gate import Reply
from gateway.edge.http1_head import Refusal
from gateway.exchange import Exchange
from gateway.flow.groups import unwrapped
from gateway.flow.relay import ClientStalled, Outlet
from gateway.passthrough import Passage

if TYPE_CHECKING:
    from gateway.edge.http import GatewayApp
    from gateway.edge.http1_turn import Turn

CANCELS = "sluice.cancel"
MAX_DROPPED_CHARS = 1_000  # of the field names that the provider has no counterpart for
JSON_HEADER = (b"content-type", b"application/json")
NOT_COLLECTED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]  # nginx must not do what we do not
STREAM_HEADERS = [(b"content-type", EVENT_STREAM), *NOT_COLLECTED]

Send = Callable[[Message], Awaitable[None]]


class RequestConnection(TrioASGIHTTPConnection):
    """Quart's connection class for this app; see the module."""

    app: GatewayApp
    _turn: Turn | None = None  # our own server's shorter ways to the client

    async def __call__(self, receive: Any, send: Any) -> None:
        scope = cast("dict[str, Any]", self.scope)
        # The router would ignore the first slash; the door, which goes before it, does not.
        if scope["path"].startswith("//"):
            await _send_reply(send, error_reply(RequestError("not_found", 404, "no path here begins with two slashes")))
            return
        why: dict[str, Any] | None = (scope.get("extensions") or {}).get(CANCELS)
        if why is None and STATE_KEY not in scope.setdefault("state", {}):
            refusal = self.app.door.knock(scope)  # another server did not ask
            if refusal is not None:
                await _send_reply(send, refusal)
                return
        entered: Exchange | Passage | None = scope["state"].get(STATE_KEY)
        if entered is None:
            await super().__call__(receive, send)
            return
        with entered:
            if why is not None:
                why["on_cancel"] = entered.hang_up
                self._turn = why.get("turn")
                try:
                    await self._run(entered, scope, receive, send)
                finally:
                    _note_why(entered, why)
            else:
                await self._run_watched(entered, scope, receive, send)

    def _run(self, entered: Exchange | Passage, scope: dict[str, Any], receive: Receive, send: Send) -> Awaitable[None]:
        if isinstance(entered, Passage):
            return self._run_passage(entered, scope, receive, send)
        state = scope["state"]
        return self._run_exchange(entered, state[ENDPOINT_KEY], state[OPENING_KEY], receive, send)

    async def _run_exchange(
        self, exchange: Exchange, endpoint: Endpoint, opening: Opening, receive: Receive, send: Send
    ) -> None:
        """The story of a gated request, inside a scope that the client's leaving cancels."""

        async def listen() -> bytes:
            body = self._turn.take_whole() if self._turn is not None else None
            if body is not None:
                return body
            settings = self.app.gateway.config.server
            return await read_body(receive, settings.max_body_bytes, settings.body_timeout_s)

        try:
            answer = await endpoint.view(exchange, listen, endpoint.voice(opening))
        except GatewayError as error:
            await self._reply(send, _error_reply(exchange, error, endpoint.error))
            return
        exchange.record.status = 200
        streamed = answer.body is None or answer.events
        kind = _stream_headers(endpoint, opening) if streamed else [JSON_HEADER]
        if answer.body is not None and self._turn is not None:
            lines = exchange.account.header_lines(exchange.record)
            await self._turn.reply(Reply(200, kind + _own_headers(exchange), answer.body, lines))
        elif answer.body is not None:
            await _send_reply(send, Reply(200, kind + _answer_headers(exchange), answer.body))
        else:
            assert answer.run is not None
            await self._send_stream(answer.run, 200, kind + _answer_headers(exchange), send)

    async def _run_passage(self, passage: Passage, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """The same for what is passed through; its body is handed on as it comes."""

        async def part() -> tuple[bytes, bool]:
            message = await next_message(receive)
            return cast("bytes", message.get("body", b"")), bool(message.get("more_body", False))

        try:
            answer = await passage.answer(part)
        except GatewayError as error:
            await self._reply(send, _error_reply(passage, error, self.app.door.words(scope)))
            return
        passage.record.status = answer.status
        headers = [*answer.headers, *_answer_headers(passage)]
        if answer.run is not None:
            await self._send_stream(answer.run, answer.status, headers, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _send_stream(
        self, run: Callable[[Outlet], Awaitable[None]], status: int, headers: Headers, send: Send
    ) -> None:
        """Reader and writer of one stream, and the channel between them."""
        start = {"type": "http.response.start", "status": status, "headers": headers}
        # Our own server drops a client that makes no progress; the reader's limit stands behind that one.
        stall_s = self.app.gateway.config.server.client_stall_s
        offer = None if self._turn is None else self._turn.offer
        outlet = Outlet(offer, client_stall_s=stall_s if offer is None else 4 * stall_s)

        async def write(data: bytes, more: bool) -> None:
            if data or not more or offer is not None:
                await send({"type": "http.response.body", "body": data, "more_body": more})

        # A stalled client is dropped, and one whose answer cannot say that it broke off: no last chunk is sent, so that
        # nobody takes what it got for a whole answer.
        with contextlib.suppress(ClientStalled, StreamBroken), unwrapped():
            async with trio.open_nursery() as nursery:
                # Before anything that may wait: what the answer holds is closed by this task, and by nobody else.
                nursery.start_soon(run, outlet)
                await send(start)
                await outlet.write_to(write)

    async def _reply(self, send: Send, reply: Reply) -> None:
        """Answer with a whole document."""
        if self._turn is not None:
            await self._turn.reply(reply)
        else:
            await _send_reply(send, reply)

    async def _run_watched(
        self,
        entered: Exchange | Passage,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        """The same under a server that only tells of the client's leaving by a message."""
        settings = self.app.gateway.config.server
        body: GatheredBody | PassedBody
        if isinstance(entered, Passage):
            body = PassedBody(settings.max_upload_bytes, settings.body_timeout_s)
        else:
            body = GatheredBody(settings.max_body_bytes, settings.body_timeout_s)
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body.gather_then_watch, receive, entered.hang_up, nursery.cancel_scope)
                await self._run(entered, scope, body.receive, send)
                nursery.cancel_scope.cancel()


def _note_why(exchange: Exchange | Passage, why: dict[str, Any]) -> None:
    """Record what only the server knows: it answered in our stead, and no client left; or it dropped the client."""
    refusal: Refusal | None = why.get("refusal")
    if refusal is not None:
        exchange.fail(RequestError(refusal.code, refusal.status, refusal.message))
        exchange.record.status = refusal.status
    elif why.get("stalled"):
        exchange.record.code = "client_stalled"


def _error_reply(exchange: Exchange | Passage, error: GatewayError, document: ErrorDocument) -> Reply:
    """What the client is told of an error; noted in the record, too."""
    exchange.fail(error)
    exchange.record.status = error.http_status
    reply = error_reply(error, request_id=exchange.record.request_id, document=document)
    reply.headers.extend(_target_headers(exchange))
    return reply


async def _send_reply(send: Send, reply: Reply) -> None:
    headers: Headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _stream_headers(endpoint: Endpoint, opening: Opening) -> Headers:
    kind = endpoint.stream_type(opening)
    return STREAM_HEADERS if kind is EVENT_STREAM else [(b"content-type", kind), *NOT_COLLECTED]


def _answer_headers(exchange: Exchange | Passage) -> Headers:
    return _own_headers(exchange) + exchange.account.headers(exchange.record)


def _own_headers(exchange: Exchange | Passage) -> Headers:
    """All but those of its account."""
    record = exchange.record
    return [
        (b"x-request-id", record.request_id.encode()),
        (b"x-sluice-queue-ms", b"%d" % round(record.queue_s * 1000)),
        *_target_headers(exchange),
    ]


def _target_headers(exchange: Exchange | Passage) -> Headers:
    record = exchange.record
    if not record.attempts:
        return []
    headers = [(b"x-sluice-target", _as_value(record.target)), (b"x-sluice-attempts", b"%d" % len(record.attempts))]
    if record.dropped:
        headers.append((b"x-sluice-dropped", _as_value(in_a_header(record.dropped, MAX_DROPPED_CHARS))))
    return headers


def _as_value(text: str) -> bytes:
    """Text as a header value; what a header cannot hold, such as a line break in a client's model name, as ``%0A``."""
    return (text if text.isascii() and text.isprintable() else quote(text, safe="/:@ ")).encode()
