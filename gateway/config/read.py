"""Parsed TOML to the configuration's classes by cattrs, with all of its faults and not only each table's first.

cattrs collects every error but gives up the tables they are in, so what else those tables say could be checked against
the rest only on the next start. Hence a faulty document is structured twice: :func:`_mend` makes faults of the first
time's errors and puts a :data:`HOLE` in the place of each, and every hook lets holes pass the second time. What comes
out is a whole tree with holes, which :mod:`gateway.config.checks` steps over. The classes' annotations are the schema,
with the limits of numbers in their metadata: there is no second list of fields.

Nothing is coerced: a string is no number and a boolean is no integer. The exceptions are a whole number where a
fraction is expected, and a value that is one ``${VAR}`` and nothing else, which is read as the field's type because an
environment has only strings.

Limit: cattrs and the code it makes for a dozen classes cost about 20 ms, so import this only to read.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import attrs
from cattrs import Converter, errors
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from gateway.config.expand import ExpandError, expand, is_one_variable
from gateway.config.faults import HOLE, Fault, join, shown, suggest
from gateway.config.tree import Config, Loader, LoaderRules, Provider, Quirks, Secret

_MOST_INT = 2**40
_MOST_S = 31_536_000.0  # a year; every fraction without a limit of its own is a time
_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    Mapping: "a table",
}
_LOADERS: Mapping[Any, Any] = {attrs.fields_dict(cls)["kind"].default: cls for cls in typing.get_args(Loader)}
_Hook = Callable[[Any, Any], Any]


class _Misfit(Exception):
    """A value that its type does not take; the message is the fault's."""


class _SingleTable(_Misfit):
    """A table where an array of tables belongs."""


@attrs.frozen(kw_only=True)
class _AnyLoader(LoaderRules):
    """A loader of unknown kind: what all have can be read even so, above all the name, which templates refer to."""

    kind: Literal[*_LOADERS]  # type: ignore[valid-type]


def read(document: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Config, list[Fault]]:
    """The tree, with a hole for each bad or missing field, and the faults that are the reason."""
    converter = _converter(environ)
    faults: list[Fault] = []
    try:
        return converter.structure(document, Config), faults
    except errors.BaseValidationError as error:
        mended = _mend(document, error, "", faults)
    return converter.structure(mended, Config), faults


# --- errors to faults -----------------------------------------------------------------------------------------------


def _mend(raw: Any, error: Exception, path: str, faults: list[Fault]) -> Any:
    """A copy of ``raw`` with holes for what ``error`` is about and without unknown fields, each noted in ``faults``."""
    if isinstance(error, _Misfit | ExpandError):
        hint = f"; write [[{path}]]" if isinstance(error, _SingleTable) and "." not in path else ""
        faults.append(Fault(path=path, message=f"{error}{hint}"))
        return HOLE
    if not isinstance(error, errors.ClassValidationError | errors.IterableValidationError):
        raise error
    causes, others = error.group_exceptions()
    mended: Any = list(raw) if isinstance(raw, list) else dict(raw)
    unknown = {key for one in others if isinstance(one, errors.ForbiddenExtraKeysError) for key in one.extra_fields}
    for name in sorted(unknown, key=list(raw).index):
        del mended[name]
        faults.append(Fault(path=join(path, name), message=_unknown(error.cl, name)))
    for cause, note in causes:
        key: Any = note.name if isinstance(note, errors.AttributeValidationNote) else note.index
        where = f"{path}[{key}]" if isinstance(key, int) else join(path, key)
        if isinstance(cause, KeyError):  # no hook's, but cattrs's for a field that is not there
            mended[key], cause = None, _missing(note.type)
        mended[key] = _mend(mended[key], cause, where, faults)
    return mended


def _unknown(cls: type, name: str) -> str:
    if cls is Provider and name in attrs.fields_dict(Quirks):
        return f"belongs into quirks: write quirks = {{ {name} = … }}"
    return f"unknown field{suggest(name, attrs.fields_dict(cls))}"


def _missing(kind: Any) -> _Misfit:
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return _Misfit("is missing" + suggest("", choices, otherwise=" and has no default"))


# --- what each type takes -------------------------------------------------------------------------------------------


def _converter(environ: Mapping[str, str]) -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(str, _only(str, lambda raw, _: expand(raw, environ)))
    converter.register_structure_hook(Secret, _only(str, lambda raw, _: Secret(str(converter.structure(raw, str)))))
    converter.register_structure_hook(Loader, _only(Mapping, partial(_loader, converter)))
    for kind in (bool, int, float):
        converter.register_structure_hook(kind, _only(object, partial(_scalar, converter)))
    for origin, factory in {Literal: _choice, tuple: _array, dict: _pairs}.items():
        converter.register_structure_hook_factory(partial(_is, origin), partial(factory, converter))
    converter.register_structure_hook_factory(attrs.has, partial(_table, converter))
    return converter


def _is(origin: Any, kind: Any) -> bool:
    return typing.get_origin(kind) is origin


def _only(shape: Any, hook: _Hook) -> _Hook:
    """The hook for values of this shape, and for holes, which stay."""

    def checked(raw: Any, kind: Any) -> Any:
        if raw is HOLE or isinstance(raw, shape):
            return raw if raw is HOLE else hook(raw, kind)
        misfit = _SingleTable if shape is list and isinstance(raw, Mapping) else _Misfit
        raise misfit(f"expected {_NAMES[shape]}, got {_name_of(raw)}")

    return checked


def _table(converter: Converter, cls: Any) -> _Hook:
    def limited(limits: Mapping[Any, Any]) -> Any:
        return override(struct_hook=_only(object, partial(_scalar, converter, **limits)))

    numbers = {field.name: limited(field.metadata) for field in attrs.fields(cls) if field.metadata}
    return _only(Mapping, make_dict_structure_fn(cls, converter, **numbers))


def _pairs(converter: Converter, kind: Any) -> _Hook:
    return _only(Mapping, mapping_structure_factory(kind, converter, key_type=Any))  # keys stay as they are written


def _array(converter: Converter, kind: Any) -> _Hook:
    items = list_structure_factory(kind, converter)
    return _only(list, lambda raw, _: tuple(items(raw, kind)))


def _choice(converter: Converter, kind: Any) -> _Hook:
    def choice(raw: str, _: Any) -> str:
        text, choices = converter.structure(raw, str), typing.get_args(kind)
        if text in choices:
            return str(text)
        raise _Misfit(f"{shown(text)} is not known here{suggest(text, choices)}")

    return _only(str, choice)


def _loader(converter: Converter, raw: Mapping[str, Any], _: Any) -> Any:
    """The class whose ``kind`` the table names."""
    with suppress(KeyError, _Misfit, ExpandError):  # the kind's; what is wrong inside of a loader comes as a group
        return converter.structure(raw, _LOADERS[converter.structure(raw["kind"], str)])
    common = attrs.fields_dict(_AnyLoader)
    return converter.structure({name: value for name, value in raw.items() if name in common}, _AnyLoader)


def _scalar(converter: Converter, raw: Any, kind: Any, **limits: float) -> Any:
    kind = next((one for one in typing.get_args(kind) if one is not type(None)), kind)  # of an optional number
    if isinstance(raw, str) and is_one_variable(raw):
        text = converter.structure(raw, str)
        try:
            raw = {"true": True, "false": False}[text] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise _Misfit(f"{shown(text)} is not {_NAMES[kind]}") from None
    if kind is float and type(raw) is int:
        raw = float(raw) if abs(raw) < 2**53 else math.inf
    if type(raw) is not kind:
        raise _Misfit(f"expected {_NAMES[kind]}, got {_name_of(raw)}")
    wrong = None if kind is bool else _out_of_range(raw, **limits)
    if wrong:
        raise _Misfit(wrong)
    return raw


def _out_of_range(number: int | float, *, least: float | None = None, most: float | None = None) -> str:
    """Why, or "". Numbers are not shown: one may have come out of the environment."""
    if not math.isfinite(number):
        return "must be a finite number"
    if least is None and isinstance(number, float) and number <= 0:
        return "must be above 0"
    if isinstance(number, int):
        least, most = 1 if least is None else least, _MOST_INT if most is None else most
    elif most is None:
        most = _MOST_S
    if least is not None and number < least:
        return f"must be at least {least:.15g}"
    return f"must be at most {most:.15g}" if most is not None and number > most else ""


def _name_of(raw: object) -> str:
    if isinstance(raw, bool):
        return "a boolean"
    return next((name for kind, name in _NAMES.items() if isinstance(raw, kind)), "a date or time")
