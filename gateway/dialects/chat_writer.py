"""Answers in OpenAI's chat dialect, written from events: ``chat.completion.chunk`` streams and whole documents.

All chunks of a stream have one ``id`` and ``created``; after a repair the first ones stay, and ``model`` names who
goes on. Each choice begins with its role, ends with its finish reason; the usage, if it was asked for, comes last, then
``[DONE]``.

What an answer has and the chat dialect has not, or only by a provider's extension:

================================  ==============================================================================
thoughts                          ``reasoning_content`` (DeepSeek's name, the most widely read)
their signature, redacted ones    ``reasoning_details`` in OpenRouter's form: each block once, whole, at its end
a tool call's signature           ``extra_content.google.thought_signature`` (Gemini's own chat endpoint)
finish ``refusal``                ``stop`` where the model said its refusal in words, else ``content_filter``
finish ``pause``                  ``stop``
the matched stop sequence         left out
several text blocks               run into one ``content``
estimated usage                   ``usage.estimated: true``
================================  ==============================================================================

Source: OpenAI API reference, "The chat completion chunk object"; OpenRouter documentation, "Reasoning tokens".
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
from attrs import define, field

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer, Choice, ReasoningBlock, TextBlock, ToolBlock
from gateway.dialects.chat_usage import usage_document
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    Used,
)

DONE = b"data: [DONE]\n\n"
MAX_THOUGHT_CHARS = 1_048_576  # of a block that is kept for its signature; a longer one goes without
_encode = msgspec.json.Encoder().encode
_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}


def new_id() -> str:
    """An answer's id, for providers that give none."""
    return f"chatcmpl-{uuid.uuid4().hex}"


def now_s() -> int:
    """Unix time in whole seconds: ``created``, for providers that do not say."""
    return int(time.time())


@define(slots=True)
class _Said:
    """What was written of one choice."""

    tools: int = 0
    refused: bool = False
    finished: bool = False
    thought: list[str] = field(factory=list)
    thought_chars: int = 0
    details: int = 0


class ChatWriter:
    """Events → ``chat.completion.chunk`` events.

    Args:
        include_usage: The client asked for the usage chunk.
        id: For an answer whose provider gives none; made up if empty. To be the same when a repair writes on.
        created: Likewise, Unix seconds.
    """

    def __init__(self, *, include_usage: bool = False, id: str = "", created: int = 0) -> None:
        self._include_usage = include_usage
        self._id = id
        self._created = created
        self._started = False
        self._model = ""
        self._choices: dict[int, _Said] = {}
        self._usage: Usage | None = None
        self._start = b""
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def write(self, events: list[Event]) -> bytes:
        return b"".join([self._write(event) for event in events])

    def end(self) -> bytes:
        if not self._include_usage or self._usage is None:
            return DONE
        self._begin(Started())
        usage = _encode(usage_document(self._usage))
        return self._start + b'"choices":[],"usage":' + usage + b"}\n\n" + DONE

    def _write(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                if not event.text and not event.logprobs:
                    return b""
                logprobs = {"content": event.logprobs, "refusal": None} if event.logprobs else None
                return self._chunk(event.choice, {"content": event.text}, logprobs)
            case ArgumentsDelta():
                delta = {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
                return self._chunk(event.choice, delta) if event.text else b""
            case ReasoningDelta():
                return self._reason(event)
            case ToolCallStarted():
                return self._call(event)
            case RefusalDelta():
                out = self._chunk(event.choice, {"refusal": event.text}) if event.text else b""
                self._said(event.choice).refused = True
                return out
            case Finished():
                return self._finish(event)
            case Started():
                self._begin(event)
            case Used():
                self._usage = event.usage
        return b""

    def _begin(self, event: Started) -> None:
        """Take the identity of the first start, and the model of every one."""
        if not self._started:
            self._id = event.id or self._id or new_id()
            self._created = event.created or self._created or now_s()
        if self._started and (not event.model or event.model == self._model):
            return
        self._started = True
        self._model = event.model or self._model
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        self._start = b"data: " + _encode(head)[:-1] + b","

    def _said(self, choice: int) -> _Said:
        return self._choices.setdefault(choice, _Said())

    def _chunk(self, choice: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> bytes:
        if choice in self._choices:
            return self._one(choice, delta, logprobs, finish)
        if not self._started:
            self._begin(Started())
        self._choices[choice] = _Said()
        role = {"role": "assistant", "content": "" if "content" in delta else None}
        return self._one(choice, role, None, None) + self._one(choice, delta, logprobs, finish)

    def _one(self, choice: int, delta: dict[str, Any], logprobs: Any, finish: str | None) -> bytes:
        said = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._start + b'"choices":[' + _encode(said) + b"]" + self._end

    def _call(self, event: ToolCallStarted) -> bytes:
        id = event.id or f"call_{self._id}_{event.choice}_{event.index}"
        call = tool_call_document(id, event.name, "", event.signature)
        out = self._chunk(event.choice, {"tool_calls": [{"index": event.index, **call}]})
        self._said(event.choice).tools += 1
        return out

    def _reason(self, event: ReasoningDelta) -> bytes:
        delta: dict[str, Any] = {}
        said = self._choices.get(event.choice) or _Said()
        if event.text:
            delta["reasoning_content"] = event.text
            said.thought_chars += len(event.text)
            if said.thought_chars <= MAX_THOUGHT_CHARS:
                said.thought.append(event.text)
        if event.signature or event.redacted:
            if said.thought_chars <= MAX_THOUGHT_CHARS:
                text = "".join(said.thought)
                delta["reasoning_details"] = details(text, event.signature, event.redacted, event.id, said.details)
                said.details += len(delta["reasoning_details"])
            said.thought, said.thought_chars = [], 0
        if not delta:
            return b""
        out = self._chunk(event.choice, delta)
        self._choices[event.choice] = said
        return out

    def _finish(self, event: Finished) -> bytes:
        said = self._choices.get(event.choice) or _Said()
        if said.finished:
            return b""
        out = self._chunk(event.choice, {}, finish=finish_reason(event, refused=said.refused))
        self._said(event.choice).finished = True
        return out


def write_chat(answer: Answer, *, id: str = "", created: int = 0, model: str = "") -> bytes:
    """A whole answer as a ``chat.completion`` document.

    Args:
        answer: What was said.
        id, created, model: For what the answer does not say itself; made up if empty.
    """
    document: dict[str, Any] = {
        "id": answer.id or id or new_id(),
        "object": "chat.completion",
        "created": answer.created or created or now_s(),
        "model": answer.model or model,
        "choices": [_choice(index, choice) for index, choice in sorted(answer.choices.items())],
    }
    if answer.usage is not None:
        document["usage"] = usage_document(answer.usage)
    return _encode(document)


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": choice.refusal or None}
    if not choice.text and (choice.refusal or choice.tools):
        message["content"] = None
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    found: list[dict[str, Any]] = []
    for block in choice.blocks:
        if isinstance(block, ReasoningBlock) and (block.signature or block.redacted):
            found += details(block.text, block.signature, block.redacted, block.id, len(found))
    if found:
        message["reasoning_details"] = found
    if choice.tools:
        message["tool_calls"] = [_tool_call(tool) for tool in choice.tools]
    logprobs = [entry for block in choice.blocks if isinstance(block, TextBlock) for entry in block.logprobs]
    finished = choice.finished or Finished("stop")
    return {
        "index": index,
        "message": message,
        "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
        "finish_reason": finish_reason(finished, refused=bool(choice.refusal)),
    }


def _tool_call(tool: ToolBlock) -> dict[str, Any]:
    id = tool.id or f"call_{uuid.uuid4().hex}"
    return tool_call_document(id, tool.name, tool.arguments or "{}", tool.signature)


def tool_call_document(id: str, name: str, arguments: str, signature: str = "") -> dict[str, Any]:
    """One of ``tool_calls``."""
    call: dict[str, Any] = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def details(text: str, signature: str, redacted: str, id: str, index: int) -> list[dict[str, Any]]:
    """A block of thought in OpenRouter's form; an encrypted one with a summary is two entries of one id."""
    made: list[dict[str, Any]] = []
    identity = {"id": id} if id else {}
    if redacted:
        if text and id:
            made.append({"type": "reasoning.summary", "summary": text, **identity, "index": index})
        made.append({"type": "reasoning.encrypted", "data": redacted, **identity, "index": index + len(made)})
        return made
    return [{"type": "reasoning.text", "text": text, "signature": signature, **identity, "index": index}]


def finish_reason(event: Finished, *, refused: bool) -> str:
    """OpenAI's word for it."""
    if event.reason == "refusal":
        return "stop" if refused else "content_filter"
    return _FINISH.get(event.reason, "stop")
