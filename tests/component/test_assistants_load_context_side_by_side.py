"""Promise: what an assistant needs to know is loaded side by side, within its budget, and is gone with its request.

The http loaders of these assistants ask a slow API on loopback, which sees who asks at the same time and who leaves.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.core.facts import Outcome, Phase, Record
from gateway.sim import Behaviour
from tests.component.stage import Heard, Stage, ask, chat, request_bytes, staged

AS_LONG_AS_NEEDED = Behaviour(ttft_s=0.0, tokens_per_s=0.0)
SLACK_S = 1.5  # for a busy machine; the point is that it is not another timeout or another loader, which has 5 s


class Api:
    """Answers by path: ``/after/S`` after S seconds, ``/hung`` never, ``/together/N`` when N are here, ``/status/N``"""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.active = 0
        self.peak = 0
        self._together = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._handle, [listener])

    async def until_active(self, wanted: int) -> None:
        with trio.fail_after(5):
            while self.active != wanted:
                await self._changed.park()

    async def _handle(self, stream: trio.SocketStream) -> None:
        path = await self._request(stream)
        if not path:
            return
        self._count(+1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._notice_the_end, stream, nursery.cancel_scope)
                await self._answer(stream, path)
                nursery.cancel_scope.cancel()
        finally:
            self._count(-1)

    async def _request(self, stream: trio.SocketStream) -> str:
        received = b""
        while b"\r\n\r\n" not in received:
            more = await stream.receive_some()
            if not more:
                return ""
            received += more
        path = received.split()[1].decode()
        self.asked.append(path)
        return path

    async def _answer(self, stream: trio.SocketStream, path: str) -> None:
        _, kind, value, *_ = [*path.split("/"), ""]
        if kind == "hung":
            await trio.sleep_forever()
        if kind == "after":
            await trio.sleep(float(value))
        if kind == "together":
            if self.active == int(value):
                self._together.set()
            await self._together.wait()
        status = int(value) if kind == "status" else 200
        body = json.dumps({"found": f"The API says {path}."}).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        with suppress(trio.BrokenResourceError):
            await stream.send_all(head.encode() + body)

    async def _notice_the_end(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        scope.cancel()

    def _count(self, change: int) -> None:
        self.active += change
        self.peak = max(self.peak, self.active)
        self._changed.unpark_all()


def assistant(api: Api, *loaders: str, name: str = "helper", budget_s: float = 5.0) -> str:
    """An assistant with an http loader for each ``"NAME PATH SETTINGS"``."""
    text = f'[[assistant]]\nname = "{name}"\nmodel = "chat"\nsystem = "Use this:"\ncontext_budget_s = {budget_s}\n'
    for loader in loaders:
        called, path, *more = loader.split(maxsplit=2)
        text += f'[[assistant.loader]]\nkind = "http"\nname = "{called}"\npointer = "/found"\n'
        text += f'url = "http://127.0.0.1:{api.port}{path}"\n' + "\n".join(more) + "\n"
    return text


@asynccontextmanager
async def slow_api() -> AsyncIterator[Api]:
    api = Api()
    async with trio.open_nursery() as nursery:
        await nursery.start(api.serve)
        yield api
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def assisted(*loaders: str, **settings: Any) -> AsyncIterator[tuple[Stage, Api]]:
    async with slow_api() as api:
        more = f'[context]\nallowed_hosts = ["127.0.0.1:{api.port}"]\n' + assistant(api, *loaders, **settings)
        async with staged(more=more, behaviour=AS_LONG_AS_NEEDED) as stage:
            yield stage, api


def said(heard: Heard) -> str:
    assert heard.status == 200, heard
    return str(heard.json()["choices"][0]["message"]["content"])


def outcomes(record: Record) -> dict[str, str]:
    return {fact.loader: fact.outcome for fact in record.loaders}


@pytest.mark.alone
async def test_three_loaders_of_200_ms_take_200_ms_together() -> None:
    async with assisted(*(f"{name} /after/0.2/{name} timeout_s=5" for name in ("a", "b", "c"))) as (stage, api):
        text = said(await ask(stage, chat("helper")))
        assert all(f"The API says /after/0.2/{name}." in text for name in "abc")
        [record] = stage.records
        assert outcomes(record) == {"a": "loaded", "b": "loaded", "c": "loaded"}
        assert 0.2 <= record.context_s < 0.4
        assert api.peak == 3


async def test_loaders_overlap_whatever_their_order() -> None:
    """Nobody is answered before all have asked: one after the other they would never end."""
    async with assisted(*(f"{name} /together/3 timeout_s=5" for name in ("a", "b", "c"))) as (stage, _):
        said(await ask(stage, chat("helper")))
        assert set(outcomes(stage.records[0]).values()) == {"loaded"}


async def test_a_hung_optional_loader_costs_exactly_its_timeout() -> None:
    async with assisted("hung /hung timeout_s=0.2", "quick /after/0 timeout_s=5") as (stage, api):
        text = said(await ask(stage, chat("helper")))
        assert "The API says /after/0." in text
        [record] = stage.records
        assert outcomes(record) == {"hung": "timeout", "quick": "loaded"}
        assert 0.2 <= record.context_s < 0.2 + SLACK_S
        await api.until_active(0)  # given up, and its connection with it


async def test_all_loaders_together_cost_no_more_than_the_budget() -> None:
    async with assisted("a /hung timeout_s=5", "b /hung timeout_s=5", budget_s=0.2) as (stage, _):
        heard = await ask(stage, {"assistant": "helper", "input": "x"}, path="/v1/orchestrate")
        assert heard.status == 200
        [record] = stage.records
        assert 0.2 <= record.context_s < 0.2 + SLACK_S
        context = heard.json()["context"]
        assert [(each["outcome"], each["reason"]) for each in context] == [
            ("timeout", "no result within the budget of 0.2 s (context_budget_s)")
        ] * 2


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        ("orders /status/500 required=true", "required context loader 'orders' failed: the API answered 500"),
        (
            "orders /hung timeout_s=0.1\nrequired=true",
            "required context loader 'orders' timed out: no result within 0.1 s (timeout_s)",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_loader_that_fails_is_a_502_that_names_it(loader: str, says: str, stream: bool) -> None:
    async with assisted(loader, "other /hung timeout_s=5") as (stage, api):
        stage.remember_baseline()
        with trio.fail_after(4):  # the other one is not waited for
            heard = await ask(stage, chat("helper", stream=stream))
        assert heard.status == 502
        error = heard.json()["error"]
        assert (error["code"], error["message"]) == ("context_failed", says)
        await api.until_active(0)
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        assert stage.records[0].outcome is Outcome.FAILED
        assert stage.sim.statistics().started == 0  # the model was never asked


async def test_an_optional_loader_that_fails_is_told_to_the_model_and_costs_nothing_else() -> None:
    async with assisted("gone /status/404", "here /after/0 timeout_s=5") as (stage, _):
        text = said(await ask(stage, chat("helper")))
        assert "The API says /after/0." in text
        assert "not available" in text
        assert outcomes(stage.records[0]) == {"gone": "failed", "here": "loaded"}


@pytest.mark.alone
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/orchestrate"])
async def test_loading_ends_with_the_client_that_leaves(path: str) -> None:
    asked = chat("helper", stream=True) if "chat" in path else {"assistant": "helper", "input": "x", "stream": True}
    async with assisted("a /hung timeout_s=60", "b /hung timeout_s=60", budget_s=60) as (stage, api):
        stage.remember_baseline()
        stream = await stage.connect()
        await stream.send_all(request_bytes(asked, path=path))
        await api.until_active(2)
        left_at = trio.current_time()
        await trio.aclose_forcefully(stream)
        await api.until_active(0)
        assert trio.current_time() - left_at < 0.1
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        [record] = stage.records
        assert (record.outcome, record.phase) == (Outcome.CANCELLED, Phase.CONTEXT)
        assert stage.sim.statistics().started == 0


async def test_the_requests_own_deadline_ends_its_loading() -> None:
    async with assisted("a /hung timeout_s=60", budget_s=60) as (stage, _):
        heard = await ask(stage, chat("helper"), headers={"x-request-timeout-ms": "200"}, seconds=5)
        assert heard.status == 504
        assert heard.json()["error"]["code"] == "total_timeout"
        assert stage.records[0].total_s < 0.2 + SLACK_S


# ── conversations ───────────────────────────────────────────────────────────────────────────────────────────────────

TALK = """
[[assistant]]
name = "talk"
model = "chat"
system = "Be kind."
[[assistant.loader]]
name = "earlier"
kind = "context"
timeout_s = 5
[[assistant]]
name = "broken"
model = "sim/sim-cut=3"
[[assistant.loader]]
name = "earlier"
kind = "context"
timeout_s = 5
[[key]]
name = "other"
secret = "sk-other"
"""
OTHER = {"authorization": "Bearer sk-other"}
BEFORE = "Before that you had asked: “My name is Ada.”"


@asynccontextmanager
async def talking() -> AsyncIterator[Stage]:
    async with staged(more=TALK, behaviour=AS_LONG_AS_NEEDED) as stage:
        yield stage


async def say(
    stage: Stage, text: str, conversation: str, headers: dict[str, str] | None = None, **options: Any
) -> Heard:
    sent = {"x-sluice-conversation": conversation, **(headers or {})}
    return await ask(stage, chat(options.pop("model", "talk"), content=text, **options), headers=sent)


async def test_a_client_that_goes_on_at_once_finds_its_last_turn(tmp_path: Path) -> None:
    """Turns are written after their answer, and a disk takes longer than loopback: reading waits for them."""
    async with staged(more=TALK, behaviour=AS_LONG_AS_NEEDED, store=f"sqlite:///{tmp_path}/x.db") as stage:
        conversations = stage.gateway.store.conversations  # type: ignore[union-attr]
        write, may_write = conversations.append, trio.Event()

        async def slowly(*args: Any) -> None:
            await may_write.wait()
            await write(*args)

        conversations.append = slowly  # type: ignore[method-assign]
        await say(stage, "My name is Ada.", "c1")
        async with trio.open_nursery() as nursery:

            async def go_on() -> None:
                assert BEFORE in said(await say(stage, "Who am I?", "c1"))

            nursery.start_soon(go_on)
            assert BEFORE not in said(await say(stage, "Who am I?", "c2"))  # which waits for nobody
            may_write.set()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_is_kept_and_used_the_next_time(stream: bool) -> None:
    async with talking() as stage:
        first = await say(stage, "My name is Ada.", "c1", stream=stream)
        assert first.status == 200
        second = await say(stage, "Who am I?", "c1", stream=stream)  # at once, as a program asks
        assert BEFORE in (second.text if stream else said(second))
        assert outcomes(stage.records[1]) == {"earlier": "loaded"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_orchestration_endpoint_continues_the_same_conversations(stream: bool) -> None:
    async with talking() as stage:
        await say(stage, "My name is Ada.", "c1")
        asked = {"assistant": "talk", "input": "Who am I?", "conversation": "c1", "stream": stream}
        heard = await ask(stage, asked, path="/v1/orchestrate")
        assert (
            "My name is Ada." in "".join(map(str, map(json.loads, heard.events))) if stream else heard.json()["output"]
        )
        third = await say(stage, "And now?", "c1")
        assert "Before that you had asked: “Who am I?”" in said(third)


async def test_conversations_are_never_mixed_between_keys_or_ids() -> None:
    async with talking() as stage:
        await say(stage, "My name is Ada.", "c1")
        assert BEFORE not in said(await say(stage, "Who am I?", "c1", OTHER))
        assert BEFORE not in said(await say(stage, "Who am I?", "c2"))
        assert BEFORE in said(await say(stage, "Who am I?", "c1"))


async def test_a_request_without_a_conversation_keeps_nothing() -> None:
    async with talking() as stage:
        said(await ask(stage, chat("talk", content="My name is Ada.")))
        assert outcomes(stage.records[0]) == {"earlier": "skipped"}
        assert BEFORE not in said(await ask(stage, chat("talk", content="Who am I?")))


async def test_an_answer_that_broke_off_is_not_kept() -> None:
    async with talking() as stage:
        broken = await say(stage, "My name is Ada.", "c1", model="broken", stream=True)
        assert not broken.finished
        assert BEFORE not in said(await say(stage, "Who am I?", "c1"))
