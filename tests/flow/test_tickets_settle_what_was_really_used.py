"""A request's ticket: reserves an estimate, settles what was used, once, and leaves nothing behind."""

import trio
from limits_stage import processes

from gateway.core.limits import LimitRule
from gateway.quota.refusals import Refusal


def rule(kind, amount, **more):
    return LimitRule(scope="key", owner="dev", kind=kind, amount=amount, **more)


RULES = (
    rule("rpm", 1_000),
    rule("concurrent", 1_000),
    rule("tpm", 100_000),
    rule("usd", 1_000_000, period="month"),
)
MODEL = (LimitRule(scope="model", owner="chat", kind="rpm", amount=500),)


async def open_ticket(process, rules=RULES, tokens=1_000, micro_usd=500, model=MODEL):
    ticket = process.quota.enter(rules, trio.current_time())
    assert not isinstance(ticket, Refusal)
    assert await ticket.reserve_soon(model, tokens, micro_usd) is None
    return ticket


def warnings(ticket):
    return [value for name, value in ticket.headers(trio.current_time()) if name == b"x-sluice-limit-warning"]


async def used(process):
    """Units used of each limit, by kind and owner, when all is told."""
    await trio.sleep(10.0)
    return {
        (limit.rule.kind, limit.rule.owner): limit.rule.amount - limit.left - limit.reserved
        for limit in process.quota.statistics()
    }


async def test_the_real_usage_counts_and_not_the_estimate(autojump_clock):
    async with processes(1) as (process,):
        ticket = await open_ticket(process)
        ticket.settle(300, 120, trio.current_time())
        ticket.settle(9_999, 9_999, trio.current_time())
        ticket.abandon()
        assert await used(process) == {
            ("rpm", "dev"): 1, ("concurrent", "dev"): 0, ("tpm", "dev"): 300, ("usd", "dev"): 120, ("rpm", "chat"): 1,
        }  # fmt: skip


async def test_more_than_the_estimate_counts_as_well(autojump_clock):
    async with processes(1) as (process,):
        (await open_ticket(process)).settle(3_000, 1_200, trio.current_time())
        found = await used(process)
        assert (found["tpm", "dev"], found["usd", "dev"]) == (3_000, 1_200)


async def test_an_abandoned_request_stays_counted_and_nothing_else(autojump_clock):
    async with processes(1) as (process,):
        (await open_ticket(process)).abandon()
        found = await used(process)
        assert (found["rpm", "dev"], found["tpm", "dev"], found["usd", "dev"], found["concurrent", "dev"]) == (
            1,
            0,
            0,
            0,
        )


async def test_a_refused_reservation_takes_nothing(autojump_clock):
    async with processes(1) as (process,):
        (await open_ticket(process)).abandon()
        before = await used(process)
        ticket = process.quota.enter(RULES, trio.current_time())
        await trio.sleep(0.3)  # the keeper has been told of it by now
        refused = await ticket.reserve_soon(MODEL, 10, 2_000_000)
        assert refused.code == "budget_exhausted"
        assert "key 'dev' may spend 1.00 USD a month; this request alone may take 2.00 USD" in refused.public_message
        assert refused.retry_after_s == 3_600
        assert dict(refused.headers)[b"x-should-retry"] == b"false"
        ticket.abandon()
        assert await used(process) == before


async def test_who_has_spent_a_budget_cannot_use_up_the_requests_of_the_team(autojump_clock):
    team = LimitRule(scope="team", owner="blue", kind="rpm", amount=20)
    spent = (rule("usd", 100, period="month"), team)
    other = (LimitRule(scope="key", owner="other", kind="usd", amount=100_000, period="month"), team)
    async with processes(2) as both:
        assert await both[0].ask(spent, micro_usd=100) is None
        for _ in range(10):
            for process in both:
                assert (await process.ask(spent, micro_usd=100)).code == "budget_exhausted"
                await trio.sleep(0.2)
        for number in range(19):
            assert await both[number % 2].ask(other, micro_usd=100) is None, number
        assert (await both[0].ask(other, micro_usd=100)).rule is team


async def test_a_request_that_found_no_room_is_not_counted_and_one_that_was_wrong_is(autojump_clock):
    async with processes(1) as (process,):
        (await open_ticket(process)).settle(0, 0, trio.current_time())
        await trio.sleep(1.0)
        process.quota.enter(RULES, trio.current_time()).abandon(counted=False)
        process.quota.enter(RULES, trio.current_time()).abandon()
        found = await used(process)
        assert (found["rpm", "dev"], found["concurrent", "dev"]) == (2, 0)


async def test_refusals_say_which_limit_of_whom_and_when(autojump_clock):
    async with processes(1) as (process,):
        team = (LimitRule(scope="team", owner="blue", kind="rpm", amount=2),)
        assert await process.ask(team) is None
        assert await process.ask(team) is None
        refused = await process.ask(team)
        assert (refused.code, refused.http_status) == ("rate_limited", 429)
        assert refused.public_message.startswith("team 'blue' may make 2 requests a minute (rpm); that is used up")
        assert 55 < refused.retry_after_s < 63
        await trio.sleep(refused.retry_after_s)
        assert await process.ask(team) is None


async def test_a_large_request_is_told_when_there_will_be_enough_for_it(autojump_clock):
    async with processes(1) as (process,):
        tokens = (rule("tpm", 1_000),)
        for used in (50, 400, 500):
            assert await process.ask(tokens, tokens=used) is None
            await trio.sleep(15.0)
        for wanted, back_after_s in ((60, 15), (400, 30), (900, 45), (1_000, 45)):
            refused = await process.ask(tokens, tokens=wanted)
            assert back_after_s - 1 < refused.retry_after_s < back_after_s + 2, wanted
            headers = dict(refused.headers)
            assert int(headers[b"ratelimit"].partition(b"t=")[2]) <= refused.retry_after_s + 1
            assert headers[b"x-ratelimit-limit-tokens"] == b"1000"
        refused = await process.ask(tokens, tokens=900)
        await trio.sleep(refused.retry_after_s + 1.0)
        assert await process.ask(tokens, tokens=900) is None


async def test_money_that_is_set_aside_only_may_be_back_soon_in_whichever_process(autojump_clock):
    async with processes(2) as both, trio.open_nursery() as nursery:
        rules, done = (rule("usd", 1_000, period="total"),), trio.Event()
        nursery.start_soon(lambda: both[0].ask(rules, micro_usd=800, hold=done))
        await trio.sleep(1.0)
        for process in both:
            refused = await process.ask(rules, micro_usd=500)
            assert refused.retry_after_s == 1.0
            assert "set aside for requests that run" in refused.public_message
        done.set()
        await trio.sleep(10.0)
        for process in both:
            refused = await process.ask(rules, micro_usd=500)
            assert refused.retry_after_s == 3_600
            assert refused.public_message.endswith("that is spent")


async def test_a_budget_begins_anew_with_its_period(autojump_clock):
    wall = lambda: 86_400 * 31 - 3.0 + trio.current_time()  # noqa: E731  three seconds before 1970-02-01
    rules = (rule("usd", 100, period="month"),)
    async with processes(1, wall=lambda: wall() - began) as (process,):
        began = trio.current_time()
        assert await process.ask(rules, micro_usd=100) is None
        refused = await process.ask(rules, micro_usd=1)
        assert "begins anew at 1970-02-01T00:00:00Z" in refused.public_message
        assert 2 < refused.retry_after_s <= 3
        await trio.sleep(3.0)
        assert await process.ask(rules, micro_usd=100) is None


async def test_a_stream_ends_only_when_its_limit_has_no_more_and_says_so(autojump_clock):
    async with processes(1) as (process,):
        stops = (rule("usd", 1_000, period="day", stop_streams=True),)
        ticket = await open_ticket(process, stops, 0, 600, ())
        assert not ticket.exhausted(0, 600)
        for spent in range(610, 1_000, 10):  # more is set aside as long as there is some
            assert not ticket.exhausted(0, spent)
            await trio.sleep(0.05)
        ticket.exhausted(0, 1_010)
        await trio.sleep(0.2)
        assert ticket.exhausted(0, 1_010)
        assert ticket.exhausted(0, 1_010), "and says so to whoever asks again"
        goes_on = (LimitRule(scope="key", owner="other", kind="usd", amount=1_000, period="day"),)
        other = await open_ticket(process, goes_on, 0, 600, ())
        assert not other.exhausted(0, 5_000)
        ticket.settle(0, 1_010, trio.current_time())
        other.settle(0, 5_000, trio.current_time())


async def test_a_stream_that_needs_more_asks_for_it_once_a_round(autojump_clock):
    async with processes(2) as (first, second):
        stops = (rule("usd", 100_000, period="day", stop_streams=True),)
        ticket = await open_ticket(first, stops, 0, 1_000, ())
        await trio.sleep(6.0)  # the slice has flown back
        for spent in range(1_010, 3_000, 10):
            assert not ticket.exhausted(0, spent)
        await trio.sleep(0.05)
        (limit,) = first.quota.statistics()
        assert limit.in_hand <= 3_000, "what one stream needs, and not the sum of what its events needed"
        ticket.settle(0, 3_000, trio.current_time())
        assert await second.ask(stops, micro_usd=90_000) is None


async def test_a_soft_limit_warns_and_refuses_nobody(autojump_clock):
    async with processes(1) as (process,):
        soft = (rule("rpm", 2, hard=False),)
        for _ in range(5):
            assert await process.ask(soft) is None
        ticket = await open_ticket(process, soft, 0, 0, ())
        assert warnings(ticket) == [b"key 'dev' may make 2 requests a minute (rpm); that is exceeded"]
        ticket.settle(0, 0, trio.current_time())


async def test_a_soft_limit_that_is_not_exceeded_does_not_warn_for_want_of_a_slice(autojump_clock):
    async with processes(1) as (process,):
        soft = (rule("usd", 1_000_000, period="day", hard=False), rule("rpm", 100, hard=False))
        for _ in range(20):
            ticket = await open_ticket(process, soft, 0, 10_000, ())
            assert warnings(ticket) == []
            ticket.settle(0, 10_000, trio.current_time())


async def test_headers_tell_what_is_left(autojump_clock):
    async with processes(1) as (process,):
        ticket = await open_ticket(process)
        await trio.sleep(1.0)
        headers = dict(ticket.headers(trio.current_time()))
        assert headers[b"x-ratelimit-limit-requests"] == b"500"  # of the model, which has less left
        assert headers[b"x-ratelimit-remaining-requests"] == b"499"
        assert headers[b"x-ratelimit-limit-tokens"] == b"100000"
        assert headers[b"x-ratelimit-remaining-tokens"] == b"99000"
        assert headers[b"x-ratelimit-reset-requests"].endswith(b"s")
        policy = '"key-rpm";q=1000;w=60, "key-tpm";q=100000;qu="tokens";w=60, "model-rpm";q=500;w=60'
        assert headers[b"ratelimit-policy"] == policy.encode()
        assert headers[b"ratelimit"].startswith(b'"key-rpm";r=999;t=')
        ticket.abandon()


async def test_small_limits_are_told_exactly_however_often(autojump_clock):
    async with processes(1) as (process,):
        small = (rule("rpm", 999), rule("tpm", 999))
        left = []
        for _ in range(5):
            ticket = await open_ticket(process, small, 10, 0, ())
            told = dict(ticket.headers(trio.current_time()))
            left.append((told[b"x-ratelimit-remaining-requests"], told[b"x-ratelimit-remaining-tokens"]))
            ticket.settle(10, 0, trio.current_time())
        assert left == [(b"%d" % (998 - n), b"%d" % (989 - 10 * n)) for n in range(5)]


async def test_large_limits_are_told_to_a_thousandth_and_to_a_tenth_of_a_second(autojump_clock):
    async with processes(1) as (process,):
        large = (rule("rpm", 100_000), rule("tpm", 100_000))

        async def remaining(tokens):
            ticket = await open_ticket(process, large, tokens, 0, ())
            told = dict(ticket.headers(trio.current_time()))
            ticket.settle(tokens, 0, trio.current_time())
            return int(told[b"x-ratelimit-remaining-requests"]), int(told[b"x-ratelimit-remaining-tokens"])

        assert await remaining(60) == (99_999, 99_940)
        assert await remaining(40) == (99_999, 99_940), "off by no more than 100"
        assert await remaining(61) == (99_997, 99_839), "101 less than was told"
        await trio.sleep(0.11)
        assert await remaining(1) == (99_996, 99_838), "the time is over"


async def test_heads_of_each_model_tell_of_its_own_limits(autojump_clock):
    async with processes(1) as (process,):
        other = (LimitRule(scope="model", owner="other", kind="rpm", amount=400),)
        for model, amount in ((MODEL, b"500"), (other, b"400"), (MODEL, b"500")):
            ticket = await open_ticket(process, model=model)
            assert dict(ticket.headers(trio.current_time()))[b"x-ratelimit-limit-requests"] == amount
            ticket.abandon()


async def test_who_is_told_to_wait_and_waits_asks_for_as_much_once(autojump_clock):
    async with processes(2) as (process, _):
        rules = (rule("tpm", 10_000),)
        ticket = process.quota.enter(rules, trio.current_time())
        refused = ticket.reserve((), 3_000, 0, trio.current_time())
        assert refused.may_wait
        assert await ticket.reserve_soon((), 3_000, 0, refused=refused) is None
        [limit] = process.quota.statistics()
        assert (limit.reserved, limit.in_hand) == (3_000, 0)
        ticket.abandon()


async def test_headers_are_the_same_written_out(autojump_clock):
    async with processes(1) as (process,):
        for rules in (RULES, (rule("rpm", 1, hard=False),)):
            ticket = await open_ticket(process, rules)
            now = trio.current_time()
            lines = b"".join(b"%b: %b\r\n" % header for header in ticket.headers(now))
            assert ticket.header_lines(now) == lines != b""
            ticket.abandon()
