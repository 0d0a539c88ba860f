"""``POST /v1/messages/count_tokens``: how long a prompt is.

A provider of Anthropic's dialect is asked, and its answer passes. For any other the gateway answers itself with an
estimate, marked ``"estimated": true``: the bytes of all texts, tools and instructions by :data:`BYTES_PER_TOKEN`, and
:data:`TOKENS_PER_MEDIUM` for each image or file, whose bytes say little. A rule of thumb for English prose: code
and other scripts differ. Only the provider's tokenizer would be exact, and no other one can be asked.

Counting costs nothing at the provider, so the usage is none.

Source: Anthropic API reference, "Count Message tokens"; guide "Token counting".
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.estimate import BYTES_PER_TOKEN, TOKENS_PER_MEDIUM
from gateway.core.facts import Usage
from gateway.dialects.anthropic_request import AnthropicRequest, parse_request
from gateway.dialects.anthropic_voice import AnthropicVoice, check_version, with_headers
from gateway.dialects.call import Call, Media, Reasoning, Refusal, Text, ToolCall, ToolResult
from gateway.dialects.pairing import call_of
from gateway.dialects.provider import BadAnswer, ProviderDialect
from gateway.dialects.voice import Asking, Request, Whole

TOKENS_PER_MESSAGE = 4  # its role and its limits


class _Counted(msgspec.Struct):
    input_tokens: int


_counted = msgspec.json.Decoder(_Counted)
_encode = msgspec.json.Encoder().encode
_PATH = b"/messages/count_tokens"


class CountTokensVoice(AnthropicVoice):
    """One request for a count; never streamed. Satisfies :class:`gateway.dialects.voice.Voice`."""

    def parse(self, body: bytes) -> AnthropicRequest:
        check_version(self._opening)
        return parse_request(body, counts_only=True)

    def prepare(self, request: AnthropicRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        if dialect.wire != self.dialect:
            answer = _encode({"input_tokens": estimated_tokens(call_of(request)), "estimated": True})
            ready = Whole(body=answer, usage=Usage(estimated=True))
            return with_headers(Asking(path=_PATH, body=b"", ready=ready), self._opening)
        body = request.encode_as_is(model, dialect.quirks)
        return with_headers(Asking(path=_PATH, body=body, generates=False, passes=True), self._opening)

    def read_whole(self, request: Request, dialect: ProviderDialect, body: bytes) -> Whole:
        try:
            _counted.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadAnswer(str(error)) from None
        return Whole(body=body, usage=Usage())


def estimated_tokens(call: Call) -> int:
    """About how many tokens the prompt has; at least 1."""
    tools = [(tool.name, tool.description, tool.schema) for tool in call.tools]
    size = sum(len(text.text.encode()) for text in call.system) + (len(_encode(tools)) if tools else 0)
    tokens = 0
    for message in call.messages:
        tokens += TOKENS_PER_MESSAGE
        for part in message.parts:
            part_bytes, part_tokens = _weigh(part)
            size += part_bytes
            tokens += part_tokens
    return max(tokens + -(-size // BYTES_PER_TOKEN), 1)


def _weigh(part: Any) -> tuple[int, int]:
    """``(bytes of text, tokens of media)``."""
    match part:
        case Text() | Refusal() | Reasoning():
            return len(part.text.encode()), 0
        case ToolCall():
            return len(part.name) + len(part.arguments.encode()), 0
        case ToolResult():
            weights = [_weigh(each) for each in part.content]
            return sum(size for size, _ in weights), sum(tokens for _, tokens in weights)
        case Media():
            return 0, TOKENS_PER_MEDIUM
    raise AssertionError(part)
