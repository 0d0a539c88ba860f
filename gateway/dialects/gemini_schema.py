"""Gemini's ``Schema`` (a subset of OpenAPI's 3.0) as JSON Schema.

==========================================  ==========================================
``type: "STRING"`` …                        in lower case; ``TYPE_UNSPECIFIED`` is none
``nullable: true``                          ``null`` among the types, and in the enum
``propertyOrdering``                        the properties stand in that order
``ref``, ``defs``                           ``$ref``, ``$defs``
``example``                                 ``examples``
``format: "enum"``                          left out: the enum says it
numbers as text (``minItems: "2"``)         numbers
==========================================  ==========================================

What it does not know stays as it is, so that a JSON Schema comes out as it went in.
Source: Gemini API reference, "Schema"; OpenAPI 3.0.3, "Schema object"; JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.gemini_shapes import camel_name

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_RENAMED = {"ref": "$ref", "defs": "$defs"}


def json_schema(schema: Any) -> Any:
    """A schema, and all within it, as JSON Schema."""
    if not isinstance(schema, dict):
        return schema  # true, false
    said = {_RENAMED.get(name, name): value for name, value in ((camel_name(n), v) for n, v in schema.items())}
    ordering, nullable, example = (
        said.pop("propertyOrdering", None),
        said.pop("nullable", None),
        said.pop("example", None),
    )
    made = {name: _value(name, value) for name, value in said.items()}
    if made.get("format") == "enum":
        del made["format"]
    if isinstance(made.get("type"), str):
        made["type"] = made["type"].lower()
        if made["type"] == "type_unspecified":
            del made["type"]
    if example is not None:
        made["examples"] = [example]
    if isinstance(ordering, list) and isinstance(made.get("properties"), dict):
        made["properties"] = _ordered(made["properties"], ordering)
    return _nullable(made) if nullable is True else made


def _value(name: str, value: Any) -> Any:
    if name in _COUNTS and isinstance(value, str) and value.isdigit():
        return int(value)
    if name in ("items", "additionalProperties"):
        return json_schema(value)
    if name in _LISTS and isinstance(value, list):
        return [json_schema(each) for each in value]
    if name in _MAPS and isinstance(value, dict):
        return {key: json_schema(each) for key, each in value.items()}
    return value


def _ordered(properties: dict[str, Any], ordering: list[Any]) -> dict[str, Any]:
    first = {name: properties[name] for name in ordering if isinstance(name, str) and name in properties}
    return first | properties


def _nullable(made: dict[str, Any]) -> dict[str, Any]:
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    elif isinstance(made.get("anyOf"), list):
        made["anyOf"] = [*made["anyOf"], {"type": "null"}]
    if isinstance(made.get("enum"), list) and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    return made
