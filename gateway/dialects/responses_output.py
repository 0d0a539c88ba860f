"""The output items of a streamed response, each on its way from ``added`` to ``done``.

::

    message     item.added  (content_part.added  output_text.delta …  output_text.done  content_part.done) …  item.done
    reasoning   item.added  (summary_part.added  summary_text.delta …  summary_text.done  summary_part.done)  item.done
    call        item.added  arguments.delta …  arguments.done  item.done

Each is open for as long as it may grow. Messages and reasoning end when something else begins; several calls may be
open at a time, because providers mix their arguments.

Source: OpenAI API reference, "Streaming events"; the types of OpenAI's Python client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from gateway.dialects.events import ToolCallStarted
from gateway.dialects.responses_document import logprob_documents

ItemStatus = Literal["completed", "incomplete"]
Emit = Callable[..., bytes]  # kind, fields
Number = Callable[[], int]

_encode = msgspec.json.Encoder().encode


class _Item:
    """What all have in common.

    Args:
        id: The item's.
        index: Its place in the output.
        emit: Makes an event.
    """

    def __init__(self, id: str, index: int, emit: Emit) -> None:
        self.id = id
        self.index = index
        self._emit = emit

    def document(self, status: str) -> dict[str, Any]:
        raise NotImplementedError

    def start(self) -> bytes:
        item = self.document("in_progress")
        return self._emit("response.output_item.added", output_index=self.index, item=item)

    def _done(self, status: ItemStatus) -> bytes:
        return self._emit("response.output_item.done", output_index=self.index, item=self.document(status))

    def _tell(self, kind: str, **fields: Any) -> bytes:
        return self._emit(kind, item_id=self.id, output_index=self.index, **fields)


class MessageItem(_Item):
    """Text and refusals, part by part.

    Args:
        number: Gives the next sequence number, for the events that are made often.
    """

    def __init__(self, id: str, index: int, emit: Emit, number: Number) -> None:
        super().__init__(id, index, emit)
        self._number = number
        self._parts: list[dict[str, Any]] = []
        self._open = ""  # output_text | refusal, "" between parts
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._delta = b""  # a text delta's beginning
        self.refused = False

    def document(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": self._parts,
        }

    def text(self, text: str, logprobs: Any = None) -> list[bytes]:
        out = [] if self._open == "output_text" else self._begin("output_text")
        self._pieces.append(text)
        found = b"[]"
        if logprobs:
            documents = logprob_documents(logprobs)
            self._logprobs += documents
            found = _encode(documents)
        out.append(
            b'%s%s,"logprobs":%s,"sequence_number":%d}\n\n' % (self._delta, _encode(text), found, self._number())
        )
        return out

    def refuse(self, text: str) -> list[bytes]:
        self.refused = True
        out = [] if self._open == "refusal" else self._begin("refusal")
        self._pieces.append(text)
        out.append(self._tell("response.refusal.delta", content_index=len(self._parts), delta=text))
        return out

    def close(self, status: ItemStatus) -> list[bytes]:
        return [*self._end(), self._done(status)]

    def _begin(self, kind: str) -> list[bytes]:
        out = self._end()
        self._open = kind
        place = len(self._parts)
        out.append(self._tell("response.content_part.added", content_index=place, part=self._part()))
        self._delta = (
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":%s,'
            b'"output_index":%d,"content_index":%d,"delta":' % (_encode(self.id), self.index, place)
        )
        return out

    def _part(self) -> dict[str, Any]:
        text = "".join(self._pieces)
        if self._open == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs}

    def _end(self) -> list[bytes]:
        if not self._open:
            return []
        place, part = len(self._parts), self._part()
        if self._open == "refusal":
            done = self._tell("response.refusal.done", content_index=place, refusal=part["refusal"])
        else:
            done = self._tell(
                "response.output_text.done", content_index=place, text=part["text"], logprobs=self._logprobs
            )
        out = [done, self._tell("response.content_part.done", content_index=place, part=part)]
        self._parts = [*self._parts, part]
        self._open, self._pieces, self._logprobs = "", [], []
        return out


class ReasoningItem(_Item):
    """Thoughts, as one part of a summary.

    Attributes:
        source: The provider's id of the thought, "" if it has none.
    """

    def __init__(self, id: str, index: int, emit: Emit, *, source: str = "", encrypted: str = "") -> None:
        super().__init__(id, index, emit)
        self.source = source
        self._encrypted = encrypted
        self._pieces: list[str] = []
        self._ended = False

    def document(self, status: str) -> dict[str, Any]:
        text = "".join(self._pieces)
        summary = [{"type": "summary_text", "text": text}] if text and self._ended else []
        item: dict[str, Any] = {"id": self.id, "type": "reasoning", "summary": summary}
        if self._encrypted:
            item["encrypted_content"] = self._encrypted
        return item

    def text(self, text: str) -> list[bytes]:
        out = []
        if not self._pieces:
            part = {"type": "summary_text", "text": ""}
            out.append(self._tell("response.reasoning_summary_part.added", summary_index=0, part=part))
        self._pieces.append(text)
        out.append(self._tell("response.reasoning_summary_text.delta", summary_index=0, delta=text))
        return out

    def close(self, status: ItemStatus, *, encrypted: str = "") -> list[bytes]:
        self._encrypted = encrypted or self._encrypted
        out = []
        if self._pieces:
            text = "".join(self._pieces)
            out.append(self._tell("response.reasoning_summary_text.done", summary_index=0, text=text))
            part = {"type": "summary_text", "text": text}
            out.append(self._tell("response.reasoning_summary_part.done", summary_index=0, part=part))
        self._ended = True
        return [*out, self._done(status)]


class CallItem(_Item):
    """A function call."""

    def __init__(self, id: str, index: int, emit: Emit, call: ToolCallStarted) -> None:
        super().__init__(id, index, emit)
        self._call = call
        self._call_id = call.id or f"call_{id}"
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    def document(self, status: str) -> dict[str, Any]:
        arguments = self.arguments if status == "in_progress" else self._whole()
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._call.name,
            "arguments": arguments,
        }

    def add(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._tell("response.function_call_arguments.delta", delta=text)

    def close(self, status: ItemStatus) -> list[bytes]:
        done = self._tell("response.function_call_arguments.done", name=self._call.name, arguments=self._whole())
        return [done, self._done(status)]

    def _whole(self) -> str:
        return self.arguments or "{}"
