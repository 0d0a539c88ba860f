"""Promise: the header about dropped fields holds whole names, and says so if it cannot hold them all."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.field_names import in_a_header


def test_names_stay_as_they_are_where_there_is_room() -> None:
    assert in_a_header(["seed", "messages[1].name"], 40) == "seed, messages[1].name"


def test_the_same_field_of_many_messages_is_told_once() -> None:
    names = [f"messages[{place}].reasoning" for place in range(200)] + ["seed"]
    assert in_a_header(names, 1_000) == "messages[].reasoning, seed"


def test_what_has_no_room_is_counted() -> None:
    names = [f"field{number:03}" for number in range(200)]
    line = in_a_header(names, 100)
    *told, more = line.split(", ")
    assert len(line) <= 100
    assert told == names[: len(told)]
    assert more == f"and {200 - len(told)} more"
    assert in_a_header(["x" * 2_000], 100) == "1 fields"


@given(st.lists(st.text(max_size=80), max_size=60), st.integers(20, 300))
def test_the_line_never_grows_beyond_its_room(names: list[str], most_chars: int) -> None:
    assert len(in_a_header(names, most_chars)) <= most_chars
