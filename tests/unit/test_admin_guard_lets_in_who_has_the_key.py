"""The admin API's guard: one key, one answer to all else, a limit for the one and a quiet log for the others."""

from __future__ import annotations

from gateway.admin.guard import Guard, Refused, fingerprint
from gateway.config import Admin, Secret
from gateway.core.errors import Rejected

KEY = "admin-0123456789abcdef"
SETTINGS = Admin(key=Secret(KEY), rpm=60)
BEARER = f"Bearer {KEY}".encode()


def test_only_the_whole_key_as_a_bearer_lets_in() -> None:
    guard = Guard()
    assert guard.check(SETTINGS, BEARER, 0.0) is None
    assert guard.check(SETTINGS, BEARER.replace(b"Bearer", b"bearer"), 1.0) is None
    wrong = (None, b"", b"Bearer", b"Bearer ", KEY.encode(), b"Basic " + KEY.encode(), BEARER + b"x", BEARER[:-1])
    for shown in wrong:
        assert isinstance(guard.check(SETTINGS, shown, 2.0), Refused), shown


def test_without_a_key_nobody_is_let_in() -> None:
    guard = Guard()
    for shown in (None, b"Bearer ", b"Bearer", BEARER):
        assert isinstance(guard.check(Admin(), shown, 0.0), Refused)
    assert guard.who == ""


def test_another_key_holds_as_soon_as_it_is_configured() -> None:
    guard, other = Guard(), Admin(key=Secret("other-0123456789abcdef"))
    assert guard.check(SETTINGS, BEARER, 0.0) is None
    assert isinstance(guard.check(other, BEARER, 1.0), Refused)
    assert guard.check(other, b"Bearer other-0123456789abcdef", 1.0) is None


def test_calls_are_limited_and_say_when_to_come_back() -> None:
    guard = Guard()
    answers = [guard.check(SETTINGS, BEARER, 0.0) for _ in range(11)]
    assert answers[:10] == [None] * 10
    refused = answers[10]
    assert isinstance(refused, Rejected)
    assert (refused.http_status, refused.retry_after_s) == (429, 1.0)
    assert guard.check(SETTINGS, BEARER, 1.0) is None


def test_refusals_use_up_nothing_and_are_told_now_and_then() -> None:
    guard = Guard()
    refused = [guard.check(SETTINGS, None, 0.0) for _ in range(25)]
    assert sum(isinstance(each, Refused) and each.tell for each in refused) == 10
    assert guard.check(SETTINGS, BEARER, 0.0) is None
    later = guard.check(SETTINGS, None, 60.0)
    assert isinstance(later, Refused)
    assert (later.tell, later.untold) == (True, 15)


def test_a_fingerprint_tells_keys_apart_and_nothing_of_them() -> None:
    made = fingerprint(KEY)
    assert made == fingerprint(KEY)
    assert made != fingerprint(KEY + "x")
    assert len(made.removeprefix("admin-")) == 8
