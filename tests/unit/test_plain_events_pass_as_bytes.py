"""The fast path of a stream gives exactly what decoding every event would give."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects import chat_stream
from gateway.dialects.chat_stream import ChatStream


def chunk(delta, *, finish=None, spaced=False, **more):
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **more,
    }
    return "data: " + json.dumps(document, separators=None if spaced else (",", ":"))


USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
ODD = (
    ": a comment",
    "data: {broken",
    chunk({"content": "x"}, finish="stop"),
    chunk({"content": "cut"})[:-3],
    chunk({}, finish="length"),
    USAGE,
    chunk({"content": "y"}, usage={"prompt_tokens": 1, "completion_tokens": 1}, finish="stop"),
    chunk({"content": "u"}, usage={"prompt_tokens": 1, "completion_tokens": 1}),
    chunk({"content": "u"}, spaced=True, usage={"prompt_tokens": 1, "completion_tokens": 1}),
    chunk({"content": "e"}, error={"message": "no"}),
    chunk({"content": "n"}, usage=None, error=None, obfuscation="x1"),
    'event: error\ndata: {"error":{"message":"no"}}',
    chunk({"content": "a"}) + "\n" + chunk({"content": "b"}),
    chunk({"content": "a"}).replace("}]}", '},{"index":1,"delta":{"content":"b"},"finish_reason":null}]}'),
    'data: {"id":"other","choices":[{"index":1,"delta":{"content":"z"},"finish_reason":null}]}',
)
texts = st.text(max_size=12) | st.sampled_from(
    ['"finish_reason":"stop"', '"usage":{', "[DONE]", '}\n\ndata: {"', 'data: {"error":1}', "\\", '"']
)
plain = st.builds(lambda text, spaced: chunk({"content": text}, spaced=spaced), texts, st.booleans())
events = st.lists(plain | st.sampled_from(ODD), max_size=12)


def understood(stream, pieces):
    out = b"".join(stream.feed(piece) + (stream.first() if stream.committed else b"") for piece in pieces)
    return out, stream.events, stream.finish_reason, stream.usage, stream.done, stream.malformed


def cut(data, places):
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=400)
@given(events, st.booleans(), st.booleans(), st.data())
def test_any_split_and_either_path_give_the_same(lines, want_usage, done, data):
    wire = "".join(line + "\n\n" for line in [*lines, *(["data: [DONE]"] if done else [])]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_stream._Plain, "learn", classmethod(lambda cls, data: None))
        expected = understood(ChatStream(want_usage=want_usage), [wire])
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    assert understood(ChatStream(want_usage=want_usage), cut(wire, places)) == expected
    assert understood(ChatStream(want_usage=want_usage), [wire]) == expected


def test_a_run_of_plain_events_is_not_decoded_one_by_one():
    stream = ChatStream(want_usage=False)
    stream.feed((chunk({"content": "first"}) + "\n\n").encode())
    stream.first()
    decoded = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatStream, "_notice", lambda self, data: decoded.append(data) or True)
        block = "".join(chunk({"content": f"word {i}"}) + "\n\n" for i in range(64)).encode()
        assert stream.feed(block) == block
    assert decoded == []
    assert stream.events == 65
