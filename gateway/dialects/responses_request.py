"""Requests of OpenAI's Responses API.

A request is validated where the gateway itself depends on it (``model``, ``input``, ``stream``, ``store``,
``previous_response_id``, ``background``) and keeps every field as the client's own bytes, so that to OpenAI everything
passes that the API grows next. What it means to other providers stands in ``responses_call``.

Earlier responses: :attr:`ResponsesRequest.wanted` names those that the request refers to, and
:meth:`ResponsesRequest.with_kept` takes what the store has of them. For another dialect their items stand before the
request's own; one that is not kept is a 404 there. To a provider of this dialect the id passes as it is if that
provider holds the response, or if the gateway knows nothing of it; otherwise the items are sent in its place.

``background`` is refused: an answer that nobody waits for has no connection that it could end with.

Source: OpenAI API reference, "Create a model response"; guide "Conversation state".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from attrs import Factory, evolve, frozen

from gateway.core.errors import RequestError
from gateway.dialects.call import Call
from gateway.dialects.json_limits import check_structure, count_in
from gateway.dialects.openai_chat import not_json, wrong_field
from gateway.dialects.provider import Quirks
from gateway.dialects.responses_call import responses_call
from gateway.dialects.responses_kept import KeptResponse
from gateway.dialects.responses_marks import MARK, response_of
from gateway.dialects.responses_raw import (
    for_provider,
    is_instruction,
    items_of,
    reference_in,
    role_of,
    without_lent_role,
)

MAX_ITEMS = 100_000
MAX_WANTED = 64  # earlier responses that one request may refer to
_OURS = re.compile(rb'"(?:msg|rs|fc)_[0-9a-f]{36}"|"' + MARK.encode())


class _Item(msgspec.Struct, gc=False):
    """One item; its content is decoded only where it is the last thing the user said."""

    type: str | None = None
    role: str | None = None
    id: str | None = None
    content: msgspec.Raw = msgspec.Raw()


class _Head(msgspec.Struct):
    """The fields the gateway reads; a wrong type here is the client's 400. The rest is the provider's business."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[_Item], msgspec.Meta(max_length=MAX_ITEMS)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class _Part(msgspec.Struct, gc=False):
    text: msgspec.Raw = msgspec.Raw()


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_content = msgspec.json.Decoder(str | list[_Part])
_text = msgspec.json.Decoder(str | None)
_encode = msgspec.json.Encoder().encode


@frozen(kw_only=True, slots=True)
class ResponsesRequest:
    """One client request; satisfies :class:`gateway.dialects.voice.Request`.

    Attributes:
        model: What the client asked for.
        stream: Whether it wants server-sent events.
        store: Whether its response is to be kept.
        previous_id: The response that it goes on from.
        wanted: Ids of earlier responses that it refers to.
        fields: Every top-level field as the client wrote it.
        asked: ``input`` as the client wrote it, whatever :meth:`with_messages` made of the field.
        last_user_text: Text of the last user message, "" if there is none.
        kept: What the store has of ``wanted``, each with the responses before it.
    """

    model: str
    stream: bool
    store: bool
    user: str | None
    previous_id: str | None
    wanted: tuple[str, ...]
    fields: dict[str, msgspec.Raw]
    asked: msgspec.Raw
    last_user_text: str
    kept: Mapping[str, tuple[KeptResponse, ...]] = Factory(dict)

    @property
    def max_tokens(self) -> int:
        return count_in(self.fields, "max_output_tokens")

    def messages(self) -> list[dict[str, Any]]:
        """The items as dictionaries: ``role`` decoded, every other field as the client's own bytes.

        An item without a role gets that of who made it, for as long as it is in this list. ``instructions`` are not
        among them; they stay in their field, behind what :meth:`with_messages` puts there.
        """
        return [{**fields, "role": role_of(fields)} for fields in map(_fields.decode, items_of(self._input))]

    def with_messages(self, messages: list[dict[str, Any]]) -> ResponsesRequest:
        """The same request with other items; new ones of the role ``system`` go before the client's instructions."""
        added = [message["content"] for message in messages if is_instruction(message)]
        own = [without_lent_role(message) for message in messages if not is_instruction(message)]
        fields = {**self.fields, "input": msgspec.Raw(_encode(own))}
        if added:
            said = self._instructions()
            fields["instructions"] = msgspec.Raw(_encode("\n\n".join([*added, *([said] if said else [])])))
        return evolve(self, fields=fields)

    def _instructions(self) -> str:
        try:
            return _text.decode(self.fields.get("instructions", b"null")) or ""
        except msgspec.ValidationError as error:
            what = f"instructions: {error}"
            raise RequestError("invalid_request", 400, what, param="instructions") from None

    @property
    def _input(self) -> msgspec.Raw:
        return self.fields.get("input", msgspec.Raw(b"null"))

    def with_kept(self, found: Mapping[str, Sequence[bytes]]) -> ResponsesRequest:
        """The same request, knowing earlier responses.

        Args:
            found: For each of ``wanted`` what the store keeps of it and of the responses before it, oldest first;
                nothing for one that it does not know.
        """
        kept = {id: tuple(KeptResponse.of(data) for data in chain) for id, chain in found.items() if chain}
        return evolve(self, kept=kept)

    def call(self) -> Call:
        """The request in no dialect, for a provider of another one."""
        history: list[msgspec.Raw] = []
        if self.previous_id is not None:
            chain = self.kept.get(self.previous_id)
            if chain is None:
                raise _unknown(self.previous_id)
            history = [item for turn in chain for item in (*turn.input, *turn.output)]
        return responses_call(self.fields, history=history, items=self._kept_items())

    def _kept_items(self) -> dict[str, msgspec.Raw]:
        return {id: item for chain in self.kept.values() for turn in chain for id, item in turn.items().items()}

    def items_to_keep(self) -> list[msgspec.Raw]:
        """The client's own items, with those it only referred to in their places."""
        known = self._kept_items()
        return [known.get(reference_in(raw), raw) if known else raw for raw in items_of(self.asked)]

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        """The client's document for a provider of the same dialect, under its name of the model.

        Left out: what the provider is known to refuse, thoughts of other providers, and ids that only the gateway
        knows.
        """
        fields = dict(self.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        for name in quirks.drops:
            fields.pop(name, None)
        chain = self.kept.get(self.previous_id or "", ())
        before: list[msgspec.Raw] = []
        if chain and not chain[-1].held:
            fields.pop("previous_response_id", None)
            before = [item for turn in chain for item in (*turn.input, *turn.output)]
        if before or _OURS.search(self._input):
            known = self._kept_items()
            items = [*before, *(known.get(reference_in(raw), raw) for raw in items_of(self._input))]
            fields["input"] = msgspec.Raw(_encode([own for raw in items if (own := for_provider(raw)) is not None]))
        return _encode(fields)


def parse_request(body: bytes) -> ResponsesRequest:
    """Decode and check a client's request.

    Raises:
        RequestError: 400 that names the field (``invalid_json``, ``invalid_request``), or ``too_many_fields``.
    """
    check_structure(body)
    try:
        if not body.isascii():
            body.decode()
        head = _head.decode(body)
        fields = _fields.decode(body)
        text = _last_user_text(head.input)
    except msgspec.ValidationError as error:
        raise wrong_field(error) from None
    except (ValueError, RecursionError) as error:
        raise not_json(body, error) from None
    if head.background:
        what = "background: answers nobody waits for are not made here; leave it out, and use stream for long ones"
        raise RequestError("unsupported_parameter", 400, what, param="background")
    if head.input is None and not ({"prompt", "previous_response_id"} & fields.keys()):
        raise RequestError("invalid_request", 400, "input: required, but missing", param="input")
    return ResponsesRequest(
        model=head.model,
        stream=bool(head.stream),
        store=head.store is not False,
        user=head.user,
        previous_id=head.previous_response_id or None,
        wanted=_wanted(head),
        fields=fields,
        asked=fields.get("input", msgspec.Raw(b"null")),
        last_user_text=text,
    )


def _wanted(head: _Head) -> tuple[str, ...]:
    wanted = dict.fromkeys([head.previous_response_id] if head.previous_response_id else [])
    for item in head.input if isinstance(head.input, list) else ():
        if item.id and item.role is None and item.type in (None, "item_reference"):
            response = response_of(item.id)
            if response is not None:
                wanted[response] = None
    if len(wanted) > MAX_WANTED:
        what = f"input: items of more than {MAX_WANTED} earlier responses are referred to; send them themselves"
        raise RequestError("invalid_request", 400, what, param="input")
    return tuple(wanted)


def _unknown(id: str) -> RequestError:
    what = f"Previous response with id '{id[:80]}' not found: never kept (store), too old, or another key's"
    return RequestError("previous_response_not_found", 404, what, param="previous_response_id")


def _last_user_text(said: str | list[_Item] | None) -> str:
    if said is None or isinstance(said, str):
        return said or ""
    for item in reversed(said):
        if item.role != "user" or not item.content:
            continue
        try:
            content = _content.decode(item.content)
        except msgspec.ValidationError:
            continue  # whoever is asked says what is wrong with it
        if isinstance(content, str):
            return content
        texts = [text for part in content if isinstance(text := _part_text(part), str)]
        if texts:
            return "\n".join(texts)
    return ""


def _part_text(part: _Part) -> str | None:
    return _text.decode(part.text) if bytes(part.text)[:1] == b'"' else None
