"""``openai/*`` stands for every model of a provider; exact names and longer prefixes come first."""

from __future__ import annotations

import pytest

from gateway.config import Config, Model, Target


def model(name: str, target: str) -> Model:
    return Model(name=name, targets=(Target(provider="p", model=target),))


CONFIG = Config(
    model=(model("*", "any/*"), model("openai/*", "*"), model("openai/o*", "old-o*"), model("openai/o3", "fixed"))
)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("openai/o3", "fixed"),
        ("openai/o4", "old-o4"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openai/a/b", "a/b"),
        ("openai/", "any/openai/"),
        ("mistral", "any/mistral"),
        ("*", "any/*"),
    ],
)
def test_the_exact_name_wins_and_then_the_longest_prefix(asked: str, sent: str) -> None:
    found = CONFIG.find_model(asked)
    assert found is not None
    chosen, rest = found
    assert chosen.targets[0].model_for(rest) == sent


def test_a_name_that_nothing_matches_is_none() -> None:
    config = Config(model=(model("openai/*", "*"), model("chat", "gpt")))
    assert [config.find_model(asked) for asked in ("openai/", "chat2", "cha", "")] == [None] * 4
