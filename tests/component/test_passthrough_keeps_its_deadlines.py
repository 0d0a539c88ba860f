"""Whoever is silent, client or provider, has a deadline of its own, and the error names it."""

from __future__ import annotations

import trio

from gateway.core.facts import Outcome
from tests.component.passed_provider import Asked, passing, request
from tests.component.stage import hear

PIECE = b"x" * 65_536
UPLOAD = "POST /v1/files\ncontent-type: multipart/form-data; boundary=b"


async def silence(asked: Asked) -> None:
    await asked.until_gone()


async def test_a_provider_that_does_not_answer_has_first_token_s() -> None:
    async with passing(silence, timeouts="first_token_s = 0.2") as run:
        heard = await run.ask("GET /v1/files", seconds=3)
        assert (heard.status, heard.json()["error"]["code"]) == (504, "first_token_timeout")
        await run.asked[0].gone.wait()
        run.stage.assert_nothing_left(requests=1)


async def test_a_provider_that_sends_a_head_and_no_body_has_first_token_s() -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
        await asked.until_gone()

    async with passing(script, timeouts="first_token_s = 0.2") as run:
        heard = await run.ask("GET /v1/files", seconds=3)
        assert (heard.status, heard.json()["error"]["code"]) == (504, "first_token_timeout")


async def test_a_provider_that_takes_nothing_of_an_upload_has_stall_s() -> None:
    async def script(asked: Asked) -> None:
        await trio.sleep_forever()

    async with passing(script, timeouts="stall_s = 0.3") as run, await run.stage.connect() as client:
        await client.send_all(request(UPLOAD, length=100_000_000))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                while True:
                    await client.send_all(PIECE)

            nursery.start_soon(send)
            heard = await hear(client, seconds=5)
            nursery.cancel_scope.cancel()
        assert (heard.status, heard.json()["error"]["code"]) == (504, "stall_timeout")
        assert "took nothing" in heard.json()["error"]["message"]
        await run.stage.settle()
        assert run.stage.records[0].outcome is Outcome.FAILED


async def test_an_answer_that_stalls_is_cut() -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await asked.until_gone()

    async with passing(script, timeouts="stall_s = 0.2") as run, await run.stage.connect() as client:
        await client.send_all(request("GET /v1/files/1"))
        ended = False
        with trio.fail_after(3):
            while not ended:
                try:
                    ended = not await client.receive_some()
                except trio.BrokenResourceError:
                    ended = True
        await run.stage.settle()
        [record] = run.stage.records
        assert (record.outcome, record.code) == (Outcome.BROKEN, "stall_timeout")


async def test_a_client_that_stops_sending_has_body_timeout_s() -> None:
    async with passing(silence, server="body_timeout_s = 0.2") as run, await run.stage.connect() as client:
        await client.send_all(request(UPLOAD, PIECE, length=1_000_000))
        heard = await hear(client, seconds=3)
        assert (heard.status, heard.json()["error"]["code"]) == (408, "body_timeout")
        await run.asked[0].gone.wait()
        await run.stage.settle()
        [record] = run.stage.records
        assert (record.status, record.code) == (408, "body_timeout")
        run.stage.assert_nothing_left(requests=1)


async def test_an_upload_that_moves_may_take_longer_than_body_timeout_s() -> None:
    async def script(asked: Asked) -> None:
        await asked.answer(b"%d" % await asked.drop_all())

    async with passing(script, server="body_timeout_s = 1") as run, await run.stage.connect() as client:
        await client.send_all(request(UPLOAD, length=8))
        for _ in range(8):
            await trio.sleep(0.2)
            await client.send_all(b"x")
        assert (await hear(client)).body == b"8"


async def test_the_client_may_ask_for_less_time_in_all() -> None:
    async with passing(silence) as run:
        heard = await run.ask("GET /v1/files\nx-request-timeout-ms: 200", seconds=3)
        assert (heard.status, heard.json()["error"]["code"]) == (504, "total_timeout")
        assert "x-request-timeout-ms" in heard.json()["error"]["message"]


async def test_a_drain_ends_what_is_passed_through_too() -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await asked.until_gone()

    async with passing(script, server="drain_timeout_s = 0.5") as run, await run.stage.connect() as client:
        await client.send_all(request("GET /v1/files/1"))
        await client.receive_some()
        run.stage.shutdown.set()
        with trio.fail_after(3):
            await run.stage.stopped.wait()
        [record] = run.stage.records
        assert record.outcome is Outcome.BROKEN
