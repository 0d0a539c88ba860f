"""A chat request as a provider takes it that refuses what it does not know: see ``Quirks``.

A conversation that began at another provider has fields and ids of that one in its messages: ``reasoning_content``,
which Mistral, Groq and Cerebras refuse; ids of tool calls, which Mistral wants to be nine letters and digits. What a
quirk names is left out, and told; an id that does not fit becomes one that does, the same for the call and its result.

Source: Mistral's API reference and client; Groq, "OpenAI compatibility"; errors of Mistral, Groq and Cerebras as their
users reported them (2025, 2026).
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from gateway.dialects.provider import Quirks

_raw_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_raw_calls = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def fit_fields(fields: dict[str, msgspec.Raw], quirks: Quirks) -> tuple[dict[str, msgspec.Raw], tuple[str, ...]]:
    """A client's document, field by field, and what was left out of it.

    Args:
        fields: As the client wrote them; JSON already.
    """
    dropped = [name for name in quirks.drops if name in fields]
    made = dict(fields)
    for name in dropped:
        del made[name]
    if quirks.max_tokens_field == "max_tokens" and "max_completion_tokens" in made:
        made.setdefault("max_tokens", made.pop("max_completion_tokens"))
    if quirks.seed_field != "seed" and "seed" in made:
        made[quirks.seed_field] = made.pop("seed")
    if quirks.message_drops or quirks.tool_call_id_chars:
        messages: list[dict[str, Any]] = [{**message} for message in _raw_messages.decode(made["messages"])]
        for message in messages:
            _fit_raw_ids(message, quirks.tool_call_id_chars)
        _leave_out(messages, quirks, dropped)
        made["messages"] = msgspec.Raw(_encode(messages))
    return made, tuple(dropped)


def fit_messages(messages: list[dict[str, Any]], quirks: Quirks, dropped: list[str]) -> None:
    """The same for messages that were made of a call; changes them."""
    for message in messages:
        for call in message.get("tool_calls", ()) if quirks.tool_call_id_chars else ():
            call["id"] = fit_id(call["id"], quirks.tool_call_id_chars)
        if "tool_call_id" in message:
            message["tool_call_id"] = fit_id(message["tool_call_id"], quirks.tool_call_id_chars)
    _leave_out(messages, quirks, dropped)


def _leave_out(messages: list[dict[str, Any]], quirks: Quirks, dropped: list[str]) -> None:
    for place, message in enumerate(messages):
        for name in quirks.message_drops:
            value = message.pop(name, None)
            said = _anything.decode(value) if isinstance(value, msgspec.Raw) else value
            if said not in (None, "", []):
                dropped.append(f"messages[{place}].{name}")


def _fit_raw_ids(message: dict[str, Any], chars: int) -> None:
    """Ids of the wrong type are the provider's to refuse."""
    if not chars:
        return
    if "tool_call_id" in message:
        message["tool_call_id"] = _fit_raw(message["tool_call_id"], chars)
    try:
        calls = _raw_calls.decode(message.get("tool_calls", b"null"))
    except msgspec.ValidationError:
        return
    if calls:
        message["tool_calls"] = [
            {name: _fit_raw(raw, chars) if name == "id" else raw for name, raw in call.items()} for call in calls
        ]


def _fit_raw(raw: msgspec.Raw, chars: int) -> Any:
    id = _anything.decode(raw)
    return fit_id(id, chars) if isinstance(id, str) else raw


def fit_id(id: str, chars: int) -> str:
    """The id, if it is of so many letters and digits, else one made of it that is."""
    if not chars or (len(id) == chars and id.isascii() and id.isalnum()):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:chars]
