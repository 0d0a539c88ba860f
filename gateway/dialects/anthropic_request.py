"""Requests of Anthropic's Messages API.

A request is validated where the gateway itself depends on it (``model``, ``messages``, ``max_tokens``, ``stream``) and
keeps every field as the client's own bytes, so that to Anthropic itself everything passes that the API grows next. What
it means to other providers stands in ``anthropic_call``.

Source: Anthropic API reference, "Messages" and "Count Message tokens".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from attrs import evolve, frozen

from gateway.core.errors import RequestError
from gateway.dialects.anthropic_call import anthropic_call
from gateway.dialects.call import Call
from gateway.dialects.json_limits import check_structure, count_in
from gateway.dialects.openai_chat import not_json, wrong_field
from gateway.dialects.provider import Quirks
from gateway.dialects.responses_marks import MARK
from gateway.dialects.signatures import is_googles

MAX_MESSAGES = 100_000  # the API's own limit


class _Part(msgspec.Struct, gc=False):
    """One block of a message's content; only a text is read, the rest is skipped and not made into objects."""

    text: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]


class _Thinking(msgspec.Struct):
    type: str = ""
    signature: str = ""


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Head(msgspec.Struct):
    """The fields the gateway reads; a wrong type here is the client's 400. The rest is the provider's business."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stream: bool | None = None
    metadata: _Metadata | None = None


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_thinking = msgspec.json.Decoder(_Thinking)
_GOOGLES = b'"' + MARK.encode()
_raw_blocks = msgspec.json.Decoder(str | list[msgspec.Raw] | None)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


@frozen(kw_only=True, slots=True)
class AnthropicRequest:
    """One client request; satisfies :class:`gateway.dialects.voice.Request`.

    Attributes:
        model: What the client asked for.
        stream: Whether it wants server-sent events.
        user: ``metadata.user_id``.
        fields: Every top-level field as the client wrote it.
        last_user_text: Text of the last user message, "" if there is none.
    """

    model: str
    stream: bool
    user: str | None
    fields: dict[str, msgspec.Raw]
    last_user_text: str

    @property
    def max_tokens(self) -> int:
        return count_in(self.fields, "max_tokens")

    def messages(self) -> list[dict[str, Any]]:
        """The messages as dictionaries: ``role`` decoded, every other field as the client's own bytes.

        ``system`` is not among them; it stays in its field, behind what :meth:`with_messages` puts there.
        """
        return [{**raw, "role": _text.decode(raw["role"])} for raw in _raw_messages.decode(self.fields["messages"])]

    def with_messages(self, messages: list[dict[str, Any]]) -> AnthropicRequest:
        """The same request with other messages; new ones of the role ``system`` go before the client's ``system``."""
        own = [message for message in messages if not _is_instruction(message)]
        fields = {**self.fields, "messages": msgspec.Raw(_encode(own))}
        added = [message["content"] for message in messages if _is_instruction(message)]
        if added:
            blocks: list[Any] = [{"type": "text", "text": text} for text in added]
            fields["system"] = msgspec.Raw(_encode(blocks + self._system_blocks()))
        return evolve(self, fields=fields)

    def _system_blocks(self) -> list[Any]:
        try:
            said = _raw_blocks.decode(self.fields.get("system", b"null"))
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at")[0]
            raise RequestError("invalid_request", 400, f"system: {what}", param="system") from None
        if isinstance(said, str):
            return [{"type": "text", "text": said}] if said else []
        return list(said or ())

    def call(self) -> Call:
        """The request in no dialect, for a provider of another one."""
        return anthropic_call(self.fields)

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        """The client's document for a provider of the same dialect, under its name of the model."""
        fields = dict(self.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        for name in quirks.drops:
            fields.pop(name, None)
        if self.has_googles_thoughts:
            fields["messages"] = msgspec.Raw(_encode(_without_googles(fields["messages"])))
        return _encode(fields)

    @property
    def has_googles_thoughts(self) -> bool:
        """Whether earlier turns have thoughts that Gemini signed: Anthropic refuses them."""
        return _GOOGLES in bytes(self.fields["messages"])


def _without_googles(messages: msgspec.Raw) -> list[dict[str, Any]]:
    """The messages without the thoughts that Gemini signed, all else as the client wrote it."""
    kept: list[dict[str, Any]] = []
    for message in _raw_messages.decode(messages):
        content = bytes(message["content"])
        if not content.startswith(b"[") or _GOOGLES not in content:
            kept.append({**message})
            continue
        blocks = [block for block in _raw_list.decode(content) if not _is_googles(block)]
        if blocks:
            kept.append({**message, "content": blocks})
    return kept


def _is_googles(block: msgspec.Raw) -> bool:
    try:
        said = _thinking.decode(block)
    except msgspec.MsgspecError:
        return False
    return said.type == "thinking" and is_googles(said.signature)


def _is_instruction(message: dict[str, Any]) -> bool:
    """Whether it is the gateway's own system message: the client's have their content as bytes, and stay."""
    return message["role"] == "system" and isinstance(message["content"], str)


def parse_request(body: bytes, *, counts_only: bool = False) -> AnthropicRequest:
    """Decode and check a client's request.

    Args:
        counts_only: Its tokens are to be counted: it needs no ``max_tokens``, and is not streamed.

    Raises:
        RequestError: 400 that names the field (``invalid_json``, ``invalid_request``), or ``too_many_fields``.
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
    if head.max_tokens is None and not counts_only:
        raise RequestError("invalid_request", 400, "max_tokens: required, but missing", param="max_tokens")
    return AnthropicRequest(
        model=head.model,
        stream=bool(head.stream) and not counts_only,
        user=head.metadata.user_id if head.metadata is not None else None,
        fields=fields,
        last_user_text=_last_user_text(head.messages),
    )


def _last_user_text(messages: list[_Message]) -> str:
    """A turn that only hands results back says nothing; the one before it is what was asked."""
    for message in reversed(messages):
        if message.role != "user":
            continue
        if isinstance(message.content, str):
            return message.content
        said = (bytes(part.text) for part in message.content)
        texts = [_text.decode(text) for text in said if text[:1] == b'"']
        if texts:
            return "\n".join(texts)
    return ""
