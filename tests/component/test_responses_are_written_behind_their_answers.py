"""Promise: keeping a response never makes its answer wait, and who goes on from it at once finds it."""

from __future__ import annotations

import trio

from gateway.store.database import MEMORY, Database
from gateway.store.response_queue import ResponseQueue
from gateway.store.responses import ResponseLimits, Responses


async def test_what_was_just_taken_is_found_once_it_is_written(nursery: trio.Nursery) -> None:
    responses, lost = Responses(Database(MEMORY)), list[str]()
    queue = ResponseQueue(lambda: responses, lost.append)
    queue.keep("a", "1", None, b"one")
    queue.keep("a", "2", "1", b"two")
    assert (queue.statistics().waiting, queue.statistics().waiting_bytes) == (2, 6)
    nursery.start_soon(queue.run)
    with trio.fail_after(5):
        assert await responses.chains("a", ["2"]) == {"2": [b"one", b"two"]}
        await queue.finish(5)
    assert (queue.statistics().waiting, queue.statistics().waiting_bytes, lost) == (0, 0, [])


async def test_the_end_waits_for_the_last_ones_and_takes_no_more(nursery: trio.Nursery) -> None:
    responses, lost = Responses(Database(MEMORY)), list[str]()
    queue = ResponseQueue(lambda: responses, lost.append)
    for number in range(20):
        queue.keep("a", str(number), None, b"x")
    nursery.start_soon(queue.run)
    with trio.fail_after(5):
        await queue.finish(5)
        assert await responses.get("a", "19") == b"x"
        queue.keep("a", "late", None, b"x")
        assert await responses.get("a", "late") is None
    assert (queue.statistics().lost, len(lost)) == (1, 1)


async def test_what_does_not_fit_is_lost_and_counted() -> None:
    responses, lost = Responses(Database(MEMORY)), list[str]()
    queue = ResponseQueue(lambda: responses, lost.append, max_waiting=3, max_waiting_bytes=10)
    queue.keep("a", "1", None, b"x" * 100)  # one is always taken
    queue.keep("a", "2", None, b"x")
    assert (queue.statistics().waiting, queue.statistics().lost) == (1, 1)
    with trio.fail_after(5):
        assert await responses.get("a", "2") is None  # and nobody waits for it
    queue = ResponseQueue(lambda: responses, lost.append, max_waiting=3, max_waiting_bytes=10)
    for number in range(5):
        queue.keep("b", str(number), None, b"")
    assert (queue.statistics().waiting, queue.statistics().lost) == (3, 2)
    assert len(lost) == 3


async def test_a_store_that_refuses_costs_only_what_it_refused(nursery: trio.Nursery) -> None:
    database = Database(MEMORY)
    responses, lost = Responses(database, ResponseLimits(response_bytes=3)), list[str]()
    queue = ResponseQueue(lambda: responses, lost.append)
    queue.keep("a", "large", None, b"four")
    queue.keep("a", "small", None, b"ok")
    nursery.start_soon(queue.run)
    with trio.fail_after(5):
        assert await responses.get("a", "large") is None
        assert await responses.get("a", "small") == b"ok"
        await database.aclose()
        queue.keep("a", "gone", None, b"x")
        await queue.finish(5)
    assert [("larger" in why, "closed" in why) for why in lost] == [(True, False), (False, True)]
    assert queue.statistics().waiting == 0
