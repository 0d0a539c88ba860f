"""Writes TOML: tables, arrays of tables, and everything below them inline.

Strings are written as they are given: ``${VAR}`` stays a variable. :func:`literal` keeps other text from being one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.config.faults import quote_key


def literal(text: str) -> str:
    """The text, safe from being read as a variable."""
    return text.replace("${", "$${")


def write_toml(document: Mapping[str, Any]) -> str:
    """The document; a mapping is a table, a list of mappings an array of tables, and what is None or {} is left out."""
    parts: list[str] = []
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            parts.append(f"[{quote_key(name)}]\n" + _fields(value))
        elif isinstance(value, list):
            parts.extend(f"[[{quote_key(name)}]]\n" + _fields(one) for one in value)
    return "\n".join(parts)


def _fields(table: Mapping[str, Any]) -> str:
    return "".join(f"{quote_key(name)} = {inline(value)}\n" for name, value in table.items() if value not in (None, {}))


def inline(value: Any) -> str:
    """One value on one line; lists of tables over several."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML wants DEL escaped, too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{quote_key(name)} = {inline(one)}" for name, one in value.items() if one not in (None, {}))
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return "[\n" + "".join(f"    {inline(one)},\n" for one in value) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return repr(value)
