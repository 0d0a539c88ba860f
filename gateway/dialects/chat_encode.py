"""A :class:`Call` as a document for a provider that speaks OpenAI's chat dialect, with that provider's quirks.

What a call has and the chat dialect has not:

=====================================  =========================================================================
several blocks of instructions         one system message, joined by empty lines
several texts in an assistant's turn   run together; in a tool's result joined by line feeds
media in a tool's result               follow in a user message behind the results
thoughts in earlier turns              in ``reasoning_field`` if the provider wants them (``reasoning_back``), with
                                       their signatures in ``reasoning_details`` where the field is ``reasoning``
                                       (OpenRouter); else dropped and named, as its documentation asks for
an error mark on a tool's result       dropped, named ``is_error``: the text says it
``cached`` marks                       of texts and results as ``cache_control`` where the provider takes it
                                       (``cache_marks``: OpenRouter); others dropped and named: they cache by themselves
``top_k``                              dropped, unless the client spoke chat itself
thinking budget                        ``reasoning_effort``: ``low`` to 1,024 tokens, ``medium`` to 8,192, else ``high``
                                       (Google's table for its chat endpoint); "as much as it likes" is left out
thoughts shown or not                  dropped and named: these providers decide
media in an assistant's turn           refused, 400
thinking forbidden                     ``none`` if the client spoke chat, else in the provider's way (``thinking_off``);
                                       dropped and named where it has none: most models refuse the word
images by file id, sounds by URL       refused, 400
documents by URL                       refused, 400
sounds other than wav and mp3          passed on by their subtype; the provider decides
prefill                                the provider's field for it; refused, 400, if it does not go on from a turn
``extra``                              passed on from chat clients; of the others what has the same name and meaning
=====================================  =========================================================================

Source: OpenAI API reference, "Create chat completion"; Google, "OpenAI compatibility"; Mistral and DeepSeek on
``prefix``; vLLM on ``continue_final_message``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.errors import RequestError
from gateway.dialects.call import (
    Call,
    Encoded,
    Format,
    Marked,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Ttl,
)
from gateway.dialects.chat_fit import fit_messages
from gateway.dialects.chat_shapes import AUDIO_MIMES
from gateway.dialects.chat_writer import details, tool_call_document
from gateway.dialects.field_names import client_name, is_top_level
from gateway.dialects.provider import Quirks
from gateway.dialects.signatures import is_googles

CONTINUE_FINAL = "continue_final_message"  # vLLM's way to ask for a prefill: of the request, not of the message
_AUDIO_FORMATS = {mime: name for name, mime in AUDIO_MIMES.items()} | {"audio/x-wav": "wav", "audio/mp3": "mp3"}
_FILE_ENDINGS = {"application/pdf": "pdf", "text/plain": "txt", "text/markdown": "md", "text/csv": "csv"}
_SHARED = frozenset(
    {"metadata", "store", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
)  # the same in OpenAI's responses
_SAME = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "user")
_encode = msgspec.json.Encoder().encode


def encode_chat(call: Call, model: str, quirks: Quirks) -> Encoded:
    """The document.

    Raises:
        RequestError: 400 ``unsupported_by_provider``.
    """
    dropped: list[str] = []
    try:
        messages = _messages(call, quirks, dropped)
    except _Unsupported as error:
        param = client_name(call.dialect, "messages")
        raise RequestError("unsupported_by_provider", 400, f"{param}: {error}", param=param) from None
    body: dict[str, Any] = {"model": model, "messages": messages}
    _sampling(call, body, quirks, dropped)
    _tools(call, body, dropped)
    if call.format is not None:
        body["response_format"] = _format(call.format)
    if call.stream:
        body["stream"] = True
        if quirks.usage_in_stream:
            body["stream_options"] = {"include_usage": True}
    if call.prefill and quirks.prefill_field == CONTINUE_FINAL:
        body[CONTINUE_FINAL], body["add_generation_prompt"] = True, False
    _extra(call, body, dropped)
    if "seed" in body:
        body[quirks.seed_field] = body.pop("seed")
    dropped += [client_name(call.dialect, name) for name in quirks.drops if body.pop(name, None) is not None]
    return Encoded(body=_encode(body), dropped=tuple(dict.fromkeys(dropped)))


def _sampling(call: Call, body: dict[str, Any], quirks: Quirks, dropped: list[str]) -> None:
    if call.max_tokens is not None:
        body[quirks.max_tokens_field] = call.max_tokens
    for name in _SAME:
        value = getattr(call, name)
        if value is not None:
            body[name] = value
    if call.stop:
        body["stop"] = list(call.stop)
    if call.n != 1:
        body["n"] = call.n
    if call.service_tier:
        body["service_tier"] = call.service_tier
    if call.top_k is not None:
        if call.dialect == "openai":
            body["top_k"] = call.top_k
        else:
            dropped.append(client_name(call.dialect, "top_k"))
    if call.thinking is not None:
        effort = _effort(call.thinking, call.dialect)
        if effort:
            body["reasoning_effort"] = effort
        elif call.thinking.off and quirks.thinking_off == "effort":
            body["reasoning_effort"] = "none"
        elif call.thinking.off and quirks.thinking_off == "thinking":
            body["thinking"] = {"type": "disabled"}
        elif call.thinking.off:
            dropped.append(client_name(call.dialect, "reasoning_effort"))
        if call.thinking.show is not None:
            dropped.append(client_name(call.dialect, "show_thoughts"))


def _effort(thinking: Thinking, dialect: str) -> str:
    if thinking.off:
        return "none" if dialect == "openai" else ""
    budget = thinking.budget_tokens
    if thinking.effort or budget is None or budget < 0:
        return thinking.effort
    return "low" if budget <= 1024 else "medium" if budget <= 8192 else "high"


def _tools(call: Call, body: dict[str, Any], dropped: list[str]) -> None:
    if call.tools:
        body["tools"] = []
    _drop_marks(call.tools, Quirks(), dropped)
    for tool in call.tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.schema:
            function["parameters"] = tool.schema
        if tool.strict is not None:
            function["strict"] = tool.strict
        body["tools"].append({"type": "function", "function": function})
    if call.tool_choice is not None:
        body["tool_choice"] = _choice(call.tool_choice)
    if call.parallel_tools is not None and call.tools:
        body["parallel_tool_calls"] = call.parallel_tools


def _choice(choice: ToolChoice) -> Any:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _format(asked: Format) -> dict[str, Any]:
    if asked.kind == "schema":
        schema: dict[str, Any] = {"name": asked.name or "answer", "schema": asked.schema}
        if asked.strict is not None:
            schema["strict"] = asked.strict
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object" if asked.kind == "json" else "text"}


def _extra(call: Call, body: dict[str, Any], dropped: list[str]) -> None:
    for name, value in call.extra.items():
        if name == "stream_options" and call.dialect == "openai":
            if "stream_options" in body:
                body["stream_options"] = {**value, **body["stream_options"]}
        elif not is_top_level(name):
            dropped.append(name)
        elif call.dialect == "openai" or (call.dialect == "openai-responses" and name in _SHARED):
            body[name] = value
        else:
            dropped.append(name)


def _messages(call: Call, quirks: Quirks, dropped: list[str]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    if call.system:
        marked = quirks.cache_marks and any(text.cached for text in call.system)
        joined: Any = "\n\n".join(text.text for text in call.system)
        made.append({"role": quirks.system_role, "content": _texts(call.system) if marked else joined})
        _drop_marks(call.system, quirks, dropped)
    for place, message in enumerate(call.messages):
        if message.role == "assistant":
            param = f"{client_name(call.dialect, 'messages')}[{place}]"
            made.append(_assistant(message, quirks, param, dropped))
        else:
            made += _asked(message, quirks, dropped)
        _drop_marks(message.parts, quirks, dropped)
    if call.prefill:
        _ask_to_go_on(made, quirks)
    fit_messages(made, quirks, dropped)
    return made


def _ask_to_go_on(made: list[dict[str, Any]], quirks: Quirks) -> None:
    if not quirks.prefill or not made or made[-1]["role"] != "assistant":
        raise _Unsupported("this provider does not go on from a last message of the assistant")
    if quirks.prefill_field and quirks.prefill_field != CONTINUE_FINAL:
        made[-1][quirks.prefill_field] = True


def _asked(message: Message, quirks: Quirks, dropped: list[str]) -> list[dict[str, Any]]:
    """A user's or system's message; tool results first, each on its own."""
    made: list[dict[str, Any]] = []
    rest: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            rest.append(part)
            continue
        text = "\n".join(piece.text for piece in part.content if isinstance(piece, Text))
        mark: Ttl = next((each.cached for each in (part, *part.content) if each.cached), "")
        told: Any = _texts([Text(text=text, cached=mark)]) if mark and quirks.cache_marks and text else text
        made.append({"role": "tool", "tool_call_id": part.id, "content": told})
        rest += [piece for piece in part.content if isinstance(piece, Media)]
        if part.is_error:
            dropped.append("is_error")
        if any(piece.cached for piece in part.content) and not quirks.cache_marks:
            dropped.append("cache_control")
    if rest or not made:
        role = quirks.system_role if message.role == "system" else "user"
        asked: dict[str, Any] = {"role": role, "content": _content(rest, quirks)}
        if message.name:
            asked["name"] = message.name
        made.append(asked)
    return made


def _content(parts: list[Part], quirks: Quirks) -> str | list[dict[str, Any]]:
    if not parts:
        return ""
    marked = quirks.cache_marks and any(isinstance(part, Text) and part.cached for part in parts)
    if len(parts) == 1 and isinstance(parts[0], Text) and not marked:
        return parts[0].text
    return [_texts([part])[0] if isinstance(part, Text) and marked else _part(part) for part in parts]


def _texts(texts: Iterable[Text]) -> list[dict[str, Any]]:
    """Texts with their marks for the cache, as OpenRouter takes them."""
    return [
        {
            "type": "text",
            "text": text.text,
            **({"cache_control": {"type": "ephemeral", "ttl": text.cached}} if text.cached else {}),
        }
        for text in texts
    ]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text | Refusal | Reasoning):
        return {"type": "text", "text": part.text}
    if not isinstance(part, Media):
        raise _Unsupported("a tool call stands in a message that is not the assistant's")
    match part.kind:
        case "image":
            image: dict[str, Any] = {"url": _url(part)}
            if part.detail:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case "video":
            return {"type": "video_url", "video_url": {"url": _url(part)}}
        case "audio":
            if not part.data:
                raise _Unsupported("sounds are taken as data only, not by URL or file id")
            name = _AUDIO_FORMATS.get(part.mime) or part.mime.removeprefix("audio/") or "wav"
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": name}}
        case "file":
            return {"type": "file", "file": _file(part)}


def _url(part: Media) -> str:
    if part.file_id:
        raise _Unsupported(f"{part.kind}s cannot be named by a file id; send their data or URL")
    if part.data:
        return f"data:{part.mime or 'application/octet-stream'};base64,{part.data}"
    return part.url


def _file(part: Media) -> dict[str, Any]:
    if part.file_id:
        return {"file_id": part.file_id}
    if not part.data:
        raise _Unsupported("documents are taken as data or by file id, not by URL")
    name = part.name or f"file.{_FILE_ENDINGS.get(part.mime, 'pdf')}"
    return {"filename": name, "file_data": f"data:{part.mime or 'application/pdf'};base64,{part.data}"}


def _assistant(message: Message, quirks: Quirks, param: str, dropped: list[str]) -> dict[str, Any]:
    if any(isinstance(part, Media | ToolResult) for part in message.parts):
        raise _Unsupported("a turn of the assistant's has neither media nor results here")
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    refusal = "".join(part.text for part in message.parts if isinstance(part, Refusal))
    calls = [
        tool_call_document(part.id, part.name, part.arguments or "{}", part.signature)
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    marked = quirks.cache_marks and any(isinstance(part, Text) and part.cached for part in message.parts)
    content: Any = _texts(part for part in message.parts if isinstance(part, Text)) if marked else text
    said: dict[str, Any] = {"role": "assistant", "content": content or (None if calls or refusal else "")}
    if message.name:
        said["name"] = message.name
    if refusal:
        said["refusal"] = refusal
    thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
    back = quirks.reasoning_field if quirks.reasoning_back else ""
    if back:
        _think(said, thoughts, back)
    if any(not back or _is_lost(thought, back) for thought in thoughts):
        dropped.append(f"{param}.reasoning")
    if calls:
        said["tool_calls"] = calls
    return said


def _think(said: dict[str, Any], thoughts: list[Reasoning], name: str) -> None:
    text = "".join(thought.text for thought in thoughts)
    if text:
        said[name] = text
    if name != "reasoning":
        return
    found: list[dict[str, Any]] = []
    for thought in thoughts:
        if (thought.signature or thought.redacted) and not is_googles(thought.signature):
            found += details(thought.text, thought.signature, thought.redacted, thought.id, len(found))
    if found:
        said["reasoning_details"] = found


def _is_lost(thought: Reasoning, name: str) -> bool:
    """Whether not all of it goes back: only OpenRouter takes signatures, and only those of who made them."""
    sealed = bool(thought.signature or thought.redacted)
    return sealed and (name != "reasoning" or is_googles(thought.signature))


def _drop_marks(parts: Iterable[Part | Tool], quirks: Quirks, dropped: list[str]) -> None:
    """Name the marks for the cache that stay behind: of OpenRouter's, all but those of texts and results."""
    kept = (Text, ToolResult) if quirks.cache_marks else ()
    if any(isinstance(part, Marked | Tool) and part.cached and not isinstance(part, kept) for part in parts):
        dropped.append("cache_control")


class _Unsupported(Exception):
    """Something in the messages has no counterpart; what the client calls them is known further up."""
