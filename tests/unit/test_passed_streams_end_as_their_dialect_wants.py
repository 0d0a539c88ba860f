"""A stream that passes as bytes gets the end that its provider left out, and never a second one."""

import pytest

from gateway.dialects.anthropic_reader import AnthropicReader
from gateway.dialects.anthropic_voice import CLOSING
from gateway.dialects.pairing import PassedStream

EVENTS = [
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":1}}}\n\n',
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text",'
    b'"text":""}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    b'"text":"Hi"}}\n\n',
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":1}}\n\n',
]


@pytest.mark.parametrize("given", [b"", CLOSING], ids=["left out", "given"])
def test_the_end_stands_there_once(given):
    stream = PassedStream(AnthropicReader(), closing=CLOSING)
    out = b""
    for event in [*EVENTS, given]:
        out += stream.feed(event)
        if stream.committed:
            out += stream.first()
    stream.eof()
    assert stream.finished
    assert out + stream.end(None) == b"".join(EVENTS) + CLOSING


@pytest.mark.parametrize("line_feeds", range(2, 6))
def test_a_provider_may_write_more_blank_lines_than_one(line_feeds):
    stream = PassedStream(AnthropicReader())
    out = b""
    for event in EVENTS:
        out += stream.feed(event.rstrip(b"\n") + b"\n" * line_feeds)
    stream.eof()
    assert stream.finished
    assert (out + stream.first()).split(b"\n\n") == b"".join(EVENTS).split(b"\n\n")


def test_an_event_that_is_no_json_is_left_out_and_the_rest_is_whole():
    garbage = b"event: content_block_delta\ndata: {no json\n\n"
    odd = b'event: new\ndata: {"type":"new","index":"one"}\n\n'
    stream = PassedStream(AnthropicReader())
    stream.feed(EVENTS[0])
    assert stream.feed(b"".join([EVENTS[1], garbage, EVENTS[2], garbage, odd])) == b""
    assert stream.first() == b"".join([*EVENTS[:3], odd])
    assert stream.feed(garbage) == b""
    assert stream.feed(EVENTS[3] + EVENTS[4] + garbage) == EVENTS[3] + EVENTS[4]
    assert stream.finished


def test_nothing_is_given_out_before_the_first_content():
    stream = PassedStream(AnthropicReader(), closing=CLOSING)
    assert [stream.feed(event) for event in EVENTS[:2]] == [b"", b""]
    assert not stream.committed
    assert stream.feed(EVENTS[2]) == b""
    assert stream.committed
    assert stream.first() == b"".join(EVENTS[:3])


def test_further_blank_lines_between_events_pass_too():
    stream = PassedStream(AnthropicReader(), closing=CLOSING)
    out = stream.feed(b"".join(event + b"\n" for event in [*EVENTS, CLOSING])) + stream.first()
    assert (stream.finished, stream.malformed) == (True, 0)
    assert out.replace(b"\n\n\n", b"\n\n") == b"".join(EVENTS) + CLOSING
