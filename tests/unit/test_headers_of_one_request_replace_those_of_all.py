"""A provider's fixed headers and those of one request: the latter win, and nothing is sent twice."""

from gateway.upstream.head import HeaderBlock

FIXED = HeaderBlock.of([(b"accept", b"*/*"), (b"Anthropic-Version", b"2023-06-01"), (b"x-api-key", b"k")])


def test_a_name_that_is_there_is_replaced_whatever_its_case() -> None:
    block = FIXED.plus([(b"anthropic-version", b"2026-10-21"), (b"anthropic-beta", b"b")]).block
    assert block == b"accept: */*\r\nx-api-key: k\r\nanthropic-version: 2026-10-21\r\nanthropic-beta: b\r\n"


def test_names_that_begin_alike_are_others() -> None:
    assert FIXED.plus([(b"x-api", b"v")]).block == FIXED.block + b"x-api: v\r\n"


def test_nothing_more_changes_nothing() -> None:
    assert FIXED.plus([]) == FIXED
