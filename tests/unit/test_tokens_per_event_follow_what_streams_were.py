"""Promise: a stream that nobody counted is counted by its events, as its target's whole streams were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.density import MOST, TokensPerEvent


def test_an_event_is_a_token_until_a_stream_says_otherwise() -> None:
    density = TokensPerEvent()
    assert density.value == 1.0
    density.learn(0, 10)
    density.learn(10, 0)
    assert density.value == 1.0
    density.learn(70, 10)
    assert density.value == 7.0


def test_it_follows_a_provider_that_changes_its_habits() -> None:
    density = TokensPerEvent()
    for _ in range(100):
        density.learn(50, 50)
    for _ in range(50):
        density.learn(200, 50)
    assert 3.9 < density.value <= 4.0


def test_a_long_stream_says_more_than_a_short_one() -> None:
    density = TokensPerEvent()
    density.learn(1_000, 1_000)
    density.learn(30, 1)
    assert density.value < 1.1


@given(st.lists(st.tuples(st.integers(-5, 10**9), st.integers(0, 10**6))))
def test_it_is_never_less_than_one_nor_beyond_reason(streams: list[tuple[int, int]]) -> None:
    density = TokensPerEvent()
    for tokens, events in streams:
        density.learn(tokens, events)
    assert 1.0 <= density.value <= MOST
