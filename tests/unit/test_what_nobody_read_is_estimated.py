"""Promise: of a cancelled answer the ledger says what was delivered, generated and saved, and what that is worth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import CONFIG, attempt, record

from gateway.core.facts import Outcome, Phase, Usage
from gateway.ledger.entry import Entry, make_entry
from gateway.ledger.prices import Prices
from gateway.ledger.unread import ALL_READ, ANSWERS, MAX_TOKENS, TARGETS, Lengths

PRICES = Prices(CONFIG)


def entry(lengths: Lengths, **fields: Any) -> Entry:
    return make_entry(record(**fields), id="1", now_s=1.8e9, prices=PRICES, lengths=lengths)


def cancelled(lengths: Lengths, tokens: int = 100, **fields: Any) -> Entry:
    """A stream that was left 2 s after its first token."""
    usage = Usage(prompt_tokens=1_000, completion_tokens=tokens, estimated=True)
    given = {"attempts": [attempt(outcome="cancelled", usage=usage)], **fields}
    return entry(lengths, outcome=Outcome.CANCELLED, phase=Phase.STREAM, usage=usage, tokens=tokens, **given)


def whole(lengths: Lengths, *answers: int) -> None:
    for tokens in answers:
        usage = Usage(prompt_tokens=1_000, completion_tokens=tokens)
        entry(lengths, usage=usage, attempts=[attempt(usage=usage)])


def test_saved_is_what_an_answer_of_that_length_becomes_as_a_rule() -> None:
    lengths = Lengths()
    whole(lengths, 50, 60, 200, 300, 400)
    left = cancelled(lengths)
    # 50 tokens a second, so one more in the 20 ms until the provider sees that the connection is closed
    assert (left.unread.delivered, left.unread.generated, left.tokens_saved) == (100, 101, 199)
    assert left.saved_micro_usd == 1_990
    assert left.cost_micro_usd == 2_000 + 1_000


def test_nothing_is_said_to_be_saved_that_the_client_did_not_allow() -> None:
    lengths = Lengths()
    whole(lengths, 300)
    assert cancelled(lengths, max_tokens=150).tokens_saved == 49
    assert cancelled(lengths, max_tokens=20).tokens_saved == 0


def test_what_is_longer_than_all_answers_before_was_about_to_end() -> None:
    lengths = Lengths()
    whole(lengths, 10, 20)
    assert cancelled(lengths).tokens_saved == 0


def test_without_any_answer_before_only_max_tokens_is_known() -> None:
    assert cancelled(Lengths(), max_tokens=500).tokens_saved == 399
    assert cancelled(Lengths()).tokens_saved == 0
    assert cancelled(Lengths(), max_tokens=10**18).tokens_saved == MAX_TOKENS - 101


def test_a_drained_answer_saved_nothing() -> None:
    lengths = Lengths()
    whole(lengths, 300)
    usage = Usage(prompt_tokens=1_000, completion_tokens=250)
    left = cancelled(lengths, attempts=[attempt(outcome="drained", usage=usage)])
    assert (left.unread.generated, left.tokens_saved, left.cost_micro_usd) == (250, 0, 2_000 + 2_500)


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.FAILED, Outcome.BROKEN, Outcome.REFUSED])
def test_only_cancelled_answers_were_not_read(outcome: Outcome) -> None:
    made = entry(Lengths(), outcome=outcome)
    assert made.unread == ALL_READ


def test_leaving_before_the_first_token_says_nothing_of_tokens() -> None:
    lengths = Lengths()
    whole(lengths, 300)
    usage = Usage(prompt_tokens=1_000, estimated=True)
    left = cancelled(lengths, 0, first_token_at=0.0, attempts=[attempt(outcome="cancelled", usage=usage)])
    assert (left.unread.generated, left.tokens_saved, left.cost_micro_usd) == (0, 0, 2_000)


def test_hedges_that_lost_and_attempts_that_broke_are_lost_money() -> None:
    lost = Usage(prompt_tokens=1_000, completion_tokens=10)
    attempts = [
        attempt(outcome="broken", usage=lost),
        attempt(target="own/other", outcome="cancelled", usage=lost),
        attempt(outcome="failed"),
        attempt(usage=Usage(prompt_tokens=1_000, completion_tokens=100)),
    ]
    made = entry(Lengths(), attempts=attempts)
    assert (made.cost_micro_usd, made.lost_micro_usd) == (3_000, None)  # own/other has no price: not free, unknown
    made = entry(Lengths(), attempts=[attempts[0], attempts[2], attempts[3]])
    assert (made.cost_micro_usd, made.lost_micro_usd, made.spent_micro_usd) == (3_000, 2_100, 5_100)
    made = entry(Lengths(), attempts=attempts[:1], outcome=Outcome.BROKEN)
    assert (made.cost_micro_usd, made.lost_micro_usd) == (0, 2_100)


def test_what_is_passed_through_has_no_known_cost_once_it_was_asked() -> None:
    passed = attempt(target="own", label="own")
    made = entry(Lengths(), attempts=[passed], usage=None, path="/files", target="own", target_label="own")
    assert made.cost_micro_usd is None
    made = entry(Lengths(), attempts=[], usage=None, path="/files", target="own", outcome=Outcome.REFUSED)
    assert made.cost_micro_usd == 0, "nobody was asked"
    made = entry(Lengths(), attempts=[], usage=None, target="", outcome=Outcome.REFUSED)
    assert made.cost_micro_usd == 0


def test_memory_for_lengths_is_bounded() -> None:
    lengths = Lengths()
    for number in range(TARGETS + 50):
        lengths.learn(f"own/{number}", 10)
    for _ in range(2 * ANSWERS):
        lengths.learn("own/m", 10)
    assert len(lengths._last) == TARGETS
    assert len(lengths._last["own/m"]) == ANSWERS


@given(before=st.lists(st.integers(0, 10_000)), tokens=st.integers(0, 10_000), most=st.integers(0, 10_000))
def test_estimates_never_contradict_each_other(before: list[int], tokens: int, most: int) -> None:
    lengths = Lengths()
    whole(lengths, *before)
    left = cancelled(lengths, tokens, max_tokens=most)
    assert left.unread.delivered <= left.unread.generated
    assert left.tokens_saved >= 0
    assert left.saved_micro_usd == left.tokens_saved * 10
    if most and left.tokens_saved:
        assert left.unread.generated + left.tokens_saved <= most


def test_the_usual_length_is_the_median_of_late_answers_and_follows_them() -> None:
    lengths = Lengths()
    assert lengths.usual("sim/sim") == 0
    for tokens in (10, 30, 20):
        lengths.learn("sim/sim", tokens)
    assert lengths.usual("sim/sim") == 20
    for _ in range(ANSWERS):
        lengths.learn("sim/sim", 500)
    assert {lengths.usual("sim/sim") for _ in range(ANSWERS)} == {20, 500}
    assert lengths.usual("sim/sim") == 500
    assert lengths.usual("another") == 0
