"""What a provider's failure means: for the client's status, for asking again, and for the target's health.

The one place that knows. A provider's 401 or 403 is about *our* key, so the client, whose key was fine, gets a 502.
A provider's 4xx about the request is the client's business and passes with its own status and reason.

==============================  ==========  =============  ==================================================
failure                         same again  another        the target's health
==============================  ==========  =============  ==================================================
could not connect, 408, 409     yes         yes            failed
kept-alive connection was dead  yes         yes            failed
429                             yes         yes            overloaded; its key cools down
503, 529                        yes         yes            failed, overloaded
424, 500, 502, 504, other 5xx   no          yes            failed
402 (our account), a redirect   no          yes            failed
silence, reset, cut, garbage    no          yes            failed (silence: overloaded, too; also of who takes
                                                           no connection)
error or nothing for an answer  no          yes            failed
400, 404, 413, content policy   no          no             says nothing
context length exceeded         no          larger window  says nothing
prefill not supported           no          yes            says nothing
401                             no          no             locked: opens its breaker for long, with a loud log
403                             no          no             forbidden: the same, for this model alone
==============================  ==========  =============  ==================================================

Limits: providers word their errors freely; what they mean by a 400 is read by their dialect (``error_code``).
"""

from __future__ import annotations

import enum

from attrs import frozen

from gateway.core.errors import DeadlineExceeded, GatewayError, Retry, UpstreamError

CLIENTS_OWN = frozenset({400, 404, 405, 406, 410, 411, 413, 415, 422, 451})
CONTEXT_TOO_LONG = "context_length_exceeded"
PREFILL_REFUSED = "prefill_unsupported"
UNKNOWN_KEY = "upstream_auth"  # Google says so with a 400
DIVERGED = "upstream_diverged"  # a restarted answer is another one


class Health(enum.Enum):
    """What an attempt's end says of its target."""

    GOOD = "good"
    FAILED = "failed"
    OVERLOADED = "overloaded"  # failed, and it had too much to do
    LIMITED = "limited"  # it works, but not for us now (429)
    LOCKED = "locked"  # it does not take our key
    FORBIDDEN = "forbidden"  # it takes the key, but not for this
    SILENT = "silent"  # says nothing: the client left or was wrong


@frozen(slots=True)
class Verdict:
    """What to do after a failure.

    Attributes:
        again: The same target may be asked once more.
        elsewhere: Another target may do better.
        health: What it says of this one.
    """

    again: bool
    elsewhere: bool
    health: Health


def judge(error: GatewayError) -> Verdict:
    """What a failed attempt means; see the table."""
    if isinstance(error, DeadlineExceeded):
        silent = error.stage in ("first_token", "answer", "stall", "connect")
        return _SILENCE if silent else _OVER
    if not isinstance(error, UpstreamError):
        return _OVER
    if error.code in (CONTEXT_TOO_LONG, PREFILL_REFUSED, DIVERGED):
        return _ELSEWHERE
    if error.retry is Retry.NEVER:
        return _REFUSED.get(error.code, _OVER)
    if error.code in ("upstream_pool", "pool_timeout"):
        return Verdict(again=False, elsewhere=True, health=Health.SILENT)  # our own limit, not the provider's fault
    if error.code == "connect_timeout":
        return _SILENCE  # it has had its time: asking again would cost as much once more
    health = _HEALTH.get(error.code, Health.FAILED)
    return Verdict(again=error.retry is Retry.SAFE, elsewhere=True, health=health)


_OVER = Verdict(again=False, elsewhere=False, health=Health.SILENT)
_SILENCE = Verdict(again=False, elsewhere=True, health=Health.OVERLOADED)
_ELSEWHERE = Verdict(again=False, elsewhere=True, health=Health.SILENT)
_REFUSED = {
    "upstream_auth": Verdict(again=False, elsewhere=False, health=Health.LOCKED),
    "upstream_forbidden": Verdict(again=False, elsewhere=False, health=Health.FORBIDDEN),
}
_HEALTH = {
    "upstream_rate_limited": Health.LIMITED,
    "upstream_unavailable": Health.OVERLOADED,
    "upstream_overloaded": Health.OVERLOADED,
}


def refused_by_provider(
    status: int,
    *,
    target: str,
    retry_after_s: float | None = None,
    code: str = "",
    reason: str = "",
    body: bytes | None = None,
) -> UpstreamError:
    """The error for a provider's answer that is none.

    Args:
        status: The provider's status, not 2xx.
        target: ``provider/model``.
        retry_after_s: What its ``Retry-After`` said.
        code: What its dialect makes of the error document, "" for nothing in particular.
        reason: Its own words, scrubbed and short; told to the client only for the client's own faults.
        body: Its whole document, if the client speaks its dialect; the same holds.
    """
    if status in CLIENTS_OWN and code != UNKNOWN_KEY:
        return UpstreamError(
            code or "upstream_refused",
            status,
            f"{target} refused the request with status {status}",
            target=target,
            retry=Retry.NEVER,
            reason=reason,
            body=body,
        )
    meant = 401 if code == UNKNOWN_KEY else status
    name, client_status, what, retry = _MEANING.get(meant, _OTHER_5XX if status >= 500 else _UNEXPECTED)
    return UpstreamError(
        name,
        client_status,
        f"{target} {what} (status {status})",
        target=target,
        retry=retry,
        retry_after_s=retry_after_s,
    )


_OTHER_5XX = ("upstream_error", 502, "failed", Retry.UNSAFE)
_UNEXPECTED = ("upstream_unexpected", 502, "answered with an unexpected status", Retry.UNSAFE)
_MEANING: dict[int, tuple[str, int, str, Retry]] = {
    401: ("upstream_auth", 502, "does not accept the gateway's key", Retry.NEVER),
    402: ("upstream_unpaid", 502, "wants to be paid first by the gateway's account", Retry.UNSAFE),
    403: ("upstream_forbidden", 502, "does not allow the gateway this", Retry.NEVER),
    408: ("upstream_timeout", 504, "timed out", Retry.SAFE),
    409: ("upstream_conflict", 502, "reported a conflict", Retry.SAFE),
    424: ("upstream_error", 502, "failed", Retry.UNSAFE),  # Bedrock: the model behind it did
    429: ("upstream_rate_limited", 429, "is rate limiting the gateway", Retry.SAFE),
    500: ("upstream_error", 502, "failed", Retry.UNSAFE),
    503: ("upstream_unavailable", 503, "is not available", Retry.SAFE),
    504: ("upstream_timeout", 504, "timed out", Retry.UNSAFE),
    529: ("upstream_overloaded", 503, "is overloaded", Retry.SAFE),
}
