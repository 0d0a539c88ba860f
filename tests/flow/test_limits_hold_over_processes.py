"""Limits over several processes: never exceeded in any window, nearly all of it usable, and slices flow back."""

import itertools
import random

import trio
from limits_stage import Keeper, processes

from gateway.core.limits import LimitRule

RPM = LimitRule(scope="key", owner="dev", kind="rpm", amount=600)
RULES = (RPM,)


def most_in_a_window(times, window_s):
    times, first, most = sorted(times), 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


async def load(process, rules, per_s, until, rng, passed):
    async with trio.open_nursery() as nursery:

        async def one():
            if await process.ask(rules) is None:
                passed.append(trio.current_time())

        while trio.current_time() < until:
            nursery.start_soon(one)
            await trio.sleep(rng.expovariate(per_s))


async def test_four_processes_never_pass_more_than_the_limit_and_use_nearly_all_of_it(autojump_clock):
    passed = []
    async with processes(4) as all_four, trio.open_nursery() as nursery:
        for seed, process in enumerate(all_four):
            nursery.start_soon(load, process, RULES, 5.0, 360.0, random.Random(seed), passed)
    assert most_in_a_window(passed, 60.0) <= 600
    assert len([at for at in passed if at >= 60.0]) >= 0.95 * 600 * 5


async def test_all_of_it_is_usable_when_the_load_is_just_the_limit(autojump_clock):
    passed = []
    async with processes(4) as all_four, trio.open_nursery() as nursery:
        for seed, process in enumerate(all_four):
            nursery.start_soon(load, process, RULES, 2.4, 240.0, random.Random(seed), passed)
    assert most_in_a_window(passed, 60.0) <= 600
    assert len(passed) >= 0.95 * 2.4 * 4 * 240 * 0.99


async def test_one_process_can_use_it_all_when_the_others_have_fallen_silent(autojump_clock):
    async with processes(4) as all_four:
        for process in itertools.islice(itertools.cycle(all_four), 80):
            await process.ask(RULES)
        await trio.sleep(70.0)
        passed = 0
        while await all_four[0].ask(RULES) is None:
            passed += 1
        assert 600 * 0.95 <= passed <= 600


async def test_a_process_that_ends_gives_back_at_once(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="usd", amount=1_000, period="total"),)
    async with processes(2) as (first, second):
        assert await first.ask(rules, micro_usd=100) is None
        first.end()
        await trio.sleep(0.01)
        assert await second.ask(rules, micro_usd=900) is None
        assert (await second.ask(rules, micro_usd=1)).code == "budget_exhausted"


async def test_a_crashed_process_loses_its_slice_until_the_lease_is_over(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="concurrent", amount=10),)
    async with processes(2) as (first, second), trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(lambda: first.ask(rules, hold=trio.Event()))
        await trio.sleep(1.0)
        first.crash()
        assert (await second.ask(rules)).code == "rate_limited"
        await trio.sleep(5.2)
        assert await second.ask(rules) is None
        nursery.cancel_scope.cancel()


async def test_a_crash_never_lets_a_budget_be_overspent_and_the_ledger_brings_the_rest_back(autojump_clock):
    rule = LimitRule(scope="team", owner="a", kind="usd", amount=1_000, period="month")
    async with processes(2) as (first, second):
        for _ in range(30):
            assert await first.ask((rule,), micro_usd=10) is None
        await trio.sleep(0.2)
        first.crash()
        await trio.sleep(6.0)
        spent = 300
        while await second.ask((rule,), micro_usd=10) is None:
            spent += 10
        assert 300 + (1_000 - 300) / 2 <= spent <= 1_000
        await trio.sleep(6.0)  # its slice flows back, which reconciling needs
        back = await second.keeper.reconcile(rule.pool_name(rule.period_at(trio.current_time())[0]), spent)
        assert 120 <= back <= 1_000 - spent  # the slice: an eighth of the budget
        while await second.ask((rule,), micro_usd=10) is None:
            spent += 10
        assert spent == 1_000


async def test_two_hundred_at_once_against_a_budget_for_ten(autojump_clock):
    rules = (LimitRule(scope="key", owner="dev", kind="usd", amount=10_000, period="day"),)
    for count in (1, 4):
        answers, hold = [], trio.Event()
        async with processes(count, keeper=Keeper()) as several, trio.open_nursery() as nursery:

            async def one(process, answers=answers, hold=hold):
                refused = await process.ask(rules, micro_usd=1_000, hold=hold)
                answers.append(refused)

            for number in range(200):
                nursery.start_soon(one, several[number % count])
            await trio.sleep(2.0)
            assert len(answers) == 190
            assert {refused.code for refused in answers} == {"budget_exhausted"}
            hold.set()
        assert answers[190:] == [None] * 10


async def test_the_first_request_of_a_key_waits_for_its_slice_and_no_other_does(autojump_clock):
    async with processes(1) as (process,):
        began = trio.current_time()
        assert await process.ask(RULES) is None
        assert 0 < trio.current_time() - began < 0.05
        await trio.sleep(1.0)
        began, rounds = trio.current_time(), process.keeper.rounds
        assert await process.ask(RULES) is None
        assert (trio.current_time(), process.keeper.rounds) == (began, rounds)


async def test_slices_of_known_limits_are_there_before_the_first_request(autojump_clock):
    async with processes(1) as (process,):
        process.quota.know(RULES)
        await trio.sleep(0.5)
        began = trio.current_time()
        assert await process.ask(RULES) is None
        assert trio.current_time() == began


async def test_the_last_of_a_budget_is_usable_however_hard_all_processes_ask_for_it(autojump_clock):
    for amount in (10_000, 7_700):  # the last 700 are too little for anybody
        rules = (LimitRule(scope="key", owner=f"dev{amount}", kind="usd", amount=amount, period="day"),)
        admitted, hold = [], trio.Event()
        async with processes(4) as all_four, trio.open_nursery() as nursery:

            async def client(process, rules=rules, hold=hold, admitted=admitted):
                while True:
                    ticket = process.quota.enter(rules, trio.current_time())
                    if await ticket.reserve_soon((), 0, 1_000) is None:
                        admitted.append(trio.current_time())
                        await hold.wait()
                    ticket.abandon()
                    await trio.sleep(0.03)

            for number in range(40):
                nursery.start_soon(client, all_four[number % 4])
            await trio.sleep(5.0)
            nursery.cancel_scope.cancel()
        assert len(admitted) == amount // 1_000


async def test_under_steady_load_nobody_waits_for_a_slice_however_large_the_budget_is(autojump_clock):
    """200 requests a second of 17 micro-dollars each are next to nothing of a million dollars, and need a slice."""
    rules = (LimitRule(scope="key", owner="dev", kind="usd", amount=10**12, period="total"),)
    async with processes(1) as (process,):
        waited = 0
        for number in range(1_000):
            began = trio.current_time()
            assert await process.ask(rules, micro_usd=17) is None
            waited += number >= 200 and trio.current_time() > began
            await trio.sleep(0.005)
    assert waited == 0
