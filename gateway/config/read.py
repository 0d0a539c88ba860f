"""Parsed TOML to the configuration's classes, noting every fault and going on.

Why a walk of our own and not cattrs: a converter gives up a whole table at its first bad field, so a reference inside
that table can no longer be checked and its fault shows only on the next start. Here a bad or missing field leaves a
hole in an otherwise whole tree; :mod:`gateway.config.checks` steps over holes, and the tree is handed out only when no
fault was noted. The classes' own annotations are the schema: there is no second list of fields.

Nothing is coerced: a string is no number and a boolean is no integer. The exceptions are a whole number where a
fraction is expected, and a value that is one ``${VAR}`` and nothing else, which is read as the field's type because an
environment has only strings.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from gateway.config.expand import ExpandError, expand, is_one_variable
from gateway.config.faults import Fault, FromEnvironment, join, shown, suggest
from gateway.config.tree import LoaderRules, Secret

_MOST_INT = 2**40
_MOST_S = 31_536_000.0  # a year; every fraction in the tree is a time
_Limits = Mapping[Any, Any]


class _Hole:
    """Where a value should be that could not be read."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hole>"


HOLE: Final[Any] = _Hole()


class Reader:
    """Reads one document; afterwards ``faults`` holds what was found, in the order of the classes' fields."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[Fault] = []

    def fault(self, path: str, message: str) -> Any:
        """Note it; returns the hole to put in the value's place."""
        self.faults.append(Fault(path=path, message=message))
        return HOLE

    def table(self, cls: type, raw: object, path: str) -> Any:
        """An instance of ``cls``, with holes where fields are bad or missing; a hole if ``raw`` is no table."""
        if not isinstance(raw, Mapping):
            return self.fault(path, f"expected a table, got {_kind_of(raw)}")
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in attrs.fields(cls)}
        for key in raw:
            if key not in fields:
                self.fault(join(path, key), f"unknown field{suggest(key, fields)}")
        values = {}
        for name, field in fields.items():
            where = join(path, name)
            if name in raw:
                values[name] = self._value(hints[name], raw[name], where, field.metadata)
            elif field.default is attrs.NOTHING:
                values[name] = self.fault(where, "is missing and has no default")
        return cls(**values)

    def _value(self, kind: Any, raw: object, path: str, limits: _Limits) -> Any:
        origin = typing.get_origin(kind)
        if kind in (bool, int, float):
            return self._scalar(kind, raw, path, limits)
        if kind is str:
            return self._text(raw, path)
        if kind is Secret:
            text = self._text(raw, path)
            return HOLE if text is HOLE else Secret(str(text))
        if origin is Literal:
            return self._choice(typing.get_args(kind), raw, path)
        if origin is tuple:
            return self._array(typing.get_args(kind)[0], raw, path, limits)
        if origin is dict:
            return self._pairs(typing.get_args(kind)[1], raw, path, limits)
        if origin in (types.UnionType, typing.Union):
            kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
            return self._value(kinds[0], raw, path, limits) if len(kinds) == 1 else self._one_of(kinds, raw, path)
        return self.table(kind, raw, path)

    def _text(self, raw: object, path: str) -> Any:
        if not isinstance(raw, str):
            return self.fault(path, f"expected a string, got {_kind_of(raw)}")
        try:
            return expand(raw, self._environ)
        except ExpandError as error:
            return self.fault(path, str(error))

    def _choice(self, choices: tuple[str, ...], raw: object, path: str) -> Any:
        text = self._text(raw, path)
        if text is HOLE or text in choices:
            return text if text is HOLE else str(text)
        return self.fault(path, f"{shown(text)} is not known here{suggest(text, choices)}")

    def _array(self, item: Any, raw: object, path: str, limits: _Limits) -> Any:
        if not isinstance(raw, list):
            hint = f"; write [[{path}]]" if isinstance(raw, Mapping) and "." not in path else ""
            return self.fault(path, f"expected an array, got {_kind_of(raw)}{hint}")
        return tuple(self._value(item, one, f"{path}[{index}]", limits) for index, one in enumerate(raw))

    def _pairs(self, item: Any, raw: object, path: str, limits: _Limits) -> Any:
        if not isinstance(raw, Mapping):
            return self.fault(path, f"expected a table, got {_kind_of(raw)}")
        return {key: self._value(item, value, join(path, key), limits) for key, value in raw.items()}

    def _one_of(self, classes: list[Any], raw: object, path: str) -> Any:
        """The class whose ``kind`` the table names."""
        if not isinstance(raw, Mapping):
            return self.fault(path, f"expected a table, got {_kind_of(raw)}")
        by_kind = {str(attrs.fields_dict(cls)["kind"].default): cls for cls in classes}
        where = join(path, "kind")
        if "kind" in raw:
            kind = self._choice(tuple(by_kind), raw["kind"], where)
        else:
            kind = self.fault(where, f"is missing{suggest('', by_kind)}")
        if kind is not HOLE:
            return self.table(by_kind[kind], raw, path)
        # What all kinds have can be read even so: above all the name, which templates refer to.
        common = attrs.fields_dict(LoaderRules)
        return self.table(LoaderRules, {name: value for name, value in raw.items() if name in common}, path)

    def _scalar(self, kind: type, raw: object, path: str, limits: _Limits) -> Any:
        if isinstance(raw, str) and is_one_variable(raw):
            text = self._text(raw, path)
            raw = text if text is HOLE else _parse(kind, text)
            if raw is None:
                return self.fault(path, f"{shown(text)} is not {_expected(kind)}")
        if raw is HOLE:
            return HOLE
        if kind is float and type(raw) is int:
            raw = float(raw) if abs(raw) < 2**53 else math.inf
        if type(raw) is not kind:
            return self.fault(path, f"expected {_expected(kind)}, got {_kind_of(raw)}")
        wrong = None if kind is bool else _out_of_range(raw, limits)
        return raw if wrong is None else self.fault(path, wrong)


def _out_of_range(number: Any, limits: _Limits) -> str | None:
    """Numbers are not shown: one may have come out of the environment."""
    if isinstance(number, float) and not math.isfinite(number):
        return "must be a finite number"
    if isinstance(number, float):
        return "must be above 0" if number <= 0 else f"must be at most {_MOST_S:.0f}" if number > _MOST_S else None
    least, most = limits.get("least", 1), limits.get("most", _MOST_INT)
    return f"must be at least {least}" if number < least else f"must be at most {most}" if number > most else None


def _parse(kind: type, text: FromEnvironment) -> bool | int | float | None:
    """None if it is not of that type."""
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    try:
        number: int | float = int(text) if kind is int else float(text)
    except ValueError:
        return None
    return number


def _expected(kind: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number"}[kind]


def _kind_of(raw: object) -> str:
    if isinstance(raw, bool):
        return "a boolean"
    names: dict[type, str] = {str: "a string", int: "a whole number", float: "a number", list: "an array"}
    if isinstance(raw, Mapping):
        return "a table"
    return next((name for kind, name in names.items() if isinstance(raw, kind)), "a date or time")
