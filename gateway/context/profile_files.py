"""Read profiles from CSV or JSON lines, finding every fault of the file at once.

Nothing is guessed: a row with a fault makes the whole file unusable, so a store is never half loaded. Pure functions;
the command around them does the reading and writing.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson

from gateway.store.profiles import Profile

MAX_USER_CHARS = 200


class ProfileFaults(Exception):
    """What is wrong with a file: lines of "line N: what, and what to do"."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class _Rows:
    """Collects rows and faults; a user may come once."""

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}
        self.faults: list[str] = []
        self._lines: dict[str, int] = {}

    def fault(self, line: int, message: str) -> None:
        self.faults.append(f"line {line}: {message}")

    def add(self, line: int, user: Any, fields: Profile) -> None:
        if not isinstance(user, str) or not user.strip():
            self.fault(line, "user: missing or empty; every row needs the id of its user as a text")
        elif len(user) > MAX_USER_CHARS:
            self.fault(line, f"user: {len(user)} characters; {MAX_USER_CHARS} at most")
        elif user in self._lines:
            self.fault(line, f"user: '{user}' is already in line {self._lines[user]}; keep one row per user")
        else:
            self._lines[user] = line
            self.profiles[user] = fields

    def result(self) -> dict[str, Profile]:
        if self.faults:
            raise ProfileFaults(self.faults)
        if not self.profiles:
            raise ProfileFaults(["the file has no rows"])
        return self.profiles


def parse_profiles(content: bytes, *, json_lines: bool) -> dict[str, Profile]:
    """The profiles in ``content`` by user. Raises: ProfileFaults."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ProfileFaults([f"line {line}: not UTF-8; save the file as UTF-8"]) from error
    return _parse_json_lines(text) if json_lines else _parse_csv(text)


def _parse_json_lines(text: str) -> dict[str, Profile]:
    rows = _Rows()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            rows.fault(number, f"not JSON: {error.msg} (column {error.colno})")
            continue
        if not isinstance(row, dict):
            rows.fault(number, 'not an object; write {"user": "…", "field": "value"}')
            continue
        rows.add(number, row.get("user"), {name: value for name, value in row.items() if name != "user"})
    return rows.result()


def _parse_csv(text: str) -> dict[str, Profile]:
    rows = _Rows()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                rows.fault(reader.line_num, f"{len(values)} columns where the header has {len(header)}")
                continue
            row = dict(zip(header, values, strict=True))
            rows.add(reader.line_num, row.pop("user"), {name: value for name, value in row.items() if value})
    except csv.Error as error:
        rows.fault(reader.line_num, f"not CSV: {error}")
    return rows.result()


def _check_header(header: list[str]) -> None:
    faults = []
    if "user" not in header:
        faults.append("line 1: no column is called 'user'; the first row must name the columns")
    faults += [f"line 1: column {place} has no name" for place, name in enumerate(header, start=1) if not name]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    faults += [f"line 1: two columns are called '{name}'" for name in twice]
    if faults:
        raise ProfileFaults(faults)
