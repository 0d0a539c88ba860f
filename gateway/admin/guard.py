"""Who may use the admin API: whoever shows ``[admin] key``, so many times a minute. Without a key configured: nobody.

All that is wrong gets one and the same 401: no key, another one, a client's, an API that is closed, a path that does
not exist. What is compared are digests, in constant time, so neither the time nor the answer tells how much of a guess
was right. Refusals take nothing from the limit of who has the key; of their log lines only some are written, and the
next one says how many were not.

Limit: each process counts for itself.
"""

from __future__ import annotations

import hashlib
import hmac

from attrs import frozen

from gateway.config import Admin
from gateway.core.errors import Rejected, RequestError
from gateway.policy.gcra import Gcra

_MINUTE_S = 60.0
_BURST_SHARE = 6  # of a minute's calls, this part may come at once
_REFUSALS_TOLD_PER_MINUTE = 30
_REFUSALS_TOLD_AT_ONCE = 10


@frozen(kw_only=True, slots=True)
class Refused:
    """A refusal.

    Attributes:
        tell: It is worth a line of the log.
        untold: How many before it were not.
    """

    error: RequestError
    tell: bool
    untold: int


class Guard:
    """Lets in, or says why not. Synchronous; the clock is passed in."""

    def __init__(self) -> None:
        self._settings: Admin | None = None
        self._digest: bytes | None = None
        self._calls = Gcra(1, _MINUTE_S)
        self._told = Gcra(_REFUSALS_TOLD_PER_MINUTE, _MINUTE_S, burst=_REFUSALS_TOLD_AT_ONCE)
        self._untold = 0
        self.who = ""

    def check(self, settings: Admin, authorization: bytes | None, now: float) -> Refused | Rejected | None:
        """None lets in.

        Args:
            settings: ``[admin]`` as it is now; a reload may have changed it.
            authorization: The header of that name.
            now: Seconds on a clock that is never set.
        """
        if not self.knows(settings, authorization):
            return self._refused(now)
        wait_s = self._calls.take(now)
        if wait_s:
            why = f"more than {settings.rpm} calls in a minute (admin.rpm)"
            return Rejected("rate_limited", 429, why, retry_after_s=wait_s)
        return None

    def knows(self, settings: Admin, authorization: bytes | None) -> bool:
        """Whether this is the key; takes nothing from any limit."""
        self._configure(settings)
        scheme, _, shown = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(shown.strip()).digest()
        right = hmac.compare_digest(digest, self._digest or bytes(len(digest)))
        return right and self._digest is not None and scheme.lower() == b"bearer"

    def _configure(self, settings: Admin) -> None:
        if settings is self._settings:
            return
        self._settings = settings
        self._calls = Gcra(settings.rpm, _MINUTE_S, burst=max(settings.rpm // _BURST_SHARE, 1))
        self._digest, self.who = None, ""
        if settings.key is not None:
            self._digest = hashlib.sha256(settings.key.reveal().encode()).digest()
            self.who = fingerprint(settings.key.reveal())

    def _refused(self, now: float) -> Refused:
        tell = not self._told.take(now)
        refused = Refused(error=RequestError("unauthorized", 401, "unauthorized"), tell=tell, untold=self._untold)
        self._untold = 0 if tell else self._untold + 1
        return refused


def fingerprint(key: str) -> str:
    """Tells keys apart in the trail; of 32 bits, so that it confirms no guess."""
    return "admin-" + hashlib.blake2b(key.encode(), person=b"sluice admin", digest_size=4).hexdigest()
