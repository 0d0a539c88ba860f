"""The bytes of OpenAI's responses: the document, and the numbered events from ``response.created`` on.

An answer is a list of output items: reasoning (a summary), then a message, or function calls. The last event says both
how the response ended and that nothing follows, so it is the end mark.

Source: OpenAI API reference, "Responses" and "Streaming events"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, ClassVar

import orjson
from attrs import field, frozen

from gateway.sim.answers import Answer
from gateway.sim.errors import RESPONSES, ApiError
from gateway.sim.request import ChatRequest
from gateway.sim.wire import EVENT_STREAM

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@frozen(kw_only=True, slots=True)
class Response:
    """One answer; a :class:`~gateway.sim.telling.Telling`. Told as a stream once: its events are numbered."""

    request: ChatRequest
    answer: Answer
    id: str
    created_s: int
    tells_usage: bool = True
    _number: count[int] = field(factory=count, init=False, eq=False, repr=False)
    choices: ClassVar[int] = 1
    content_type: ClassVar[str] = EVENT_STREAM
    ping: ClassVar[bytes] = RESPONSES.ping

    @property
    def stream(self) -> bool:
        return self.request.stream

    @property
    def tokens(self) -> int:
        return self.answer.tokens

    @property
    def each(self) -> int:
        return self.answer.tokens

    def document(self) -> bytes:
        return orjson.dumps(self._ended())

    def opening(self) -> bytes:
        begun = self._response("in_progress", [])
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def events(self) -> Iterator[tuple[bytes, int]]:
        for index, (item, pieces) in enumerate(self._items()):
            kind = item["type"]
            place = {"item_id": item["id"], "output_index": index}
            if kind == "function_call":
                yield from self._call(item, pieces, place)
            elif kind == "reasoning":
                yield from self._reasoning(item, pieces, place)
            else:
                yield from self._message(item, pieces, place)
            yield self._event("response.output_item.done", output_index=index, item=item), 0

    def finish(self) -> bytes:
        return b""

    def end_mark(self) -> bytes:
        ended = self._ended()
        return self._event(f"response.{ended['status']}", response=ended)

    def failure(self, error: ApiError) -> bytes:
        """Before anything else ``error``, later ``response.failed``: clients have to know both."""
        if next(self._number) == 0:
            return self._event("error", code=error.code, message=error.message, param=None)
        failed = self._response("failed", []) | {"error": {"code": "server_error", "message": error.message}}
        return self._event("response.failed", response=failed)

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = orjson.dumps({"type": kind, "sequence_number": next(self._number), **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), document)

    def _message(self, item: Any, pieces: Sequence[str], place: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
        index, part = place["output_index"], item["content"][0]
        started = item | {"status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=index, item=started), 0
        place = place | {"content_index": 0}
        yield self._event("response.content_part.added", **place, part=part | {"text": ""}), 0
        for piece in pieces:
            yield self._event("response.output_text.delta", **place, delta=piece, logprobs=[]), 1
        yield self._event("response.output_text.done", **place, text=part["text"], logprobs=[]), 0
        yield self._event("response.content_part.done", **place, part=part), 0

    def _reasoning(self, item: Any, pieces: Sequence[str], place: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
        index, part = place["output_index"], item["summary"][0]
        yield self._event("response.output_item.added", output_index=index, item=item | {"summary": []}), 0
        place = place | {"summary_index": 0}
        yield self._event("response.reasoning_summary_part.added", **place, part=part | {"text": ""}), 0
        for piece in pieces:
            yield self._event("response.reasoning_summary_text.delta", **place, delta=piece), 1
        yield self._event("response.reasoning_summary_text.done", **place, text=part["text"]), 0
        yield self._event("response.reasoning_summary_part.done", **place, part=part), 0

    def _call(self, item: Any, pieces: Sequence[str], place: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
        started = item | {"status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", output_index=place["output_index"], item=started), 0
        for piece in pieces:
            yield self._event("response.function_call_arguments.delta", **place, delta=piece), 1
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield self._event("response.function_call_arguments.done", **place, **done), 0

    def _items(self) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
        """The output items as they are in the end, with the pieces they are told in."""
        said = self.answer
        if said.thoughts:
            summary = [{"type": "summary_text", "text": "".join(said.thoughts)}]
            yield {"id": f"rs_{self.id}", "type": "reasoning", "summary": summary}, said.thoughts
        if said.pieces or not said.calls:
            text = {"type": "output_text", "text": "".join(said.pieces), "annotations": [], "logprobs": []}
            status = "completed" if said.finish in ("stop", "tool_calls") else "incomplete"
            named = {"id": f"msg_{self.id}", "type": "message", "status": status, "role": "assistant"}
            yield named | {"content": [text]}, said.pieces
        for position, call in enumerate(said.calls):
            ids = {"id": f"fc_{self.id}{position:02x}", "call_id": f"call_{self.id[:20]}{position:02x}"}
            made = {"name": call.name, "arguments": "".join(call.pieces), "status": "completed"}
            yield {**ids, "type": "function_call", **made}, call.pieces

    def _ended(self) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self.answer.finish or "")
        output = [item for item, _ in self._items()]
        status = "in_progress" if self.answer.finish is None else "incomplete" if reason else "completed"
        ended = self._response(status, output)
        if reason:
            ended["incomplete_details"] = {"reason": reason}
        if self.tells_usage:
            ended["usage"] = {
                "input_tokens": self.answer.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": self.tokens,
                "output_tokens_details": {"reasoning_tokens": len(self.answer.thoughts)},
                "total_tokens": self.answer.prompt_tokens + self.tokens,
            }
        return ended

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        body = self.request.body
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.created_s,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": self.request.max_tokens,
            "model": self.request.model,
            "output": output,
            "parallel_tool_calls": self.request.parallel_tools,
            "previous_response_id": None,
            "store": body.get("store", True),
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "truncation": "disabled",
            "usage": None,
            "metadata": body.get("metadata") or {},
        }
