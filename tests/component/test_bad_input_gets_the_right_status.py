"""Promise: whatever a client sends, it gets the right status in OpenAI's shape that names the field; never a traceback.

Through the real server on a raw socket, because half of what can be wrong cannot be said through an HTTP library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.facts import Outcome
from tests.component.stage import KEY, Heard, Stage, ask, chat, hear, request_bytes, staged

HELPER = """
[[assistant]]
name = "helper"
model = "chat"
system = "Earlier: {earlier}"
[[assistant.loader]]
name = "earlier"
kind = "context"
timeout_s = 5
"""
QUESTION = '[{"role":"user","content":"x"}]'
ORCHESTRATE = "/v1/orchestrate"
MODELS = pytest.mark.parametrize("model", ["chat", "helper"])


def body(model: str = "chat", messages: str = QUESTION, more: str = "") -> bytes:
    """A request written by hand, so that it can be what no encoder writes."""
    return f'{{"model":"{model}","messages":{messages}{more}}}'.encode("utf-8", "surrogateescape")


def assert_explained(heard: Heard, status: int, code: str, param: str | None = None, *, says: str = "") -> None:
    assert (heard.status, heard.whole, heard.headers["content-type"]) == (status, True, "application/json"), heard
    error = heard.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert says in error["message"]
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "it is empty"),
        (b"   ", "it is empty"),
        (b'{"model":', "line 1 column 10"),
        (b"{'model': 'chat'}", "line 1 column"),
        (body()[:-1], "line 1 column"),
        (body() + b"}", "line 1 column"),
        (body(more=',"temperature":NaN'), "line 1 column"),
        (body(more=',"temperature":-Infinity'), "line 1 column"),
        (body(more=',"x":01'), "line 1 column"),
        (body(messages='[{"role":"user","content":"\\ud800"}]'), "surrogate"),
        (body(messages='[{"role":"user","content":"x","name":"\\udfff"}]'), "surrogate"),
        (body(more=',"x":"\\ud800\\ud800"'), "surrogate"),
        (body(more=',"x":"\udcff"'), "UTF-8"),
        (body(more=',"x":"\n"'), "control character"),
        (body(more=',"x":' + "[" * 100_000 + "]" * 100_000), "nested too deeply"),
        (body(messages='[{"role":"user","content":"x","y":' + '{"z":' * 2_000 + "1" + "}" * 2_001 + "]"), "too deeply"),
        (b"\xff\xfe{\x00}\x00", "line 1 column 1"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
    ],
)
async def test_what_is_no_json_is_a_400_that_says_where(document: bytes, says: str) -> None:
    async with staged() as stage:
        assert_explained(await ask(stage, document), 400, "invalid_json", says=says)
        assert stage.records[-1].outcome is Outcome.INVALID
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ([], None),
        ("chat", None),
        (None, None),
        ({}, "model"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "chat"}, "messages"),
        ({"model": 1, "messages": []}, "model"),
        ({"model": "", "messages": []}, "model"),
        ({"model": "m" * 257, "messages": []}, "model"),
        ({"model": "chat", "messages": []}, "messages"),
        ({"model": "chat", "messages": {}}, "messages"),
        ({"model": "chat", "messages": "hello"}, "messages"),
        ({"model": "chat", "messages": ["hello"]}, "messages[0]"),
        ({"model": "chat", "messages": [{"content": "x"}]}, "messages[0].role"),
        ({"model": "chat", "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"model": "chat", "messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        (chat(stream="yes"), "stream"),  # type: ignore[arg-type]
        (chat(stream_options=[]), "stream_options"),
        (chat(stream_options={"include_usage": 1}), "stream_options.include_usage"),
        (chat(n=0), "n"),
        (chat(n=129), "n"),
        (chat(n=1.5), "n"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_completion_tokens="many"), "max_completion_tokens"),
        (chat(user=7), "user"),
    ],
)
async def test_a_wrong_field_is_a_400_that_names_it(document: Any, param: str | None) -> None:
    async with staged() as stage:
        heard = await ask(stage, document)
        assert_explained(heard, 400, "invalid_request", param, says=param or "the request")
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize(
    ("document", "status", "code", "param"),
    [
        ([], 400, "invalid_request", None),
        ({}, 400, "invalid_request", "assistant"),
        ({"assistant": 1, "input": "x"}, 400, "invalid_request", "assistant"),
        ({"assistant": "", "input": "x"}, 400, "invalid_request", "assistant"),
        ({"assistant": "a" * 257, "input": "x"}, 400, "invalid_request", "assistant"),
        ({"assistant": "nobody", "input": "x"}, 404, "model_not_found", "assistant"),
        ({"assistant": "helper"}, 400, "invalid_request", "input"),
        ({"assistant": "helper", "input": "x", "messages": []}, 400, "invalid_request", "input"),
        ({"assistant": "helper", "input": 1}, 400, "invalid_request", "input"),
        ({"assistant": "helper", "messages": []}, 400, "invalid_request", "messages"),
        ({"assistant": "helper", "messages": [{"role": 1}]}, 400, "invalid_request", "messages[0].role"),
        ({"assistant": "helper", "input": "x", "user": []}, 400, "invalid_request", "user"),
        ({"assistant": "helper", "input": "x", "conversation": 5}, 400, "invalid_request", "conversation"),
        ({"assistant": "helper", "input": "x", "conversation": "c" * 201}, 400, "invalid_request", "conversation"),
        ({"assistant": "helper", "input": "x", "stream": "no"}, 400, "invalid_request", "stream"),
        (b'{"assistant":"helper","input":"\\ud800"}', 400, "invalid_json", None),
        (b'{"assistant":"helper","input":"\xff"}', 400, "invalid_json", None),
        (b"{", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_orchestration_endpoint_names_its_own_fields(
    document: Any, status: int, code: str, param: str | None, stream: bool
) -> None:
    if stream and isinstance(document, dict):
        document = {"stream": True, **document}
    async with staged(more=HELPER) as stage:
        assert_explained(await ask(stage, document, path=ORCHESTRATE), status, code, param)
        assert stage.sim.statistics().started == 0


@MODELS
async def test_a_key_that_comes_twice_means_its_last_value_for_everybody(model: str) -> None:
    more = ',"model":"sim/sim-echo","messages":[{"role":"user","content":"second"}],"stream":true,"stream":false'
    async with staged(more=HELPER) as stage:
        heard = await ask(stage, body(model, more=more))
        assert (heard.status, stage.records[-1].model, stage.records[-1].stream) == (200, "sim/sim-echo", False)
        received = heard.json()["choices"][0]["message"]["content"]
        assert (received.count('"messages"'), received.count('"stream"')) == (1, 1)
        assert json.loads(received)["messages"][0]["content"] == "second"


@MODELS
@pytest.mark.parametrize("value", ["1e999", "9" * 5_000, "[" * 400 + "]" * 400])
async def test_what_is_json_but_beyond_a_parsers_limits_is_left_to_the_provider(model: str, value: str) -> None:
    document = body(model, '[{"role":"user","content":"x","y":' + value + "}]")
    async with staged(more=HELPER) as stage:
        heard = await ask(stage, document)
        assert heard.status in (200, 400)
        assert len(stage.records[-1].attempts) == 1  # ours to pass on, the provider's to judge


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "\0", "ü", "a b", "\u202e", "\x7f"])
async def test_a_model_name_cannot_write_headers(name: str, stream: bool) -> None:
    async with staged() as stage:
        heard = await ask(stage, chat(f"sim/{name}", stream=stream))
        assert heard.status == 200
        assert "x-evil" not in heard.headers
        target = heard.headers["x-sluice-target"]
        assert target.startswith("sim/")
        assert target.isascii()
        assert target.isprintable()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout-ms": "soon"},
        {"x-request-timeout-ms": "-1"},
        {"x-request-timeout-ms": "0"},
        {"x-request-timeout-ms": "1.5"},
        {"x-request-timeout-ms": "9" * 400},
        {"x-request-timeout-ms": "000000000001" + "9" * 400},
        {"x-request-timeout-ms": "000000000001" + "9" * 5_000},
        {"x-priority": "urgent"},
        {"x-priority": "h\xefgh"},
        {"x-sluice-conversation": "c" * 201},
        {"x-sluice-conversation": "a b"},
    ],
)
async def test_a_wrong_header_is_a_400_that_names_it(headers: dict[str, str]) -> None:
    [name] = headers
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(raw_request(headers))
        assert_explained(await hear(stream), 400, "invalid_request", name, says=name)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonx"},
        {"content-encoding": "gzip"},
    ],
)
async def test_another_media_type_is_a_415(headers: dict[str, str]) -> None:
    async with staged() as stage:
        assert_explained(await ask(stage, chat(), headers=headers), 415, "unsupported_media_type", says="must")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_hundred_megabytes_are_a_413_and_never_in_memory(declared: bool) -> None:
    """The limit is 1 MB here; sender, gateway and provider share the process whose memory is watched."""
    size, piece = 100_000_000, b"x" * 65_536
    frame = b"%x\r\n%s\r\n" % (len(piece), piece)
    length = {"content-length": str(size)} if declared else {"transfer-encoding": "chunked"}
    process = psutil.Process()
    async with staged(server="max_body_bytes = 1000000") as stage, await stage.connect() as stream:
        stage.remember_baseline()
        before = peak = process.memory_info().rss
        await stream.send_all(raw_request(length, b""))
        heard: list[Heard] = []
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.append(await hear(stream))
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            for _ in range(size // len(piece)):
                try:
                    await stream.send_all(piece if declared else frame)
                except trio.BrokenResourceError:
                    break
                peak = max(peak, process.memory_info().rss)
        assert_explained(heard[0], 413, "body_too_large", says="server.max_body_bytes")
        assert heard[0].headers["connection"] == "close"
        assert peak - before < 20_000_000
        await stage.settle()
        assert stage.sim.statistics().started == 0
        if not declared:  # it was let in, so it has a record, and that is not of a client that left
            [record] = stage.records
            assert (record.outcome, record.code, record.status) == (Outcome.INVALID, "body_too_large", 413)


async def test_slow_headers_and_a_slow_body_are_a_408() -> None:
    async with staged(server="header_timeout_s = 0.1\nbody_timeout_s = 0.1") as stage:
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(chat())[:60])
            assert_explained(await hear(stream), 408, "header_timeout", says="server.header_timeout_s")
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(chat())[:-1])
            assert_explained(await hear(stream), 408, "body_timeout", says="server.body_timeout_s")
        await stage.settle()
        [record] = stage.records
        assert (record.outcome, record.code, record.status) == (Outcome.INVALID, "body_timeout", 408)


async def test_half_a_request_is_given_up_when_the_client_leaves() -> None:
    whole = request_bytes(chat())
    end_of_head = whole.index(b"\r\n\r\n")
    async with staged() as stage:
        stage.remember_baseline()
        for cut in (1, end_of_head, end_of_head + 4, len(whole) - 1):
            stream = await stage.connect()
            await stream.send_all(whole[:cut])
            await trio.aclose_forcefully(stream)
        with trio.fail_after(5):
            while len(stage.records) < 2:  # the two whose headers were whole
                await trio.sleep(0.001)
        await stage.settle()
        stage.assert_nothing_left(requests=2)
        assert [record.outcome for record in stage.records] == [Outcome.CANCELLED] * 2
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"x-flood: 1\r\n" * 200, 431, "too_many_headers"),
        (b"x-flood: " + b"a" * 40_000 + b"\r\n", 431, "headers_too_large"),
        (b"x flood: 1\r\n", 400, "malformed_request"),
        (b"content-length: 1\r\ncontent-length: 2\r\n", 400, "malformed_request"),
        (b"content-length: 1\r\ntransfer-encoding: chunked\r\n", 400, "malformed_request"),
    ],
)
async def test_a_flood_of_headers_and_smuggling_are_refused_before_anything_starts(
    head: bytes, status: int, code: str
) -> None:
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n" + head + b"\r\n")
        assert_explained(await hear(stream), status, code)
        assert stage.records == []


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/chat/completions/", "/v1/models/", "/..", "/%ff", "/a%0d%0ab"])
async def test_an_unknown_path_is_a_404(path: str) -> None:
    async with staged() as stage, await stage.connect() as stream:
        for method in ("GET", "POST"):
            head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
            await stream.send_all(head.encode())
            assert_explained(await hear(stream), 404, "not_found", says=method)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/orchestrate", "POST"),
        ("PUT", "/v1/orchestrate", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_says_which_are_right(method: str, path: str, allow: str) -> None:
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        heard = await hear(stream)
        assert_explained(heard, 405, "method_not_allowed", says=f"{method} {path}")
        assert heard.headers["allow"] == allow


# ── headers, both ways ──────────────────────────────────────────────────────────────────────────────────────────────


class Recorder:
    """A provider that writes down what it is asked and answers with headers that are nobody's business."""

    ANSWER = (
        b'{"id":"1","object":"chat.completion","model":"m",'
        b'"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
    )

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._handle, [listener])

    async def _handle(self, stream: trio.SocketStream) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        self.heads.append(received.partition(b"\r\n\r\n")[0])
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/weird\r\nset-cookie: a=b\r\nserver: secret/1\r\n"
            b"x-request-id: theirs\r\nopenai-organization: ours\r\naccess-control-allow-origin: *\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(self.ANSWER), self.ANSWER)
        )
        await stream.aclose()


async def test_headers_pass_in_neither_direction() -> None:
    provider = Recorder()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(provider.serve)
        more = f"""
        [[provider]]
        name = "own"
        base_url = "http://127.0.0.1:{port}/v1"
        api_key = "sk-ours"
        [[model]]
        name = "own"
        targets = [{{ provider = "own", model = "m" }}]
        """
        private = {"cookie": "c=1", "x-forwarded-for": "10.0.0.1", "x-api-key": KEY, "x-sim": "status=500"}
        async with staged(more=more) as stage:
            heard = await ask(stage, chat("own"), headers={**private, "x-request-id": "mine", "traceparent": "00-1"})
        nursery.cancel_scope.cancel()
    assert heard.status == 200
    assert set(heard.headers) == {
        *("content-type", "content-length", "date"),
        *("x-request-id", "x-sluice-queue-ms", "x-sluice-target", "x-sluice-attempts"),
    }
    assert (heard.headers["content-type"], heard.headers["x-request-id"]) == ("application/json", "mine")
    [head] = provider.heads
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert names == {
        *(b"host", b"user-agent", b"content-type", b"content-length"),
        *(b"accept", b"accept-encoding", b"authorization"),
    }
    assert b"authorization: Bearer sk-ours" in head
    assert KEY.encode() not in head


@pytest.mark.parametrize("name", ["a\tb", "a;b", "a" * 129, "<x>", "\xe9", "", "%0d%0a"])
async def test_a_request_id_that_is_not_sane_is_replaced(name: str) -> None:
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(raw_request({"x-request-id": name}, body()))
        heard = await hear(stream)
        assert heard.status == 200
        assert heard.headers["x-request-id"].startswith("req_")


async def test_a_line_break_in_a_header_is_refused_and_never_answered_with() -> None:
    async with staged() as stage, await stage.connect() as stream:
        await stream.send_all(raw_request({"x-request-id": "a\rx-evil: 1"}, body()))
        heard = await hear(stream)
        assert_explained(heard, 400, "malformed_request")
        assert "x-evil" not in heard.headers


# ── anything at all ─────────────────────────────────────────────────────────────────────────────────────────────────

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just("x" * 2_000)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["role", "content", "text", "type", "url", "index", "x"]), inner, max_size=4),
    ),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool", "wizard"])},
    optional={"content": ANYTHING, "name": ANYTHING, "tool_calls": ANYTHING},
)
TELLING = {
    "stream": st.sampled_from([True, False, None, 1]),
    "stream_options": ANYTHING,
    "n": st.sampled_from([1, 2, 0, -1, 2**65, 1.0, None]),
    "user": ANYTHING,
    "conversation": ANYTHING,
    "tools": ANYTHING,
    "temperature": ANYTHING,
    "max_tokens": ANYTHING,
    "y": ANYTHING,
}
CHAT = st.fixed_dictionaries(
    {
        "model": st.one_of(st.sampled_from(["chat", "helper", "sim/x"]), ANYTHING),
        "messages": st.one_of(st.lists(MESSAGE, min_size=1, max_size=3), ANYTHING),
    },
    optional=TELLING,
)
ORCHESTRATION = st.one_of(
    st.fixed_dictionaries({"assistant": st.just("helper"), "input": st.text(max_size=9)}, optional=TELLING),
    st.fixed_dictionaries(
        {"assistant": st.one_of(st.just("helper"), ANYTHING)},
        optional={"input": ANYTHING, "messages": st.lists(MESSAGE, max_size=2), **TELLING},
    ),
)


def written(document: Any) -> bytes:
    """As JSON, lone surrogates and NaN included."""
    return json.dumps(document).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document with a part cut out or replaced."""
    whole = written(draw(CHAT))
    start = draw(st.integers(0, len(whole)))
    return whole[:start] + draw(st.binary(max_size=4)) + whole[start + draw(st.integers(0, 9)) :]


PATHS = st.sampled_from(["/v1/chat/completions", ORCHESTRATE])
BODIES = st.one_of(CHAT.map(written), ORCHESTRATION.map(written), ANYTHING.map(written), st.binary(), damaged())
QUIET = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@QUIET
@given(st.lists(st.tuples(PATHS, BODIES), min_size=20, max_size=30))
async def test_any_body_gets_an_answer_or_a_refusal_of_the_clients(requests: list[tuple[str, bytes]]) -> None:
    async with staged(more=HELPER) as stage, await stage.connect() as stream:
        for path, data in requests:
            await stream.send_all(request_bytes(data, path=path))
            heard = await hear(stream, seconds=5)
            assert heard.whole
            if heard.status != 200:
                assert 400 <= heard.status < 500, (path, data, heard)
                error = heard.json()["error"]
                assert error["message"]
                assert {"message", "type", "param", "code"} == set(error)
        await stage.settle()
        stage.assert_nothing_left(requests=len(requests))


PROTOCOL = {501, 505}  # an unknown method, another HTTP: a server's right answers, and no failures of ours
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                *(b"POST ", b"GET ", b"/v1/chat/completions", b"/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n"),
                *(b"host: h\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"\r\n\r\n"),
                *(b"5\r\nhello\r\n0\r\n\r\n", b"expect: 100-continue\r\n", b"connection: upgrade\r\n", b"\0", b"\xff"),
                *(f"authorization: Bearer {KEY}\r\n".encode(), b"content-type: application/json\r\n", body()),
                request_bytes(chat()),
            ]
        ),
    ),
    max_size=12,
).map(b"".join)


@QUIET
@given(st.lists(PIECES, min_size=10, max_size=20))
async def test_any_bytes_get_a_refusal_of_the_clients_or_nothing(conversations: list[bytes]) -> None:
    async with staged() as stage:
        for data in conversations:
            async with await stage.connect() as stream:
                received = b""
                with trio.fail_after(5):
                    try:
                        await stream.send_all(data)
                        await stream.send_eof()
                        async for more in stream:
                            received += more
                    except trio.BrokenResourceError:
                        pass  # closed while we were still talking; what it said before counts
                for status in statuses(received):
                    assert status < 500 or status in PROTOCOL, (data, received)
        await stage.settle()
        stage.assert_nothing_left()
        assert await is_well(stage)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


async def is_well(stage: Stage) -> bool:
    return (await ask(stage, chat())).status == 200


def raw_request(headers: Mapping[str, str], data: bytes = b"{}") -> bytes:
    """A request whose header values go out as Latin-1, whatever stands in them."""
    lines = {"host": "gateway", "authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    if not {"content-length", "transfer-encoding"} & set(lines):
        lines["content-length"] = str(len(data))
    head = "POST /v1/chat/completions HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode("latin-1") + b"\r\n" + data
