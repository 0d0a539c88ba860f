"""The keeper of the limits is cut off: requests notice nothing for a second, then each limit goes by its policy."""

import trio
from limits_stage import processes

from gateway.core.limits import LimitRule
from gateway.observe.metrics import GAUGES
from gateway.quota.ticket import PATIENCE_S

OPEN = (LimitRule(scope="key", owner="open", kind="rpm", amount=600),)
CLOSED = (LimitRule(scope="key", owner="closed", kind="rpm", amount=600, on_failure="closed"),)


async def ask_evenly(process, rules, per_s, seconds):
    """Refusals, and the longest that a request waited."""
    refused, longest, began = [], 0.0, trio.current_time()
    while trio.current_time() < began + seconds:
        asked = trio.current_time()
        answer = await process.ask(rules)
        longest = max(longest, trio.current_time() - asked)
        refused += [answer] if answer is not None else []
        await trio.sleep_until(asked + 1 / per_s)
    return refused, longest


async def test_a_second_without_the_keeper_changes_nothing(autojump_clock):
    async with processes(1) as (process,):
        for rules in (OPEN, CLOSED):
            await ask_evenly(process, rules, 5, 5)
            process.keeper.is_cut = True
            refused, longest = await ask_evenly(process, rules, 5, 1)
            assert (refused, longest) == ([], 0.0)
            process.keeper.is_cut = False
            await trio.sleep(2.0)


async def test_a_closed_limit_refuses_when_its_slice_is_used_up_and_says_why(autojump_clock):
    async with processes(1, lease_s=5.0) as (process,):
        await ask_evenly(process, CLOSED, 5, 5)
        process.keeper.is_cut = True
        refused, _ = await ask_evenly(process, CLOSED, 20, 20)
        assert {one.code for one in refused} == {"limits_away"}
        assert refused[-1].http_status == 503
        assert "on_failure = closed" in refused[-1].public_message
        assert len(refused) >= 20 * 20 - 75 - 20


async def test_an_open_limit_goes_on_evenly_and_what_was_used_is_charged_afterwards(autojump_clock):
    async with processes(1, lease_s=5.0) as (process,):
        await ask_evenly(process, OPEN, 5, 5)
        process.keeper.is_cut = True
        refused, _ = await ask_evenly(process, OPEN, 20, 50)
        passed = 20 * 50 - len(refused)
        assert 10 * 40 <= passed <= 10 * 50 + 75 + 75  # at the limit's rate, and one slice and one burst
        process.keeper.is_cut = False
        await trio.sleep(2.0)
        (limit,) = process.quota.statistics()
        assert limit.away > 0
        assert limit.left <= 600 - passed * 0.9
        assert process.said == ["limits backend is away", "limits backend is back"]
        gauges = process.quota.gauges()
        assert gauges["sluice_limits_decided_alone"]["key", "rpm"] == limit.away
        assert gauges["sluice_limits_refused"]["key", "rpm"] == len(refused)
        assert gauges["sluice_limits_keeper_away"] == {("rates",): 0.0}
        assert set(gauges) <= set(GAUGES)


async def test_a_lease_that_ran_out_is_begun_anew_and_running_requests_go_on_counting(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="concurrent", amount=4, on_failure="closed"),)
    done = trio.Event()
    async with processes(1, lease_s=5.0) as (process,), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: process.ask(rules, hold=done))
        await trio.sleep(1.0)
        process.keeper.is_cut = True
        await trio.sleep(10.0)
        process.keeper.is_cut = False
        await trio.sleep(2.0)
        nursery.start_soon(lambda: process.ask(rules, hold=done))
        await trio.sleep(1.0)
        assert (await process.ask(rules)).code == "rate_limited"
        done.set()
        await trio.sleep(1.0)
        assert await process.ask(rules) is None
        (limit,) = process.quota.statistics()
        assert (limit.reserved, limit.left) == (0, 4)
        assert process.quota.backends()["rates"].lapses == 1


async def test_without_a_keeper_from_the_start_an_open_limit_lets_requests_through(autojump_clock):
    async with processes(1) as (process,):
        process.keeper.is_cut = True
        await trio.sleep(0.5)
        began = trio.current_time()
        process.quota.know(OPEN)
        await trio.sleep(0.5)
        assert await process.ask(OPEN) is None
        assert (await process.ask(CLOSED)).code == "limits_away"
        assert trio.current_time() == began + 0.5


async def test_an_open_budget_is_not_overspent_while_its_keeper_is_away(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="usd", amount=1_000, period="total"),)
    spent = 0
    async with processes(2, lease_s=5.0) as both:
        for process in both:
            spent += 10 if await process.ask(rules, micro_usd=10) is None else 0
        await trio.sleep(8.0)
        both[0].keeper.is_cut = True
        await trio.sleep(8.0)
        for process in both:
            while await process.ask(rules, micro_usd=10) is None:
                spent += 10
        assert 900 <= spent <= 1_000
        both[0].keeper.is_cut = False
        await trio.sleep(3.0)
        for process in both:
            assert (await process.ask(rules, micro_usd=100)).code == "budget_exhausted"


async def test_a_keeper_that_hangs_counts_as_away_when_a_round_has_failed_and_not_before(autojump_clock):
    for rules, code in ((OPEN, None), (CLOSED, "limits_away")):
        async with processes(1) as (process,):
            await trio.sleep(0.5)
            process.keeper.hangs = True
            began = trio.current_time()
            answer = await process.ask(rules)  # there is no slice in hand yet
            assert "this process has to ask for its part of that first" in answer.public_message
            assert trio.current_time() - began < PATIENCE_S + 0.05
            await trio.sleep(1.0)
            began = trio.current_time()
            answer = await process.ask(rules)
            assert (answer and answer.code) == code
            assert trio.current_time() == began


async def test_a_budget_that_is_used_once_a_minute_is_decided_in_memory(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="usd", amount=1_000_000, period="total"),)
    async with processes(2) as (first, second):
        assert await first.ask(rules, micro_usd=5_000) is None
        for _ in range(3):
            await trio.sleep(50.0)
            first.keeper.is_cut = True
            began = trio.current_time()
            assert await first.ask(rules, micro_usd=4_000) is None
            assert trio.current_time() == began
            first.keeper.is_cut = False
        rounds = first.keeper.rounds
        await trio.sleep(40.0)
        assert first.keeper.rounds - rounds < 80, "what is in hand costs no rounds but those of the leases"
        await trio.sleep(120.0)
        assert await second.ask(rules, micro_usd=1_000_000 - 5_000 - 3 * 4_000) is None, "all the rest has flown back"
