"""Promise: faults in teams, organisations, issuers and the store's address are named with the fix; a password is not
shown."""

from __future__ import annotations

import pytest

from gateway.config import ConfigFaults, asks_for_keys, describe, load

ISSUER = '[[issuer]]\nurl = "https://login.example"\naudience = "sluice"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[team]]\nname = "a"\norg = "acme"', "team[0].org: no organisation is called 'acme'; there is no"),
        ('[[team]]\nname = "a"\n[[team]]\nname = "a"', "team[1].name: 'a' is already the name of team[0]"),
        ('[[team]]\nname = "a"\nrpm = 0', "team[0].rpm: must be at least 1"),
        ('[[organisation]]\nname = "a"\nbudget_usd = 0.0', "organisation[0].budget_usd: must be above 0"),
        (ISSUER + 'algorithms = ["HS256"]', "issuer[0].algorithms[0]: 'HS256' is not known here"),
        (ISSUER + 'algorithms = ["none"]', "issuer[0].algorithms[0]: 'none' is not known here"),
        (ISSUER + "algorithms = []", "issuer[0].algorithms: is empty"),
        (ISSUER.replace('"sluice"', '""'), "issuer[0].audience: is empty; a token for anybody else"),
        (ISSUER.replace("https", "http"), "issuer[0].url: must be https"),
        (ISSUER + 'jwks_url = "http://10.0.0.1/keys"', "issuer[0].jwks_url: must be https"),
        (ISSUER + 'org = "acme"', "issuer[0].org: no organisation is called 'acme'"),
        (
            'store.url = "postgresql://db/sluice"\nidentity.virtual_keys = "on"',
            "identity.pepper: is missing; keys in PostgreSQL need the same one on all machines",
        ),
        ('store.url = "postgresql://"', "store.url: expected sqlite:///PATH"),
        ('store.local_url = "postgresql://db/x"', "store.local_url: expected sqlite:///PATH"),
        ('store.url = "sqlite:///:memory:"\nidentity.virtual_keys = "on"', "identity.virtual_keys: is on, but a store"),
        ('identity.pepper = "short"', "identity.pepper: has fewer than 16 characters"),
        (
            '[server]\nbind = "0.0.0.0:80"\n[identity]\nvirtual_keys = "auto"',
            "server.bind: '0.0.0.0:80' can be reached",
        ),
    ],
)
def test_a_fault_is_named_with_the_fix(text: str, fault: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(None, environ={}, text=text)
    [only] = map(str, caught.value.faults)
    assert only.startswith(fault)
    assert "short" not in only


@pytest.mark.parametrize(
    "text",
    [
        '[server]\nbind = "0.0.0.0:80"\n[identity]\nvirtual_keys = "on"',
        '[server]\nbind = "0.0.0.0:80"\n[identity]\npepper = "0123456789abcdef"',
        '[server]\nbind = "0.0.0.0:80"\n' + ISSUER,
    ],
)
def test_whoever_asks_for_keys_of_any_kind_may_listen_for_others(text: str) -> None:
    assert asks_for_keys(load(None, environ={}, text=text))


def test_loopback_issuers_need_no_tls() -> None:
    assert load(None, environ={}, text=ISSUER.replace("https://login.example", "http://127.0.0.1:9/")).issuer


def test_neither_pepper_nor_password_is_shown_and_the_rest_reads_back() -> None:
    text = (
        'store.url = "postgresql://anna:hunter22@db.example:5432/sluice"\nidentity.pepper = "0123456789abcdef"\n'
        '[[organisation]]\nname = "acme"\nbudget_usd = 12.5\n[[team]]\nname = "search"\norg = "acme"\nrpm = 5\n'
        + ISSUER
    )
    config = load(None, environ={}, text=text)
    shown = describe(config)
    assert "hunter22" not in shown + repr(config)
    assert "0123456789abcdef" not in shown + repr(config)
    assert "postgresql://anna:***@db.example:5432/sluice" in shown
    again = load(None, environ={}, text=shown.replace('pepper = "***"', 'pepper = "another-16-chars"'))
    assert (again.team, again.organisation, again.issuer) == (config.team, config.organisation, config.issuer)
