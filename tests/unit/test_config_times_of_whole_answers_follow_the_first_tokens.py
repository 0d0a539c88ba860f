"""Who says how long a silent provider is waited for means whole answers, too, unless they have a time of their own."""

from __future__ import annotations

import pytest

from gateway.config import Config, advice, load

MODEL = """
[[provider]]
name = "p"
base_url = "http://127.0.0.1:1/v1"
[[model]]
name = "m"
targets = [{ provider = "p", model = "x" }]
"""


def read(text: str) -> Config:
    return load(None, environ={"SECONDS": "7"}, text=text)


@pytest.mark.parametrize(
    ("timeouts", "answer_s"),
    [
        ("", 300),
        ("stall_s = 3", 300),
        ("first_token_s = 30", 30),
        ('first_token_s = "${SECONDS}"', 7),
        ("first_token_s = 10\nanswer_s = 90", 90),
        ("answer_s = 90", 90),
    ],
)
def test_of_all_models(timeouts: str, answer_s: float) -> None:
    config = read(f"[timeouts]\n{timeouts}\n{MODEL}")
    assert config.timeouts.answer_s == answer_s
    told = [sentence for sentence in advice(config) if sentence.startswith("timeouts.answer_s: ")]
    assert len(told) == (answer_s == config.timeouts.first_token_s), "it is said where it may cost something"


@pytest.mark.parametrize(
    ("timeouts", "own", "answer_s"),
    [
        ("", "first_token_s = 10", 10),
        ("first_token_s = 30", "first_token_s = 10", 10),
        ("first_token_s = 30", "stall_s = 10", None),
        ("answer_s = 90", "first_token_s = 10", None),
        ("", "first_token_s = 10, answer_s = 60", 60),
    ],
)
def test_of_one_model(timeouts: str, own: str, answer_s: float | None) -> None:
    config = read(f"[timeouts]\n{timeouts}\n{MODEL}timeouts = {{ {own} }}\n")
    assert config.model[0].timeouts.answer_s == answer_s
    told = [sentence for sentence in advice(config) if sentence.startswith("model[0].timeouts.answer_s: ")]
    assert len(told) == (answer_s == 10)
