"""What providers of OpenAI's chat dialect answer, read into events: streams and whole documents.

Compatible providers differ in small ways, and a field of an unusual type is no reason to lose content, so every field
is looked at before it is believed. Known ways: thoughts in ``reasoning_content``, ``reasoning``, ``reasoning_details``
(OpenRouter) or as ``thinking`` parts of the content (Mistral); tool calls without an ``index``, or all with the index 0
(told apart by their ids); a finish reason ``stop`` after tool calls; a usage in every chunk; reasoning tokens that are
not among the completion's (xAI); a first chunk without choices (Azure's content filter); no ``[DONE]``.

What has no counterpart in events, and is left out: ``system_fingerprint``, ``service_tier``, ``annotations``, sound,
``content_filter_results``, logprobs of refusals.

Source: OpenAI API reference, "The chat completion chunk object"; OpenRouter, Mistral, DeepSeek, xAI API references.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field

from gateway.core.facts import Usage
from gateway.dialects.chat_usage import usage_of
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)
from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import EventSplitter, event_data, split_events

_decode = msgspec.json.Decoder().decode
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "error": "error",
    "abort": "error",
    "aborted": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
}
FAILURES = frozenset(raw for raw, reason in _FINISH.items() if reason == "error")


@define(slots=True)
class _Call:
    """One tool call on its way: it starts when its name is known, and its arguments wait for that."""

    index: int
    id: str = ""
    started: bool = False
    waiting: list[str] = field(factory=list)
    signature: str = ""


@define(slots=True)
class _Choice:
    """What is known of one choice."""

    calls: dict[int, _Call] = field(factory=dict)  # by the provider's index: the latest of it
    count: int = 0
    refused: bool = False
    thought: bool = False  # in a plain field: the details only repeat it
    finished: bool = False


class ChatReader:
    """One answer. See :class:`gateway.dialects.provider.Reader`.

    Args:
        reasoning_field: Where this provider puts thoughts; the other known fields are looked at if it is empty.
    """

    def __init__(self, reasoning_field: str = "reasoning_content") -> None:
        self.done = False
        self.malformed = 0
        self.asked: Usage | None = None
        self._fields = tuple(dict.fromkeys((reasoning_field, "reasoning_content", "reasoning")))
        self._splitter = EventSplitter()
        self._choices: dict[int, _Choice] = {}
        self._started = False
        self._failed = False
        self._whole = False

    def feed(self, data: bytes) -> list[Event]:
        return self._read(self._splitter.feed(data))

    def end(self) -> list[Event]:
        # Some end their body with the last line: an event that lacks nothing but its blank line counts.
        rest = event_data(self._splitter.rest.strip(b"\n")) or b""
        return self._read(b"data: " + rest + b"\n\n") if rest == b"[DONE]" or _is_json(rest) else []

    def whole(self, body: bytes) -> list[Event]:
        """The events of a ``chat.completion`` document. Raises ``BadAnswer``."""
        try:
            document = _decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadAnswer(str(error)) from None
        if not isinstance(document, dict) or not isinstance(document.get("choices"), list):
            raise BadAnswer("a chat completion has choices")
        made: list[Event] = []
        self._whole = True
        self._take(document, made)
        failed = next((event for event in made if isinstance(event, Failed)), None)
        if failed is not None:
            raise BadAnswer(f"the provider failed: {failed.code}")
        if not self._choices:
            raise BadAnswer("a chat completion without a choice")
        return made

    def _read(self, block: bytes) -> list[Event]:
        made: list[Event] = []
        for event in split_events(block):
            if self.done or self._failed:
                break
            data = event_data(event)
            if data is None:
                continue
            if data.strip() == b"[DONE]":
                self.done = True
                continue
            try:
                chunk = _decode(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                self.malformed += 1
                continue
            if isinstance(chunk, dict):
                self._take(chunk, made)
            else:
                self.malformed += 1
        return made

    def _take(self, chunk: dict[str, Any], made: list[Event]) -> None:
        failed = _failure(chunk)
        if failed is not None:
            self._failed = True
            made.append(failed)
            return
        choices = chunk.get("choices")
        if not self._started and (choices or chunk.get("id") or chunk.get("model")):
            self._started = True
            created = chunk.get("created")
            made.append(Started(_str(chunk, "id"), _str(chunk, "model"), created if type(created) is int else 0))
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not self._failed:
                self._take_choice(choice, made)
        usage = chunk.get("usage")
        if isinstance(usage, dict) and not self._failed:
            counted = usage_of(usage)
            if counted is not None:
                made.append(Used(counted))

    def _take_choice(self, choice: dict[str, Any], made: list[Event]) -> None:
        number = choice.get("index")
        index = number if type(number) is int else 0
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
        if state.finished:
            return  # some say it twice
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._take_delta(delta, choice.get("logprobs"), index, state, made)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self._finish(finish, choice, index, state, made)

    def _take_delta(self, delta: dict[str, Any], logprobs: Any, index: int, state: _Choice, made: list[Event]) -> None:
        self._take_thoughts(delta, index, state, made)
        content = delta.get("content")
        entries = logprobs.get("content") if isinstance(logprobs, dict) else None
        entries = entries if isinstance(entries, list) and entries else None
        if isinstance(content, str):
            if content or entries:
                made.append(TextDelta(content, index, entries))
        elif isinstance(content, list):
            made += _parts(content, index)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            state.refused = True
            made.append(RefusalDelta(refusal, index))
        calls = delta.get("tool_calls")
        for place, call in enumerate(calls) if isinstance(calls, list) else ():
            if isinstance(call, dict):
                _take_call(call, place, index, state, made)

    def _take_thoughts(self, delta: dict[str, Any], index: int, state: _Choice, made: list[Event]) -> None:
        """The plain field is what is read as it comes; a whole answer's details say the same, block by block."""
        plain = next((text for name in self._fields if isinstance(text := delta.get(name), str) and text), "")
        found = delta.get("reasoning_details")
        found = [detail for detail in found if isinstance(detail, dict)] if isinstance(found, list) else []
        if self._whole and any(_str(detail, "text") or _str(detail, "summary") for detail in found):
            plain = ""
        if plain:
            state.thought = True
            made.append(ReasoningDelta(plain, choice=index))
        for detail in found:
            text = "" if state.thought else _str(detail, "text") or _str(detail, "summary")
            signature, data, id = _str(detail, "signature"), _str(detail, "data"), _str(detail, "id")
            if text or signature or data:
                made.append(ReasoningDelta(text, signature, data, index, id))

    def _finish(self, raw: str, choice: dict[str, Any], index: int, state: _Choice, made: list[Event]) -> None:
        for call in state.calls.values():
            _start(call, "", index, made)  # a call whose name never came is the client's to judge
        reason = _FINISH.get(raw, "stop")
        if reason == "error":
            self._failed = True
            made.append(Failed(raw))
            return
        if reason == "stop" and state.count:
            reason = "tool_calls"
        elif reason == "stop" and state.refused:
            reason = "refusal"
        matched = choice.get("stop_reason")  # vLLM's and SGLang's name for the stop sequence
        state.finished = True
        made.append(Finished(reason, raw, matched if isinstance(matched, str) else "", index))


def _take_call(said: dict[str, Any], place: int, choice: int, state: _Choice, made: list[Event]) -> None:
    number = said.get("index")
    key = number if type(number) is int else place
    id = _str(said, "id")
    function = said.get("function")
    name = _str(function, "name") if isinstance(function, dict) else ""
    arguments = function.get("arguments") if isinstance(function, dict) else None
    call = state.calls.get(key)
    if call is None or (name and id and call.started and id != call.id):
        if call is not None:
            _start(call, "", choice, made)
        call = state.calls[key] = _Call(index=state.count)
        state.count += 1
    call.id = call.id or id
    call.signature = call.signature or _signature(said)
    if isinstance(arguments, dict):
        arguments = msgspec.json.encode(arguments).decode()
    if name:
        _start(call, name, choice, made)
    if not isinstance(arguments, str) or not arguments:
        return
    if call.started:
        made.append(ArgumentsDelta(call.index, arguments, choice))
    else:
        call.waiting.append(arguments)


def _start(call: _Call, name: str, choice: int, made: list[Event]) -> None:
    if call.started:
        return
    call.started = True
    made.append(ToolCallStarted(call.index, call.id, name, choice, call.signature))
    if call.waiting:
        made.append(ArgumentsDelta(call.index, "".join(call.waiting), choice))


def _signature(said: dict[str, Any]) -> str:
    extra = said.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return _str(google, "thought_signature") if isinstance(google, dict) else ""


def _parts(content: list[Any], choice: int) -> list[Event]:
    """Mistral's content in parts: ``text`` and ``thinking``."""
    made: list[Event] = []
    for part in content:
        if not isinstance(part, dict):
            continue
        thinking = part.get("thinking")
        if isinstance(thinking, list):
            thinking = "".join(_str(piece, "text") for piece in thinking if isinstance(piece, dict))
        if isinstance(thinking, str) and thinking:
            made.append(ReasoningDelta(thinking, choice=choice))
        text = _str(part, "text")
        if text:
            made.append(TextDelta(text, choice))
    return made


def _failure(chunk: dict[str, Any]) -> Failed | None:
    error = chunk.get("error")
    if error is None and chunk.get("object") == "error":  # older vLLM
        error = chunk
    if not error:
        return None
    if not isinstance(error, dict):
        return Failed("error", str(error))
    code = error.get("code") or error.get("type") or "error"
    return Failed(str(code), str(error.get("message") or ""))


def _str(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _is_json(data: bytes) -> bool:
    try:
        _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
