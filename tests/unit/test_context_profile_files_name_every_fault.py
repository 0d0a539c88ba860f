"""Promise: a profile file is loaded whole or not at all, and every fault of it is named with its line."""

from __future__ import annotations

import pytest

from gateway.context.profile_files import ProfileFaults, parse_profiles


def faults(content: str | bytes, *, json_lines: bool) -> list[str]:
    with pytest.raises(ProfileFaults) as caught:
        parse_profiles(content.encode() if isinstance(content, str) else content, json_lines=json_lines)
    return caught.value.faults


def test_csv_rows_become_profiles_without_their_empty_fields() -> None:
    content = b'\xef\xbb\xbfname,user,notes\r\n"Verhoeven, Anna",anna,\r\n\r\nBen,ben,"two\nlines"\r\n'
    assert parse_profiles(content, json_lines=False) == {
        "anna": {"name": "Verhoeven, Anna"},
        "ben": {"name": "Ben", "notes": "two\nlines"},
    }


def test_json_lines_keep_their_types() -> None:
    content = b'{"user": "anna", "points": 3, "tags": ["a"]}\n\n{"points": null, "user": "ben"}\n'
    assert parse_profiles(content, json_lines=True) == {"anna": {"points": 3, "tags": ["a"]}, "ben": {"points": None}}


def test_every_fault_of_a_csv_file_is_named() -> None:
    assert faults("user,name\nanna,A\nben\n,C\nanna,D\neve,E,F\n", json_lines=False) == [
        "line 3: 1 columns where the header has 2",
        "line 4: user: missing or empty; every row needs the id of its user as a text",
        "line 5: user: 'anna' is already in line 2; keep one row per user",
        "line 6: 3 columns where the header has 2",
    ]


def test_every_fault_of_a_json_lines_file_is_named() -> None:
    found = faults('{"user": "anna"}\n{"user": \n[1]\n{"user": 7}\n{"name": "x"}\n', json_lines=True)
    assert [fault.split(":")[0] for fault in found] == ["line 2", "line 3", "line 4", "line 5"]
    assert found[0].startswith("line 2: not JSON")
    assert found[1] == 'line 3: not an object; write {"user": "…", "field": "value"}'


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("name,id\n", "line 1: no column is called 'user'; the first row must name the columns"),
        ("user,,x\n", "line 1: column 2 has no name"),
        ("user,x,x\n", "line 1: two columns are called 'x'"),
        ("", "line 1: no column is called 'user'; the first row must name the columns"),
    ],
)
def test_a_wrong_header_is_named(header: str, fault: str) -> None:
    assert faults(header, json_lines=False) == [fault]


def test_a_file_without_rows_or_in_another_encoding_is_refused() -> None:
    assert faults("user,name\n", json_lines=False) == ["the file has no rows"]
    assert faults(b"user\nanna\n\xff\n", json_lines=False) == ["line 3: not UTF-8; save the file as UTF-8"]
    assert faults('user,name\nanna,"open\n', json_lines=False) == ["line 2: not CSV: unexpected end of data"]
