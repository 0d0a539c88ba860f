"""A document that is read field by field, and remembers which fields nobody asked for.

That is how the list of what could not be carried over is whole: it is everything that was not taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, define, frozen

from gateway.migrate.toml import literal

_FROM_ENVIRONMENT = "os.environ/"


@frozen(slots=True)
class Left:
    """Something that was not carried over, or not wholly. ``path`` is where it stands in the file."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@define(slots=True)
class Notes:
    """What was left, and the variables that the result reads."""

    left: list[Left] = Factory(list)
    variables: dict[str, None] = Factory(dict)

    def add(self, path: str, why: str) -> None:
        note = Left(path, why)
        if note not in self.left:
            self.left.append(note)


@define(slots=True)
class Table:
    """A mapping of the file. Each ``take…`` counts the field as read; wrong types are noted and read as nothing."""

    fields: Mapping[str, Any]
    path: str
    notes: Notes
    _taken: set[str] = Factory(set)

    @classmethod
    def of(cls, value: Any, path: str, notes: Notes) -> Table:
        """The mapping; an empty one, noted, if it is none."""
        if value is not None and not isinstance(value, Mapping):
            notes.add(path, "expected a mapping")
        return cls({str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}, path, notes)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def note(self, name: str, why: str) -> None:
        self.notes.add(self.at(name), why)

    def take(self, name: str) -> Any:
        """The value, whatever it is; None if it is not there."""
        self._taken.add(name)
        return self.fields.get(name)

    def table(self, name: str) -> Table:
        return Table.of(self.take(name), self.at(name), self.notes)

    def tables(self, name: str) -> list[Table]:
        """The mappings of a list."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.note(name, "expected a list")
        rows = value if isinstance(value, list) else []
        return [Table.of(one, f"{self.at(name)}[{index}]", self.notes) for index, one in enumerate(rows)]

    def text(self, name: str) -> str:
        """A string as our file writes it: ``os.environ/X`` becomes ``${X}``; "" if there is none."""
        value = self.take(name)
        if value is None or value == "":
            return ""
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            self.note(name, "expected a string")
            return ""
        return self.expanded(str(value))

    def expanded(self, value: str) -> str:
        """A value of the file as our file writes it."""
        if value.startswith(_FROM_ENVIRONMENT):
            variable = value.removeprefix(_FROM_ENVIRONMENT)
            self.notes.variables[variable] = None
            return f"${{{variable}}}"
        return literal(value)

    def number(self, name: str) -> float | None:
        """A number above or at 0; None if there is none. A string of digits is one."""
        value = self.take(name)
        if value is None:
            return None
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            self.note(name, "expected a number; it stands in the environment? write it into the result")
            return None
        return number

    def count(self, name: str) -> int | None:
        """The same as a whole number."""
        number = self.number(name)
        return None if number is None else int(number)

    def flag(self, name: str) -> bool:
        return self.take(name) is True

    def names(self, name: str) -> list[str]:
        """Strings of a list; a single string is a list of one."""
        value = self.take(name)
        if isinstance(value, str):
            return [value]
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def ignore(self, *names: str) -> None:
        """Fields that mean nothing here, or that hold here anyway."""
        self._taken.update(names)

    def rest(self, reasons: Mapping[str, str], otherwise: str = "has no counterpart") -> None:
        """Note every field that nobody took."""
        for name in self._untaken():
            self.note(name, reasons.get(name, otherwise))

    def _untaken(self) -> Iterator[str]:
        return (name for name in self.fields if name not in self._taken)
