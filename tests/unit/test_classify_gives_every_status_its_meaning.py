"""A provider's status means one thing, here and nowhere else: what the client sees, and if asking again is safe."""

from __future__ import annotations

import pytest

from gateway.core.errors import Retry, UpstreamError
from gateway.policy.classify import Health, judge, refused_by_provider

DOCUMENT = b'{"error": {"message": "sk-123 is wrong"}}'


def classify(status: int, retry_after_s: float | None = None) -> UpstreamError:
    return refused_by_provider(status, target="p/m", retry_after_s=retry_after_s, body=DOCUMENT)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 451])
def test_the_clients_own_fault_passes_with_its_status_and_document(status: int) -> None:
    error = classify(status)
    assert (error.http_status, error.retry, error.body) == (status, Retry.NEVER, DOCUMENT)


@pytest.mark.parametrize(
    ("status", "seen", "retry"),
    [
        (401, 502, Retry.NEVER),
        (403, 502, Retry.NEVER),
        (408, 504, Retry.SAFE),
        (409, 502, Retry.SAFE),
        (424, 502, Retry.UNSAFE),
        (429, 429, Retry.SAFE),
        (500, 502, Retry.UNSAFE),
        (502, 502, Retry.UNSAFE),
        (503, 503, Retry.SAFE),
        (504, 504, Retry.UNSAFE),
        (529, 503, Retry.SAFE),
        (599, 502, Retry.UNSAFE),
        (302, 502, Retry.UNSAFE),
        (402, 502, Retry.UNSAFE),
    ],
)
def test_what_is_not_the_clients_fault_has_our_words_and_no_document_of_the_providers(
    status: int, seen: int, retry: Retry
) -> None:
    error = classify(status, retry_after_s=7.0)
    assert (error.http_status, error.retry, error.retry_after_s) == (seen, retry, 7.0)
    assert error.body is None
    assert "sk-123" not in error.public_message
    assert f"status {status}" in error.public_message
    assert error.target == "p/m"


def test_no_status_is_taken_for_a_success() -> None:
    assert {classify(status).http_status // 100 for status in range(300, 600)} == {4, 5}


def test_a_key_that_is_not_known_is_ours_whatever_status_says_so() -> None:
    error = refused_by_provider(400, target="p/m", code="upstream_auth", reason="sk-123 is wrong", body=DOCUMENT)
    assert (error.code, error.http_status, error.retry, error.body) == ("upstream_auth", 502, Retry.NEVER, None)
    assert "sk-123" not in error.public_message
    assert judge(error).health is Health.LOCKED


def test_who_takes_no_connection_in_its_time_is_silent_and_left() -> None:
    error = UpstreamError("connect_timeout", 504, "p/m could not be connected to", target="p/m", retry=Retry.SAFE)
    verdict = judge(error)
    assert (verdict.again, verdict.elsewhere, verdict.health) == (False, True, Health.OVERLOADED)
