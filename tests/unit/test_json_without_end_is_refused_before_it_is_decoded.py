"""A body within its limit of bytes may still be a million fields: refused by a count, before it holds up the loop."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.core.errors import RequestError
from gateway.dialects.json_limits import MAX_FIELDS
from gateway.dialects.openai_chat import parse_request
from gateway.dialects.orchestrate import OrchestrateVoice

MANY = MAX_FIELDS + 1
QUESTION = b'"messages":[{"role":"user","content":"hi"}]'


def body(messages: bytes = QUESTION, more: bytes = b"") -> bytes:
    return b'{"model":"chat","assistant":"chat",' + messages + more + b"}"


def parts(inside: bytes) -> bytes:
    return b'"messages":[{"role":"user","content":[' + inside + b"]}]"


BOMBS = {
    "fields": body(more=b"".join(b',"f%d":0' % i for i in range(MANY))),
    "the same field": body(more=b',"":0' * MANY),
    "fields with space before the colon": body(more=b',"" \n:0' * MANY),
    "fields whose names end in a backslash": body(more=b',"\\\\":0' * MANY),
    "nested fields": body(more=b',"x":[' + b'{"":0},' * MANY + b"0]"),
    "empty parts": body(parts(b"{}," * MANY + b"{}")),
    "messages": body(b'"messages":[' + b'{"role":"user"},' * MANY + b'{"role":"user"}]'),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("parse", [parse_request, OrchestrateVoice().parse], ids=["chat", "orchestrate"])
def test_more_structure_than_any_request_has_is_refused(parse, bomb):
    with pytest.raises(RequestError) as caught:
        parse(bomb)
    assert (caught.value.http_status, caught.value.code) == (400, "too_many_fields")
    assert str(MAX_FIELDS) in caught.value.public_message


def test_a_long_text_may_hold_as_many_colons_as_it_likes():
    text = b"12:34:56 " * MAX_FIELDS
    assert (
        parse_request(body(b'"messages":[{"role":"user","content":"' + text + b'"}]')).last_user_text == text.decode()
    )


def test_a_bodys_arrays_and_numbers_are_never_made_into_objects():
    nested = parts(
        b'{"text":[' + b"[]," * MAX_FIELDS + b'0]},{"type":"text","text":"hi","x":[' + b"[]," * MAX_FIELDS + b"0]}"
    )
    document = body(nested, b',"y":[' + b"0.5," * MAX_FIELDS + b"0]")
    tracemalloc.start()
    try:
        request = parse_request(document)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * len(document)
    assert request.last_user_text == "hi"


def test_why_a_large_body_is_not_json_is_told_without_decoding_it():
    with pytest.raises(RequestError) as caught:
        parse_request(body(more=b',"x":[' + b"[]," * 2_000_000)[:-1])
    assert caught.value.code == "invalid_json"
    assert "truncated" in caught.value.public_message
