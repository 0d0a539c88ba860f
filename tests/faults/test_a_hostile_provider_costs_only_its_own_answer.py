"""A provider that sends what no provider should costs its own answer: no 500, no memory, no wrong count."""

import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from gateway.core.facts import Outcome
from gateway.dialects.chat_stream import MAX_PREAMBLE_BYTES, ChatStream
from gateway.dialects.sse import EventTooLong
from tests.component.stage import ask, chat, staged

ANSWER = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
PREAMBLES = {
    "comments": b": wait\n\n" * 5_000,
    "roles": b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n' * 500,
}


def answer(body: bytes, *, status: int = 200, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} So\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@asynccontextmanager
async def behind(whole: bytes, *, over_and_over: bytes = b"", timeouts: str = ""):
    """A gateway before a provider that sends ``whole``, and then perhaps the same thing without end."""

    async def serve(stream):
        await stream.receive_some()
        await stream.send_all(whole)
        while over_and_over:
            try:
                await stream.send_all(over_and_over)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        more = (
            f'[[provider]]\nname = "raw"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            '[[model]]\nname = "raw"\ntargets = [{ provider = "raw", model = "m" }]'
        )
        async with staged(more=more, timeouts=timeouts) as stage:
            yield stage
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "1e999", "-5", "soon", "9" * 400])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_whose_retry_after_is_no_time_stays_a_refusal(value, stream):
    async with behind(answer(b"{}", status=429, more=f"retry-after: {value}\r\n")) as stage:
        heard = await ask(stage, chat("raw", stream=stream))
        assert (heard.status, heard.json()["error"]["code"]) == (429, "upstream_rate_limited")
        assert 0 <= int(heard.headers["retry-after"]) <= 86_400


@pytest.mark.parametrize("count", [-1, -(10**17), 10**17, 10**400], ids=["-1", "-10^17", "10^17", "10^400"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_usage_that_cannot_be_one_is_no_usage(count, stream):
    usage = {"usage": {"prompt_tokens": count, "completion_tokens": 1}}
    document = json.dumps(ANSWER | usage).encode()
    events = EVENT + b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"choices": []} | usage).encode()
    whole = answer(events, kind="text/event-stream") if stream else answer(document)
    async with behind(whole) as stage:
        heard = await ask(stage, chat("raw", stream=stream, stream_options={"include_usage": True} if stream else None))
        assert heard.status == 200
        assert heard.whole
        await stage.settle()
        [record] = stage.records
        assert record.outcome is Outcome.OK
        assert record.usage is not None
        assert record.usage.estimated
        assert 0 < record.usage.total_tokens < 1_000
        told = stage.gateway.metrics.expose()[0].decode()
        assert 'sluice_tokens_total{direction="in",model="raw",source="estimated"}' in told
        assert 'source="reported"' not in told


@pytest.mark.parametrize("piece", PREAMBLES.values(), ids=PREAMBLES)
async def test_a_stream_that_never_comes_to_its_content_is_given_up_before_it_is_large(piece):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with behind(head, over_and_over=piece, timeouts="first_token_s = 20") as stage:
        heard = await ask(stage, chat("raw", stream=True), seconds=10)
        assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_garbage")
        await stage.settle()
        stage.assert_nothing_left(requests=1)


def test_what_is_held_before_the_first_content_has_a_limit():
    stream = ChatStream(want_usage=False)
    piece = PREAMBLES["comments"]
    for _ in range(MAX_PREAMBLE_BYTES // len(piece)):
        assert stream.feed(piece) == b""
    with pytest.raises(EventTooLong):
        stream.feed(piece)
