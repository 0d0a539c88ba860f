"""Our own dialect, ``POST /v1/orchestrate``: the fan-out told as it happens.

Request: ``{"assistant": name, "input": text | "messages": [...], "user": id, "conversation": id, "stream": bool}``.

With ``stream`` the answer is server-sent events, each with an ``id:`` that counts from 1:

======================  ================================================================
``context.started``     ``loader, kind``
``context.loaded``      ``loader, kind, ms, chars, items: [{source, chars}]``
``context.failed``      ``loader, kind, ms, reason`` (also when its time ran out)
``context.skipped``     ``loader, kind, reason``
``model.started``       ``target, model, attempt``
``text.delta``          ``text``
``tool.called``         ``id, name, arguments`` once its arguments are whole
``usage``               ``prompt_tokens, completion_tokens, total_tokens, estimated, cost_usd``
``done``                ``finish_reason, ttft_ms, total_ms, request_id``: the answer is whole
``error``               ``code, message, retry_after_s``: it is not; nothing follows
======================  ================================================================

Without it: one document with the answer, its sources, the loaders' times and the usage.

Limits: ``cost_usd`` is null for models whose price is not known. ``assistant`` is at most 256 characters
long, ``conversation`` 200.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import orjson

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record, Usage
from gateway.dialects import pairing
from gateway.dialects.answer import Answer, ToolBlock
from gateway.dialects.events import (
    ArgumentsDelta,
    Event,
    RefusalDelta,
    TextDelta,
    ToolCallStarted,
)
from gateway.dialects.json_limits import check_structure
from gateway.dialects.openai_chat import (
    ChatRequest,
    error_document,
    not_json,
    parse_request,
    wrong_field,
)
from gateway.dialects.provider import ProviderDialect
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Request, Whole

_OWN_FIELDS = frozenset({"assistant", "input", "messages", "user", "conversation", "stream"})
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class _Request(msgspec.Struct):
    assistant: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    input: str | None = None
    user: str | None = None
    conversation: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    stream: bool | None = None


_request = msgspec.json.Decoder(_Request)


class OrchestrateVoice:
    """One orchestration: numbers its events and keeps what the closing document needs."""

    dialect = "sluice"
    speaks_early = True

    def __init__(self) -> None:
        self._count = 0
        self._loaders: dict[str, LoaderNews] = {}  # in the order in which they started, not ended
        self.conversation: str | None = None

    def parse(self, body: bytes) -> ChatRequest:
        """Translate into a chat request for the assistant; fields that are not ours go to the provider.

        Raises:
            RequestError: 400 that names the field.
        """
        check_structure(body)
        try:
            own = _request.decode(body)
            fields = _fields.decode(body)
        except msgspec.ValidationError as error:
            raise wrong_field(error) from None
        except (ValueError, RecursionError) as error:
            raise not_json(body, error) from None
        if (own.input is None) == ("messages" not in fields):
            raise RequestError(
                "invalid_request", 400, "give either 'input' (a text) or 'messages' (a list), not both", param="input"
            )
        self.conversation = own.conversation
        chat: dict[str, Any] = {name: raw for name, raw in fields.items() if name not in _OWN_FIELDS}
        chat["model"] = own.assistant
        chat["messages"] = fields.get("messages", [{"role": "user", "content": own.input}])
        chat["stream"] = bool(own.stream)
        if own.user is not None:
            chat["user"] = own.user
        if own.stream:
            chat["stream_options"] = {"include_usage": True}
        return parse_request(_encode(chat))

    def context(self, news: LoaderNews) -> bytes:
        about: dict[str, Any] = {"loader": news.loader, "kind": news.kind}
        self._loaders[news.loader] = news
        if not news.outcome:
            return self._event("context.started", about)
        match news.outcome:
            case "loaded" | "empty":
                items = [{"source": item.source, "chars": len(item.text)} for item in news.items]
                return self._event("context.loaded", {**about, "ms": news.ms, "chars": news.chars, "items": items})
            case "skipped":
                return self._event("context.skipped", {**about, "reason": news.reason})
            case _:
                return self._event("context.failed", {**about, "ms": news.ms, "reason": news.reason})

    def begins(self, record: Record) -> bytes:
        return self._event(
            "model.started", {"target": record.target, "model": record.model, "attempt": len(record.attempts)}
        )

    def prepare(self, request: Request, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        return pairing.prepare(self, request, dialect, model, keep=keep)

    def read_whole(self, request: Request, dialect: ProviderDialect, body: bytes) -> Whole:
        return pairing.read_whole(self, request, dialect, body)

    def writer(self, request: Request) -> OrchestrateWriter:
        return OrchestrateWriter(self._event)

    def ends(self, record: Record) -> bytes:
        usage = [self._event("usage", _usage(record.usage, record))] if record.usage else []
        done = self._event(
            "done",
            {
                "finish_reason": record.finish_reason,
                "ttft_ms": round(record.ttft_s * 1000, 1),
                "total_ms": round((record.ended_at - record.received_at) * 1000, 1),
                "request_id": record.request_id,
            },
        )
        return b"".join([*usage, done])

    def breaks(self, error: GatewayError) -> bytes:
        about: dict[str, Any] = {"code": error.code, "message": error.public_message}
        if error.retry_after_s is not None:
            about["retry_after_s"] = round(error.retry_after_s, 3)
        return self._event("error", about)

    def write_whole(self, answer: Answer, request: Request) -> bytes:
        """The answer's own part; :meth:`whole` adds what the record knows."""
        first = answer.first
        return orjson.dumps(
            {
                "output": first.text or first.refusal,
                "tool_calls": [{"id": tool.id, "name": tool.name, "arguments": tool.arguments} for tool in first.tools],
            }
        )

    def whole(self, body: bytes, record: Record) -> bytes:
        return orjson.dumps(
            {
                "object": "orchestration",
                "request_id": record.request_id,
                "assistant": record.assistant or record.model,
                "target": record.target,
                **orjson.loads(body),
                "finish_reason": record.finish_reason,
                "sources": [
                    {"loader": news.loader, "source": item.source}
                    for news in self._loaders.values()
                    for item in news.items
                ],
                "context": [
                    {"loader": n.loader, "kind": n.kind, "outcome": n.outcome, "ms": n.ms, "reason": n.reason}
                    for n in self._loaders.values()
                ],
                "usage": _usage(record.usage, record) if record.usage else None,
                "queue_ms": round(record.queue_s * 1000, 1),
                "context_ms": round(record.context_s * 1000, 1),
                "total_ms": round((record.ended_at - record.received_at) * 1000, 1),
            }
        )

    def error(self, error: GatewayError) -> dict[str, Any]:
        document = error_document(error)
        if error.param == "model":
            document["error"]["param"] = "assistant"  # which is the field that this client wrote
        return document

    def _event(self, name: str, about: dict[str, Any]) -> bytes:
        self._count += 1
        return encode_event(orjson.dumps(about), event=name.encode(), id=b"%d" % self._count)


class OrchestrateWriter:
    """Text as it comes; tool calls when their arguments are whole.

    Args:
        event: Makes one numbered event of a name and its data.
    """

    def __init__(self, event: Callable[[str, dict[str, Any]], bytes]) -> None:
        self._event = event
        self._tools: dict[int, ToolBlock] = {}

    def write(self, events: list[Event]) -> bytes:
        text = []
        for event in events:
            match event:
                case TextDelta(choice=0) | RefusalDelta(choice=0):
                    text.append(event.text)
                case ToolCallStarted(choice=0):
                    self._tools[event.index] = ToolBlock(event.index, event.id, event.name)
                case ArgumentsDelta(choice=0) if event.index in self._tools:
                    self._tools[event.index].pieces.append(event.text)
                case _:
                    pass
        return self._event("text.delta", {"text": "".join(text)}) if any(text) else b""

    def end(self) -> bytes:
        return b"".join(
            self._event("tool.called", {"id": tool.id, "name": tool.name, "arguments": tool.arguments})
            for tool in self._tools.values()
        )


def _usage(usage: Usage, record: Record) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "estimated": usage.estimated,
        "cost_usd": record.cost_usd or None,
    }
