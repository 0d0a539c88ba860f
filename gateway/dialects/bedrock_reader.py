"""What Bedrock's Converse API answers, read into events: streams of messages (``eventstream``) and whole documents.

=====================================  ===============================================================================
message of a stream                    event
=====================================  ===============================================================================
``messageStart``                       ``Started``, with neither id nor model: the API gives none
``contentBlockDelta``: ``text``        ``TextDelta``
…: ``reasoningContent``                ``ReasoningDelta`` with text, signature or (redacted) all of an opaque block
``contentBlockStart`` of a tool        ``ToolCallStarted``; its arguments are the deltas' ``toolUse.input``, ``{}`` if
                                       there are none
``messageStop``                        ``Finished``
``metadata``                           ``Used``; with it the stream is done
exceptions, errors                     ``Failed``
=====================================  ===============================================================================

``stopReason``: *end_turn*, *stop_sequence* → ``stop`` · *max_tokens*, *model_context_window_exceeded* → ``length`` ·
*tool_use* → ``tool_calls`` · *guardrail_intervened*, *content_filtered* → ``content_filter`` · *malformed_…* →
``Failed``: the model broke off, another target may do better.

``inputTokens`` leaves out what was read from or written to the cache; ``Usage.prompt_tokens`` has all three. Left out,
since no other dialect has it: citations, images, tools that Bedrock runs itself, ``trace``, ``metrics``.

Source: Amazon Bedrock API reference, "ConverseStreamOutput", "Message", "TokenUsage"; user guide, "Prompt caching"; the
service's model in botocore.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.facts import Usage
from gateway.dialects.anthropic_encode import FORMAT_TOOL
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.eventstream import Frame, FrameSplitter
from gateway.dialects.provider import BadAnswer

MAX_TOKENS = 1_000_000_000  # a usage beyond that is no count
MAX_ERROR_CHARS = 2_000
_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


# Fields of unusual types are no reason to lose content: what is not text is taken for none where it is used.
class _ToolUse(msgspec.Struct):
    toolUseId: Any = ""
    name: Any = ""
    type: Any = ""
    input: msgspec.Raw = msgspec.Raw(b"")


class _Block(msgspec.Struct):
    """Of a whole message, of a block's start, or of a delta: what each may have."""

    text: Any = ""
    toolUse: _ToolUse | None = None
    reasoningContent: dict[str, Any] | None = None


class _StreamEvent(msgspec.Struct):
    contentBlockIndex: int = 0
    start: _Block | None = None
    delta: _Block | None = None
    stopReason: Any = ""
    usage: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] = []


class _Output(msgspec.Struct):
    message: _Message


class _Document(msgspec.Struct):
    output: _Output
    stopReason: Any = ""
    usage: Any = None


_event = msgspec.json.Decoder(_StreamEvent)
_document = msgspec.json.Decoder(_Document)
_any = msgspec.json.Decoder()


class BedrockReader:
    """Reads one stream; see :class:`gateway.dialects.provider.Reader`."""

    def __init__(self) -> None:
        self.done = False
        self.malformed = 0
        self.asked: Usage | None = None
        self._splitter = FrameSplitter()
        self._fault: Exception | None = None
        self._blocks = _Blocks()
        self._failed = False

    def feed(self, data: bytes) -> list[Event]:
        if self._fault is not None and not self._over():
            raise self._fault
        frames, self._fault = self._splitter.feed(data)
        events: list[Event] = []
        for frame in frames:
            if self._over():
                break
            self._read(frame, events)
        if self._fault is not None and not events and not self._over():
            raise self._fault  # otherwise with the next read: what came before it is good
        return events

    def _over(self) -> bool:
        return self.done or self._failed

    def end(self) -> list[Event]:
        return []

    def _read(self, frame: Frame, events: list[Event]) -> None:
        if frame.headers.get(":message-type", "event") != "event":
            self._fail(_failed(frame), events)
            return
        try:
            event = _event.decode(frame.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed += 1
            return
        match frame.headers.get(":event-type"):
            case "contentBlockDelta" if event.delta is not None:
                self._blocks.delta(event.contentBlockIndex, event.delta, events)
            case "contentBlockStart" if event.start is not None and event.start.toolUse is not None:
                self._blocks.start_tool(event.contentBlockIndex, event.start.toolUse, events)
            case "contentBlockStop":
                self._blocks.stop(event.contentBlockIndex, events)
            case "messageStart":
                events.append(Started())
            case "messageStop":
                ending = self._blocks.ending(_text(event.stopReason))
                if isinstance(ending, Failed):
                    self._fail(ending, events)
                else:
                    events.append(ending)
            case "metadata":
                self.done = True
                usage = usage_of(event.usage)
                if usage is not None:
                    events.append(Used(usage))

    def _fail(self, failed: Failed, events: list[Event]) -> None:
        self._failed = True
        events.append(failed)


class _Blocks:
    """The blocks of one answer on their way to events."""

    def __init__(self) -> None:
        self._tools: dict[int, int] = {}  # a block's index → the call's; -1 for the answer in the form of a call
        self._calls = 0
        self._without_arguments: set[int] = set()

    def start_tool(self, index: int, tool: _ToolUse, events: list[Event]) -> None:
        """Begin a call; a tool that Bedrock runs itself is not the client's to run."""
        if tool.type:
            return
        if tool.name == FORMAT_TOOL:
            self._tools[index] = -1
            return
        self._tools[index] = self._calls
        self._without_arguments.add(index)
        events.append(ToolCallStarted(self._calls, _text(tool.toolUseId), _text(tool.name)))
        self._calls += 1

    def delta(self, index: int, delta: _Block, events: list[Event]) -> None:
        if _text(delta.text):
            events.append(TextDelta(delta.text))
        elif delta.toolUse is not None:
            self.arguments(index, _text(_decoded(delta.toolUse.input)), events)
        elif delta.reasoningContent is not None:
            said = delta.reasoningContent
            text, signature = _text(said.get("text")), _text(said.get("signature"))
            thought = ReasoningDelta(text, signature, _text(said.get("redactedContent")))
            if thought != ReasoningDelta():
                events.append(thought)

    def arguments(self, index: int, text: str, events: list[Event]) -> None:
        call = self._tools.get(index)
        if call is None or not text:
            return
        self._without_arguments.discard(index)
        events.append(TextDelta(text) if call < 0 else ArgumentsDelta(call, text))

    def stop(self, index: int, events: list[Event]) -> None:
        if index in self._without_arguments:
            self.arguments(index, "{}", events)

    def whole(self, index: int, block: _Block, events: list[Event]) -> None:
        """A block of an answer that was not streamed."""
        if _text(block.text):
            events.append(TextDelta(block.text))
        elif block.toolUse is not None:
            self.start_tool(index, block.toolUse, events)
            self.arguments(index, bytes(block.toolUse.input).decode(errors="replace") or "{}", events)
        elif block.reasoningContent is not None:
            said = block.reasoningContent.get("reasoningText")
            said = said if isinstance(said, dict) else {}
            redacted = _text(block.reasoningContent.get("redactedContent"))
            events.append(ReasoningDelta(_text(said.get("text")), _text(said.get("signature")), redacted))

    def ending(self, reason: str) -> Finished | Failed:
        """The answer's end; the API does not say which stop sequence it was."""
        if reason.startswith("malformed_"):
            return Failed(reason)
        meaning = _REASONS.get(reason, "stop")
        if meaning == "tool_calls" and not self._calls and self._tools:
            meaning = "stop"
        return Finished(meaning, reason)


def read_converse(body: bytes) -> list[Event]:
    """The events of a whole answer.

    Raises:
        BadAnswer: It is none, or one that the model broke off.
    """
    try:
        document = _document.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(str(error)) from None
    events: list[Event] = [Started()]
    blocks = _Blocks()
    for index, block in enumerate(document.output.message.content):
        blocks.whole(index, block, events)
    ending = blocks.ending(_text(document.stopReason))
    if isinstance(ending, Failed):
        raise BadAnswer(f"the model's answer is {ending.code}")
    events.append(ending)
    usage = usage_of(document.usage)
    if usage is not None:
        events.append(Used(usage))
    return events


def usage_of(said: Any) -> Usage | None:
    """What a ``usage`` says; None if its numbers cannot be counts of tokens."""
    if not isinstance(said, dict):
        return None
    names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens")
    counts = [said.get(name) or 0 for name in names] + [_kept_for_an_hour(said.get("cacheDetails"))]
    if not all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts):
        return None
    fresh, read, written, completion, long = counts
    return Usage(
        prompt_tokens=fresh + read + written,
        completion_tokens=completion,
        cached_tokens=read,
        cache_write_tokens=written,
        long_cache_write_tokens=long,
    )


def _kept_for_an_hour(details: Any) -> Any:
    """Of the tokens that were written to the cache; 0 if it is not said."""
    told = (one for one in details if isinstance(one, dict)) if isinstance(details, list) else ()
    return next((one.get("inputTokens") or 0 for one in told if one.get("ttl") == "1h"), 0)


def _failed(frame: Frame) -> Failed:
    """An exception that the API documents, or an error that it does not."""
    said = _decoded(frame.payload)
    message = said.get("message") if isinstance(said, dict) else None
    code = frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "error"
    return Failed(code, (_text(message) or frame.headers.get(":error-message", ""))[:MAX_ERROR_CHARS])


def _decoded(document: bytes | msgspec.Raw) -> Any:
    try:
        return _any.decode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
