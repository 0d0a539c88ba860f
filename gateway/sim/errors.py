"""Refusals, in the words and the shape of each dialect.

An :class:`ApiError` says what is wrong in OpenAI's terms, which are the most detailed; a :class:`Dialect` knows how its
provider would say the same: the document, the words for the three refusals that gateways act on (too long for the
model, no going on from an assistant's message, content policy), where it tells when to come back, and its keep-alive.

Source: the providers' API references ("Errors", "Rate limits") as of 2026; Google's ``google.rpc.Status`` and
``RetryInfo``. The words for a refused prefill are no documented interface; they are those in public reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

from attrs import frozen

from gateway.sim.behaviour import Behaviour

FAILED = "The simulated provider fails here because it was told to."

Headers = tuple[tuple[str, str], ...]


class ApiError(Exception):
    """A refusal, or a failure that was asked for.

    Attributes:
        status: Of the answer; in an event, of the answer that it replaces.
        kind: OpenAI's ``error.type``.
        reason: Why, for the statistics: invalid, key, path, too_long, prefill, policy or planned.
        retry_after_s: For the dialect that says it in the document.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Headers = (),
        retry_after_s: float | None = None,
        reason: str = "invalid",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers
        self.retry_after_s = retry_after_s

    @property
    def document(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@frozen(kw_only=True, slots=True)
class Dialect:
    """How one provider says what is not an answer.

    Attributes:
        name: As the gateway's configuration and the statistics call it.
        document: The error document; the second argument is the request's id.
        headers: Of every answer; the argument is the request's id.
        reset_headers: The dialect's own way to say when a rate limit ends, in seconds from now.
        too_long: Words for a prompt of ``{given}`` tokens where ``{most}`` are allowed.
        no_prefill: Words for a last message of the assistant that is not gone on from.
        policy: Words for a prompt that is refused for what it says; None: it is an answer (Gemini).
        policy_code: OpenAI's ``error.code`` with them.
        ping: A keep-alive in a stream.
    """

    name: str
    document: Callable[[ApiError, str], dict[str, Any]]
    headers: Callable[[str], Headers]
    reset_headers: Callable[[float], Headers]
    too_long: str
    no_prefill: str
    policy: str | None
    policy_code: str = "content_policy_violation"
    ping: bytes = b": keep-alive\n\n"


def refuse_length(dialect: Dialect, given: int, most: int) -> ApiError:
    """The prompt is too long."""
    message = dialect.too_long.format(given=given, most=most)
    param = "input" if dialect is RESPONSES else "messages"
    return ApiError(400, message, param=param, code="context_length_exceeded", reason="too_long")


def refuse_prefill(dialect: Dialect) -> ApiError:
    """The last message is the assistant's."""
    return ApiError(400, dialect.no_prefill, reason="prefill")


def refuse_content(dialect: Dialect) -> ApiError:
    """The prompt is against the provider's policy."""
    return ApiError(400, dialect.policy or "", code=dialect.policy_code, reason="policy")


def planned_error(behaviour: Behaviour, dialect: Dialect) -> ApiError:
    """The answer with a status that was asked for, and when to come back."""
    status = behaviour.status or 500
    kind, code = {
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }.get(status, ("server_error", "server_error") if status >= 500 else ("invalid_request_error", None))
    after_s = behaviour.retry_after_s
    headers = () if after_s is None else _come_back(behaviour.retry_form, after_s, dialect)
    message = f"{FAILED} (status={status})"
    return ApiError(status, message, kind=kind, code=code, headers=headers, retry_after_s=after_s)


def planned_failure() -> ApiError:
    """What an answer fails with in the middle."""
    return ApiError(500, FAILED, kind="server_error", code="server_error")


def _come_back(form: str, after_s: float, dialect: Dialect) -> Headers:
    if form == "date":  # of whole seconds: not before the time that was meant
        return (("retry-after", formatdate(math.ceil(time.time() + after_s), usegmt=True)),)
    if form == "ms":
        return (("retry-after-ms", f"{after_s * 1_000:g}"),)
    if form == "reset":
        return dialect.reset_headers(after_s)
    return (("retry-after", f"{after_s:g}"),)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: ``20ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return f"{seconds * 1_000:g}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


def _openai_headers(request_id: str) -> Headers:
    return (("x-request-id", f"req_{request_id}"), ("openai-version", "2020-10-01"))


def _openai_reset(after_s: float) -> Headers:
    return (
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", _duration(after_s)),
    )


def _anthropic_document(error: ApiError, request_id: str) -> dict[str, Any]:
    kind = {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    shown = {"type": kind, "message": error.message}
    return {"type": "error", "error": shown, "request_id": f"req_{request_id}"}


def _anthropic_reset(after_s: float) -> Headers:
    end = datetime.fromtimestamp(math.ceil(time.time() + after_s), UTC)
    return (
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", end.strftime("%Y-%m-%dT%H:%M:%SZ")),
    )


def _google_document(error: ApiError, request_id: str) -> dict[str, Any]:
    status = {
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        408: "DEADLINE_EXCEEDED",
        409: "ABORTED",
        429: "RESOURCE_EXHAUSTED",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }.get(error.status, "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT")
    shown: dict[str, Any] = {"code": error.status, "message": error.message, "status": status}
    if error.retry_after_s is not None:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"}
        shown["details"] = [info]
    return {"error": shown}


CHAT = Dialect(
    name="openai",
    document=lambda error, _: error.document,
    headers=_openai_headers,
    reset_headers=_openai_reset,
    too_long="This model's maximum context length is {most} tokens. However, your messages resulted in {given} tokens."
    " Please reduce the length of the messages.",
    no_prefill="Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    policy="Your request was rejected because it is against the simulated provider's content policy.",
)
RESPONSES = Dialect(
    name="openai-responses",
    document=lambda error, _: error.document,
    headers=_openai_headers,
    reset_headers=_openai_reset,
    too_long="Your input exceeds the context window of this model ({given} tokens, {most} allowed)."
    " Please adjust your input and try again.",
    no_prefill="This model does not support assistant message prefill. The conversation must end with a user message.",
    policy="Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
    policy_code="invalid_prompt",
)
ANTHROPIC = Dialect(
    name="anthropic",
    document=_anthropic_document,
    headers=lambda request_id: (("request-id", f"req_{request_id}"),),
    reset_headers=_anthropic_reset,
    too_long="prompt is too long: {given} tokens > {most} maximum",
    no_prefill="This model does not support assistant message prefill. The conversation must end with a user message.",
    policy="Output blocked by content filtering policy",
    ping=b'event: ping\ndata: {"type": "ping"}\n\n',
)
GEMINI = Dialect(
    name="gemini",
    document=_google_document,
    headers=lambda _: (),
    reset_headers=lambda _: (),
    too_long="The input token count ({given}) exceeds the maximum number of tokens allowed ({most}).",
    no_prefill="Please ensure that multiturn requests ends with a user role or a function response.",
    policy=None,
    ping=b": keep-alive\r\n\r\n",
)
