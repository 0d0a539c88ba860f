"""Promise: of an error the log says what and where, never the text that it is about."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import msgspec
import pytest

from gateway.core.errors import RequestError, Retry, StreamBroken, UpstreamError
from gateway.core.telling import chain_of, trace_of
from gateway.edge.run import _ToSink

PROMPT = "canary-of-a-prompt"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error as it is caught, with where it came from."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def stumble() -> None:
    {}[PROMPT]


def stumbled() -> BaseException:
    try:
        stumble()
    except KeyError as error:
        return error
    raise AssertionError


def invalid() -> BaseException:
    try:
        msgspec.json.decode(json.dumps(PROMPT), type=Any).nothing  # noqa: B018
    except AttributeError as error:
        error.args = (PROMPT,)
        return error
    raise AssertionError


FOREIGN = [stumbled(), invalid(), raised(ValueError(PROMPT)), raised(UnicodeEncodeError("utf-8", PROMPT, 0, 1, PROMPT))]


@pytest.mark.parametrize("error", FOREIGN)
def test_of_a_foreign_error_only_its_kind_and_where_it_came_from(error: BaseException) -> None:
    for told in (chain_of(error), trace_of(error)):
        assert type(error).__name__ in told
        assert __file__ in told
        assert PROMPT not in told
    assert "stumble" in trace_of(FOREIGN[0])


def test_causes_contexts_and_groups_are_told_alike() -> None:
    inner = raised(ValueError(PROMPT), raised(KeyError(PROMPT)))
    group = raised(BaseExceptionGroup(PROMPT, [inner, raised(OSError("disk full"))]))
    broken = raised(StreamBroken("upstream_garbage", "it broke off"), group)
    told = trace_of(broken)
    for kind in ("KeyError", "ValueError", "ExceptionGroup", "OSError: disk full", "StreamBroken: it broke off"):
        assert kind in told
    assert PROMPT not in told + chain_of(broken)


def test_of_ones_own_errors_what_they_say() -> None:
    refused = UpstreamError("upstream_refused", 400, "p/m refused", target="p/m", retry=Retry.NEVER, reason=PROMPT)
    assert PROMPT in refused.public_message
    assert chain_of(refused) == "UpstreamError: p/m refused"
    wrong = RequestError(
        "invalid_request", 400, f"messages[0].role: Invalid enum value '{PROMPT}'", param="messages[0].role"
    )
    assert chain_of(wrong) == "RequestError: at messages[0].role"
    assert chain_of(RequestError("body_too_large", 413, "larger than 5 bytes")) == "RequestError: larger than 5 bytes"


def test_a_server_that_logs_an_exception_does_so_alike() -> None:
    lines: list[dict[str, Any]] = []

    class Sink:
        def say(self, level: str, event: str, **about: Any) -> None:
            lines.append({"level": level, "event": event, **about})

    log = logging.Logger("server")
    log.addHandler(_ToSink(Sink()))  # type: ignore[arg-type]
    try:
        stumble()
    except KeyError:
        log.error("the app failed on %s", "/v1", exc_info=sys.exc_info())
    [line] = lines
    assert (line["level"], line["message"]) == ("error", "the app failed on /v1")
    assert "KeyError" in line["exception"]
    assert "stumble" in line["exception"]
    assert PROMPT not in str(line)
