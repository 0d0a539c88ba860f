"""Errors as HTTP: the one place where a :class:`GatewayError` becomes status, headers and document."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson

from gateway.core.errors import GatewayError, UpstreamError
from gateway.dialects.openai_chat import error_document
from gateway.edge.gate import Reply

Headers = list[tuple[bytes, bytes]]
JSON_TYPE = (b"content-type", b"application/json")


def error_reply(
    error: GatewayError,
    *,
    request_id: str = "",
    document: Callable[[GatewayError], dict[str, Any]] = error_document,
) -> Reply:
    """The answer to a request that gets none.

    Args:
        document: The shape of the client's dialect. A provider's own document about the client's own mistake goes
            through as it is.
    """
    headers: Headers = [JSON_TYPE, *retry_headers(error), *error.headers]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    if error.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    own = error.body if isinstance(error, UpstreamError) else None
    return Reply(error.http_status, headers, own or orjson.dumps(document(error)))


def retry_headers(error: GatewayError) -> Headers:
    """``Retry-After`` in whole seconds, as RFC 9110 wants it, and in milliseconds, as OpenAI's clients prefer it.

    Every 429 and 503 has it, whether or not anything was measured.
    """
    after_s = error.retry_after_s
    if after_s is None:
        if error.http_status not in (429, 503):
            return []
        after_s = 1.0
    return [
        (b"retry-after", b"%d" % max(math.ceil(after_s), 0)),
        (b"retry-after-ms", b"%d" % max(round(after_s * 1000), 0)),
    ]
