"""Promise: thoughts and calls go back with their signatures to the provider that signed them, and to no other.

A conversation that fails over from Claude to Gemini, or back, would else be refused by the second one for good
("Corrupted thought signature", "Invalid `signature` in `thinking` block").
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import anthropic_request, gemini_request, openai_chat
from gateway.dialects.answer import Answer
from gateway.dialects.anthropic import Anthropic
from gateway.dialects.anthropic_message import write_message
from gateway.dialects.anthropic_request import AnthropicRequest
from gateway.dialects.anthropic_voice import AnthropicVoice
from gateway.dialects.anthropic_writer import AnthropicWriter
from gateway.dialects.bedrock import BedrockConverse
from gateway.dialects.chat_writer import write_chat
from gateway.dialects.events import Event, ReasoningDelta, ToolCallStarted
from gateway.dialects.gemini import Gemini
from gateway.dialects.gemini_frame import Frame
from gateway.dialects.gemini_request import GeminiRequest
from gateway.dialects.gemini_voice import GeminiVoice
from gateway.dialects.gemini_writer import GeminiWriter, write_gemini
from gateway.dialects.provider import Quirks
from gateway.dialects.sse import event_data, split_events
from gateway.dialects.voice import Opening

GEMINI, CLAUDE = "gemini-3-pro", "claude-opus-4-7"
GEMINI_SAID = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"text": "I shall look.", "thoughtSignature": "dGV4dA=="},
                    {"functionCall": {"name": "look", "args": {"a": 1}, "id": "c1"}, "thoughtSignature": "Y2FsbA=="},
                    {"functionCall": {"name": "look", "args": {"a": 2}, "id": "c2"}},
                ],
            },
            "finishReason": "STOP",
        }
    ],
    "responseId": "r",
    "modelVersion": GEMINI,
}
CLAUDE_SAID = {
    "id": "msg_1",
    "type": "message",
    "model": CLAUDE,
    "content": [
        {"type": "thinking", "thinking": "", "signature": "EqQBclaude"},
        {"type": "redacted_thinking", "data": "EmwKsecret"},
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQBmore"},
        {"type": "text", "text": "I shall look."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
THOUGHTS = CLAUDE_SAID["content"][:3]  # type: ignore[index]
ASKED = {"role": "user", "content": "Look."}


def events_of_gemini() -> list[Event]:
    return Gemini().read_whole(json.dumps(GEMINI_SAID).encode())


def events_of_claude() -> list[Event]:
    return Anthropic().read_whole(json.dumps(CLAUDE_SAID).encode())


def answered_to_anthropic(events: list[Event], *, stream: bool) -> list[dict[str, Any]]:
    """The content that an Anthropic client has."""
    if not stream:
        content = json.loads(write_message(Answer.of(events)))["content"]
        assert isinstance(content, list)
        return content
    writer = AnthropicWriter()
    told = [json.loads(event_data(event) or b"") for event in split_events(writer.write(events) + writer.end())]
    blocks: list[dict[str, Any]] = []
    pieces = ""
    for event in told:
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"])
            pieces = ""
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                pieces += delta["partial_json"]
                blocks[-1]["input"] = json.loads(pieces)
            else:
                name = delta["type"].removesuffix("_delta")
                blocks[-1][name] = blocks[-1].get(name, "") + delta[name]
    return blocks


def from_anthropic(content: list[dict[str, Any]]) -> AnthropicRequest:
    ids = [block["id"] for block in content if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": id, "content": "so"} for id in ids]
    turns = [ASKED, {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    return anthropic_request.parse_request(json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode())


def answered_to_gemini(events: list[Event], *, stream: bool) -> list[dict[str, Any]]:
    """The parts that a Gemini client has."""
    if not stream:
        parts = json.loads(write_gemini(Answer.of(events)))["candidates"][0]["content"]["parts"]
        assert isinstance(parts, list)
        return parts
    writer = GeminiWriter(Frame(events=True))
    out = split_events(writer.write(events) + writer.end())
    told = [json.loads(event_data(event) or b"") for event in out]
    return [part for piece in told for part in piece["candidates"][0]["content"]["parts"]]


def from_gemini(parts: list[dict[str, Any]]) -> GeminiRequest:
    contents = [
        {"role": "user", "parts": [{"text": "Look."}]},
        {"role": "model", "parts": parts},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"output": "so"}, "id": "c1"}}]},
    ]
    return gemini_request.parse_request(json.dumps({"contents": contents}).encode(), model="m", stream=False)


@pytest.mark.parametrize("stream", [True, False])
def test_an_anthropic_client_gives_gemini_back_what_it_signed(stream: bool) -> None:
    request = from_anthropic(answered_to_anthropic(events_of_gemini(), stream=stream))
    made = Gemini().encode(request.call(), GEMINI)
    [_, said, _] = json.loads(made.body)["contents"]
    assert said["parts"] == GEMINI_SAID["candidates"][0]["content"]["parts"][1:]  # type: ignore[index]
    assert made.dropped == ("messages[1].reasoning",)


@pytest.mark.parametrize("stream", [True, False])
def test_anthropic_never_sees_what_gemini_signed(stream: bool) -> None:
    request = from_anthropic(answered_to_anthropic(events_of_gemini(), stream=stream))
    asking = AnthropicVoice().prepare(request, Anthropic(), CLAUDE, keep=False)
    content = json.loads(asking.body)["messages"][1]["content"]
    assert [block["type"] for block in content if block.get("signature") != ""] == ["text", "tool_use", "tool_use"]
    assert b"sluice" not in asking.body
    assert asking.dropped == ("thinking",)


def test_what_anthropic_signed_passes_to_it_as_it_came() -> None:
    request = from_anthropic(CLAUDE_SAID["content"])  # type: ignore[arg-type]
    asking = AnthropicVoice().prepare(request, Anthropic(), CLAUDE, keep=False)
    assert json.loads(asking.body)["messages"][1]["content"] == CLAUDE_SAID["content"]
    assert asking.dropped == ()


def test_gemini_never_sees_what_anthropic_signed() -> None:
    made = Gemini().encode(from_anthropic(CLAUDE_SAID["content"]).call(), GEMINI)  # type: ignore[arg-type]
    assert b"claude" not in made.body
    assert made.dropped == ("messages[1].reasoning",)


@pytest.mark.parametrize("stream", [True, False])
def test_a_gemini_client_gives_anthropic_back_what_it_signed(stream: bool) -> None:
    request = from_gemini(answered_to_gemini(events_of_claude(), stream=stream))
    made = Anthropic().encode(request.call(), CLAUDE)
    [_, said, _] = json.loads(made.body)["messages"]
    assert said["content"][:3] == THOUGHTS
    assert made.dropped == ()


@pytest.mark.parametrize("stream", [True, False])
def test_what_anthropic_signed_does_not_pass_to_gemini(stream: bool) -> None:
    request = from_gemini(answered_to_gemini(events_of_claude(), stream=stream))
    voice = GeminiVoice(Opening(path="/v1beta/models/m:generateContent"))
    asking = voice.prepare(request, Gemini(), GEMINI, keep=False)
    parts = json.loads(asking.body)["contents"][1]["parts"]
    assert all("thoughtSignature" not in part for part in parts)
    assert [part["text"] for part in parts if part.get("text") and not part.get("thought")] == ["I shall look."]
    assert asking.dropped == ("contents.parts.thought",)


def test_what_gemini_signed_passes_to_it_as_it_came() -> None:
    parts = GEMINI_SAID["candidates"][0]["content"]["parts"]  # type: ignore[index]
    voice = GeminiVoice(Opening(path="/v1beta/models/m:generateContent"))
    asking = voice.prepare(from_gemini(parts), Gemini(), GEMINI, keep=False)
    assert json.loads(asking.body)["contents"][1]["parts"] == parts
    assert asking.dropped == ()


def test_a_chat_client_keeps_whose_a_signature_is() -> None:
    events: list[Event] = [ReasoningDelta("Hm.", "sluice:g:dGV4dA=="), ToolCallStarted(0, "c1", "look", 0, "Y2FsbA==")]
    message = json.loads(write_chat(Answer.of([*events_of_gemini()[:1], *events]), id="i", created=1, model="m"))
    said = message["choices"][0]["message"]
    document = {"model": "m", "messages": [ASKED, said, {"role": "tool", "tool_call_id": "c1", "content": "so"}]}
    call = openai_chat.parse_request(json.dumps(document).encode()).call()
    assert b"Y2FsbA==" in Gemini().encode(call, GEMINI).body
    for dialect in (Anthropic(), BedrockConverse(quirks=Quirks())):
        made = dialect.encode(call, f"anthropic.{CLAUDE}")
        assert b"dGV4dA" not in made.body
        assert "messages[1].reasoning" in made.dropped
