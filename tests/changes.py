"""Valid JSON documents, changed: what a careless or hostile side may send instead of one. For tests by hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

ODD = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1.5, 2**63, 10**30, 1e308, "", "x", "\0", "😀", "a" * 300),
        *([], {}, [[]], [{}], [None], {"": ""}, {"type": "x"}, {"type": None}, {"role": "user"}),
        *("data:;base64,", "data:image/png;base64,!", "http://[::1", "{", "null", "1e999"),
    ]
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three places that hold something else, nothing, or what another place holds."""
    document = deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(places_in(document))
        if not places:
            break
        *parent, last = draw(st.sampled_from(places))
        holder = at(document, tuple(parent))
        match draw(st.sampled_from(["put", "put", "put", "drop", "copy"])):
            case "put":
                holder[last] = deepcopy(draw(ODD))
            case "drop":
                del holder[last]
            case _:
                holder[last] = deepcopy(at(document, draw(st.sampled_from(places))))
    return document


def places_in(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from places_in(document[key], (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
