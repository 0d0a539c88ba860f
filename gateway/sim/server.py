"""The simulated provider: an HTTP/1.1 server that answers like OpenAI, Anthropic and Google, faults included.

OpenAI: ``POST /v1/chat/completions`` (one document, or server-sent events) · ``/v1/responses`` · ``/v1/embeddings`` ·
``/v1/moderations`` · ``/v1/rerank`` · ``/v1/files`` · ``/v1/audio/speech`` · ``GET /v1/models``. Anthropic: ``POST
/v1/messages`` · ``/v1/messages/count_tokens``. Google: ``POST /v1beta/models/{model}:generateContent`` ·
``streamGenerateContent`` · ``countTokens`` · ``embedContent`` · ``batchEmbedContents``. The counters: ``GET /stats`` ·
``GET /stats/requests`` (the last requests one by one) · ``POST /stats/reset``. The settings and their grammar are in
:mod:`gateway.sim.behaviour`; the same prompt gets the same text in every dialect.

It stands apart from the rest of the gateway: a raw Trio server with a C parser, because what measures has to cost much
less than what is measured, and what tests must not share defects with what is tested.
"""

from __future__ import annotations

import errno
import hmac
import random
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qs

import orjson
import trio

from gateway.sim import gemini_wire
from gateway.sim.behaviour import Behaviour
from gateway.sim.connection import Connection, Request
from gateway.sim.errors import ANTHROPIC, GEMINI, ApiError
from gateway.sim.grammar import SettingError, from_header, from_model
from gateway.sim.making import Made, make
from gateway.sim.playing import Player
from gateway.sim.routes import LOOK_UPS, Route, dialect_of, find_route
from gateway.sim.stats import Counters, Served, Statistics, Tally
from gateway.sim.wire import anthropic_models, identify, model_entry, models_document

BACKLOG = 4_096
_FLAPS_KEPT = 10_000
_OUT_OF_FILES_S = 0.05
_PLAIN = Behaviour()
_PASSING = (errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM)  # of one connection, not of the listener


class Simulator:
    """A provider without a model.

    Args:
        behaviour: What a request gets that asks for nothing else.
        seed: Makes ids and drawn times repeatable.
        api_key: Key that has to be sent, in the dialect's way; None accepts everybody.
        send_buffer_bytes: ``SO_SNDBUF`` of connections; a small one makes backpressure show early.
        max_body_bytes: Larger request bodies get a 413.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        seed: int = 0,
        api_key: str | None = None,
        send_buffer_bytes: int | None = None,
        max_body_bytes: int = 67_108_864,
    ) -> None:
        self._behaviour = behaviour or Behaviour()
        self._rng = random.Random(seed)
        self._api_key = api_key
        self._send_buffer_bytes = send_buffer_bytes
        self._max_body_bytes = max_body_bytes
        self._counters = Counters()
        self._flaps: Counter[tuple[str, str]] = Counter()
        self._of_models: dict[str, Behaviour] = {}
        self._turn = 0

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; ``task_status`` gets the address once connections are accepted.

        Raises:
            OSError: The address cannot be bound.

        Cancellation: open connections are closed at once, their requests count as cancelled.
        """
        with await _listen(host, port) as listener:
            async with trio.open_nursery() as nursery:
                task_status.started(listener.getsockname()[:2])
                while True:
                    sock = await _accept(listener)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if self._send_buffer_bytes is not None:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
                    connection = Connection(sock, self._counters, max_body_bytes=self._max_body_bytes)
                    nursery.start_soon(connection.run, self._answer)

    def behave(self, behaviour: Behaviour | None, *, model: str | None = None) -> None:
        """Change the behaviour from the next request on; what is being answered goes on as it began.

        Args:
            behaviour: The new one, on which a model's name and the header still have their say. None takes a model's
                own back.
            model: Only of requests for exactly this name; None: of all that have none of their own.
        """
        if model is None:
            self._behaviour = behaviour or Behaviour()
        elif behaviour is None:
            self._of_models.pop(model, None)
        else:
            self._of_models[model] = behaviour

    def served(self) -> tuple[Served, ...]:
        """The last requests that are over, in the order of their ends; at most ``stats.KEPT``."""
        return tuple(tally.served() for tally in self._counters.over)

    def statistics(self) -> Statistics:
        """What has been done since the start or the last :meth:`reset`."""
        return self._counters.snapshot()

    async def until(self, holds: Callable[[Statistics], bool]) -> Statistics:
        """Wait until the statistics satisfy ``holds``, e.g. ``lambda now: now.active == 0``; for tests.

        Returns:
            The statistics that did. Bound it with a deadline of your own.
        """
        return await self._counters.until(holds)

    def reset(self) -> None:
        """Begin counting and flapping anew; what is active now counts as started."""
        self._counters.reset()
        self._flaps.clear()
        self._turn = 0

    async def _answer(self, connection: Connection, request: Request) -> bool:
        request_id = identify(self._rng)
        tally = Tally(self._counters, request_id)
        try:
            route = find_route(request.method, request.path, request.query, request.headers)
            self._check_key(request)
            if route.kind in LOOK_UPS:
                plain = Player(connection, tally, _PLAIN, route.dialect, request_id=request_id, keep=request.keep)
                return await plain.document(self._look_up(route), 0.0)
            made = self._prepare(route, request, request_id)
        except ApiError as error:
            self._counters.refuse(error.reason)
            dialect = dialect_of(request.path, request.headers)
            plain = Player(connection, tally, _PLAIN, dialect, request_id=request_id, keep=request.keep)
            return await plain.refuse(error)
        tally.asked_as = request.headers.get("x-request-id", "")
        tally.dialect, tally.path, tally.model = route.dialect.name, route.path, made.model
        tally.fault, tally.prompt_tokens = made.behaviour.fault, made.prompt_tokens
        player = Player(connection, tally, made.behaviour, route.dialect, request_id=request_id, keep=request.keep)
        ttft_s = made.behaviour.draw_ttft_s(self._rng, self._turn)
        self._turn += 1
        with self._counters.request(tally):
            if isinstance(made.telling, bytes):
                return await player.document(made.telling, ttft_s)
            telling = made.telling
            if telling.stream:
                return await player.stream(telling, ttft_s)
            return await player.document(telling.document(), ttft_s, tokens=telling.tokens, per_choice=telling.each)

    def _prepare(self, route: Route, request: Request, request_id: str) -> Made:
        """Decide what to answer, and how.

        Raises:
            ApiError: The request is at fault; or, with 500, this code is.
        """
        try:
            header = request.headers.get("x-sim", "")
            return make(route, request, lambda model: self._settle(model, header), request_id)
        except ApiError:
            raise
        except Exception as error:
            self._counters.errors += 1
            traceback.print_exc()
            raise ApiError(500, "The simulator has a defect; see its output.", kind="server_error") from error

    def _settle(self, model: str, header: str) -> Behaviour:
        """The behaviour for one request, flapping included."""
        try:
            base = self._of_models.get(model, self._behaviour) if self._of_models else self._behaviour
            behaviour = from_header(header, from_model(model, base))
        except SettingError as error:
            param = "x-sim" if header else "model"
            raise ApiError(400, f"Simulator setting {error}.", param=param, code="invalid_setting") from error
        if not behaviour.flap:
            return behaviour
        if len(self._flaps) >= _FLAPS_KEPT:
            self._flaps.clear()
        turn = self._flaps[model, header]
        self._flaps[model, header] += 1
        return behaviour.failing() if turn // behaviour.flap % 2 == 0 else behaviour.working()

    def _check_key(self, request: Request) -> None:
        if self._api_key is None or request.path.startswith("/stats"):
            return
        key = _key_of(request)
        if not key:
            raise ApiError(401, "No API key was sent; send it as 'Authorization: Bearer KEY'.", reason="key")
        if not hmac.compare_digest(key.encode(), self._api_key.encode()):
            problem = "The API key is not the one this simulator was given."
            raise ApiError(401, problem, code="invalid_api_key", reason="key")

    def _look_up(self, route: Route) -> bytes:
        """What the paths beside the answers tell."""
        now_s = int(time.time())
        if route.kind == "models":
            if route.dialect is GEMINI:
                return gemini_wire.models(route.model or None)
            if route.dialect is ANTHROPIC:
                return anthropic_models(route.model or None)
            return orjson.dumps(model_entry(route.model, now_s)) if route.model else models_document(now_s)
        if route.kind == "served":
            return orjson.dumps([served.as_dict() for served in self.served()])
        if route.kind == "reset":
            self.reset()
        return orjson.dumps(self.statistics().as_dict())


def _key_of(request: Request) -> str:
    """The key, in any dialect's place for it."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    for name in ("x-api-key", "x-goog-api-key", "api-key"):
        if name in request.headers:
            return request.headers[name]
    return parse_qs(request.query).get("key", [""])[0]


async def _listen(host: str, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM
    found = await trio.socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    return listener


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                await trio.sleep(_OUT_OF_FILES_S)
            elif error.errno not in _PASSING:
                raise
        else:
            sock.setblocking(False)
            return sock
