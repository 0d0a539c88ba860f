"""Promise: ``POST /v1/orchestrate`` tells what happens as it happens, in order, and never ends in a false ``done``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.context.index import index_folder
from gateway.core.facts import Outcome
from gateway.sim import Behaviour
from gateway.store.sqlite import Store
from tests.component.stage import Heard, Stage, ask, hear, request_bytes, staged

PATH = "/v1/orchestrate"
LOADERS = """
  [[assistant.loader]]
  name = "docs"
  kind = "retrieval"
  timeout_s = 5
  [[assistant.loader]]
  name = "profile"
  kind = "profile"
  timeout_s = 5
  [[assistant.loader]]
  name = "earlier"
  kind = "context"
  timeout_s = 5
"""
HELPERS = "".join(
    f'[[assistant]]\nname = "{name}"\nmodel = "{model}"\ncontext_budget_s = 5\n{LOADERS}'
    for name, model in {
        "support": "chat",
        "slow": "sim/sim-ttft=60",
        "cut": "sim/sim-cut=3-tps=50",
        "refused": "sim/sim-status=429-retry_after=7",
        "garbled": "sim/sim-error=3-tps=50",
    }.items()
)
STRICT = """
[[assistant]]
name = "strict"
model = "chat"
  [[assistant.loader]]
  name = "profile"
  kind = "profile"
  required = true
  timeout_s = 5
[[assistant]]
name = "bare"
model = "chat"
system = "Be brief."
"""
LOADED = ["context.started"] * 3 + ["context.loaded"] * 3
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"place": {"type": "string"}}}},
}
Story = list[tuple[str, dict[str, Any]]]


@asynccontextmanager
async def told(folder: Path, **options: Any) -> AsyncIterator[Stage]:
    """A stage whose assistants know a document, a user and nothing else."""
    url = f"sqlite:///{folder}/x.db"
    (folder / "docs").mkdir()
    (folder / "docs" / "care.md").write_text("# Descaling\n\nNever descale with vinegar: it attacks the seals.")
    async with Store.open(url) as store:
        await index_folder(store, "default", folder / "docs")
        await store.profiles.put({"anna": {"name": "Anna"}})
    behaviour = Behaviour(ttft_s=0.0, tokens_per_s=0.0)
    async with staged(more=HELPERS + STRICT, store=url, behaviour=behaviour, **options) as stage:
        yield stage


def question(assistant: str = "support", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    whole = {"user": "anna", "conversation": "c1", "input": "May I descale with vinegar?", **fields}
    return {"assistant": assistant, "stream": stream, **{name: value for name, value in whole.items() if value}}


def story_of(heard: Heard) -> Story:
    """The events by name, once their form and their ids are checked."""
    assert (heard.status, heard.whole) == (200, True)
    assert heard.headers["content-type"].startswith("text/event-stream")
    story = []
    for number, block in enumerate(heard.body.decode().removesuffix("\n\n").split("\n\n"), 1):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert list(fields) == ["id", "event", "data"]
        assert fields["id"] == str(number)
        story.append((fields["event"], json.loads(fields["data"])))
    return story


def names(story: Story) -> list[str]:
    """The events' names, with the deltas of one text as one."""
    found = [name for name, _ in story]
    return [name for at, name in enumerate(found) if name != "text.delta" or found[at - 1] != name]


def about(story: Story, name: str) -> dict[str, Any]:
    [data] = [data for event, data in story if event == name]
    return data


async def test_a_stream_tells_loading_asking_answering_and_the_end(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        stage.remember_baseline()
        heard = await ask(stage, question(), path=PATH)
        story = story_of(heard)
        # The empty conversation is loaded, too: there was nothing in it, which is no failure.
        assert names(story) == [*LOADED, "model.started", "text.delta", "usage", "done"]
        kinds = {data["loader"]: data["kind"] for name, data in story if name == "context.started"}
        assert kinds == {"docs": "retrieval", "profile": "profile", "earlier": "context"}
        loaded = {data["loader"]: data for name, data in story if name == "context.loaded"}
        [passage] = loaded["docs"]["items"]
        assert passage == {"source": "care.md › Descaling", "chars": loaded["docs"]["chars"]}
        assert loaded["docs"]["ms"] > 0
        assert loaded["earlier"]["items"] == []
        assert about(story, "model.started") == {"target": "sim/sim", "model": "support", "attempt": 1}
        text = "".join(data["text"] for name, data in story if name == "text.delta")
        assert "it attacks the seals" in text
        usage = about(story, "usage")
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert usage["estimated"] is False
        done = about(story, "done")
        assert done["finish_reason"] == "stop"
        assert done["request_id"] == heard.headers["x-request-id"]
        assert 0 < done["ttft_ms"] <= done["total_ms"]
        await stage.settle()
        stage.assert_nothing_left(requests=1)


async def test_the_document_says_the_same_with_sources_timings_and_usage(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        story = story_of(await ask(stage, question(conversation="a"), path=PATH))
        heard = await ask(stage, question(stream=False, conversation="b"), path=PATH)
        assert (heard.status, heard.headers["content-type"]) == (200, "application/json")
        document = heard.json()
        assert document["object"] == "orchestration"
        assert document["request_id"] == heard.headers["x-request-id"]
        assert (document["assistant"], document["target"]) == ("support", "sim/sim")
        assert document["output"] == "".join(data["text"] for name, data in story if name == "text.delta")
        assert document["usage"] == about(story, "usage")
        assert document["finish_reason"] == "stop"
        assert document["sources"] == [
            {"loader": "docs", "source": "care.md › Descaling"},
            {"loader": "profile", "source": "profile of anna"},
        ]
        outcomes = [(each["loader"], each["outcome"]) for each in document["context"]]
        assert outcomes == [("docs", "loaded"), ("profile", "loaded"), ("earlier", "empty")]
        slowest_ms = max(each["ms"] for each in document["context"])
        assert 0 < slowest_ms <= document["context_ms"] + 0.1 <= document["total_ms"] + 0.2
        assert document["queue_ms"] == 0


async def test_messages_do_as_well_as_an_input(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        messages = [{"role": "user", "content": "May I descale with vinegar?"}]
        by_input = await ask(stage, question(stream=False, conversation=None), path=PATH)
        by_messages = await ask(
            stage, question(stream=False, conversation=None, input=None, messages=messages), path=PATH
        )
        assert by_messages.json()["output"] == by_input.json()["output"]


@pytest.mark.alone
async def test_loading_is_told_before_the_model_answers(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(question("slow"), path=PATH))
            received = b""
            with trio.fail_after(5):
                while received.count(b"event: context.loaded") < 3:
                    received += await stream.receive_some()
                await stage.sim.until(lambda now: now.active == 1)
            assert b"model.started" not in received
            left_at = trio.current_time()
        await stage.sim.until(lambda now: now.active == 0)
        assert trio.current_time() - left_at < 0.1
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        assert stage.records[0].outcome is Outcome.CANCELLED


async def test_what_the_request_does_not_name_is_skipped_and_said_so(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        story = story_of(await ask(stage, question(user=None, conversation=None), path=PATH))
        assert names(story)[:4] == ["context.skipped", "context.skipped", "context.started", "context.loaded"]
        skipped = {data["loader"]: data["reason"] for name, data in story if name == "context.skipped"}
        assert skipped == {
            "profile": "the request names no user",
            "earlier": "the request names no conversation",
        }
        assert names(story)[-1] == "done"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_profile_without_a_user_is_a_400_in_both_forms(tmp_path: Path, stream: bool) -> None:
    async with told(tmp_path) as stage:
        heard = await ask(stage, question("strict", stream=stream, user=None), path=PATH)
        assert heard.status == 400
        error = heard.json()["error"]
        assert (error["code"], error["param"]) == ("missing_user", "user")
        assert "'profile' is required" in error["message"]
        assert stage.sim.statistics().started == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_are_told_once_they_are_whole(tmp_path: Path, stream: bool) -> None:
    async with told(tmp_path) as stage:
        heard = await ask(stage, question(stream=stream, tools=[WEATHER], input="Use the weather tool."), path=PATH)
        if stream:
            story = story_of(heard)
            assert names(story) == [*LOADED, "model.started", "tool.called", "usage", "done"]
            call, finish = about(story, "tool.called"), about(story, "done")["finish_reason"]
        else:
            [call] = heard.json()["tool_calls"]
            finish = heard.json()["finish_reason"]
        assert (call["name"], json.loads(call["arguments"])) == ("weather", {"place": "Use the weather tool."})
        assert call["id"].startswith("call_")
        assert finish == "tool_calls"


async def test_an_error_before_the_first_token_is_the_last_event(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        story = story_of(await ask(stage, question("refused"), path=PATH))
        assert names(story) == [*LOADED, "error"]
        error = about(story, "error")
        assert (error["code"], error["retry_after_s"]) == ("upstream_rate_limited", 7)
        await stage.settle()
        [record] = stage.records
        assert (record.outcome, record.code) == (Outcome.FAILED, "upstream_rate_limited")


@pytest.mark.parametrize(("assistant", "code"), [("cut", "upstream_read"), ("garbled", "upstream_error")])
async def test_an_answer_that_breaks_off_ends_in_an_error_and_never_in_done(
    tmp_path: Path, assistant: str, code: str
) -> None:
    async with told(tmp_path) as stage:
        story = story_of(await ask(stage, question(assistant), path=PATH))
        assert names(story) == [*LOADED, "model.started", "text.delta", "error"]
        assert about(story, "error")["code"] == code
        await stage.settle()
        stage.assert_nothing_left(requests=1)
        assert stage.records[0].outcome is Outcome.BROKEN


async def test_the_document_of_a_failure_is_an_error_with_its_status(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        heard = await ask(stage, question("refused", stream=False), path=PATH)
        assert (heard.status, heard.headers["retry-after"]) == (429, "7")
        assert heard.json()["error"]["code"] == "upstream_rate_limited"
        heard = await ask(stage, question("cut", stream=False), path=PATH)
        assert (heard.status, heard.json()["error"]["code"]) == (502, "upstream_read")


async def test_without_loaders_the_status_waits_for_the_model(tmp_path: Path) -> None:
    async with told(tmp_path) as stage:
        assert names(story_of(await ask(stage, question("bare"), path=PATH))) == [
            *("model.started", "text.delta", "usage", "done"),
        ]
        heard = await ask(stage, question("sim/sim-status=503"), path=PATH)
        assert (heard.status, heard.json()["error"]["code"]) == (503, "upstream_unavailable")


async def test_it_is_refused_at_the_door_like_everything_else(tmp_path: Path) -> None:
    async with told(tmp_path, workers=1, queue=0) as stage, trio.open_nursery() as nursery:
        assert (await ask(stage, question(), path=PATH, key=None)).status == 401
        heard = await ask(stage, question("nobody"), path=PATH)
        assert (heard.status, heard.json()["error"]["param"]) == (404, "assistant")
        nursery.start_soon(ask, stage, question("slow"))
        async with await stage.connect() as stream:
            await stream.send_all(request_bytes(question("slow"), path=PATH))
            await stage.sim.until(lambda now: now.active == 1)
            heard = await ask(stage, question(), path=PATH)
            assert (heard.status, heard.json()["error"]["code"]) == (429, "queue_full")
            assert int(heard.headers["retry-after"]) >= 1
        nursery.cancel_scope.cancel()


async def test_two_requests_on_one_connection_tell_two_stories(tmp_path: Path) -> None:
    async with told(tmp_path) as stage, await stage.connect() as stream:
        for _ in range(2):
            await stream.send_all(request_bytes(question(), path=PATH))
            assert names(story_of(await hear(stream)))[-1] == "done"
