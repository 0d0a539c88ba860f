"""Every way a provider can fail, streamed and not: right status or right end, in bounded time, nothing left.

After each fault the same invariants hold (no permit held, upstream connections bounded, no task left, exactly one
record; the client's view is each test's own), and the next, healthy request is answered.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from gateway.core.facts import Outcome, Record
from gateway.sim import Behaviour
from tests.component.stage import Heard, Stage, ask, chat, staged
from tests.component.transport_peer import Peer, provider

DEADLINE_S = 30.0
SLACK_S = 1.0  # what the simulated provider takes for an answer that has a pace
TIMEOUTS = f"""
connect_s = {DEADLINE_S}
first_token_s = {DEADLINE_S}
answer_s = {DEADLINE_S}
stall_s = {DEADLINE_S}
total_s = 600
"""
TOKENS = 20
ENDINGS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@asynccontextmanager
async def faulty(*, more: str = "", requests: int = 1, timeouts: str = TIMEOUTS) -> AsyncIterator[Stage]:
    """A stage whose invariants are checked at the end, and which then answers a healthy request.

    By another target, because one that does not accept our key is left alone for minutes.
    """
    behaviour = Behaviour(tokens=TOKENS)
    async with staged(timeouts=timeouts, more=more, behaviour=behaviour) as stage:
        stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left(requests=requests)
        healthy = await ask(stage, chat("chat", stream=True))
        assert (healthy.status, healthy.finished, healthy.whole) == (200, True, True)


async def timed(stage: Stage, document: Any, *, deadline_s: float = 0.0, **options: Any) -> Heard:
    """Ask, and hold the answer to its time: not before the deadline that explains it, and soon after it."""
    began = trio.current_time()
    heard = await ask(stage, document, seconds=600, **options)
    took_s = trio.current_time() - began
    assert deadline_s <= took_s < deadline_s + SLACK_S
    return heard


async def settled(stage: Stage) -> Record:
    """The one request's record; it closes a moment after the client has heard the end."""
    await stage.settle()
    [record] = stage.records
    return record


def code_of(heard: Heard) -> str:
    return str(heard.json()["error"]["code"])


def error_event(heard: Heard) -> dict[str, Any]:
    """The one error event a broken stream ends with; the framing is whole, ``[DONE]`` is missing."""
    assert (heard.status, heard.whole, heard.finished) == (200, True, False)
    documents = [json.loads(event) for event in heard.events]
    assert ["error" in document for document in documents] == [False] * (len(documents) - 1) + [True]
    error: dict[str, Any] = documents[-1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def tokens(heard: Heard) -> int:
    """Content events."""
    chunks = [json.loads(event) for event in heard.events if event != "[DONE]"]
    return sum(bool(choice["delta"].get("content")) for chunk in chunks for choice in chunk.get("choices", ()))


# ── before the commit point: a status ────────────────────────────────────────────────────────────────────────────────

REFUSALS = [
    ("status=400", 400, None, None),
    ("status=402", 502, "upstream_unpaid", None),
    ("status=404", 404, "model_not_found", None),
    ("status=422", 422, None, None),
    ("status=401", 502, "upstream_auth", None),
    ("status=403", 502, "upstream_forbidden", None),
    ("status=429", 429, "upstream_rate_limited", "1"),
    ("status=429-retry_after=7", 429, "upstream_rate_limited", "7"),
    ("status=500", 502, "upstream_error", None),
    ("status=503", 503, "upstream_unavailable", "1"),
    ("status=503-retry_after=3", 503, "upstream_unavailable", "3"),
    ("status=504", 504, "upstream_timeout", None),
    ("status=529", 503, "upstream_overloaded", "1"),
]


@ENDINGS
@pytest.mark.parametrize(("fault", "status", "code", "retry_after"), REFUSALS, ids=[row[0] for row in REFUSALS])
async def test_a_refusal_has_the_right_status_and_passes_retry_after_on(
    fault: str, status: int, code: str | None, retry_after: str | None, stream: bool
) -> None:
    async with faulty() as stage:
        heard = await timed(stage, chat(f"sim/sim-{fault}", stream=stream))
        assert (heard.status, heard.whole) == (status, True)
        assert heard.json()["error"]["code"] == code
        assert heard.headers.get("retry-after") == retry_after
        assert heard.headers["x-sluice-target"] == f"sim/sim-{fault}"
        record = await settled(stage)
        whose = Outcome.INVALID if status in (400, 404, 422) else Outcome.FAILED
        assert (record.outcome, len(record.attempts)) == (whose, 1)
        assert record.upstream_status == int(fault[7:10])


BEFORE = [
    ("reset", 502, "upstream_read", 0.0),
    ("silence", 504, "timeout", DEADLINE_S),
    ("slow=60", 504, "timeout", DEADLINE_S),
    ("cut=0", 502, "upstream_read", 0.0),
    ("stall=0", 504, "timeout", DEADLINE_S),
    ("error=0", 502, "upstream_error", 0.0),
]


@ENDINGS
@pytest.mark.parametrize(("fault", "status", "code", "deadline_s"), BEFORE, ids=[row[0] for row in BEFORE])
async def test_a_failure_before_the_first_content_is_a_status(
    fault: str, status: int, code: str, deadline_s: float, stream: bool
) -> None:
    async with faulty() as stage:
        heard = await timed(stage, chat(f"sim/sim-{fault}", stream=stream), deadline_s=deadline_s)
        if code == "timeout":
            code = "first_token_timeout" if stream else "answer_timeout"
        assert (heard.status, code_of(heard), heard.whole) == (status, code, True)
        assert "data:" not in heard.body.decode()
        assert (await settled(stage)).outcome is Outcome.FAILED


@ENDINGS
async def test_a_slow_first_token_within_its_deadline_is_waited_for(stream: bool) -> None:
    async with faulty() as stage:
        heard = await ask(stage, chat("sim/sim-slow=20", stream=stream))
        assert heard.status == 200
        assert (await settled(stage)).outcome is Outcome.OK


async def test_a_whole_answer_may_take_longer_than_a_first_token() -> None:
    """Nothing is heard of it while it is made, however healthy its provider is."""
    async with faulty(timeouts="first_token_s = 30\nanswer_s = 300\nstall_s = 30") as stage:
        began = trio.current_time()
        heard = await ask(stage, chat("sim/sim-tps=0.1"), seconds=600)
        assert (heard.status, round(trio.current_time() - began)) == (200, TOKENS / 0.1)
        assert (await settled(stage)).outcome is Outcome.OK


async def test_what_is_not_generated_has_no_longer_than_a_first_token() -> None:
    async with faulty(timeouts="first_token_s = 30\nanswer_s = 300") as stage:
        document = {"model": "sim/sim-silence", "input": "hello"}
        heard = await timed(stage, document, deadline_s=30, path="/v1/embeddings")
        assert (heard.status, code_of(heard)) == (504, "first_token_timeout")


@pytest.mark.parametrize("fault", ["cut=5", "stall=5", "error=5", "malformed=3"])
async def test_a_whole_answer_that_breaks_off_is_never_shown_as_one(fault: str) -> None:
    async with faulty() as stage:
        heard = await timed(
            stage, chat(f"sim/sim-{fault}"), deadline_s=DEADLINE_S if fault.startswith("stall") else 0.0
        )
        assert (heard.status, code_of(heard)) == {
            "cut=5": (502, "upstream_read"),
            "stall=5": (504, "answer_timeout"),
            "error=5": (502, "upstream_error"),
            "malformed=3": (502, "upstream_garbage"),
        }[fault]


# ── after the commit point: one error event, no [DONE] ───────────────────────────────────────────────────────────────

AFTER = [
    ("cut=5-tps=50", "upstream_read", 0.0),
    ("stall=5-tps=50", "stall_timeout", DEADLINE_S),
    ("error=5-tps=50", "upstream_error", 0.0),
]


@pytest.mark.parametrize(("fault", "code", "deadline_s"), AFTER, ids=[row[0] for row in AFTER])
async def test_a_failure_in_the_middle_is_one_error_event_and_no_done(fault: str, code: str, deadline_s: float) -> None:
    async with faulty() as stage:
        heard = await timed(stage, chat(f"sim/sim-{fault}", stream=True), deadline_s=deadline_s)
        assert error_event(heard)["code"] == code
        assert tokens(heard) == 5, "what had come is the client's"
        record = await settled(stage)
        assert (record.outcome, record.code, len(record.attempts)) == (Outcome.BROKEN, code, 1)
        assert record.usage is not None
        assert (record.usage.completion_tokens, record.usage.estimated) == (5, True)


async def test_an_error_that_comes_together_with_the_first_content_still_has_a_status() -> None:
    both = b'data: {"choices":[{"index":0,"delta":{"content":"Half"}}]}\n\ndata: {"error":{"message":"no"}}\n\n'

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(both) + both)

    async with provider(script) as origin, faulty(more=other(f"http://127.0.0.1:{origin.port}/v1")) as stage:
        heard = await timed(stage, chat("other/x", stream=True))
        assert (heard.status, code_of(heard)) == (502, "upstream_error")


async def test_the_middle_of_a_stream_is_not_repaired_where_the_model_says_so() -> None:
    more = two_targets('{ provider = "sim", model = "sim-cut=5" }')
    async with faulty(more=more) as stage:
        error_event(await ask(stage, chat("pair", stream=True)))
        assert len((await settled(stage)).attempts) == 1
        assert stage.sim.statistics().started == 1


async def test_a_client_that_set_a_time_is_told_that_it_was_its_own() -> None:
    async with faulty(timeouts="first_token_s = 30") as stage:
        heard = await ask(stage, chat("sim/sim-ttft=60"), headers={"x-request-timeout-ms": "20000"})
        assert (heard.status, code_of(heard)) == (504, "total_timeout")
        assert "20 s (x-request-timeout-ms)" in heard.json()["error"]["message"]


# ── what is repaired ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_malformed_event_is_left_out_and_the_rest_is_whole() -> None:
    async with faulty() as stage:
        heard = await ask(stage, chat("sim/sim-malformed=3", stream=True))
        assert (heard.status, heard.whole, heard.finished) == (200, True, True)
        assert tokens(heard) == TOKENS - 1
        assert (await settled(stage)).outcome is Outcome.OK


async def test_a_missing_done_is_added_at_once() -> None:
    async with faulty() as stage:
        heard = await timed(stage, chat("sim/sim-nodone", stream=True))
        assert (heard.finished, heard.whole) == (True, True)
        assert heard.events.count("[DONE]") == 1
        assert tokens(heard) == TOKENS
        assert (await settled(stage)).outcome is Outcome.OK


@ENDINGS
async def test_flapping_is_a_failure_and_then_an_answer(stream: bool) -> None:
    async with faulty(requests=4) as stage:
        statuses = [(await ask(stage, chat("sim/sim-flap=1", stream=stream))).status for _ in range(4)]
        assert statuses == [503, 200, 503, 200]


# ── what cannot be reached, or is no provider ────────────────────────────────────────────────────────────────────────


def other(base_url: str) -> str:
    """A provider elsewhere, alone as ``other/*`` and before the healthy one as ``pair``."""
    return (
        f'[[provider]]\nname = "other"\nbase_url = "{base_url}"\n'
        '[[model]]\nname = "other/*"\ntargets = [{ provider = "other", model = "*" }]\nretry = { max = 0 }\n'
        + two_targets('{ provider = "other", model = "x" }')
    )


def two_targets(first: str, second: str = '{ provider = "sim", model = "sim" }') -> str:
    rules = 'retry = { max = 0 }\nmidstream = "error"\n'
    return f'[[model]]\nname = "pair"\ntargets = [{first}, {second}]\n{rules}'


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class NoNames(trio.abc.HostnameResolver):
    """A name service that knows nothing."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def trouble(kind: str) -> AsyncIterator[str]:
    """The base URL of a provider that fails below HTTP."""
    if kind == "refused":
        yield f"http://127.0.0.1:{closed_port()}/v1"
    elif kind == "dns":
        trio.socket.set_custom_hostname_resolver(NoNames())
        yield "http://nowhere.invalid/v1"
    else:

        async def script(peer: Peer) -> None:
            if kind != "tls":  # a plain server gets no request then
                await peer.request()
            if kind != "hangs up":
                await peer.say(b"SSH-2.0-OpenSSH_9.2\r\n" if kind == "garbage" else HTML)

        async with provider(script) as origin:
            scheme = "https" if kind == "tls" else "http"
            yield f"{scheme}://127.0.0.1:{origin.port}/v1"


HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 27\r\n\r\n<html>Welcome, hotel!</html"
UNREACHABLE = {
    "refused": "upstream_connect",
    "dns": "upstream_dns",
    "tls": "upstream_tls",
    "garbage": "upstream_protocol",
    "hangs up": "upstream_read",
}


@ENDINGS
@pytest.mark.parametrize("kind", UNREACHABLE)
async def test_what_cannot_be_reached_is_a_502_that_says_why(kind: str, stream: bool) -> None:
    async with trouble(kind) as base_url, faulty(more=other(base_url)) as stage:
        heard = await timed(stage, chat("other/x", stream=stream))
        assert (heard.status, code_of(heard)) == (502, UNREACHABLE[kind])
        assert "other/x" in heard.json()["error"]["message"]
        record = await settled(stage)
        assert (record.outcome, len(record.attempts), record.upstream_status) == (Outcome.FAILED, 1, 0)


@pytest.mark.parametrize(("stream", "code"), [(True, "upstream_empty"), (False, "upstream_garbage")])
async def test_a_page_instead_of_an_answer_is_a_502(stream: bool, code: str) -> None:
    async with trouble("html") as base_url, faulty(more=other(base_url)) as stage:
        heard = await timed(stage, chat("other/x", stream=stream))
        assert (heard.status, code_of(heard)) == (502, code)


async def test_a_handshake_that_nobody_answers_ends_with_connect_s() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        base_url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        async with faulty(more=other(base_url), timeouts="connect_s = 5\nfirst_token_s = 30") as stage:
            heard = await timed(stage, chat("other/x"), deadline_s=5)
            assert (heard.status, code_of(heard)) == (504, "connect_timeout")
        for sock in waiting:
            sock.close()


# ── another target ───────────────────────────────────────────────────────────────────────────────────────────────────

FAILED_OVER = ["status=402", "status=429", "status=500", "status=503", "reset", "silence", "cut=0", "error=0"]


@ENDINGS
@pytest.mark.parametrize("fault", FAILED_OVER)
async def test_a_failure_before_the_first_content_becomes_another_targets_answer(fault: str, stream: bool) -> None:
    more = two_targets(f'{{ provider = "sim", model = "sim-{fault}" }}')
    async with faulty(more=more) as stage:
        heard = await ask(stage, chat("pair", stream=stream), seconds=600)
        assert (heard.status, heard.whole) == (200, True)
        assert (heard.headers["x-sluice-target"], heard.headers["x-sluice-attempts"]) == ("sim/sim", "2")
        record = await settled(stage)
        assert (record.outcome, len(record.attempts)) == (Outcome.OK, 2)


@ENDINGS
@pytest.mark.parametrize("kind", UNREACHABLE)
async def test_an_unreachable_target_is_passed_over(kind: str, stream: bool) -> None:
    async with trouble(kind) as base_url, faulty(more=other(base_url)) as stage:
        heard = await ask(stage, chat("pair", stream=stream))
        assert (heard.status, heard.whole, heard.headers["x-sluice-attempts"]) == (200, True, "2")


async def test_the_clients_own_mistake_is_not_asked_twice() -> None:
    more = two_targets('{ provider = "sim", model = "sim-status=400" }')
    async with faulty(more=more) as stage:
        heard = await ask(stage, chat("pair"))
        assert (heard.status, heard.headers["x-sluice-attempts"]) == (400, "1")
        assert stage.sim.statistics().started == 1


async def test_when_all_targets_fail_the_last_ones_error_is_told() -> None:
    more = two_targets(
        '{ provider = "sim", model = "sim-status=503" }',
        '{ provider = "sim", model = "sim-status=429-retry_after=9" }',
    )
    async with faulty(more=more) as stage:
        heard = await ask(stage, chat("pair"))
        assert (heard.status, heard.headers["retry-after"], heard.headers["x-sluice-attempts"]) == (429, "9", "2")


# ── the orchestration endpoint tells the same in its own events ──────────────────────────────────────────────────────


async def test_an_orchestration_that_nothing_was_told_of_has_a_status() -> None:
    async with faulty() as stage:
        document = {"assistant": "sim/sim-status=503-retry_after=3", "input": "hello", "stream": True}
        heard = await timed(stage, document, path="/v1/orchestrate")
        assert (heard.status, code_of(heard), heard.headers["retry-after"]) == (503, "upstream_unavailable", "3")


async def test_an_orchestration_that_breaks_off_ends_with_one_error_event() -> None:
    async with faulty() as stage:
        document = {"assistant": "sim/sim-cut=5-tps=50", "input": "hello", "stream": True}
        heard = await timed(stage, document, path="/v1/orchestrate")
        assert (heard.status, heard.whole) == (200, True)
        blocks = heard.body.decode().split("\n\n")
        names = [line[7:] for block in blocks for line in block.split("\n") if line.startswith("event: ")]
        assert (names.count("error"), names[-1]) == (1, "error")
        assert "text.delta" in names
        assert "done" not in names
        assert json.loads(heard.events[-1])["code"] == "upstream_read"
