"""Promise: a request's values stay values in addresses and JSON bodies."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.context.template import TemplateError, check_json, compile_pointer, fill_json, fill_url
from gateway.core.ask import Ask

ANY_TEXT = st.text(st.characters(exclude_categories=())).filter(lambda text: text not in (".", ".."))


def carried(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(user=ANY_TEXT, question=ANY_TEXT)
def test_any_value_stays_in_its_segment_and_parameter(user: str, question: str) -> None:
    url = fill_url("https://api.test/users/{user}/orders?q={input}&n=5", Ask(input=question, user=user))
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "api.test", "")
    assert [unquote(segment) for segment in parts.path.split("/")] == ["", "users", carried(user), "orders"]
    assert parse_qs(parts.query, keep_blank_values=True) == {"q": [carried(question)], "n": ["5"]}


@pytest.mark.parametrize("user", [".", ".."])
def test_a_value_cannot_climb_the_path(user: str) -> None:
    with pytest.raises(TemplateError, match="cannot stand in the path"):
        fill_url("https://api.test/users/{user}/orders", Ask(input="", user=user))
    assert fill_url("https://api.test/users?u={user}", Ask(input="", user=user)).endswith(user)


@given(text=st.text(st.characters(exclude_categories=())))
def test_any_value_stays_a_string_in_json(text: str) -> None:
    template = '{"bare": {input}, "quoted": "about {input} \\" {other}", "n": [1, {"user": {user}}]}'
    assert orjson.loads(fill_json(template, Ask(input=text, user=text))) == {
        "bare": carried(text),
        "quoted": f'about {carried(text)} " {{other}}',
        "n": [1, {"user": carried(text)}],
    }


def test_a_body_that_is_no_json_is_found_at_start_up() -> None:
    check_json('{"a": {input}, "b": "{user}"}')
    with pytest.raises(TemplateError, match="not JSON once its placeholders are filled in"):
        check_json('{"a": {nobody}}')


DOCUMENT = {"": 1, "a/b": 2, "m~n": 3, "list": [{"x": None}, "y"], "0": "zero", " ": 4}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/", 1),
        ("/a~1b", 2),
        ("/m~0n", 3),
        ("/list/0/x", None),
        ("/list/1", "y"),
        ("/0", "zero"),
        ("/ ", 4),
    ],
)
def test_pointers_follow_rfc_6901(pointer: str, value: object) -> None:
    assert compile_pointer(pointer)(DOCUMENT) == value


@pytest.mark.parametrize("pointer", ["/nothing", "/list/2", "/list/-", "/list/-1", "/list/01", "/list/x", "/a~1b/c"])
def test_a_pointer_to_nothing_says_so(pointer: str) -> None:
    with pytest.raises(LookupError):
        compile_pointer(pointer)(DOCUMENT)


@pytest.mark.parametrize("pointer", ["a", "/a~2", "/a~"])
def test_a_malformed_pointer_is_refused_at_start_up(pointer: str) -> None:
    with pytest.raises(TemplateError, match="RFC 6901"):
        compile_pointer(pointer)
