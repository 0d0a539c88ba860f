"""A key in the query is found beside bytes that are no ASCII, and one that holds such bytes is an unknown key."""

from __future__ import annotations

import pytest

from gateway.edge.head_fields import key_of


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (b"key=one", b"one"),
        (b"q=%FF&key=one", b"one"),
        (b"q=\xff&key=one", b"one"),
        (b"key=%FF", b"\xff"),
        (b"key=\xff", b"\xff"),
        (b"monkey=one", None),
    ],
)
def test_key_is_read(query: bytes, key: bytes | None) -> None:
    assert key_of({}, query) == key
