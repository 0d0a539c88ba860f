"""Requests of Gemini's ``generateContent`` and ``streamGenerateContent``.

A request is validated where the gateway itself depends on it (``contents``, the number of candidates) and keeps every
field as the client's own bytes, so that to Google itself everything passes that the API grows next. Model and method
stand in the path. What it means to other providers stands in ``gemini_call``.

In :meth:`GeminiRequest.messages` the model's turns have the role ``assistant``, as everywhere in the gateway; the
client's ``systemInstruction`` is not among them and stays where it is, behind what :meth:`with_messages` puts there.

Source: Gemini API reference, "Generating content".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from attrs import evolve, frozen

from gateway.core.errors import RequestError
from gateway.dialects.call import Call
from gateway.dialects.gemini_call import gemini_call
from gateway.dialects.json_limits import check_structure, count_in
from gateway.dialects.openai_chat import not_json, wrong_field
from gateway.dialects.provider import Quirks
from gateway.dialects.signatures import WRAPPED, is_wrapped

MAX_CONTENTS = 10_000
MAX_CANDIDATES = 128
_INSTRUCTIONS = ("systemInstruction", "system_instruction")
_CONFIGS = ("generationConfig", "generation_config")


class _Part(msgspec.Struct, gc=False):
    """One part; only a text is read, the rest is skipped and not made into objects."""

    text: msgspec.Raw = msgspec.Raw()
    thought: bool | None = None


class _Thought(msgspec.Struct):
    thought: bool | None = None
    thoughtSignature: str = ""
    thought_signature: str = ""


class _Content(msgspec.Struct):
    parts: list[_Part] | _Part | None = None
    role: str | None = None


class _Config(msgspec.Struct):
    candidateCount: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)] | None = None
    candidate_count: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)] | None = None


class _Head(msgspec.Struct):
    """What the gateway reads, in both spellings; a wrong type here is a 400. The rest is the provider's business."""

    contents: Annotated[list[_Content], msgspec.Meta(min_length=1, max_length=MAX_CONTENTS)] | _Content
    generationConfig: _Config | None = None
    generation_config: _Config | None = None


_head = msgspec.json.Decoder(_Head, strict=False)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_contents = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | dict[str, msgspec.Raw])
_raw_parts = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw] | None)
_thought = msgspec.json.Decoder(_Thought, strict=False)
_WRAPPED = b'"' + WRAPPED.encode()
_role = msgspec.json.Decoder(str | None)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


@frozen(kw_only=True, slots=True)
class GeminiRequest:
    """One client request; satisfies :class:`gateway.dialects.voice.Request`.

    Attributes:
        model: What the client asked for, from the path.
        stream: Whether it wants the answer in pieces.
        n: Candidates wanted.
        user: None: the dialect has no such field.
        fields: Every top-level field as the client wrote it.
        last_user_text: Text of the last user's turn that has any, "" if none has.
    """

    model: str
    stream: bool
    n: int
    fields: dict[str, msgspec.Raw]
    last_user_text: str
    user: str | None = None

    @property
    def max_tokens(self) -> int:
        config = next((self.fields[name] for name in _CONFIGS if name in self.fields), None)
        try:
            fields = _fields.decode(config) if config is not None else {}
        except msgspec.MsgspecError:
            return 0
        return self.n * count_in(fields, "maxOutputTokens", "max_output_tokens")

    def messages(self) -> list[dict[str, Any]]:
        """The turns as dictionaries: ``role`` decoded, every other field as the client's own bytes."""
        said = _raw_contents.decode(self.fields["contents"])
        contents = said if isinstance(said, list) else [said]
        return [{**content, "role": _message_role(content)} for content in contents]

    def with_messages(self, messages: list[dict[str, Any]]) -> GeminiRequest:
        """The same request with other turns; new ones of the role ``system`` go before ``systemInstruction``."""
        turns: list[dict[str, Any]] = []
        added: list[Any] = []
        for message in messages:
            if "content" not in message:
                role = "model" if message["role"] == "assistant" else message["role"]
                turns.append({**message, "role": role})
            elif message["role"] == "system":
                added.append({"text": message["content"]})
            else:
                role = "model" if message["role"] == "assistant" else "user"
                turns.append({"role": role, "parts": [{"text": message["content"]}]})
        fields = {**self.fields, "contents": msgspec.Raw(_encode(turns))}
        if added:
            name = next((name for name in _INSTRUCTIONS if name in fields), _INSTRUCTIONS[0])
            fields[name] = msgspec.Raw(_encode({"parts": added + self._instructions()}))
        return evolve(self, fields=fields)

    def _instructions(self) -> list[Any]:
        """The parts of the client's ``systemInstruction``, as they are."""
        name = next((name for name in _INSTRUCTIONS if name in self.fields), None)
        if name is None:
            return []
        try:
            parts = _raw_parts.decode(_fields.decode(self.fields[name]).get("parts", b"null"))
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at")[0]
            raise RequestError("invalid_request", 400, f"{name}: {what}", param=name) from None
        return [parts] if isinstance(parts, dict) else parts or []

    def call(self) -> Call:
        """The request in no dialect, for a provider of another one."""
        return gemini_call(self.fields, model=self.model, stream=self.stream)

    def encode_as_is(self, model: str, quirks: Quirks) -> bytes:
        """The client's document for a provider of the same dialect; the model is the path's business."""
        fields: dict[str, Any] = {name: value for name, value in self.fields.items() if name not in quirks.drops}
        if self.has_others_thoughts:
            fields["contents"] = _without_others(fields["contents"])
        return _encode(fields)

    @property
    def has_others_thoughts(self) -> bool:
        """Whether earlier turns have thoughts of other makers: Google refuses what it did not sign."""
        return _WRAPPED in bytes(self.fields["contents"])


def parse_request(body: bytes, *, model: str, stream: bool) -> GeminiRequest:
    """Decode and check a client's request.

    Args:
        model, stream: As its path says.

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
    config = head.generationConfig or head.generation_config or _Config()
    return GeminiRequest(
        model=model,
        stream=stream,
        n=config.candidateCount or config.candidate_count or 1,
        fields=fields,
        last_user_text=_last_user_text(head.contents if isinstance(head.contents, list) else [head.contents]),
    )


def _without_others(contents: msgspec.Raw) -> list[dict[str, Any]]:
    """The turns without the thoughts that somebody else has made, all else as the client wrote it."""
    said = _raw_contents.decode(contents)
    kept: list[dict[str, Any]] = []
    for content in said if isinstance(said, list) else [said]:
        given = _raw_parts.decode(content.get("parts", b"null"))
        parts: list[Any] = given if isinstance(given, list) else [given] if given else []
        own = [part for part in parts if not _is_others(_encode(part))]
        if own or not parts:
            kept.append({**content, "parts": own} if len(own) < len(parts) else {**content})
    return kept


def _is_others(part: bytes) -> bool:
    if _WRAPPED not in part:
        return False
    try:
        said = _thought.decode(part)
    except msgspec.MsgspecError:
        return False
    return bool(said.thought) and is_wrapped(said.thoughtSignature or said.thought_signature)


def _message_role(content: dict[str, msgspec.Raw]) -> str:
    role = _role.decode(content.get("role", b"null")) or "user"
    return "assistant" if role == "model" else role


def _last_user_text(contents: list[_Content]) -> str:
    """A turn that only hands results back says nothing; the one before it is what was asked."""
    for content in reversed(contents):
        if content.role == "model":
            continue
        parts = [content.parts] if isinstance(content.parts, _Part) else content.parts or []
        said = (bytes(part.text) for part in parts if not part.thought)
        texts = [_text.decode(text) for text in said if text[:1] == b'"']
        if texts:
            return "\n".join(texts)
    return ""
