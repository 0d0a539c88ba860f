"""The legacy ``POST /v1/completions``: a prompt instead of messages; asked as a chat with one user message.

Every provider is asked in its chat dialect, also one that still has completions of its own: models that only complete
are few, and one way is one way to fail. The text of the answer is what a chat model says to the prompt.

What this dialect has and a chat has not:

=======================================  =======================================================================
``prompt``: several, tokens, or nothing  refused, 400: one text is one question
``suffix``                               refused, 400: filling in the middle has no counterpart
``best_of`` above ``n``                  refused, 400
``echo`` with ``logprobs``               refused, 400: nobody tells a prompt's log probabilities
``echo``                                 the gateway puts the prompt before the answer
``logprobs``: a number                   ``logprobs`` and ``top_logprobs``; answered in the old form
``max_tokens`` that is not given         the provider's default, not the 16 of old
thoughts, tool calls of the answer       left out
a refusal                                its words are the text
=======================================  =======================================================================

Source: OpenAI API reference, "Create completion (legacy)".
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
import orjson
from attrs import evolve, frozen

from gateway.core.ask import LoaderNews
from gateway.core.errors import GatewayError, RequestError
from gateway.core.facts import Record, Usage
from gateway.dialects import pairing
from gateway.dialects.answer import Answer, RefusalBlock, TextBlock
from gateway.dialects.call import Call
from gateway.dialects.chat_call import chat_call
from gateway.dialects.chat_usage import usage_document
from gateway.dialects.chat_writer import DONE, finish_reason, now_s
from gateway.dialects.events import Event, Finished, RefusalDelta, Started, TextDelta, Used
from gateway.dialects.json_limits import check_structure, count_in
from gateway.dialects.openai_chat import error_document, not_json, wrong_field
from gateway.dialects.provider import ProviderDialect, Quirks
from gateway.dialects.sse import encode_event
from gateway.dialects.voice import Asking, Whole, cost_comment

MAX_N = 128
MAX_LOGPROBS = 20
_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Head(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] | None = None
    max_tokens: _Count | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    user: str | None = None


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Top):
    top_logprobs: list[_Top] | None = None


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_OWN = frozenset({"prompt", "best_of", "echo", "suffix", "logprobs"})


@frozen(kw_only=True, slots=True)
class CompletionRequest:
    """One client request; see :class:`gateway.dialects.voice.Request`.

    Attributes:
        n: Answers wanted.
        last_user_text: The prompt.
        chat: The same request as the fields of a chat request.
        asked: Its messages; the last is the prompt.
        echo: What to put before the answer.
    """

    model: str
    stream: bool
    include_usage: bool
    n: int
    user: str | None
    last_user_text: str
    chat: dict[str, msgspec.Raw]
    asked: list[dict[str, Any]]
    echo: str = ""

    @property
    def max_tokens(self) -> int:
        return self.n * count_in(self.chat, "max_completion_tokens", "max_tokens")

    def messages(self) -> list[dict[str, Any]]:
        return list(self.asked)

    def with_messages(self, messages: list[dict[str, Any]]) -> CompletionRequest:
        return evolve(self, asked=messages)

    def call(self) -> Call:
        return chat_call(self._document())

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        return _encode({**self._document(), "model": model})

    def _document(self) -> dict[str, msgspec.Raw]:
        return {**self.chat, "messages": msgspec.Raw(_encode(self.asked))}


def parse_completion(body: bytes) -> CompletionRequest:
    """Decode and check a client's request.

    Raises:
        RequestError: 400 that names the field.
    """
    check_structure(body)
    try:
        if not body.isascii():
            body.decode()
        head = _head.decode(body)
        fields = _fields.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_field(error) from None
    except (ValueError, RecursionError) as error:
        raise not_json(body, error) from None
    prompt = _prompt(head)
    _refuse(head)
    chat = {name: raw for name, raw in fields.items() if name not in _OWN}
    if head.logprobs is not None:
        chat["logprobs"] = msgspec.Raw(b"true")
        chat["top_logprobs"] = msgspec.Raw(_encode(head.logprobs))
    return CompletionRequest(
        model=head.model,
        stream=bool(head.stream),
        include_usage=bool(head.stream_options and head.stream_options.include_usage),
        n=head.n or 1,
        user=head.user,
        last_user_text=prompt,
        chat=chat,
        asked=[{"role": "user", "content": prompt}],
        echo=prompt if head.echo else "",
    )


def _prompt(head: _Head) -> str:
    prompt = head.prompt
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0] if isinstance(prompt[0], str) else prompt
    if not isinstance(prompt, str) or not prompt:
        raise _refused("prompt", "send one text; several prompts, tokens and an empty one are not supported")
    return prompt


def _refuse(head: _Head) -> None:
    if head.suffix:
        raise _refused("suffix", "filling in before a suffix is not supported")
    if head.best_of is not None and head.best_of > (head.n or 1):
        raise _refused("best_of", "choosing among more answers than n is not supported")
    if head.echo and head.logprobs is not None:
        raise _refused("echo", "log probabilities of the prompt are not supported; leave out echo or logprobs")


def _refused(param: str, why: str) -> RequestError:
    return RequestError("unsupported", 400, f"{param}: {why}", param=param)


class CompletionWriter:
    """Events → ``text_completion`` events.

    Args:
        include_usage: The client asked for the usage at the end.
        id, created: For an answer whose provider gives none.
        echo: What to put before each choice's text.
    """

    def __init__(self, *, include_usage: bool, id: str, created: int, echo: str = "") -> None:
        self._include_usage = include_usage
        self._id = id
        self._created = created
        self._model = ""
        self._echo = echo
        self._started = False
        self._offsets: dict[int, int] = {}  # where each choice's text has come to
        self._finished: set[int] = set()
        self._refused: set[int] = set()
        self._usage: Usage | None = None

    def write(self, events: list[Event]) -> bytes:
        return b"".join([self._write(event) for event in events])

    def end(self) -> bytes:
        if not self._include_usage or self._usage is None:
            return DONE
        return self._event([], usage=usage_document(self._usage)) + DONE

    def _write(self, event: Event) -> bytes:
        match event:
            case Started():
                if not self._started:
                    self._id, self._created = event.id or self._id, event.created or self._created
                self._started, self._model = True, event.model or self._model
            case TextDelta():
                return self._text(event.choice, event.text, event.logprobs)
            case RefusalDelta():
                self._refused.add(event.choice)
                return self._text(event.choice, event.text, None)
            case Finished() if event.choice not in self._finished:
                self._finished.add(event.choice)
                reason = _finish(event, refused=event.choice in self._refused)
                return self._event([_choice(event.choice, "", None, reason)])
            case Used():
                self._usage = event.usage
        return b""

    def _text(self, choice: int, text: str, logprobs: Any) -> bytes:
        if not text:
            return b""
        offset = self._offsets.get(choice)
        if offset is None:
            offset, text = 0, self._echo + text
        self._offsets[choice] = offset + len(text)
        old = old_logprobs(logprobs, offset) if logprobs else None
        return self._event([_choice(choice, text, old, None)])

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        document = _document(self._id, self._created, self._model, choices)
        if self._include_usage:
            document["usage"] = usage
        return encode_event(_encode(document))


def old_logprobs(entries: list[Any], offset: int) -> dict[str, Any]:
    """A chat's log probabilities in the old form; ``offset``: characters before the first token."""
    old: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for entry in _convert(entries):
        old["tokens"].append(entry.token)
        old["token_logprobs"].append(entry.logprob)
        old["top_logprobs"].append({top.token: top.logprob for top in entry.top_logprobs or ()})
        old["text_offset"].append(offset)
        offset += len(entry.token)
    return old


def _convert(entries: list[Any]) -> list[_Token]:
    try:
        return msgspec.convert(entries, list[_Token])
    except msgspec.ValidationError:
        return []  # not what was asked for, and no reason to lose the text


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


def _finish(event: Finished, *, refused: bool) -> str:
    reason = finish_reason(event, refused=refused)
    return "stop" if reason == "tool_calls" else reason


def _document(id: str, created: int, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": id, "object": "text_completion", "created": created, "model": model, "choices": choices}


class CompletionsVoice:
    """``POST /v1/completions``. One per request: an answer's id and time stay the same when another target writes on.

    Args:
        id: For answers whose provider gives none; made up if empty.
    """

    dialect = "openai-completions"
    speaks_early = False
    conversation: str | None = None

    def __init__(self, id: str = "") -> None:
        self._id = id or f"cmpl-{uuid.uuid4().hex}"
        self._created = now_s()

    def parse(self, body: bytes) -> CompletionRequest:
        return parse_completion(body)

    def prepare(self, request: CompletionRequest, dialect: ProviderDialect, model: str, *, keep: bool) -> Asking:
        return pairing.prepare(self, request, dialect, model, keep=keep)

    def read_whole(self, request: CompletionRequest, dialect: ProviderDialect, body: bytes) -> Whole:
        return pairing.read_whole(self, request, dialect, body)

    def writer(self, request: CompletionRequest) -> CompletionWriter:
        return CompletionWriter(
            include_usage=request.include_usage, id=self._id, created=self._created, echo=request.echo
        )

    def write_whole(self, answer: Answer, request: CompletionRequest) -> bytes:
        choices = []
        for index, choice in sorted(answer.choices.items()):
            text = "".join(block.text for block in choice.blocks if isinstance(block, TextBlock | RefusalBlock))
            found = [entry for block in choice.blocks if isinstance(block, TextBlock) for entry in block.logprobs]
            reason = _finish(choice.finished or Finished("stop"), refused=bool(choice.refusal))
            choices.append(_choice(index, request.echo + text, old_logprobs(found, 0) if found else None, reason))
        document = _document(answer.id or self._id, answer.created or self._created, answer.model, choices)
        if answer.usage is not None:
            document["usage"] = usage_document(answer.usage)
        return _encode(document)

    def context(self, news: LoaderNews) -> bytes:
        return b""

    def begins(self, record: Record) -> bytes:
        return b""

    def ends(self, record: Record) -> bytes:
        return cost_comment(record)

    def whole(self, body: bytes, record: Record) -> bytes:
        return body

    def breaks(self, error: GatewayError) -> bytes:
        return encode_event(orjson.dumps(error_document(error)))

    def error(self, error: GatewayError) -> dict[str, Any]:
        return error_document(error)
