"""Everything that can go wrong, once, with its code and status.

::

    GatewayError(code, http_status, public_message)
    ├─ RequestError       the caller's: 400 · 401 · 403 · 404 · 408 · 413 · 415 · 422
    ├─ Rejected           never started, safe to resend after ``retry_after_s``: 429 · 503
    ├─ DeadlineExceeded   504, ``stage`` = queue | context | connect | first_token | answer | stall | total
    ├─ ContextFailed      502, a required loader failed; names it
    ├─ UpstreamError      502 · 503 · 504 or the provider's own status
    └─ StreamBroken       after the commit point: one error event, then the stream ends without ``[DONE]``

A ``public_message`` is shown to clients: it names the field, the limit and the fix, and never holds a secret. What the
machine knows beyond that travels as ``__cause__`` and reaches the log, never the client. ``str()`` of an error is for
the log, and leaves out a provider's own words: they may quote the prompt.
A client that left is no error and has no class here: it is a ``trio.Cancelled`` that unwinds.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar, Final, Literal

MAX_MESSAGE_CHARS: Final = 2_000
Stage = Literal["queue", "context", "connect", "first_token", "answer", "stall", "total"]


class GatewayError(Exception):
    """The root; catch it where a failure becomes an answer.

    Attributes:
        code: Stable machine name, e.g. ``queue_full``; goes into ``error.code`` and metric labels.
        http_status: The status the client sees if nothing was committed yet.
        public_message: One or two sentences for the client.
        param: The request field at fault, in dotted form, where there is one.
        retry_after_s: Seconds after which trying again makes sense; becomes ``Retry-After``.
        headers: What more the answer's head says.
        error_type: OpenAI's ``error.type``.
    """

    error_type: ClassVar[str] = "api_error"
    headers: Sequence[tuple[bytes, bytes]] = ()

    def __init__(
        self,
        code: str,
        http_status: int,
        public_message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if len(public_message) > MAX_MESSAGE_CHARS:  # it quotes what a client or a provider wrote
            public_message = public_message[:MAX_MESSAGE_CHARS] + "…"
        super().__init__(public_message)
        self.code = code
        self.http_status = http_status
        self.public_message = public_message
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(GatewayError):
    """The caller's mistake; sending the same again gives the same answer."""

    error_type = "invalid_request_error"


class Rejected(GatewayError):
    """Refused before anything was started: safe to send again after ``retry_after_s``."""

    error_type = "rate_limit_error"


class DeadlineExceeded(GatewayError):
    """One of the request's deadlines passed; ``stage`` says which."""

    error_type = "timeout_error"

    def __init__(self, stage: Stage, public_message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{stage}_timeout", 504, public_message, retry_after_s=retry_after_s)
        self.stage = stage


class ContextFailed(GatewayError):
    """A required loader failed, so the model was never asked."""

    def __init__(self, loader: str, public_message: str) -> None:
        super().__init__("context_failed", 502, public_message)
        self.loader = loader


class Retry(enum.Enum):
    """Whether the same request may be sent upstream again."""

    SAFE = "safe"  # the provider did no work, or said so
    UNSAFE = "unsafe"  # it may have worked and billed
    NEVER = "never"  # it would answer the same


class UpstreamError(GatewayError):
    """The provider failed before the commit point.

    Attributes:
        target: ``provider/model`` that failed.
        retry: Whether another attempt makes sense.
        public_message: With the provider's ``reason``, where that is the client's business.
        body: The provider's own error document where it is the client's business (its 4xx), already scrubbed.
    """

    error_type = "upstream_error"

    def __init__(
        self,
        code: str,
        http_status: int,
        public_message: str,
        *,
        target: str,
        retry: Retry,
        retry_after_s: float | None = None,
        reason: str = "",
        body: bytes | None = None,
    ) -> None:
        super().__init__(code, http_status, public_message, retry_after_s=retry_after_s)
        if reason:
            self.public_message = f"{public_message}: {reason}"
        self.target = target
        self.retry = retry
        self.body = body


class StreamBroken(GatewayError):
    """The answer cannot be completed although its status is already sent."""

    error_type = "upstream_error"

    def __init__(self, code: str, public_message: str) -> None:
        super().__init__(code, 502, public_message)
