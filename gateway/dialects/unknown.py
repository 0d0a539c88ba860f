"""Which fields of a client's document the shapes of its dialect do not know, so that none of them is lost in silence.

msgspec passes over a field that a shape does not name, which is right for reading and wrong for forgetting: what is not
translated has to be named in ``x-sluice-dropped``. :class:`Known` walks a decoded document along its shape and says
where it goes beyond. Maps of the client's own (JSON schemas, arguments: ``dict`` and ``Any`` in a shape) are not looked
into, ``null`` says nothing, nor do lists and texts within that are empty, and a wrong type is the decoder's to refuse.

Cost: one step for each object of the document, on the way to a provider of another dialect alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import Factory, define
from msgspec import inspect

_EMPTY: tuple[Any, ...] = ([], "")  # libraries hand answers back with all their fields


@define(slots=True)
class _Place:
    """What may stand in one place; an empty one is not looked into.

    Attributes:
        fields: Of an object, by name.
        tag, kinds: Of an object whose field ``tag`` says which of several it is.
        items: Of a list.
    """

    fields: dict[str, _Place | None] = Factory(dict)
    tag: str = ""
    kinds: dict[str, _Place] = Factory(dict)
    items: _Place | None = None


class Known:
    """The fields that a shape knows.

    Args:
        shape: A msgspec struct, or whatever a decoder of msgspec takes.
    """

    def __init__(self, shape: Any) -> None:
        self._place = _place_of(inspect.type_info(shape))

    def others(self, value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
        """Names and values of the fields that the shape does not know.

        Args:
            value: As decoded from JSON.
            where: The name of its place: ``messages`` gives ``messages[2].content[0].citations``.
        """
        return _others(value, self._place, where)


def _others(value: Any, place: _Place | None, where: str) -> Iterator[tuple[str, Any]]:
    if place is None:
        return
    if isinstance(value, list) and place.items is not None:
        for number, each in enumerate(value):
            if isinstance(each, dict):
                yield from _others(each, place.items, f"{where}[{number}]")
    elif isinstance(value, dict):
        kind = place.kinds.get(value.get(place.tag, "")) if place.kinds else place
        if kind is None or not kind.fields:
            return
        for name, inner in value.items():
            path = f"{where}.{name}" if where else name
            if name not in kind.fields:
                if inner is not None and name != place.tag and not (where and inner in _EMPTY):
                    yield path, inner
            elif isinstance(inner, dict | list):
                yield from _others(inner, kind.fields[name], path)


def _place_of(info: inspect.Type) -> _Place | None:
    match info:
        case inspect.StructType():
            place = _Place(fields={field.encode_name: _place_of(field.type) for field in info.fields})
            if isinstance(info.tag, str) and info.tag_field:
                return _Place(tag=info.tag_field, kinds={info.tag: place})
            return place
        case inspect.ListType():
            return _Place(items=_place_of(info.item_type))
        case inspect.UnionType():
            return _union(info)
        case _:
            return None


def _union(info: inspect.UnionType) -> _Place | None:
    places = [place for place in map(_place_of, info.types) if place is not None]
    if not places:
        return None
    made = _Place()
    for place in places:
        made.fields |= place.fields
        made.tag = place.tag or made.tag
        made.kinds |= place.kinds
        made.items = place.items or made.items
    return made
