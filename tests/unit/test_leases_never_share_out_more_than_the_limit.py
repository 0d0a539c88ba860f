"""Slices of a pool: whatever holders tell and in whatever order, no window sees more used than the limit."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.limits import FOREVER_S, HELD_S, Claim
from gateway.policy.lease import Pool, Share, reconcile, take, write_off

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which holder
        st.sampled_from(["use", "tell", "return", "repeat", "crash", "set the clock back"]),
        st.integers(0, 12),  # units
        st.integers(0, 4_000),  # ms since the step before
    ),
    max_size=80,
)


class Holder:
    def __init__(self):
        self.share, self.granted, self.used, self.returned = Share(), 0, 0, 0

    @property
    def in_hand(self):
        return self.granted - self.used - self.returned

    def claim(self, window_s, target=0, need=0, amount=20):
        return Claim(
            name="x", amount=amount, window_s=window_s, used=self.used, returned=self.returned, target=target, need=need
        )


@settings(max_examples=400)
@given(steps=STEPS)
def test_no_window_sees_more_than_the_limit(steps):
    pool, holders, now, uses, behind_s = Pool(), [Holder() for _ in range(3)], 1000.0, [], 0
    for index, step, units, gap_ms in steps:
        now += gap_ms / 1000
        holder = holders[index]
        if step == "use":
            units = min(units, holder.in_hand)
            holder.used += units
            uses += [now] * units
        elif step == "return":
            holder.returned += min(units, holder.in_hand)
        elif step == "crash":
            write_off(pool, holder.share, 10.0, now - behind_s)
            holders[index] = Holder()
        elif step == "set the clock back":
            behind_s += units
        else:
            told = holder.claim(10.0, units, units // 2)
            for _ in range(2 if step == "repeat" else 1):  # the answer was lost, and the same is told again
                holder.granted = take(pool, holder.share, told, now - behind_s).granted
        assert pool.held == sum(holder.share.balance for holder in holders)
    for begin in uses:
        assert sum(1 for at in uses if begin <= at < begin + 10.0) <= 20


@given(steps=STEPS)
def test_a_budget_is_never_overspent_though_holders_crash(steps):
    pool, holders, spent = Pool(), [Holder() for _ in range(3)], 0
    for index, step, units, _ in steps:
        holder = holders[index]
        if step == "use":
            units = min(units, holder.in_hand)
            holder.used, spent = holder.used + units, spent + units
        elif step == "return":
            holder.returned += min(units, holder.in_hand)
        elif step == "crash":
            write_off(pool, holder.share, FOREVER_S, 0.0)
            holders[index] = Holder()
        else:
            holder.granted = take(pool, holder.share, holder.claim(FOREVER_S, units), 0.0).granted
    assert spent <= 20
    assert pool.held + pool.lost + pool.used() <= 20


def test_all_of_a_rate_can_be_used_again_a_window_later():
    pool, holder = Pool(), Holder()
    assert take(pool, holder.share, holder.claim(64.0, 20), 0.0, alone=True).granted == 20
    holder.used = 20
    answer = take(pool, holder.share, holder.claim(64.0, 20), 0.5)
    assert (answer.remaining, answer.reset_s) == (0, 64.5)
    assert take(pool, holder.share, holder.claim(64.0, 20), 64.9).granted == 20
    assert take(pool, holder.share, holder.claim(64.0, 20), 65.0, alone=True).granted == 40


def test_the_next_to_ask_finds_some_unless_one_request_needs_it_all():
    pool, first, second = Pool(), Holder(), Holder()
    assert take(pool, first.share, first.claim(60.0, 20), 0.0).granted == 10
    assert take(pool, second.share, second.claim(60.0, 20, need=10), 0.0).granted == 10
    third = Holder()
    assert take(pool, third.share, third.claim(60.0, 5), 0.0).granted == 0


def test_a_need_that_cannot_be_met_takes_nothing():
    pool, first, second = Pool(), Holder(), Holder()
    take(pool, first.share, first.claim(60.0, 15, need=15), 0.0)
    assert take(pool, second.share, second.claim(60.0, 8, need=8), 0.0).granted == 0
    assert take(pool, second.share, second.claim(60.0, 5, need=5), 0.0).granted == 5


def test_what_was_used_beyond_the_slice_is_charged_and_made_up_for():
    pool, holder = Pool(), Holder()
    holder.used = 6  # nothing was granted: the keeper was away
    answer = take(pool, holder.share, holder.claim(60.0, 4), 0.0, alone=True)
    assert (answer.granted, answer.remaining) == (10, 10)  # 6 used, 4 in hand, 10 left


def test_a_crash_frees_concurrency_and_keeps_budgets_as_spent_until_the_ledger_says_otherwise():
    held, budget = Pool(), Pool()
    one, other = Holder(), Holder()
    take(held, one.share, one.claim(HELD_S, 20), 0.0, alone=True)
    take(budget, other.share, other.claim(FOREVER_S, 20), 0.0, alone=True)
    other.used = 3
    take(budget, other.share, other.claim(FOREVER_S, 17), 0.0)
    assert reconcile(budget, 3) == 0  # a slice is out: somebody may be spending
    write_off(held, one.share, HELD_S, 10.0)
    write_off(budget, other.share, FOREVER_S, 10.0)
    assert (held.held, held.used()) == (0, 0)
    assert (budget.held, budget.lost, budget.used()) == (0, 17, 3)
    assert reconcile(budget, 5) == 15
    assert (budget.lost, budget.used()) == (0, 5)
    assert reconcile(budget, 5) == 0
