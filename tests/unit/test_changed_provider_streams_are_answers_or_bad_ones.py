"""Whatever a provider changes in its stream: what a client gets is well-formed, and nothing but BadAnswer is raised.

The golden streams of every provider dialect, with their documents changed and their events dropped, repeated, cut and
exchanged, for clients of every dialect; what breaks off is gone on with by another provider.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import StreamBroken
from gateway.core.facts import Usage
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_voice import AnthropicVoice
from gateway.dialects.chat_provider import OpenAIChat
from gateway.dialects.completions import CompletionsVoice
from gateway.dialects.gemini import Gemini
from gateway.dialects.openai_chat import ChatVoice
from gateway.dialects.orchestrate import OrchestrateVoice
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.responses_provider import ResponsesProvider
from gateway.dialects.responses_voice import ResponsesVoice
from gateway.dialects.resumed import ResumedStream
from gateway.dialects.sse import EventTooLong, split_events
from gateway.dialects.voice import AnswerStream, Request, Voice
from tests.changes import changed

GOLDEN = Path(__file__).parents[1] / "golden"
CHAT = OpenAIChat()
PROVIDERS: dict[str, tuple[ProviderDialect, list[bytes]]] = {
    dialect.name: (
        dialect,
        [path.read_bytes().replace(b"\r\n", b"\n") for name in names for path in sorted(GOLDEN.glob(f"{name}_*.sse"))],
    )
    for dialect, names in (
        (CHAT, ("openai", "azure", "deepseek", "mistral", "openrouter")),
        (ResponsesProvider(), ("responses",)),
        (Anthropic(), ("anthropic",)),
        (Gemini(), ("gemini",)),
    )
}
VOICES: dict[type[Voice], bytes] = {
    ChatVoice: b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,'
    b'"stream_options":{"include_usage":true}}',
    ResponsesVoice: b'{"model":"m","input":"x","stream":true}',
    AnthropicVoice: b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"stream":true}',
    CompletionsVoice: b'{"model":"m","prompt":"x","echo":true,"stream":true}',
    OrchestrateVoice: b'{"assistant":"m","input":"x","stream":true}',
}
ESTIMATE = Usage(prompt_tokens=1, completion_tokens=1, estimated=True)


@st.composite
def streams(draw: st.DrawFn, whole: bytes) -> bytes:
    events = whole.split(b"\n\n")[:-1]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(events) - 1))
        head, start, data = events[place].partition(b"data: {")
        match draw(st.sampled_from(["change", "change", "change", "drop", "repeat", "cut", "move"])):
            case "change" if start:
                try:
                    document = json.loads(b"{" + data)
                except ValueError:
                    continue  # changed before
                events[place] = head + b"data: " + json.dumps(draw(changed(document))).encode()
            case "drop" if len(events) > 1:
                del events[place]
            case "cut":
                events[place] = events[place][: draw(st.integers(0, len(events[place])))]
            case "move":
                events.append(events.pop(place))
            case _:
                events.insert(place, events[place])
    return b"".join(event + b"\n\n" for event in events)


@pytest.mark.parametrize("voice_type", VOICES)
@pytest.mark.parametrize("provider", PROVIDERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_stream_is_an_answer_or_a_bad_one(
    voice_type: type[Voice], provider: str, data: st.DataObject
) -> None:
    dialect, golden = PROVIDERS[provider]
    stream = data.draw(streams(data.draw(st.sampled_from(golden))))
    voice = voice_type()
    request = voice.parse(VOICES[voice_type])
    asking = voice.prepare(request, dialect, "m", keep=True)
    assert asking.stream is not None
    step = data.draw(st.sampled_from([1, 50, 5_000]))
    try:
        said = relayed(voice, request, asking.stream, [stream[at : at + step] for at in range(0, len(stream), step)])
    except (BadAnswer, EventTooLong):
        return
    for event in split_events(b"" if asking.passes else said):  # what passes is the provider's
        for line in event.split(b"\n"):
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                json.loads(line[6:])


def relayed(voice: Voice, request: Request, stream: AnswerStream, reads: list[bytes]) -> bytes:
    """What a client gets of a stream as the exchange relays it; of one that breaks off, also the end by a repair."""
    said, chosen = b"", False
    for read in reads:
        piece = stream.feed(read)
        if not chosen and stream.committed and stream.error is None:
            piece, chosen = stream.first(), True
        said += piece if chosen else b""
        if stream.done or stream.error is not None:
            break
    if not chosen:
        return b""
    if stream.error is None:
        stream.eof()
    if stream.finished and stream.error is None:
        return said + stream.end(ESTIMATE)
    so_far = stream.so_far()
    if so_far is not None and set(so_far.choices) <= {0}:
        rest = ResumedStream(CHAT.reader(), voice.writer(request), so_far, repeats=False, tokens_before=1)
        rest.feed(PROVIDERS["openai"][1][0])
        said += rest.first() + rest.end(ESTIMATE)
    return said + voice.breaks(StreamBroken("upstream_cut", "the answer broke off"))
