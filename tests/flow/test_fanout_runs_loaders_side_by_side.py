"""Promise: loaders run side by side, each within its timeout and all within the budget, and end together."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from gateway.config import LoaderRules, ProfileLoader
from gateway.context.load import LoaderError, LoaderReport, LoaderStarted, cut, load_context, shorten
from gateway.core.ask import Ask, Item
from gateway.core.errors import ContextFailed, RequestError
from gateway.flow.fanout import Branch, fan_out

ASK = Ask(input="hello", user="anna", conversation="c1", tenant="k")


class Scripted:
    """A loader that does what the test tells it, and counts how often it runs now."""

    def __init__(
        self, name: str, run: Callable[[], Awaitable[object]], *, required: bool = False, timeout_s: float = 0.5
    ) -> None:
        self.rules = LoaderRules(name=name, required=required, timeout_s=timeout_s)
        self.running = 0
        self.entered = 0
        self._run = run

    async def load(self, ask: Ask) -> Sequence[Item]:
        self.entered += 1
        self.running += 1
        try:
            await self._run()
        finally:
            self.running -= 1
        return [Item(text=f"{self.rules.name} of {ask.input}", source=self.rules.name)]


def after(seconds: float) -> Callable[[], Awaitable[None]]:
    return partial(trio.sleep, seconds)


def failing(error: BaseException, seconds: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await trio.sleep(seconds)
        raise error

    return run


async def test_three_loaders_of_200_ms_take_200_ms_together(autojump_clock: MockClock) -> None:
    loaders = [Scripted(name, after(0.2)) for name in "abc"]
    started = trio.current_time()
    context = await load_context(loaders, ASK, budget_s=0.8)
    assert trio.current_time() - started == pytest.approx(0.2)
    assert context.ms == pytest.approx(200)
    assert [(report.loader, report.outcome, report.items[0].text) for report in context.reports] == [
        ("a", "loaded", "a of hello"),
        ("b", "loaded", "b of hello"),
        ("c", "loaded", "c of hello"),
    ]


async def test_reports_keep_the_order_of_the_configuration(autojump_clock: MockClock) -> None:
    context = await load_context([Scripted("slow", after(0.3)), Scripted("quick", after(0.1))], ASK, budget_s=1)
    assert [report.loader for report in context.reports] == ["slow", "quick"]
    assert [report.ms for report in context.reports] == pytest.approx([300, 100])


@pytest.mark.parametrize("others", [0, 2])
async def test_a_hung_optional_loader_costs_exactly_its_timeout(autojump_clock: MockClock, others: int) -> None:
    hung = Scripted("hung", trio.sleep_forever, timeout_s=0.3)
    loaders = [hung, *(Scripted(f"fine{number}", after(0.1)) for number in range(others))]
    started = trio.current_time()
    context = await load_context(loaders, ASK, budget_s=0.8)
    assert trio.current_time() - started == pytest.approx(0.3)
    report = context.reports[0]
    assert (report.outcome, report.detail) == ("timeout", "no result within 0.3 s (timeout_s)")
    assert hung.running == 0


async def test_the_budget_ends_all_loaders_whatever_their_timeouts(autojump_clock: MockClock) -> None:
    loaders = [Scripted("a", trio.sleep_forever, timeout_s=5), Scripted("b", after(0.1), timeout_s=5)]
    started = trio.current_time()
    context = await load_context(loaders, ASK, budget_s=0.8)
    assert trio.current_time() - started == pytest.approx(0.8)
    assert [report.outcome for report in context.reports] == ["timeout", "loaded"]
    assert context.reports[0].detail == "no result within the budget of 0.8 s (context_budget_s)"


async def test_the_requests_own_deadline_ends_loading_before_the_budget(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    context = await load_context(
        [Scripted("a", trio.sleep_forever)], ASK, budget_s=0.8, deadline=trio.current_time() + 0.2
    )
    assert trio.current_time() - started == pytest.approx(0.2)
    assert context.reports[0].outcome == "timeout"


async def test_no_loader_starts_when_no_time_is_left(autojump_clock: MockClock) -> None:
    loader = Scripted("late", after(0))
    context = await load_context([loader], ASK, budget_s=0.8, deadline=trio.current_time())
    assert (context.reports[0].outcome, loader.entered) == ("skipped", 0)
    late_and_required = Scripted("late", after(0), required=True)
    with pytest.raises(ContextFailed, match="'late' could not start: no time was left"):
        await load_context([late_and_required], ASK, budget_s=0)


@pytest.mark.parametrize("others", [0, 2])
async def test_a_failing_required_loader_is_named_and_stops_the_others(autojump_clock: MockClock, others: int) -> None:
    cause = LoaderError("the API answered 503")
    siblings = [Scripted(f"slow{number}", after(0.4)) for number in range(others)]
    started = trio.current_time()
    with pytest.raises(ContextFailed) as caught:
        await load_context([*siblings, Scripted("prices", failing(cause, 0.1), required=True)], ASK, budget_s=0.8)
    assert trio.current_time() - started == pytest.approx(0.1)
    assert (caught.value.loader, caught.value.http_status) == ("prices", 502)
    assert caught.value.public_message == "required context loader 'prices' failed: the API answered 503"
    assert caught.value.__cause__ is cause
    assert [sibling.entered for sibling in siblings] == [1] * others
    assert [sibling.running for sibling in siblings] == [0] * others


async def test_a_required_loader_that_is_late_is_a_failure(autojump_clock: MockClock) -> None:
    loaders = [Scripted("docs", trio.sleep_forever, required=True, timeout_s=0.2), Scripted("other", after(0.1))]
    with pytest.raises(ContextFailed, match=r"'docs' timed out: no result within 0\.2 s"):
        await load_context(loaders, ASK, budget_s=0.8)


async def test_the_first_of_two_failing_required_loaders_is_named(autojump_clock: MockClock) -> None:
    loaders = [
        Scripted("second", failing(ValueError(), 0.2), required=True),
        Scripted("first", failing(ValueError(), 0.1), required=True),
    ]
    with pytest.raises(ContextFailed, match="'first' failed"):
        await load_context(loaders, ASK, budget_s=0.8)


async def test_a_foreign_exception_shows_its_type_and_never_its_text() -> None:
    secret = ValueError("postgres://user:hunter2@db/prod")
    context = await load_context([Scripted("a", failing(secret)), Scripted("b", after(0))], ASK, budget_s=0.8)
    report = context.reports[0]
    assert (report.outcome, report.detail, report.error) == ("failed", "ValueError", secret)
    assert "hunter2" not in repr(report)
    with pytest.raises(ContextFailed) as caught:
        await load_context([Scripted("a", failing(secret), required=True)], ASK, budget_s=0.8)
    assert "hunter2" not in caught.value.public_message


async def test_an_exception_group_of_a_loader_is_its_failure_and_nothing_else() -> None:
    async def crowd() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing(ValueError("one")))
            nursery.start_soon(failing(KeyError("two")))

    context = await load_context([Scripted("a", crowd), Scripted("b", after(0))], ASK, budget_s=0.8)
    assert [report.outcome for report in context.reports] == ["failed", "loaded"]


async def test_a_keyboard_interrupt_is_no_loader_failure_and_comes_out_bare() -> None:
    loaders = [Scripted("a", failing(KeyboardInterrupt())), Scripted("b", trio.sleep_forever)]
    with pytest.raises(KeyboardInterrupt):
        await load_context(loaders, ASK, budget_s=0.8)
    assert loaders[1].running == 0


async def test_observers_hear_starts_in_order_and_every_end_when_it_happens(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    heard: list[tuple[str, str, float]] = []

    def observe(event: LoaderStarted | LoaderReport) -> None:
        what = event.outcome if isinstance(event, LoaderReport) else "started"
        heard.append((event.loader, what, round(trio.current_time() - began, 3)))

    loaders = [Scripted("a", after(0.2)), Scripted("b", failing(ValueError(), 0.1)), Scripted("c", trio.sleep_forever)]
    await load_context(loaders, ASK, budget_s=0.8, observe=observe)
    assert heard == [
        ("a", "started", 0.0),
        ("b", "started", 0.0),
        ("c", "started", 0.0),
        ("b", "failed", 0.1),
        ("a", "loaded", 0.2),
        ("c", "timeout", 0.5),
    ]


async def test_without_loaders_there_is_nothing_to_wait_for() -> None:
    context = await load_context([], ASK, budget_s=0.8)
    assert (context.reports, context.ms) == ((), 0.0)


class NeedsUser(Scripted):
    def __init__(self, *, required: bool) -> None:
        super().__init__("profile", after(0))
        self.rules = ProfileLoader(name="profile", required=required)


async def test_a_loader_without_its_user_is_skipped_if_optional_and_the_callers_mistake_if_required() -> None:
    nobody = Ask(input="hello")
    optional, heard = NeedsUser(required=False), list[LoaderStarted | LoaderReport]()
    context = await load_context([optional], nobody, budget_s=0.8, observe=heard.append)
    assert (context.reports[0].outcome, context.reports[0].detail) == ("skipped", "the request names no user")
    assert (heard, optional.entered) == ([context.reports[0]], 0)
    with pytest.raises(RequestError) as caught:
        await load_context([NeedsUser(required=True)], nobody, budget_s=0.8)
    assert (caught.value.http_status, caught.value.param) == (400, "user")


@pytest.mark.parametrize("count", [1, 3])
async def test_cancelling_at_any_checkpoint_leaves_no_loader_running(count: int) -> None:
    """The sweep: the request is given up at its n-th scheduling, for every n until it finishes by itself."""
    for at in range(60):
        loaders = [Scripted(f"l{number}", _three_checkpoints) for number in range(count)]
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_load_within, scope, loaders)
            for _ in range(at):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        assert [loader.running for loader in loaders] == [0] * count
        if not scope.cancelled_caught:
            return
    pytest.fail("the sweep never reached the end of the fan-out")


async def _load_within(scope: trio.CancelScope, loaders: list[Scripted]) -> None:
    with scope:
        await load_context(loaders, ASK, budget_s=5)


async def _three_checkpoints() -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()


async def test_stopped_branches_are_joined_before_the_fan_out_returns(autojump_clock: MockClock) -> None:
    gone = []

    async def slow_to_leave() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.sleep(0.25)
            gone.append(trio.current_time())

    outcomes = await fan_out(
        [Branch(name="slow", run=slow_to_leave), Branch(name="bad", run=failing(ValueError(), 0.1))],
        stops=lambda outcome: outcome.status == "failed",
    )
    assert [outcome.status for outcome in outcomes] == ["stopped", "failed"]
    assert gone == [trio.current_time()]


async def test_what_an_observer_raises_comes_out_as_itself(autojump_clock: MockClock) -> None:
    def broken(_index: int, _outcome: object) -> None:
        raise RuntimeError("observer")

    with pytest.raises(RuntimeError, match="observer"):
        await fan_out([Branch(name=name, run=after(0.1)) for name in "ab"], until=math.inf, on_end=broken)


def test_text_is_cut_between_words_and_says_so() -> None:
    assert shorten("one two three", 13) == "one two three"
    assert shorten("one two three", 9) == "one two…"
    assert shorten("one two three", 8) == "one two…"
    assert shorten("one two three", 7) == "one…"
    assert shorten("abcdefghij", 5) == "abcd…"
    assert shorten("abc", 1) == ""


def test_items_beyond_the_limit_are_dropped_and_the_one_at_the_edge_is_cut() -> None:
    items = [Item(text="one two", source="a"), Item(text="three four", source="b"), Item(text="five", source="c")]
    kept, truncated = cut(items, 14)
    assert ([item.text for item in kept], truncated) == (["one two", "three…"], True)
    assert cut(items, 21) == (tuple(items), False)


def test_a_conversation_keeps_its_newest_turns_whole() -> None:
    items = [Item(text="one two", source="user"), Item(text="three four", source="assistant")]
    kept, truncated = cut(items, 12, keep_last=True)
    assert ([item.text for item in kept], truncated) == (["three four"], True)
    kept, truncated = cut(items, 8, keep_last=True)
    assert ([item.text for item in kept], truncated) == (["three…"], True)
