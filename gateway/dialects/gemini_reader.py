"""What Gemini answers, read into events: streams of ``GenerateContentResponse`` and whole ones.

A stream is server-sent events, each a response with the parts that are new. Nothing marks its end: an answer is whole
once each candidate has its ``finishReason``, so :attr:`GeminiReader.done` stays False and the connection is read on for
as long as the gateway waits for what may follow. The usage so far stands in most events; the last one counts.

=================================================  ===================================================================
part, field                                        event
=================================================  ===================================================================
``text``                                           ``TextDelta``
``text`` with ``thought: true``                    ``ReasoningDelta``
``thoughtSignature`` of a text                     a ``ReasoningDelta`` of its own, behind the text; marked as Google's
                                                   (``signatures``), as that of a thought
``functionCall``, with its ``thoughtSignature``    ``ToolCallStarted`` and all arguments at once; a call without an id
                                                   gets one from the response's id and its place
``promptFeedback.blockReason``                     ``Finished``, ``content_filter``
``finishReason`` STOP                              ``stop``; ``tool_calls`` if the candidate called any
MAX_TOKENS                                         ``length``
CONTINUATION                                       ``pause``
SAFETY and the other filters (:data:`FILTERED`)    ``content_filter``
any other (MALFORMED_FUNCTION_CALL, OTHER …)       ``Failed``: the model broke off, and no client is to take that for an
                                                   answer; another target may do better
``error``                                          ``Failed``
=================================================  ===================================================================

Left out, because no other dialect has it: ``inlineData`` (images, sound), ``executableCode``,
``codeExecutionResult``, ``toolCall``, ``toolResponse``, ``groundingMetadata``, ``citationMetadata``,
``safetyRatings``, ``urlContextMetadata``, ``finishMessage``. Between a client and a provider of this dialect all of it
passes, as bytes.

Source: Gemini API reference, "Generating content"; guides "Function calling", "Thought signatures".
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define

from gateway.core.facts import Usage
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
from gateway.dialects.gemini_tokens import logprobs_of, usage_of
from gateway.dialects.provider import BadAnswer
from gateway.dialects.signatures import mark_googles
from gateway.dialects.sse import EventSplitter, event_data, split_events

FILTERED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
    }
)
_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "pause",
    **dict.fromkeys(FILTERED, "content_filter"),
}
_UNSAID = frozenset({"", "FINISH_REASON_UNSPECIFIED"})
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@define(slots=True)
class _Candidate:
    """What is known of one candidate."""

    calls: int = 0
    finished: bool = False


class GeminiReader:
    """One answer. See :class:`gateway.dialects.provider.Reader`."""

    def __init__(self) -> None:
        self.done = False
        self.malformed = 0
        self.asked: Usage | None = None
        self._splitter = EventSplitter()
        self._candidates: dict[int, _Candidate] = {}
        self._id = ""
        self._model = ""
        self._failed = False

    def feed(self, data: bytes) -> list[Event]:
        made: list[Event] = []
        for event in split_events(self._splitter.feed(data)):
            self._read(event, made)
        return made

    def end(self) -> list[Event]:
        made: list[Event] = []
        rest = self._splitter.rest.strip(b"\n")  # the last event may lack its blank line
        if rest and isinstance(_json(_data(rest)), dict):
            self._read(rest, made)
        return made

    def whole(self, body: bytes) -> list[Event]:
        """The events of a whole ``GenerateContentResponse``. Raises ``BadAnswer``."""
        document = _json(body)
        if not isinstance(document, dict):
            raise BadAnswer("the answer is no JSON object")
        made: list[Event] = []
        self._take(document, made)
        failed = next((event for event in made if isinstance(event, Failed)), None)
        if failed is not None:
            raise BadAnswer(f"the provider failed: {failed.code}")
        if not self._candidates:
            raise BadAnswer("an answer has a candidate, or says why it has none")
        return made

    def _read(self, event: bytes, made: list[Event]) -> None:
        data = _data(event)
        if data is None or self._failed:
            return
        document = _json(data)
        if isinstance(document, dict):
            self._take(document, made)
        else:
            self.malformed += 1

    def _take(self, response: dict[str, Any], made: list[Event]) -> None:
        error = response.get("error")
        if error:
            self._fail(_failure(error), made)
            return
        self._start(response, made)
        candidates = response.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict) and not self._failed:
                self._take_candidate(candidate, made)
        feedback = response.get("promptFeedback")
        reason = _str(feedback, "blockReason") if isinstance(feedback, dict) else ""
        if reason and not self._candidates:
            self._candidates[0] = _Candidate(finished=True)
            made.append(Finished("content_filter", reason))
        usage = response.get("usageMetadata")
        counted = usage_of(usage) if isinstance(usage, dict) and not self._failed else None
        if counted is not None:
            made.append(Used(counted))

    def _start(self, response: dict[str, Any], made: list[Event]) -> None:
        id, model = _str(response, "responseId"), _str(response, "modelVersion")
        if (id and not self._id) or (model and not self._model):
            self._id, self._model = self._id or id, self._model or model
            made.append(Started(self._id, self._model))

    def _take_candidate(self, candidate: dict[str, Any], made: list[Event]) -> None:
        number = candidate.get("index")
        index = number if type(number) is int else 0
        state = self._candidates.get(index)
        if state is None:
            state = self._candidates[index] = _Candidate()
        logprobs = logprobs_of(candidate.get("logprobsResult"))
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                logprobs = self._take_part(part, index, state, logprobs, made)
        if logprobs:
            made.append(TextDelta("", index, logprobs))
        raw = _str(candidate, "finishReason")
        if raw not in _UNSAID and not state.finished:
            self._finish(raw, index, state, made)

    def _take_part(
        self, part: dict[str, Any], index: int, state: _Candidate, logprobs: list[Any], made: list[Event]
    ) -> list[Any]:
        """One part; gives back the log probabilities that still belong to no text."""
        call, signature = part.get("functionCall"), _str(part, "thoughtSignature")
        if isinstance(call, dict):
            self._call(call, signature, index, state, made)
            return logprobs
        text = _str(part, "text")
        if part.get("thought") is True:
            if text or signature:
                made.append(ReasoningDelta(text, mark_googles(signature), choice=index))
            return logprobs
        if text:
            made.append(TextDelta(text, index, logprobs or None))
            logprobs = []
        if signature:
            made.append(ReasoningDelta("", mark_googles(signature), choice=index))
        return logprobs

    def _call(self, call: dict[str, Any], signature: str, index: int, state: _Candidate, made: list[Event]) -> None:
        place, state.calls = state.calls, state.calls + 1
        id = _str(call, "id") or (f"call_{self._id}_{index}_{place}" if self._id else "")
        made.append(ToolCallStarted(place, id, _str(call, "name"), index, signature))
        made.append(ArgumentsDelta(place, _encode(call.get("args") or {}).decode(), index))

    def _finish(self, raw: str, index: int, state: _Candidate, made: list[Event]) -> None:
        reason = _FINISH.get(raw)
        if reason is None:
            self._fail(Failed(raw.lower()), made)
            return
        if reason == "stop" and state.calls:
            reason = "tool_calls"
        state.finished = True
        made.append(Finished(reason, raw, choice=index))

    def _fail(self, failed: Failed, made: list[Event]) -> None:
        self._failed = True
        made.append(failed)


def _failure(error: Any) -> Failed:
    if not isinstance(error, dict):
        return Failed("error", str(error))
    code = error.get("status") or error.get("code") or "error"
    return Failed(str(code).lower(), str(error.get("message") or ""))


def _data(event: bytes) -> bytes | None:
    """An event's data; errors have been seen to come as bare JSON between the events."""
    data = event_data(event)
    return event if data is None and event.lstrip().startswith(b"{") else data


def _json(data: bytes | None) -> Any:
    try:
        return _decode(data) if data is not None else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _str(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""
