"""The grammar of the simulated provider's settings: what a name or header means, and what is refused."""

from __future__ import annotations

import random
import re
import statistics

import attrs
import pytest

from gateway.sim import behaviour
from gateway.sim.behaviour import MAX_DELAY_S, Behaviour
from gateway.sim.grammar import _KEYS, SettingError, from_header, from_model


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("sim", Behaviour()),
        ("sim-ttft=0.2-tps=50-tokens=64", Behaviour(ttft_s=0.2, tokens_per_s=50, tokens=64)),
        ("sim-sigma=0.5-tail=0.01-tail_factor=20", Behaviour(ttft_sigma=0.5, ttft_tail=0.01, ttft_tail_factor=20)),
        ("sim-status=503", Behaviour(status=503)),
        ("sim-status=429-retry_after=2", Behaviour(status=429, retry_after_s=2)),
        ("sim-reset", Behaviour(reset=True)),
        ("sim-silence", Behaviour(silence=True)),
        ("sim-slow=20", Behaviour(slow_s=20)),
        ("sim-cut=40", Behaviour(cut_after=40)),
        ("sim-stall=20", Behaviour(stall_after=20)),
        ("sim-error=3", Behaviour(error_after=3)),
        ("sim-malformed=10-nodone", Behaviour(malformed_at=10, no_done=True)),
        ("sim-flap=3", Behaviour(flap=3)),
        ("sim-echo", Behaviour(echo=True)),
        ("sim-ttft_tail=0.05:2.0", Behaviour(late_share=0.05, late_ttft_s=2)),
        ("sim-status=429-retry_after=2-retry_form=date", Behaviour(status=429, retry_after_s=2, retry_form="date")),
        ("sim-error_first-policy", Behaviour(error_first=True, policy=True)),
        ("sim-rst=4-end=5-filter=6", Behaviour(rst_after=4, end_after=5, filter_after=6)),
        ("sim-pings=0.5-stall=3", Behaviour(pings_s=0.5, stall_after=3)),
        ("sim-double_finish-nousage", Behaviour(double_finish=True, no_usage=True)),
        ("sim-window=8000-prefill=refuse", Behaviour(window_tokens=8_000, prefill="refuse")),
        ("sim-thinking=3-tool", Behaviour(thinking=3, call_tool=True)),
    ],
)
def test_a_model_name_carries_settings(model: str, wanted: Behaviour) -> None:
    assert from_model(model, Behaviour()) == wanted


@pytest.mark.parametrize(
    "model", ["gpt-4o-mini", "simulation-reset", "sim-large", "sim-2026-01", "o3", "", "-sim-reset"]
)
def test_any_other_name_is_only_a_name(model: str) -> None:
    base = Behaviour(ttft_s=1)
    assert from_model(model, base) == base


def test_later_settings_win_and_off_takes_them_back() -> None:
    base = Behaviour(ttft_s=1, tokens=10, cut_after=5)
    named = from_model("sim-tokens=20-cut=0", base)
    assert named == Behaviour(ttft_s=1, tokens=20, cut_after=0)
    assert from_header("tokens=off, cut=off,reset=1", named) == Behaviour(ttft_s=1, reset=True)
    assert from_header("reset=0", Behaviour(reset=True)) == Behaviour()
    assert from_header("ttft_tail=off", Behaviour(late_share=0.5, late_ttft_s=2)) == Behaviour()
    assert from_header(" , ", base) == base


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ttft=soon", r"ttft=soon: needs a number from 0 to 86400"),
        ("ttft=nan", r"ttft=nan: needs a number"),
        ("ttft=inf", r"ttft=inf: needs a number"),
        ("ttft", r"ttft=: needs a number"),
        ("tail=2", r"tail=2: needs a number from 0 to 1"),
        ("tokens=1.5", r"tokens=1.5: needs a whole number from 0 to 100000"),
        ("tokens=99999999999999999999", r"needs a whole number"),
        ("tokens=²", r"needs a whole number"),
        ("status=200", r"status=200: needs a whole number from 400 to 599, e.g. status=400"),
        ("malformed=0", r"malformed=0: needs a whole number from 1"),
        ("reset=yes", r"reset=yes: is a switch"),
        ("ttft_tail=0.05", r"ttft_tail=0.05: needs a share and seconds, e.g. ttft_tail=0.05:2.0"),
        ("ttft_tail=2:1", r"ttft_tail=2: needs a number from 0 to 1"),
        ("retry_form=soon", r"retry_form=soon: needs one of seconds, date, ms, reset, e.g. retry_form=reset"),
        ("prefill", r"prefill=: needs one of continue, ignore, refuse"),
        ("speed=9", r"unknown setting 'speed'; known are ttft, sigma"),
    ],
)
def test_a_bad_setting_is_refused_with_what_would_do(setting: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        from_header(setting, Behaviour())
    with pytest.raises(SettingError, match=message):
        from_model(f"sim-{setting}", Behaviour())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("", None),
        ("ttft=9", None),
        ("status=500,reset", "status"),
        ("reset,silence", "reset"),
        ("slow=1,cut=3", "slow"),
        ("cut=3,stall=2", "stall"),
        ("error=0,nodone", "error"),
        ("malformed=1,nodone", "malformed"),
        ("nodone", "nodone"),
        ("policy,reset", "policy"),
        ("silence,error_first", "silence"),
        ("error_first,slow=1", "error_first"),
        ("slow=1,pings=1", "slow"),
        ("pings=1,cut=3", "pings"),
        ("pings=1,stall=3", "stall"),
        ("rst=3,end=2", "end"),
        ("rst=3,filter=2", "rst"),
        ("filter=2,malformed=1", "filter"),
        ("double_finish,nousage", "double_finish"),
        ("nousage,nodone", "nousage"),
        ("window=1,prefill=refuse,thinking=3,tool", None),
    ],
)
def test_the_first_fault_gives_its_name(settings: str, fault: str | None) -> None:
    assert from_header(settings, Behaviour()).fault == fault


def test_flapping_fails_with_the_fault_that_is_set_or_503() -> None:
    assert Behaviour(flap=2).failing().status == 503
    both = Behaviour(flap=2, cut_after=3, tokens=5, ttft_s=0.1)
    assert both.failing() == both
    assert both.working() == Behaviour(tokens=5, ttft_s=0.1)
    kept = Behaviour(tokens=5, window_tokens=9, prefill="refuse", thinking=2, call_tool=True, late_share=0.5)
    assert attrs.evolve(kept, flap=1, status=500, pings_s=1, rst_after=2, no_usage=True).working() == kept


def test_time_to_first_token_is_fixed_or_log_normal_with_a_tail() -> None:
    rng = random.Random(7)
    assert {Behaviour(ttft_s=0.3).draw_ttft_s(rng) for _ in range(20)} == {0.3}
    spread = [Behaviour(ttft_s=0.3, ttft_sigma=0.5).draw_ttft_s(rng) for _ in range(2_000)]
    assert statistics.median(spread) == pytest.approx(0.3, rel=0.1)
    assert max(spread) > 3 * min(spread)
    tailed = [Behaviour(ttft_s=0.1, ttft_tail=0.1, ttft_tail_factor=50).draw_ttft_s(rng) for _ in range(2_000)]
    assert set(tailed) == {0.1, 5.0}
    assert 120 < tailed.count(5.0) < 280
    assert Behaviour(ttft_s=MAX_DELAY_S, ttft_tail=1).draw_ttft_s(rng) == MAX_DELAY_S


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_late_requests_are_counted_and_evenly_spread(share: float) -> None:
    late = Behaviour(ttft_s=0.1, late_share=share, late_ttft_s=2.0)
    rng = random.Random(7)
    drawn = [late.draw_ttft_s(rng, turn) for turn in range(1_000)]
    assert set(drawn) <= {0.1, 2.0}
    for first in range(0, 1_000, 100):
        assert drawn[first : first + 100].count(2.0) == round(100 * share)


def test_every_setting_of_the_grammar_is_in_its_table() -> None:
    assert behaviour.__doc__ is not None
    for key in _KEYS:
        assert re.search(rf"^ +(?:pace|faults|other)? *{key}(?:=[A-Z]|\b)", behaviour.__doc__, re.MULTILINE), key
