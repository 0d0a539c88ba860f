"""What a provider's failure means: for the client's status, and for whether to ask again.

The one place that knows. A provider's 401 or 403 is about *our* key, so the client, whose key was fine, gets a 502.
A provider's 4xx about the request is the client's business and passes with its own status and document.
"""

from __future__ import annotations

from gateway.core.errors import Retry, UpstreamError

CLIENTS_OWN = frozenset({400, 404, 405, 406, 410, 411, 413, 415, 422, 451})


def refused_by_provider(status: int, *, target: str, retry_after_s: float | None, body: bytes | None) -> UpstreamError:
    """The error for a provider's answer that is none.

    Args:
        status: The provider's status, not 2xx.
        target: ``provider/model``.
        retry_after_s: What its ``Retry-After`` said.
        body: Its error document, if it is one and short; passed to the client only for the client's own faults.
    """
    if status in CLIENTS_OWN:
        return UpstreamError(
            "upstream_refused",
            status,
            f"{target} refused the request with status {status}",
            target=target,
            retry=Retry.NEVER,
            body=body,
        )
    code, client_status, what, retry = _MEANING.get(status, _OTHER_5XX if status >= 500 else _UNEXPECTED)
    return UpstreamError(
        code,
        client_status,
        f"{target} {what} (status {status})",
        target=target,
        retry=retry,
        retry_after_s=retry_after_s,
    )


_OTHER_5XX = ("upstream_error", 502, "failed", Retry.UNSAFE)
_UNEXPECTED = ("upstream_unexpected", 502, "answered with an unexpected status", Retry.NEVER)
_MEANING: dict[int, tuple[str, int, str, Retry]] = {
    401: ("upstream_auth", 502, "does not accept the gateway's key", Retry.NEVER),
    403: ("upstream_auth", 502, "does not allow the gateway this", Retry.NEVER),
    408: ("upstream_timeout", 504, "timed out", Retry.SAFE),
    409: ("upstream_conflict", 502, "reported a conflict", Retry.SAFE),
    429: ("upstream_rate_limited", 429, "is rate limiting the gateway", Retry.SAFE),
    500: ("upstream_error", 502, "failed", Retry.UNSAFE),
    503: ("upstream_unavailable", 503, "is not available", Retry.SAFE),
    504: ("upstream_timeout", 504, "timed out", Retry.UNSAFE),
    529: ("upstream_overloaded", 503, "is overloaded", Retry.SAFE),
}
