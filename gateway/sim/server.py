"""The simulated provider: an HTTP/1.1 server that answers like OpenAI, at the pace and with the faults it is told.

``POST /v1/chat/completions`` (one document, or server-sent events) · ``POST /v1/embeddings`` · ``GET /v1/models`` ·
``GET /stats`` · ``POST /stats/reset``. The settings and their grammar are in :mod:`gateway.sim.behaviour`.

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
from urllib.parse import unquote

import orjson
import trio

from gateway.sim.answers import answer
from gateway.sim.behaviour import Behaviour, SettingError, from_header, from_model
from gateway.sim.connection import Connection, Request
from gateway.sim.playing import Player
from gateway.sim.request import ApiError, read_chat, read_document, read_embedding, read_model
from gateway.sim.stats import Counters, Statistics
from gateway.sim.wire import Completion, embedding_document, identify, model_entry, models_document

BACKLOG = 4_096
_FLAPS_KEPT = 10_000
_OUT_OF_FILES_S = 0.05
_PASSING = (errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM)  # of one connection, not of the listener
_ANSWERS = ("/v1/chat/completions", "/v1/embeddings")


class Simulator:
    """A provider without a model.

    Args:
        behaviour: What a request gets that asks for nothing else.
        seed: Makes ids and drawn times repeatable.
        api_key: Key that has to be sent as bearer token; None accepts everybody.
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

    async def _answer(self, connection: Connection, request: Request) -> bool:
        request_id = identify(self._rng)
        plain = Player(connection, self._counters, Behaviour(), request_id=request_id, keep=request.keep)
        try:
            self._check_key(request)
            if request.method != "POST" or request.path not in _ANSWERS:
                return await plain.document(self._look_up(request), 0.0)
            behaviour, answering = self._prepare(request, request_id)
        except ApiError as error:
            self._counters.refused += 1
            return await plain.refuse(error)
        player = Player(connection, self._counters, behaviour, request_id=request_id, keep=request.keep)
        ttft_s = behaviour.draw_ttft_s(self._rng)
        with self._counters.request(behaviour.fault):
            if isinstance(answering, bytes):
                return await player.document(answering, ttft_s)
            if answering.request.stream:
                return await player.stream(answering, ttft_s)
            tokens, each = answering.tokens, answering.answer.tokens
            return await player.document(answering.document(), ttft_s, tokens=tokens, per_choice=each)

    def _prepare(self, request: Request, request_id: str) -> tuple[Behaviour, Completion | bytes]:
        """Decide what to answer, and how: a completion, or the document with embeddings.

        Raises:
            ApiError: The request is at fault; or, with 500, this code is.
        """
        try:
            body = read_document(request.body)
            behaviour = self._settle(read_model(body), request.headers.get("x-sim", ""))
            if request.path == "/v1/embeddings":
                return behaviour, embedding_document(read_embedding(body))
            chat = read_chat(body)
            said = answer(chat, behaviour)
            return behaviour, Completion(request=chat, answer=said, id=request_id, created_s=int(time.time()))
        except ApiError:
            raise
        except Exception as error:
            self._counters.errors += 1
            traceback.print_exc()
            raise ApiError(500, "The simulator has a defect; see its output.", kind="server_error") from error

    def _settle(self, model: str, header: str) -> Behaviour:
        """The behaviour for one request, flapping included."""
        try:
            behaviour = from_header(header, from_model(model, self._behaviour))
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
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "No API key was sent; send it as 'Authorization: Bearer KEY'.")
        if not hmac.compare_digest(key.strip().encode(), self._api_key.encode()):
            raise ApiError(401, "The API key is not the one this simulator was given.", code="invalid_api_key")

    def _look_up(self, request: Request) -> bytes:
        """What the paths beside the answers tell.

        Raises:
            ApiError: There is no such path, or not with this method.
        """
        paths = {"/stats": "GET", "/stats/reset": "POST", "/v1/models": "GET", **dict.fromkeys(_ANSWERS, "POST")}
        model = request.path.removeprefix("/v1/models/")
        method = "GET" if model not in (request.path, "") else paths.get(request.path)
        if method is None:
            raise ApiError(404, f"There is no path {request.path}; known are {', '.join(paths)}.", code="unknown_url")
        if method != request.method:
            raise ApiError(405, f"{request.path} takes {method}, not {request.method}.", headers=(("allow", method),))
        if request.path == "/v1/models":
            return models_document(int(time.time()))
        if not request.path.startswith("/stats"):
            return orjson.dumps(model_entry(unquote(model), int(time.time())))
        if request.path == "/stats/reset":
            self.reset()
        return orjson.dumps(self.statistics().as_dict())


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
