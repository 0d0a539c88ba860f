"""Fill a request's values into addresses and JSON documents, so that they stay values.

Only ``{input}``, ``{user}`` and ``{conversation}`` are placeholders; other braces are ordinary text. In an address each
value is percent-encoded down to the unreserved characters, so it can end neither its path segment nor its query
parameter; a value that would make a path segment ``.`` or ``..`` is refused, because the way to the server would
resolve it. Of the input an address takes the first 2,000 characters, because servers refuse long ones; ids are never
cut, a part of one could be somebody else's. In a JSON document a placeholder inside a string becomes escaped text, one
outside becomes a whole string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import orjson

from gateway.core.ask import Ask

_PLACEHOLDER = re.compile(r"\{(input|user|conversation)\}")
_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|\{(?:input|user|conversation)\}', re.DOTALL)
_MAX_URL_INPUT_CHARS = 2_000
_SAMPLE = Ask(input='x"\\', user='x"\\', conversation='x"\\')


class TemplateError(ValueError):
    """A template or a value that cannot be filled in."""


def values_of(ask: Ask) -> dict[str, str]:
    """The values of the placeholders; half characters, which no wire format can carry, become "?"."""
    named = {"input": ask.input, "user": ask.user or "", "conversation": ask.conversation or ""}
    return {name: value.encode("utf-8", "replace").decode() for name, value in named.items()}


def fill_url(template: str, ask: Ask) -> str:
    """``template`` with percent-encoded values.

    Raises: TemplateError if a value would turn into a step up in the path.
    """
    values = values_of(ask)
    values["input"] = values["input"][:_MAX_URL_INPUT_CHARS]
    url = _PLACEHOLDER.sub(lambda match: quote(values[match[1]], safe=""), template)
    path = url.split("#", 1)[0].split("?", 1)[0]
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        raise TemplateError("a value of '.' or '..' cannot stand in the path of an address")
    return url


def fill_json(template: str, ask: Ask) -> bytes:
    """``template`` with the values as JSON text, encoded."""
    values = values_of(ask)
    return _JSON_PIECE.sub(lambda match: _json_piece(match[0], values), template).encode()


def check_json(template: str) -> None:
    """See at start-up that ``template`` is JSON once filled. Raises: TemplateError."""
    try:
        orjson.loads(fill_json(template, _SAMPLE))
    except orjson.JSONDecodeError as error:
        raise TemplateError(f"the body is not JSON once its placeholders are filled in: {error}") from None


def _json_piece(piece: str, values: dict[str, str]) -> str:
    if piece.startswith("{"):
        return _escaped(values[piece[1:-1]])
    return _PLACEHOLDER.sub(lambda match: _escaped(values[match[1]])[1:-1], piece)


def _escaped(value: str) -> str:
    return orjson.dumps(value).decode()


def compile_pointer(pointer: str) -> Callable[[Any], Any]:
    """A function that follows an RFC 6901 JSON pointer; it raises LookupError where the pointer leads nowhere.

    Raises: TemplateError if ``pointer`` is none.
    """
    if pointer and not pointer.startswith("/"):
        raise TemplateError(f"the pointer '{pointer}' must be empty or begin with '/' (RFC 6901)")
    if re.search(r"~(?![01])", pointer):
        raise TemplateError(f"the pointer '{pointer}' has a '~' that is neither '~0' nor '~1' (RFC 6901)")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]

    def follow(document: Any) -> Any:
        for step in steps:
            document = _step(document, step)
        return document

    return follow


def _step(document: Any, step: str) -> Any:
    if isinstance(document, dict):
        return document[step]
    if isinstance(document, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", step):
        return document[int(step)]
    raise LookupError(step)
