"""Every field that a client library's types document, one at a time, in documents that are else as small as may be.

The types of the libraries (``TypedDict`` of Anthropic's and OpenAI's, pydantic models of Google's) are what their
providers publish of their requests, and a newer library brings the newer fields along.
"""

from __future__ import annotations

import collections.abc
import enum
import itertools
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import typing_extensions
from attrs import frozen

MOST_DEPTH = 9
_WRAPPERS = (Required, NotRequired, Annotated, typing_extensions.Required, typing_extensions.NotRequired)
_REQUIRED = (Required, typing_extensions.Required)
_LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)
_MAPS = (dict, collections.abc.Mapping)
_MISSING: Any = object()
_numbers = itertools.count(1)


@frozen
class Case:
    """A field, set.

    Attributes:
        path: Where it stands, with the kinds of the objects on the way: ``messages[].content[]<text>.citations``.
        document: With it.
        other: The same without it, or with another value where it is required.
    """

    path: str
    document: Any
    other: Any


@frozen
class Fields:
    """Makes the cases of one client's types.

    Attributes:
        values: Pairs of values for fields that not any text will do for, by name.
    """

    values: dict[str, tuple[str, str]]

    def cases(self, shape: Any, name: str = "", path: str = "", depth: int = 0) -> Iterator[Case]:
        """All cases of a type."""
        shape = _bare(shape)
        origin = get_origin(shape)
        if depth > MOST_DEPTH:
            return
        if origin in (Union, types.UnionType):
            for each in get_args(shape):
                if each is not type(None):
                    yield from self.cases(each, name, path, depth + 1)
        elif origin in _LISTS:
            for case in self.cases(get_args(shape)[0], name, f"{path}[]", depth + 1):
                yield Case(case.path, [case.document], case.other if case.other is _MISSING else [case.other])
        elif _is_object(shape):
            yield from self._of_object(shape, path, depth)
        else:
            yield from self._of_leaf(shape, name, path)

    def _of_object(self, shape: Any, path: str, depth: int) -> Iterator[Case]:
        least = self._least(shape)
        kind = least.get("type")
        path = f"{path}<{kind}>" if isinstance(kind, str) else path
        for name, (inner, required) in _fields(shape).items():
            rest = {key: value for key, value in least.items() if key != name}
            for case in self.cases(inner, name, f"{path}.{name}", depth + 1):
                other = rest if case.other is _MISSING else {**rest, name: case.other}
                yield Case(case.path, {**rest, name: case.document}, other)
            if not required:
                yield Case(f"{path}.{name}?", {**least, name: self._least(inner, name)}, least)

    def _of_leaf(self, shape: Any, name: str, path: str) -> Iterator[Case]:
        if get_origin(shape) is Literal or (isinstance(shape, type) and issubclass(shape, enum.Enum)):
            values = list(get_args(shape)) or [each.value for each in shape if "UNSPECIFIED" not in each.value]
            for before, value in zip([*values[1:], values[0]], values, strict=True):
                if len(values) > 1:
                    yield Case(f"{path}={value}", value, before)
            return
        pair: tuple[Any, Any] = {bool: (True, False), int: (7, 8), float: (0.5, 0.25)}.get(shape, ("", ""))
        if pair == ("", ""):
            pair = (self._text(name), self._text(name, 1)) if shape is str else (self._map(), self._map())
        yield Case(path, *pair)

    def _least(self, shape: Any, name: str = "") -> Any:
        """The smallest value of a type."""
        shape = _bare(shape)
        origin = get_origin(shape)
        if origin in (Union, types.UnionType):
            return self._least(next(each for each in get_args(shape) if each is not type(None)), name)
        if origin is Literal:
            return get_args(shape)[0]
        if origin in _LISTS:
            return [self._least(get_args(shape)[0], name)]
        if _is_object(shape):
            return {key: self._least(inner, key) for key, (inner, required) in _fields(shape).items() if required}
        if isinstance(shape, type) and issubclass(shape, enum.Enum):
            return list(shape)[-1].value
        return {bool: True, int: 7, float: 0.5, str: self._text(name)}.get(shape, self._map())

    def _text(self, name: str, which: int = 0) -> str:
        return self.values[name][which] if name in self.values else f"text{next(_numbers)}"

    def _map(self) -> dict[str, Any]:
        return {"type": "object", "title": f"title{next(_numbers)}"}


def _bare(shape: Any) -> Any:
    while True:
        if get_origin(shape) in _WRAPPERS:
            shape = get_args(shape)[0]
        elif hasattr(shape, "__value__"):
            shape = shape.__value__
        else:
            return shape


def _is_object(shape: Any) -> bool:
    return isinstance(shape, type) and (hasattr(shape, "__required_keys__") or hasattr(shape, "model_fields"))


def _fields(shape: Any) -> dict[str, tuple[Any, bool]]:
    """Type of each field, and whether it has to be there."""
    if hasattr(shape, "model_fields"):
        return {_camel(name): (field.annotation, False) for name, field in shape.model_fields.items()}
    hints = get_type_hints(shape, include_extras=True)
    always = shape.__required_keys__ if shape.__total__ else ()
    return {name: (hint, get_origin(hint) in _REQUIRED or name in always) for name, hint in hints.items()}


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)
