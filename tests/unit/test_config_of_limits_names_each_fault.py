"""``[limits]`` and the limits of keys, teams and models: what is wrong is named, what is right becomes rules."""

import pytest

from gateway.config import ConfigFaults, build, describe
from gateway.core.limits import LimitRule
from gateway.identity.belonging import rules


def config_of(document):
    return build(document, environ={})


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"limits": {"url": "http://127.0.0.1"}}, "limits.url"),
        ({"limits": {"url": "redis://"}}, "limits.url"),
        ({"limits": {"lease_s": 0.5}}, "limits.lease_s"),
        ({"limits": {"on_failure": "ajar"}}, "limits.on_failure"),
        ({"team": [{"name": "a", "on_budget": "cry"}]}, "team[0].on_budget"),
        ({"team": [{"name": "a", "rpm": 0}]}, "team[0].rpm"),
        ({"team": [{"name": "a", "budget_usd": 0}]}, "team[0].budget_usd: must be above 0"),
        ({"team": [{"name": "a", "budget_usd": 1e10}]}, "team[0].budget_usd: must be at most 1000000000"),
    ],
)
def test_each_fault_has_its_path(table, fault):
    with pytest.raises(ConfigFaults) as caught:
        config_of(table)
    assert fault in str(caught.value)


def test_the_password_of_the_keeper_is_not_shown():
    config = config_of({"limits": {"url": "redis://user:hunter2@127.0.0.1:6379/0"}})
    assert config.limits.url == "redis://user:hunter2@127.0.0.1:6379/0"
    assert "hunter2" not in describe(config) + repr(config)


def test_a_budget_may_be_of_more_dollars_than_a_year_has_seconds():
    assert config_of({"team": [{"name": "a", "budget_usd": 50_000_000}]}).team[0].budget_usd == 50_000_000


def test_limits_become_rules():
    team = config_of(
        {
            "team": [
                {
                    "name": "a", "rpm": 5, "budget_usd": 1.5, "period": "day", "on_budget": "warn",
                    "stop_streams": True, "on_failure": "closed",
                }
            ]
        }
    ).team[0]  # fmt: skip
    common = {"scope": "team", "owner": "a", "stop_streams": True, "on_failure": "closed"}
    assert rules("team", "a", team) == (
        LimitRule(kind="rpm", amount=5, **common),
        LimitRule(kind="usd", amount=1_500_000, period="day", hard=False, **common),
    )
