"""A chat request for a provider of the same dialect passes as it is, but for what that provider is known to refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config.presets import presets
from gateway.dialects.openai_chat import ChatVoice
from gateway.dialects.provider import Quirks

TALK = '[{"role":"developer","content":"Be brief.","x":1.0},{"role" : "developer","name":"a","content":[]},'
TALK += '{"role":"user","content":"the \\"role\\": \\"developer\\""}]'


def sent(quirks: Quirks, *, messages: str = TALK, **fields: Any) -> bytes:
    body = (
        f'{{"model":"m","messages":{messages},{json.dumps(fields)[1:]}'
        if fields
        else f'{{"model":"m","messages":{messages}}}'
    )
    return ChatVoice().parse(body.encode()).encode_as_is("theirs", quirks)


def test_the_developers_role_is_the_systems_where_it_is_not_known() -> None:
    assert TALK.encode() in sent(Quirks())
    known = json.loads(sent(Quirks(developer_role=False)))["messages"]
    assert [message["role"] for message in known] == ["system", "system", "user"]
    rest = [{name: value for name, value in message.items() if name != "role"} for message in known]
    assert rest == [{name: v for name, v in message.items() if name != "role"} for message in json.loads(TALK)]
    others = '[{"role":"system","content":"s"},{"role":"user","content":"developer"}]'
    assert others.encode() in sent(Quirks(developer_role=False), messages=others)


@pytest.mark.parametrize("name", ["deepseek", "mistral"])
def test_who_refuses_that_role_is_known(name: str) -> None:
    assert presets()[name].quirks["developer_role"] is False


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"include_usage": True}, None),
        ({"include_usage": False}, None),
        ({}, None),
        (None, None),
        ({"include_usage": True, "include_obfuscation": False}, {"include_obfuscation": False}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_who_does_not_know_that_usage_can_be_asked_for_is_not_asked(options: Any, passed: Any, stream: bool) -> None:
    document = json.loads(sent(Quirks(usage_in_stream=False), stream=stream, stream_options=options))
    assert document.get("stream_options") == passed
    assert ("stream_options" in document) == (passed is not None)


@pytest.mark.parametrize("options", [None, {}, {"include_obfuscation": False}])
def test_who_knows_it_is_asked_whether_or_not_the_client_did(options: Any) -> None:
    document = json.loads(sent(Quirks(), stream=True, stream_options=options))
    assert document["stream_options"] == {**(options or {}), "include_usage": True}
