"""Promise: a provider's wish to be left alone is understood in every form it has, and garbage is no wish."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.retry import MOST_S, Backoff, retry_after_s, retry_delay_of_body

NOON = 1_769_515_200.0  # 2026-01-27T12:00:00Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"retry-after": b"2"}, 2.0),
        ({b"retry-after": b" 2 "}, 2.0),
        ({b"retry-after": b"0"}, 0.0),
        ({b"retry-after": b"1.5"}, 1.5),
        ({b"retry-after": b"999999999"}, MOST_S),
        ({b"retry-after": b"Tue, 27 Jan 2026 12:00:30 GMT"}, 30.0),
        ({b"retry-after": b"Tue, 27 Jan 2026 12:00:30 -0000"}, 30.0),
        ({b"retry-after": b"Tue, 27 Jan 2026 11:00:00 GMT"}, 0.0),
        ({b"retry-after": b"Tue, 27 Jan 2036 12:00:00 GMT"}, MOST_S),
        ({b"retry-after-ms": b"1500"}, 1.5),
        ({b"retry-after-ms": b"250", b"retry-after": b"1"}, 0.25),
        ({b"retry-after-ms": b"soon", b"retry-after": b"1"}, 1.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_with_any_status(headers, seconds, status):
    assert retry_after_s(headers.get, NOON, status=status) == pytest.approx(seconds)
    assert retry_after_s(list(headers.items()), NOON, status=status) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1s"}, 1.0),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"6m0s"}, 360.0),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"20ms"}, 0.02),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"2m59.56s"}, 179.56),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"1d2h"}, MOST_S),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"12"}, 12.0),
        (
            {
                b"x-ratelimit-remaining-requests": b"0",
                b"x-ratelimit-reset-requests": b"3s",
                b"x-ratelimit-remaining-tokens": b"0",
                b"x-ratelimit-reset-tokens": b"9s",
            },
            9.0,
        ),
        (
            {
                b"x-ratelimit-remaining-requests": b"0",
                b"x-ratelimit-reset-requests": b"3s",
                b"x-ratelimit-remaining-tokens": b"149984",
                b"x-ratelimit-reset-tokens": b"9s",
            },
            3.0,
        ),
        (
            {
                b"anthropic-ratelimit-requests-remaining": b"0",
                b"anthropic-ratelimit-requests-reset": b"2026-01-27T12:00:34Z",
            },
            34.0,
        ),
        (
            {
                b"anthropic-ratelimit-output-tokens-remaining": b"0",
                b"anthropic-ratelimit-output-tokens-reset": b"2026-01-27T14:01:00+02:00",
            },
            60.0,
        ),
        (
            {
                b"anthropic-ratelimit-tokens-remaining": b"0",
                b"anthropic-ratelimit-tokens-reset": b"2026-01-27T11:59:00Z",
            },
            0.0,
        ),
    ],
)
def test_the_reset_of_a_limit_that_is_used_up_counts_with_429_only(headers, seconds):
    assert retry_after_s(headers.get, NOON) == pytest.approx(seconds)
    assert retry_after_s(headers.get, NOON, status=503) is None
    assert retry_after_s({**headers, b"retry-after": b"5"}.get, NOON) == 5.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"retry-after": b""},
        {b"retry-after": b"nan"},
        {b"retry-after": b"inf"},
        {b"retry-after": b"-1"},
        {b"retry-after": b"1e9"},
        {b"retry-after": b"later"},
        {b"retry-after": b"Tue, 99 Jan 2026 12:00:30 GMT"},
        {b"retry-after": b"\xff\xfe"},
        {b"x-ratelimit-remaining-requests": b"1", b"x-ratelimit-reset-requests": b"1s"},
        {b"x-ratelimit-remaining-requests": b"none", b"x-ratelimit-reset-requests": b"1s"},
        {b"x-ratelimit-reset-requests": b"1s"},
        {b"x-ratelimit-remaining-requests": b"0"},
        {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1 second"},
        {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1769515200"},
        {b"anthropic-ratelimit-requests-remaining": b"0", b"anthropic-ratelimit-requests-reset": b"tomorrow"},
        {
            b"anthropic-ratelimit-requests-remaining": b"7",
            b"anthropic-ratelimit-requests-reset": b"2026-01-27T13:00:00Z",
        },
    ],
)
def test_what_cannot_be_understood_was_not_said(headers):
    assert retry_after_s(headers.get, NOON) is None


ANY_VALUE = st.binary(max_size=40) | st.from_regex(rb"\A[0-9.]{1,400}(ms|s|m|h)?\Z")
ANY_NAME = st.sampled_from(
    [b"retry-after", b"retry-after-ms"]
    + [b"x-ratelimit-%b-%b" % (what, of) for what in (b"remaining", b"reset") for of in (b"requests", b"tokens")]
    + [b"anthropic-ratelimit-requests-%b" % what for what in (b"remaining", b"reset")]
)


@given(st.lists(st.tuples(ANY_NAME, ANY_VALUE | st.just(b"0"))))
def test_no_header_can_make_it_fail_or_leave_the_bounds(headers):
    told = retry_after_s(headers, NOON)
    assert told is None or 0 <= told <= MOST_S


RETRY_INFO = b'{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "%b"}'
QUOTA = b'{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []}'


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"error": {"code": 429, "details": [' + QUOTA + b"," + RETRY_INFO % b"34s" + b"]}}", 34.0),
        (b'{"error": {"code": 429, "details": [' + RETRY_INFO % b"34.074824224s" + b"]}}", 34.074824224),
        (b'[{"error": {"code": 429, "details": [' + RETRY_INFO % b"1s" + b"]}}]", 1.0),
        (b'{"error": {"code": 429, "details": [' + RETRY_INFO % b"100000s" + b"]}}", MOST_S),
        (b'{"error": {"code": 429, "details": [' + RETRY_INFO % b"-3s" + b"]}}", None),
        (b'{"error": {"code": 429, "details": [' + QUOTA + b"]}}", None),
        (b'{"error": "RetryInfo"}', None),
        (b'{"error": {"details": "RetryInfo"}}', None),
        (b'{"error": {"details": ["RetryInfo", {"@type": "google.rpc.RetryInfo", "retryDelay": 3}]}}', None),
        (b'"RetryInfo"', None),
        (b"RetryInfo", None),
        (b"", None),
    ],
)
def test_the_delay_in_a_google_error_is_found(body, seconds):
    assert retry_delay_of_body(body) == (pytest.approx(seconds) if seconds is not None else None)


def test_backoff_is_anything_up_to_a_limit_that_doubles_and_ends():
    backoff, rng = Backoff(0.25, 8.0), random.Random(4)
    for number, most_s in [(1, 0.25), (2, 0.5), (3, 1.0), (6, 8.0), (7, 8.0), (10_000, 8.0)]:
        delays = [backoff.delay_s(number, rng) for _ in range(2_000)]
        assert 0 <= min(delays) < 0.01 * most_s
        assert 0.99 * most_s < max(delays) <= most_s
        assert sum(delays) / len(delays) == pytest.approx(most_s / 2, rel=0.1)
