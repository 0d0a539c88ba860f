"""A stand-in for the gateway behind the playground page: every ending a request can have, on demand.

The page is tested against this and against the real demo. The stand-in exists for what the demo cannot be told to do:
break off in the middle of a character, answer with markup, send an event of a later version. The model's name says what
happens. Real sockets and threads of the standard library; the page's own files come from ``gateway.ui``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, field

from gateway.ui.pages import Pages

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
ASSISTANTS = ("support", "endless", "errs", "hangs", MARKUP)
MODELS = ("plain", "tools", "busy", "cut", "reset", "garbled", "refused")
GOOD_KEY = "sk-good"


@define
class Counters:
    """What ``/demo/provider`` says."""

    started: int = 0
    active: int = 0
    finished: int = 0
    cancelled: int = 0
    tokens_sent: int = 0
    peak_active: int = 0


@define
class StandIn:
    """The server; ``asked`` holds path, headers and body of each question, oldest first."""

    needs_key: bool = False
    demo: bool = True
    counters: Counters = field(factory=Counters)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(factory=list)
    go_on: threading.Event = field(factory=threading.Event)  # scripts wait for it where a test wants to look
    refuse_busy: bool = True
    pages: Pages = field(factory=Pages)
    _server: _Server = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> StandIn:
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for every request, so none outlives its test


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: object) -> None:
        """Keep the test's output readable."""

    def do_GET(self) -> None:
        stand_in = self.stand_in
        page = None
        if self.path == "/":
            page = stand_in.pages.playground(demo=stand_in.demo, version="9.9.9", needs_key=False)
        elif self.path.startswith("/static/"):
            page = stand_in.pages.static(self.path.removeprefix("/static/"))
        elif self.path == "/demo/provider":
            counters = stand_in.counters
            return self._json(200, {name: getattr(counters, name) for name in counters.__slots__ if name[0] != "_"})
        elif self.path == "/v1/models":
            return self._models()
        if page is None:
            return self._refuse(404, "not_found", "no such page")
        headers = [(name.decode(), value.decode()) for name, value in page.headers]
        return self._reply(page.status, headers, page.body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.stand_in.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if not self._key_is_good():
            return self._refuse(401, "invalid_api_key", "no such key")
        name = body.get("assistant") or body.get("model")
        if name == "busy" and self.stand_in.refuse_busy:
            return self._refuse(429, "queue_full", "queue full: 100 waiting (admission.queue)", ("retry-after", "2"))
        if name == "refused":
            return self._refuse(404, "model_not_found", f"no model is called {MARKUP}")
        script = {MARKUP: "markup"}.get(name, name)
        return self._stream(getattr(self, f"_{script}")())

    def _models(self) -> None:
        if not self._key_is_good():
            return self._refuse(401, "invalid_api_key", "send a key as Authorization: Bearer")
        listed = [{"id": name, "object": "model", "sluice": {"kind": "assistant"}} for name in ASSISTANTS]
        listed += [{"id": name, "object": "model"} for name in MODELS]
        return self._json(200, {"object": "list", "data": listed})

    def _key_is_good(self) -> bool:
        return not self.stand_in.needs_key or self.headers.get("authorization") == f"Bearer {GOOD_KEY}"

    def _refuse(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        self._json(status, {"error": {"message": message, "type": "x", "code": code, "param": None}}, *headers)

    def _json(self, status: int, document: object, *headers: tuple[str, str]) -> None:
        body = json.dumps(document).encode()
        self._reply(status, [("content-type", "application/json"), *headers], body)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        """Send the pieces, each in a chunk of its own; a piece of b"" means: close in the middle."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("x-sluice-target", "sim/sim-large")
        self.send_header("x-sluice-queue-ms", "1.5")
        self.send_header("x-request-id", "req-123")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for piece in pieces:
                if piece == b"":
                    return  # no last chunk: the browser sees a connection that broke
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the page left: what the scripts' own finally is about
        finally:
            pieces.close()  # type: ignore[attr-defined]

    def _support(self) -> Iterator[bytes]:
        yield event("context.skipped", loader="turns", kind="context", reason="no conversation")
        for loader, kind in (("docs", "retrieval"), ("profile", "profile"), ("crm", "http")):
            yield event("context.started", loader=loader, kind=kind)
        items = [{"source": "returns.md", "chars": 900}, {"source": MARKUP, "chars": 340}]
        yield event("context.loaded", loader="docs", ms=31.5, items=items, chars=1240)
        yield event("context.loaded", loader="profile", ms=12.0, items=[], chars=0)
        yield event("context.failed", loader="crm", ms=200.0, reason="timed out after 200 ms")
        yield event("of.a.later.version", anything=1)
        self.stand_in.go_on.wait(20)
        yield event("model.started", target="sim/sim-large", model="chat", attempt=2)
        for text in ("You may ", "return it ", "within 30 days."):
            yield event("text.delta", text=text)
        yield event("usage", prompt_tokens=412, completion_tokens=37, total_tokens=449, estimated=False)
        yield event("done", finish_reason="stop", ttft_ms=187.0, total_ms=1187.0, request_id="req-456")

    def _endless(self) -> Iterator[bytes]:
        counters = self.stand_in.counters
        counters.started += 1
        counters.active += 1
        left = threading.Event()
        try:
            yield event("model.started", target="sim/sim-large", model="chat", attempt=1)
            while not left.wait(0.01):
                counters.tokens_sent += 1
                yield event("text.delta", text="word ")
        finally:
            counters.cancelled += 1
            counters.active -= 1

    def _hangs(self) -> Iterator[bytes]:
        yield event("context.started", loader="docs", kind="retrieval")
        while not threading.Event().wait(0.01):
            yield b": still here\n\n"

    def _errs(self) -> Iterator[bytes]:
        yield event("text.delta", text="So far so ")
        self.stand_in.go_on.wait(20)
        yield event("error", code="stall_timeout", message="the provider was silent for 30 s", retry_after_s=None)

    def _markup(self) -> Iterator[bytes]:
        yield event("context.started", loader=MARKUP, kind=MARKUP)
        yield event("context.failed", loader=MARKUP, ms=1.0, reason=MARKUP)
        yield event("model.started", target=MARKUP, model=MARKUP, attempt=1)
        yield event("text.delta", text=MARKUP)
        yield event("tool.called", id="1", name=MARKUP, arguments=MARKUP)
        yield event("done", finish_reason="stop", ttft_ms=1, total_ms=2, request_id=MARKUP)

    def _plain(self) -> Iterator[bytes]:
        whole = chunk("Grüße 🌊 ") + chunk("from\nhere.", finish="stop") + usage(9, 4) + b"data: [DONE]\r\n\r\n"
        for at in range(len(whole)):  # every split there is: inside the characters and between CR and LF, too
            yield whole[at : at + 1]

    def _tools(self) -> Iterator[bytes]:
        for piece in (
            {"id": "t", "function": {"name": "look_up", "arguments": ""}},
            {"function": {"arguments": '{"q"'}},
        ):
            yield chunk(None, tool={"index": 0, **piece})
        yield chunk(None, tool={"index": 0, "function": {"arguments": ":1}"}})
        yield chunk(None, finish="tool_calls") + b"data: [DONE]\n\n"

    def _busy(self) -> Iterator[bytes]:
        yield chunk("free again", finish="stop") + b"data: [DONE]\n\n"

    def _cut(self) -> Iterator[bytes]:
        yield chunk("Half an ans")
        self.stand_in.go_on.wait(20)

    def _reset(self) -> Iterator[bytes]:
        yield chunk("Half an ans")
        self.stand_in.go_on.wait(20)
        yield b""

    def _garbled(self) -> Iterator[bytes]:
        yield chunk("Half an ans")
        self.stand_in.go_on.wait(20)
        yield b"data: {oops\n\n"


def event(name: str, /, **data: object) -> bytes:
    return f"id: 1\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def chunk(text: str | None, *, finish: str | None = None, tool: dict[str, Any] | None = None) -> bytes:
    delta: dict[str, Any] = {"content": text} if tool is None else {"tool_calls": [tool]}
    document = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}
    return f"data: {json.dumps(document, ensure_ascii=False)}\r\n\r\n".encode()


def usage(prompt: int, completion: int) -> bytes:
    document = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    return f"data: {json.dumps(document)}\r\n\r\n".encode()
