"""Closed by default: no key, no answer beyond loopback, whatever server runs the app and wherever it listens."""

import pytest

from gateway.config import Key, Secret
from gateway.core.errors import RequestError
from gateway.edge.door import is_local
from gateway.identity.keyring import Keyring


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("127.0.0.1", 5), True),
        (("::1", 5), True),
        (None, True),
        (("10.0.0.7", 5), False),
        (("2001:db8::1", 5), False),
        (("not an address", 5), False),
    ],
)
def test_who_is_on_this_machine(client, local):
    assert is_local(client) is local


def test_without_keys_a_client_elsewhere_is_refused():
    with pytest.raises(RequestError) as caught:
        Keyring([]).identify(b"Bearer whatever", local=False)
    assert (caught.value.http_status, caught.value.code) == (401, "loopback_only")
    assert Keyring([]).identify(None, local=True).name == "anonymous"


def test_with_keys_the_key_decides_and_not_the_place():
    ring = Keyring([Key(name="dev", secret=Secret("sk-0123456789abcdef"))])
    assert ring.identify(b"Bearer sk-0123456789abcdef", local=False).name == "dev"
    with pytest.raises(RequestError):
        ring.identify(None, local=True)
