"""``${VAR}`` and ``${VAR:-default}`` inside a string of the file.

Expansion happens after TOML was parsed, so a variable's value cannot add fields or tables. As in a shell, the default
also stands in for a variable that is set but empty; ``${VAR:-}`` is "empty if unset". ``$${`` is a literal ``${``.
Not supported, on purpose: nesting, ``$VAR`` without braces, commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.config.faults import FromEnvironment

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<inside>[^{}]*)\}|\$\{")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-.*)?", re.DOTALL)


class ExpandError(Exception):
    """The text cannot be expanded; the message says which variable and how to mend it, and shows no value."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables filled in.

    Returns:
        The same text if there is no variable in it, otherwise a :class:`FromEnvironment`.

    Raises:
        ExpandError: A variable is unset without a default or not UTF-8, or ``${`` is not followed by a name and ``}``.
    """
    if "${" not in text:
        return text
    variables: list[str] = []

    def fill(token: re.Match[str]) -> str:
        if token.group() == "$${":
            return "${"
        inside = _INSIDE.fullmatch(token["inside"] or "")
        if inside is None:
            raise ExpandError("'${' is not followed by a variable's name and '}'; write '$${' for a literal '${'")
        variables.append(inside["name"])
        return _value(inside["name"], inside["fallback"], environ)

    filled = _TOKEN.sub(fill, text)
    if not variables:
        return filled
    result = FromEnvironment(filled)
    result.variables = tuple(dict.fromkeys(variables))
    return result


def _value(name: str, fallback: str | None, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if fallback is not None and not value:
        return fallback[2:]
    if value is None:
        raise ExpandError(f"the environment variable {name} is not set; set it or write ${{{name}:-default}}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ExpandError(f"the environment variable {name} is not valid UTF-8") from None
    return value


def is_one_variable(text: str) -> bool:
    """Whether the whole text is one ``${…}``: then a number or a boolean may come out of it."""
    token = _TOKEN.fullmatch(text)
    return token is not None and token["inside"] is not None
