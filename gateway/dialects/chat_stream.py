"""Answers of OpenAI's chat completions, streamed or whole: understood without being rebuilt.

An answer passes through as bytes: :class:`ChatStream` finds the events of a read by scanning and decodes only those
that are not plain content (usage, finish reason, error, ``[DONE]``). What plain content looks like is learnt from the
stream itself, see :class:`_Plain`. Its text is understood only where it is kept (``kept``).

Source: OpenAI API reference, "The chat completion object" and "The chat completion chunk object".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field, frozen

from gateway.core.facts import Usage
from gateway.dialects.answer import Answer
from gateway.dialects.chat_reader import FAILURES
from gateway.dialects.chat_usage import usage_of
from gateway.dialects.kept import Kept
from gateway.dialects.provider import BadAnswer
from gateway.dialects.sse import EventSplitter, EventTooLong, encode_event, event_data, split_events

DONE = b"data: [DONE]\n\n"
MAX_PREAMBLE_BYTES = 1_048_576  # what a stream may hold before its first content


def _usage_of(reported: Any) -> Usage | None:
    """What a provider's ``usage`` says; None if that is no usage."""
    return usage_of(reported) if isinstance(reported, dict) and reported else None


# What passes through is only looked at. A field of an unusual type is no reason to lose content, so none is checked.
class _Choice(msgspec.Struct):
    index: Any = 0
    delta: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = ""


class _AnswerChoice(msgspec.Struct):
    finish_reason: Any = None


class _Answer(msgspec.Struct):
    choices: list[_AnswerChoice]
    usage: Any = None


class _Identity(msgspec.Struct):
    id: Any = ""
    created: Any = 0
    model: Any = ""


_identity = msgspec.json.Decoder(_Identity)
_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(_Chunk)
_answer = msgspec.json.Decoder(_Answer)


def _usage_chunk(sample: bytes, usage: Usage) -> dict[str, Any]:
    """The usage event of a stream whose provider sent none; ``estimated`` marks it."""
    try:
        identity = _identity.decode(sample) if sample else _Identity()
    except (msgspec.MsgspecError, RecursionError):
        identity = _Identity()  # of a kind that only passes
    return {
        "id": identity.id,
        "object": "chat.completion.chunk",
        "created": identity.created,
        "model": identity.model,
        "choices": [],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            **({"estimated": True} if usage.estimated else {}),
        },
    }


def read_answer(body: bytes) -> tuple[Usage | None, str]:
    """Usage and finish reason of a whole (non-streamed) answer, which itself passes through as bytes.

    Raises:
        BadAnswer: It is no chat completion, or it failed, or says no reason for its end: as of a stream, nobody knows
            whether that is all of it.
    """
    try:
        answer = _answer.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(str(error)) from None
    if not answer.choices or not all(choice.finish_reason for choice in answer.choices):
        raise BadAnswer("an answer without a finish reason")
    reasons = [str(choice.finish_reason) for choice in answer.choices]
    if not FAILURES.isdisjoint(reasons):
        raise BadAnswer("the provider failed while it answered")
    return _usage_of(answer.usage), reasons[0]


@frozen(slots=True)
class _Plain:
    """What all plain content events of one stream have in common, learnt from its first.

    They differ in the text only: ``start`` is everything up to the delta (id, time, model, choice), ``end`` the empty
    finish reason that closes the only choice. Neither can occur inside a JSON string, where their quotes would be
    escaped. Finish, ``[DONE]``, comments and further choices do not look like that. Where something stands behind the
    choices (some providers put random padding there), it is searched for usage and errors.
    """

    start: bytes
    end: bytes
    joint: bytes  # the end of one event and the start of a plain one behind it
    never: tuple[bytes, ...]  # what must not stand in a plain event

    @classmethod
    def learn(cls, data: bytes) -> _Plain | None:
        """The pattern of a content event's data; None when it is written in a way that cannot be told apart."""
        for delta, unfinished, usage, error in _WAYS_TO_WRITE:
            text = data.find(delta) + len(delta)
            reason = data.find(unfinished, text)
            if text >= len(delta) and reason > 0:
                start = b"data: " + data[:text]
                joint = b"}\n\n" + start
                end = data[reason : data.index(b"]", reason) + 1]
                if len(data) == reason + len(end) + 1:  # nothing stands behind the choices
                    return cls(start, end + b"}\n\n", joint, ())
                return cls(start, end, joint, (usage, error))
        return None

    def run(self, block: bytes) -> tuple[int, int]:
        """How far ``block`` begins with plain events: ``(bytes, events)``. A few scans at C speed, however many.

        Each start but the first follows the end of an event, each event has one end of its only choice, and there are
        no line feeds but theirs: so there is nothing else in between.
        """
        if not block.startswith(self.start):
            return 0, 0
        size = block.index(b"\n\n", block.rfind(self.start)) + 2
        events = block.count(self.joint, 0, size) + 1
        plain = (
            block.count(self.end, 0, size) == events
            and block.count(b"\n", 0, size) == 2 * events
            and block.endswith(b"}\n\n", 0, size)
            and not (self.never and any(block.find(part, 0, size) >= 0 for part in self.never))
        )
        return (size, events) if plain else (0, 0)


_WAYS_TO_WRITE = (
    (b'"delta":{"', b'"finish_reason":null', b'"usage":{', b'"error":{'),
    (b'"delta": {"', b'"finish_reason": null', b'"usage": {', b'"error": {'),
)


@define(slots=True)
class ChatStream:
    """One provider stream, read by read: what to pass on, and what was noticed.

    Attributes:
        want_usage: The client asked for the usage chunk; otherwise it is taken out of the stream.
        choices: How many answers were asked for (``n``); each has a finish reason of its own.
        kept: Where the answer is kept for :meth:`so_far`, if it is.
        committed: Content was seen. Until then nothing is given out, so that a failure can still change the status.
        events: Events with a delta that were given out, from the first content on; about one per token.
        finish_reason: "" until one was seen.
        usage: As the provider reported it.
        done: ``[DONE]`` was seen.
        error: The provider's error event, if it sent one.
        malformed: Events that were left out because they are not JSON.
    """

    want_usage: bool
    choices: int = 1
    kept: Kept | None = None
    committed: bool = False
    catching_up: bool = False
    repeated: int = 0
    events: int = 0
    finish_reason: str = ""
    usage: Usage | None = None
    done: bool = False
    error: Any = None
    malformed: int = 0
    _splitter: EventSplitter = field(factory=EventSplitter)
    _held: bytes = b""
    _given: bool = False
    _ended: bool = False  # the client has its [DONE]
    _finished: set[int] = field(factory=set)
    _pattern: _Plain | None = None
    _id_chunk: bytes = b""  # an event of the stream: id, time and model are the same in all

    def feed(self, data: bytes) -> bytes:
        """Take one network read, give back what the client shall get: whole events, b"" if none.

        Raises:
            EventTooLong: Garbage without end.
        """
        block = self._splitter.feed(data)
        if not block or self.done or self.error is not None:
            return b""
        if not self.committed:
            end = self._hold(block)
            if end < 0:
                return b""
            block = block[end:]
        block = self._pass(block)
        if not self._given:
            self._held += block
            return b""
        if self.kept is not None:
            self.kept.add(block)
        return block

    def first(self) -> bytes:
        """What was held back up to the commit point, and with it."""
        held, self._held, self._given = self._held, b"", True
        if self.kept is not None:
            self.kept.add(held)
        return held

    def eof(self) -> None:
        """Nothing is held back here."""

    def end(self, usage: Usage | None) -> bytes:
        """What the provider left out: the usage, if the client wanted it, and ``[DONE]``."""
        if self._ended:
            return b""
        self._ended = True
        if self.want_usage and self.usage is None and usage is not None:
            return encode_event(_encode(_usage_chunk(self._id_chunk, usage))) + DONE
        return DONE

    def so_far(self) -> Answer | None:
        """What the client has, put together; None if it was not kept or is too long."""
        return self.kept.answer() if self.kept is not None else None

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: said so, or every choice has its finish reason (some send no ``[DONE]``)."""
        return self.done or len(self._finished) >= self.choices

    @property
    def complete(self) -> bool:
        """Whether all is here but perhaps ``[DONE]``, which is not worth waiting for."""
        return self.done or (self.usage is not None and self.finished)

    @property
    def asked(self) -> Usage | None:
        """Nothing: of the prompt this dialect tells with the rest."""
        return None

    @property
    def billed(self) -> Usage | None:
        """The provider's own count."""
        return self.usage

    def _hold(self, block: bytes) -> int:
        """Hold the preamble back, up to and with the first event with content.

        Returns:
            How many bytes that took; -1 when there is no content yet.

        Raises:
            EventTooLong: None within :data:`MAX_PREAMBLE_BYTES`.
        """
        end, pieces = 0, [self._held]
        while end < len(block) and not (self.committed or self.done or self.error is not None):
            start, end = end, block.index(b"\n\n", end) + 2
            pieces.append(self._sift(block[start:end]))
        self._held = b"".join(pieces)
        if len(self._held) > MAX_PREAMBLE_BYTES and not self.committed:
            raise EventTooLong(f"no content within {MAX_PREAMBLE_BYTES} bytes of the stream")
        return end if self.committed else -1

    def _pass(self, block: bytes) -> bytes:
        """Let plain events through unseen; look at the others, which as a rule are the last."""
        if self.done or not block:
            return b""
        pattern = self._pattern
        if pattern is None:
            return self._sift(block)
        end, events = pattern.run(block)
        self.events += events
        return block if end == len(block) else block[:end] + self._sift(block[end:])

    def _sift(self, block: bytes) -> bytes:
        """Decode the events of a block one by one; leave out what is not for the client."""
        kept = []
        for event in split_events(block):
            data = event_data(event)
            if data is None:
                kept.append(event)  # a comment keeps the connection alive; it is the client's, too
                continue
            if data == b"[DONE]":
                self.done = True
                if not self.want_usage or self.usage is not None:
                    self._ended = True  # otherwise :meth:`end` has something to say before it
                    kept.append(event)
                break
            if self._notice(data):
                kept.append(event)
            if self.error is not None:
                break
        kept.append(b"")
        return b"\n\n".join(kept)

    def _notice(self, data: bytes) -> bool:
        """Decode one event; say whether the client gets it."""
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed += 1
            return False
        if chunk.error is not None or chunk.object == "error":  # older vLLM
            self.error = chunk.error or chunk.object
            return False
        content = spoken = False
        for choice in chunk.choices or ():
            if choice.finish_reason:
                if str(choice.finish_reason) in FAILURES:
                    self.error = choice.finish_reason
                    return False
                self.finish_reason = str(choice.finish_reason)
                self._finished.add(choice.index if isinstance(choice.index, int) else 0)
                content = True
            if choice.delta and isinstance(choice.delta, dict):
                spoken = True
                content = content or any(value for name, value in choice.delta.items() if name != "role")
        self.committed = self.committed or content
        self.events += spoken and self.committed
        if content and self._pattern is None and chunk.usage is None and not self.finish_reason:
            self._pattern = _Plain.learn(data)
        if self.want_usage and not self._id_chunk:
            self._id_chunk = data
        if chunk.usage is not None:
            self.usage = _usage_of(chunk.usage)
            return bool(self.want_usage or chunk.choices)
        return True
