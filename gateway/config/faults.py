"""What is wrong with a configuration: each fault has the path of its field, and all of them come at once.

A fault's message names the field, what was expected and the fix. It never shows a value that came out of an
environment variable or stands in a field for secrets: terminals, CI logs and tickets keep what is printed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from attrs import frozen

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARS = 60
_LISTED_NAMES = 12


class _Hole:
    """What stands in a tree where a value could not be read: its fault is noted, so nobody asks for more."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hole>"


HOLE: Final[Any] = _Hole()


@frozen(kw_only=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        path: Of the field, e.g. ``model[0].targets[1].provider``; "" when it is the file as a whole.
        message: What is wrong and what to do about it.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigFaults(Exception):
    """The configuration cannot be used. ``str`` gives one line per fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class FromEnvironment(str):
    """A string with an environment variable in it: to be used, never to be shown."""

    __slots__ = ("variables",)
    variables: tuple[str, ...]


def join(path: str, key: str) -> str:
    """``server`` and ``bind`` give ``server.bind``; a key that TOML would quote is quoted."""
    name = quote_key(key)
    return f"{path}.{name}" if path else name


def quote_key(key: str) -> str:
    """The key as TOML writes it."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


def shown(value: str) -> str:
    """The value as a message may show it: quoted and cut, or only the variable's name if it came from one."""
    if isinstance(value, FromEnvironment):
        return "the value of " + ", ".join(f"${{{name}}}" for name in value.variables)
    # What a terminal would obey instead of showing is spelled out.
    visible = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)
    return f"'{visible}'" if len(visible) <= _SHOWN_CHARS else f"'{visible[:_SHOWN_CHARS]}…'"


def suggest(wrong: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """``; did you mean 'x'?`` when one of the known names is close, else the known names, else ``otherwise``."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(wrong[:200], names, n=1)
    if close and not isinstance(wrong, FromEnvironment):
        return f"; did you mean '{close[0]}'?"
    if not names:
        return otherwise
    listed = ", ".join(f"'{name}'" for name in names[:_LISTED_NAMES])
    return f"; known: {listed}" + (", …" if len(names) > _LISTED_NAMES else "")
