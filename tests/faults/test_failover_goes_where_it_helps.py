"""Where the next attempt goes, and when: larger windows, reasons passed on, Retry-After obeyed, a silent primary left.

The scenarios are the ones that operators know, with their times; by a clock on which waiting costs little
(``tests/faults/clock.py``).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.core.facts import Kind, Outcome, Record
from gateway.sim import Behaviour
from tests.component.stage import Heard, Stage, ask, chat, hear, request_bytes, staged
from tests.faults import raw_server as raw
from tests.faults.raw_server import Peer, RawServer

TOKENS = 24
LIMIT_S = 30.0
TIMEOUTS = f"connect_s = 5\nfirst_token_s = {LIMIT_S}\nanswer_s = {LIMIT_S}\nstall_s = {LIMIT_S}\ntotal_s = 600"
ENDINGS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
DIALECTS = pytest.mark.parametrize("dialect", ["openai", "openai-responses", "anthropic", "gemini"])


def provider(name: str, *, dialect: str = "openai", base_url: str = "", rules: str = "") -> str:
    base_url = base_url or ("${SIM_ROOT}/v1beta" if dialect == "gemini" else "${SIM}")
    about = f'name = "{name}"\ndialect = "{dialect}"\nbase_url = "{base_url}"\napi_key = "secret-key"'
    return f"[[provider]]\n{about}\n{rules}\n"


def target(provider: str, model: str, more: str = "") -> str:
    return f'{{ provider = "{provider}", model = "{model}"{more} }}'


def model(*targets: str, rules: str = "") -> str:
    return f'[[model]]\nname = "m"\ntargets = [{", ".join(targets)}]\n{rules}\n'


@asynccontextmanager
async def going(*tables: str, counted: bool = True) -> AsyncIterator[Stage]:
    """``counted``: no tasks but the gateway's and the simulator's, so that none may be left."""
    async with staged(timeouts=TIMEOUTS, more="\n".join(tables), behaviour=Behaviour(tokens=TOKENS)) as stage:
        if counted:
            stage.remember_baseline()
        yield stage
        await stage.settle()
        stage.assert_nothing_left()


async def last(stage: Stage) -> Record:
    await stage.settle()
    return stage.records[-1]


def told(record: Record) -> list[tuple[str, Kind]]:
    return [(fact.target.partition("/")[0], fact.kind) for fact in record.attempts]


def is_complete(heard: Heard, stream: bool) -> bool:
    if (heard.status, heard.whole) != (200, True):
        return False
    return heard.finished if stream else heard.json()["choices"][0]["finish_reason"] == "stop"


# ── a prompt that is too long ────────────────────────────────────────────────────────────────────────────────────────


@DIALECTS
@ENDINGS
async def test_a_prompt_that_is_too_long_goes_to_a_larger_window_and_never_again_to_the_same(
    dialect: str, stream: bool
) -> None:
    targets = (
        target("small", "sim-window=2", ", context_tokens = 2"),
        target("equal", "sim", ", context_tokens = 2"),
        target("unknown", "sim"),
        target("large", "sim", ", context_tokens = 1000"),
    )
    providers = [provider(name, dialect=dialect) for name in ("small", "equal", "unknown", "large")]
    async with going(*providers, model(*targets)) as stage:
        assert is_complete(await ask(stage, chat("m", stream=stream, content="a longer prompt")), stream)
        assert told(await last(stage)) == [("small", Kind.PRIMARY), ("large", Kind.FAILOVER)]
        assert {state["breaker"] for state in stage.gateway.health.states()} == {"closed"}


@DIALECTS
@ENDINGS
async def test_without_a_larger_window_the_client_is_told(dialect: str, stream: bool) -> None:
    targets = (
        target("large", "sim-window=3", ", context_tokens = 3"),
        target("small", "sim", ", context_tokens = 2"),
    )
    providers = [provider(name, dialect=dialect) for name in ("small", "large")]
    async with going(*providers, model(*targets)) as stage:
        heard = await ask(stage, chat("m", stream=stream, content="a longer prompt"))
        assert (heard.status, heard.json()["error"]["code"]) == (400, "context_length_exceeded")
        record = await last(stage)
        assert (told(record), record.outcome) == ([("large", Kind.PRIMARY)], Outcome.INVALID)


# ── a prompt that is against the policy ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("dialect", "words"),
    [("openai", "content policy"), ("openai-responses", "usage policy"), ("anthropic", "content filtering policy")],
)
@ENDINGS
async def test_a_refusal_for_what_was_asked_is_not_asked_elsewhere_and_gives_the_reason(
    dialect: str, words: str, stream: bool
) -> None:
    targets = target("strict", "sim-policy"), target("lax", "sim")
    async with going(provider("strict", dialect=dialect), provider("lax"), model(*targets)) as stage:
        heard = await ask(stage, chat("m", stream=stream))
        assert heard.status == 400
        assert words in heard.json()["error"]["message"]
        assert told(await last(stage)) == [("strict", Kind.PRIMARY)]


@ENDINGS
async def test_where_such_a_refusal_is_an_answer_it_is_passed_as_one(stream: bool) -> None:
    targets = target("strict", "sim-policy"), target("lax", "sim")
    async with going(provider("strict", dialect="gemini"), provider("lax"), model(*targets)) as stage:
        heard = await ask(stage, chat("m", stream=stream))
        assert heard.status == 200
        assert '"content_filter"' in heard.body.decode()
        assert told(await last(stage)) == [("strict", Kind.PRIMARY)]


# ── when to come back ────────────────────────────────────────────────────────────────────────────────────────────────


COME_BACK = [
    ("status=429-retry_form=seconds", 3),
    ("status=503-retry_form=seconds", 3),
    ("status=429-retry_form=ms", 3),
    ("status=503-retry_form=ms", 3),
    ("status=429-retry_form=reset", 3),
    ("status=429-retry_form=date", 4),  # dates are of whole seconds
    ("status=503-retry_form=date", 4),
]


@ENDINGS
@pytest.mark.parametrize(("fault", "most_s"), COME_BACK)
async def test_retry_after_is_obeyed_in_every_form(fault: str, most_s: float, stream: bool) -> None:
    flaky = f"sim-flap=1-retry_after=3-{fault}"
    async with going(provider("only"), model(target("only", flaky))) as stage:
        began = trio.current_time()
        assert is_complete(await ask(stage, chat("m", stream=stream)), stream)
        assert 2.9 <= trio.current_time() - began <= most_s
        assert told(await last(stage)) == [("only", Kind.PRIMARY), ("only", Kind.RETRY)]


@pytest.mark.parametrize("form", ["seconds", "date", "ms", "reset"])
async def test_who_wants_to_be_left_alone_for_long_is_left_at_once(form: str) -> None:
    limited = f"sim-status=429-retry_after=30-retry_form={form}"
    targets = target("limited", limited), target("free", "sim")
    rules = "retry = { max = 2, max_s = 60 }"
    async with going(provider("limited"), provider("free"), model(*targets, rules=rules)) as stage:
        for first in ([("limited", Kind.PRIMARY), ("free", Kind.FAILOVER)], [("free", Kind.PRIMARY)]):
            began = trio.current_time()
            assert is_complete(await ask(stage, chat("m", stream=True)), stream=True)
            assert trio.current_time() - began < 0.1
            assert told(await last(stage)) == first


KEYS = 'api_keys = ["key-number-two", "key-number-three"]'


@pytest.mark.parametrize("more", ["", "retry-after: 30\r\n"], ids=["for some time", "for 30 s"])
async def test_where_one_key_is_limited_the_next_is_used_at_once(more: str) -> None:
    refusal = f"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n{more}\r\n".encode()

    async def limits_the_first(peer: Peer) -> None:
        while request := await peer.request():
            await peer.say(refusal if b"secret-key" in request else raw.answer_to(request))

    async with RawServer(limits_the_first) as peer:
        only = provider("only", base_url=f"{peer.url}/v1", rules=KEYS)
        async with going(only, model(target("only", "raw")), counted=False) as stage:
            began = trio.current_time()
            for asked in ([Kind.PRIMARY, Kind.RETRY], [Kind.PRIMARY], [Kind.PRIMARY]):
                assert is_complete(await ask(stage, chat("m", stream=True)), stream=True)
                assert [fact.kind for fact in (await last(stage)).attempts] == asked
            assert trio.current_time() - began < 0.1


@pytest.mark.parametrize(("told", "soonest_s"), [((6, 2, 4), 2), ((None, None, None), 1)], ids=["told", "not told"])
async def test_where_all_keys_are_limited_the_soonest_is_waited_for(
    told: tuple[int | None, ...], soonest_s: float
) -> None:
    refusals = [f"retry-after: {seconds}\r\n" if seconds else "" for seconds in told]

    async def limits_all_once(peer: Peer) -> None:
        while request := await peer.request():
            number = len(server.heard) - 1
            if number < len(refusals):
                head = f"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n{refusals[number]}\r\n"
                await peer.say(head.encode())
            else:
                await peer.say(raw.answer_to(request))

    async with RawServer(limits_all_once) as server:
        only = provider("only", base_url=f"{server.url}/v1", rules=KEYS)
        async with going(only, model(target("only", "raw"), rules="retry = { max = 4 }"), counted=False) as stage:
            began = trio.current_time()
            assert is_complete(await ask(stage, chat("m", stream=True)), stream=True)
            assert (
                soonest_s <= trio.current_time() - began < soonest_s + 1.5
            )  # the third retry's own pause is up to 1 s
            assert len({request.split(b"\r\n\r\n")[0] for request in server.heard[:3]}) == 3, "three keys"


# ── a primary that is silent, under steady traffic ───────────────────────────────────────────────────────────────────


async def test_a_silent_primary_costs_the_first_requests_their_patience_and_the_others_nothing() -> None:
    """A request every 4 s: those that came before the breaker knew wait 30 s; later ones are not sent there."""
    rules = "breaker = { consecutive = 3, open_s = 600, max_open_s = 600 }"
    targets = target("silent", "sim-silence"), target("backup", "sim")
    async with going(provider("silent", rules=rules), provider("backup"), model(*targets)) as stage:

        async def one() -> None:
            heard = await ask(stage, chat("m", stream=True), seconds=60)
            assert is_complete(heard, stream=True)
            assert heard.headers["x-sluice-target"] == "backup/sim"

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(one)
                await trio.sleep(4)
        await one()
        assert told(await last(stage)) == [("backup", Kind.PRIMARY)]
        waited = [record for record in stage.records if told(record)[0] == ("silent", Kind.PRIMARY)]
        assert len(waited) == 10  # of the first 38 s: the third has waited in vain by then
        assert {tuple(told(record)) for record in waited} == {(("silent", Kind.PRIMARY), ("backup", Kind.FAILOVER))}
        assert {record.outcome for record in stage.records} == {Outcome.OK}


# ── a connection that was closed in between ──────────────────────────────────────────────────────────────────────────


@ENDINGS
async def test_a_request_that_crosses_the_end_of_its_kept_connection_is_asked_again_once(stream: bool) -> None:
    async with (
        RawServer(raw.dies_when_asked_again, raw.dies_when_asked_again) as peer,
        going(provider("only", base_url=f"{peer.url}/v1"), model(target("only", "raw")), counted=False) as stage,
    ):
        for asked in (["ok"], ["failed", "ok"], ["failed", "ok"]):
            assert is_complete(await ask(stage, chat("m", stream=stream)), stream)
            assert [fact.outcome for fact in (await last(stage)).attempts] == asked


@ENDINGS
async def test_a_request_that_meets_its_end_on_a_new_connection_is_not_asked_again(stream: bool) -> None:
    async with (
        RawServer(raw.close_before_head) as peer,
        going(provider("only", base_url=f"{peer.url}/v1"), model(target("only", "raw")), counted=False) as stage,
    ):
        heard = await ask(stage, chat("m", stream=stream))
        assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_read")
        assert told(await last(stage)) == [("only", Kind.PRIMARY)]


# ── what comes in one read ───────────────────────────────────────────────────────────────────────────────────────────


class Behind:
    """A stream whose first bytes were read already."""

    def __init__(self, data: bytes, stream: trio.SocketStream) -> None:
        self._data = data
        self._stream = stream

    async def receive_some(self) -> bytes:
        data, self._data = self._data, b""
        return data or await self._stream.receive_some()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"], ids=["passed", "translated"])
async def test_text_that_comes_in_one_read_with_an_error_is_not_lost_by_the_repair(path: str) -> None:
    client_has_some = trio.Event()

    async def fails(peer: Peer) -> None:
        await peer.request()
        await peer.say(raw.SSE_HEAD + raw.chunk(b"".join(raw.events()[:2])))
        await client_has_some.wait()
        await peer.say(raw.chunk(b"".join(raw.events()[2:4]) + b'data: {"error":{"message":"no"}}\n\n'))
        await peer.until_gone()

    async with RawServer(fails) as first, RawServer(raw.answer) as second:
        tables = [provider(name, base_url=f"{peer.url}/v1") for name, peer in (("first", first), ("second", second))]
        targets = target("first", "raw"), target("second", "raw")
        async with going(*tables, model(*targets, rules='midstream = "restart"'), counted=False) as stage:
            async with await stage.connect() as client:
                await client.send_all(request_bytes(chat("m", stream=True, max_tokens=100), path=path))
                data = b""
                while raw.WORDS[0].encode() not in data:
                    data += await client.receive_some()
                client_has_some.set()
                heard = await hear(Behind(data, client))
            documents = [json.loads(event) for event in heard.events if event != "[DONE]"]
            deltas = [about.get("delta") or about.get("choices", [{}])[0].get("delta", {}) for about in documents]
            text = "".join(delta.get("text") or delta.get("content") or "" for delta in deltas)
            assert text == "".join(raw.WORDS)
            assert told(await last(stage)) == [("first", Kind.PRIMARY), ("second", Kind.CONTINUATION)]
