"""The smallest document that satisfies a JSON schema, for structured answers and tool arguments.

Not a validator: it follows the keywords that providers support in strict mode (type, properties, items, enum, const,
anyOf, $ref, bounds) and fills texts with what it is given. Limits: :data:`MAX_DEPTH` levels and :data:`MAX_VALUES`
values, then null, because a schema may refer to itself; a ``pattern`` or ``format`` is not honoured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 16
MAX_VALUES = 1_000


def example(schema: Mapping[str, Any], text: str) -> Any:
    """A document of that schema.

    Args:
        schema: A JSON schema; unknown keywords are ignored, an empty one gives ``{}``.
        text: What texts in the document say, shortened to 200 characters.

    Returns:
        A JSON value; an object unless the schema says otherwise.
    """
    return _Example(schema, text[:200] or "text").value(schema, 0)


class _Example:
    """One document in the making; ``left`` values may still be written."""

    def __init__(self, root: Mapping[str, Any], text: str) -> None:
        self._root = root
        self._text = text
        self._left = MAX_VALUES

    def value(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0 or not isinstance(schema, dict):
            return None
        if "const" in schema:
            return schema["const"]
        options = schema.get("enum")
        if isinstance(options, list) and options:
            return options[0]
        if "$ref" in schema:
            return self.value(_resolve(schema["$ref"], self._root), depth + 1)
        for keyword in ("anyOf", "oneOf", "allOf"):
            variants = schema.get(keyword)
            if isinstance(variants, list) and variants:
                return self.value(variants[0], depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "object":
            properties = schema.get("properties")
            named = properties.items() if isinstance(properties, dict) else ()
            return {name: self.value(inner, depth + 1) for name, inner in named}
        if kind == "array":
            count = min(max(1, _bound(schema, "minItems", 1)), MAX_VALUES)
            items = schema.get("items", {"type": "string"})
            return [self.value(items, depth + 1) for _ in range(count) if self._left > 0]
        if kind == "string":
            shortest, longest = _bound(schema, "minLength", 0), _bound(schema, "maxLength", len(self._text))
            return self._text[: max(longest, 0)].ljust(min(shortest, 1_000), ".")
        if kind in ("integer", "number"):
            return schema.get("minimum", schema.get("maximum", 1))
        return True if kind == "boolean" else None


def _bound(schema: Mapping[str, Any], name: str, default: int) -> int:
    value = schema.get(name)
    return value if type(value) is int else default


def _resolve(reference: object, root: Mapping[str, Any]) -> object:
    """Follow a local ``#/…`` reference; None if it leads nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: object = root
    for part in reference.lstrip("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
