"""After its finish reason an answer is whole, whatever the provider forgets to send behind it."""

import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from gateway.core.facts import Outcome
from tests.component.stage import ask, chat, staged

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(delta, *, finish=None, index=0):
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    data = f"data: {json.dumps({'id': 'x', 'model': 'm', 'choices': [choice]})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def provider(pieces, *, then):
    """A provider that sends ``pieces`` one by one and then does what it should not."""

    async def serve(stream):
        await stream.receive_some()
        await stream.send_all(HEAD)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.01)
        if then == "silence":
            await trio.sleep_forever()
        elif then == "cut":
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        more = (
            f'[[provider]]\nname = "raw"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            '[[model]]\nname = "raw"\ntargets = [{ provider = "raw", model = "m" }]'
        )
        async with staged(more=more, timeouts="stall_s = 20") as stage:
            yield stage
        nursery.cancel_scope.cancel()


FINISHED = [chunk({"role": "assistant", "content": "all"}), chunk({"content": " said"}), chunk({}, finish="stop")]


@pytest.mark.parametrize("then", ["silence", "cut"])
async def test_silence_or_a_cut_behind_the_finish_reason_costs_nothing(then):
    async with provider(FINISHED, then=then) as stage:
        heard = await ask(stage, chat("raw", stream=True), seconds=8)
        assert (heard.text, heard.finished, heard.whole) == ("all said", True, True)
        await stage.settle()
        assert [record.outcome for record in stage.records] == [Outcome.OK]
        stage.assert_nothing_left(requests=1)


@pytest.mark.parametrize("rest", [b"data: [DONE]\n", b'data: {"choices":[],"usa'])
async def test_neither_does_half_an_event_behind_it(rest):
    async with provider([*FINISHED, b"%x\r\n%b\r\n" % (len(rest), rest), b"0\r\n\r\n"], then="silence") as stage:
        heard = await ask(stage, chat("raw", stream=True), seconds=8)
        assert (heard.text, heard.finished, heard.whole) == ("all said", True, True)
        assert heard.events.count("[DONE]") == 1
        await stage.settle()
        assert [record.outcome for record in stage.records] == [Outcome.OK]


async def test_one_finished_choice_of_two_is_not_the_whole_answer():
    pieces = [chunk({"content": "a"}), chunk({}, finish="stop"), chunk({"content": "b"}, index=1)]
    async with provider(pieces, then="cut") as stage:
        heard = await ask(stage, chat("raw", stream=True, n=2), seconds=8)
        assert not heard.finished
        assert "error" in json.loads(heard.events[-1])
        await stage.settle()
        assert [record.outcome for record in stage.records] == [Outcome.BROKEN]
