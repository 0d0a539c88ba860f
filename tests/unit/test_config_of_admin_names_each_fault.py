"""What can be wrong with ``[admin]`` is said with its path; its key is shown to nobody."""

from __future__ import annotations

import pytest

from gateway.config import ConfigFaults, describe, load

KEY = '[[key]]\nname = "dev"\nsecret = "sk-0123456789abcdef"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[admin]\nkey = "short"', "admin.key: has fewer than 16 characters; `openssl rand -hex 32` makes one"),
        ('[admin]\nkey = "with a space 0123456789"', "admin.key: holds a space"),
        (KEY + '[admin]\nkey = "sk-0123456789abcdef"', "admin.key: is the secret of key[0], too"),
        ("[admin]\nrpm = 0", "admin.rpm: "),
        ("[admin]\naudit_days = 0", "admin.audit_days: "),
        ('[admin]\nkeys = ["a"]', "admin.keys: "),
    ],
)
def test_each_fault(text: str, fault: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(None, environ={}, text=text)
    [found] = [str(each) for each in caught.value.faults]
    assert found.startswith(fault)


def test_the_key_is_masked_and_may_be_left_empty() -> None:
    config = load(None, environ={"K": "hidden-0123456789"}, text='[admin]\nkey = "${K}"')
    assert "hidden" not in describe(config) + repr(config)
    assert load(None, environ={}, text='[admin]\nkey = "${K:-}"').admin.key is None
