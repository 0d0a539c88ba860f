"""One request in no dialect: what a client's dialect is read into and a provider's dialect is written from.

::

    client's bytes ─► parse ─► Call ─► encode ─► provider's bytes        (requests; this module)
    client's bytes ◄─ Writer ◄─ events ◄─ Reader ◄─ provider's bytes     (answers; ``events``)

Every field is one that at least two dialects know. A client's field that no other dialect has is kept by its name in
``extra``; who encodes for another dialect says of each that it was dropped (a warning header tells the client) or
refuses the request with a 400 that names it. Nothing is lost in silence. A request whose client and provider speak the
same dialect never becomes a ``Call``: its bytes pass.

Texts are unbounded here: the body's limit (``server.max_body_bytes``) bounds them all.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import Factory, frozen

from gateway.core.values import value

Ttl = Literal["", "5m", "1h"]
MediaKind = Literal["image", "audio", "video", "file"]
Role = Literal["system", "user", "assistant"]

DEFAULT_TTL: Ttl = "5m"  # of what is cached, where nobody says for how long


@frozen(kw_only=True, slots=True)
class Text:
    """Text.

    Attributes:
        cached: The client marked the prompt up to here as worth caching (Anthropic's ``cache_control``), and for how
            long: ``5m``, which is what a mark says by itself, or ``1h``; "" without a mark.
    """

    text: str
    cached: Ttl = ""


@frozen(kw_only=True, slots=True)
class Media:
    """An image, sound, video or document; exactly one of ``data``, ``url`` and ``file_id`` is set.

    Attributes:
        mime: ``image/png`` …; "" when the client did not say.
        data: Base64 (standard alphabet), as the client sent it.
        url: ``https://…``; never fetched by us.
        file_id: A file that the provider already holds.
        name: File name, if the client gave one.
        detail: OpenAI's ``low | high | auto``.
    """

    kind: MediaKind
    mime: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    name: str = ""
    detail: str = ""
    cached: Ttl = ""


@frozen(kw_only=True, slots=True)
class ToolCall:
    """A call the model made in an earlier turn; ``arguments`` is JSON text. ``signature``: opaque (Gemini's)."""

    id: str
    name: str
    arguments: str
    signature: str = ""
    cached: Ttl = ""


@frozen(kw_only=True, slots=True)
class ToolResult:
    """What a tool returned. ``name`` is the tool's, "" where the dialect only gives the call's id."""

    id: str
    name: str = ""
    content: tuple[Text | Media, ...] = ()
    is_error: bool = False
    cached: Ttl = ""


@frozen(kw_only=True, slots=True)
class Reasoning:
    """The model's thinking, passed back as it came: ``signature`` proves it to the provider that made it.

    ``redacted``: the provider's encrypted form (Anthropic's ``redacted_thinking``, OpenAI's ``encrypted_content``),
    in which case ``text`` is a summary or empty.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""
    id: str = ""


@frozen(kw_only=True, slots=True)
class Refusal:
    """The model's own refusal in an earlier turn."""

    text: str


Part = Text | Media | ToolCall | ToolResult | Reasoning | Refusal
Marked = Text | Media | ToolCall | ToolResult  # those that may have the mark for the cache


@frozen(kw_only=True, slots=True)
class Message:
    """One turn. Tool results stand in a ``user`` message (Anthropic's shape), where OpenAI has a role of its own.

    ``system`` in the middle of a conversation stays where it is; dialects without that move it to their instructions.
    """

    role: Role
    parts: tuple[Part, ...]
    name: str = ""


@frozen(kw_only=True, slots=True)
class Tool:
    """A function the model may call; ``schema`` is JSON Schema."""

    name: str
    description: str = ""
    schema: dict[str, Any] = Factory(dict)
    strict: bool | None = None
    cached: Ttl = ""


@frozen(kw_only=True, slots=True)
class ToolChoice:
    """``auto`` | ``none`` | ``required`` (any of them) | ``named`` with the tool's name."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""


@frozen(kw_only=True, slots=True)
class Format:
    """The answer's form: ``text``, any JSON object, or one of a JSON schema."""

    kind: Literal["text", "json", "schema"] = "text"
    name: str = ""
    schema: dict[str, Any] = Factory(dict)
    strict: bool | None = None


@frozen(kw_only=True, slots=True)
class Thinking:
    """How much the model shall think: an effort or a budget, whichever the client's dialect has. ``off`` forbids it.

    Attributes:
        effort: ``minimal | low | medium | high | …`` as the client wrote it, "" if it did not.
        budget_tokens: None if it did not say; -1: as much as the model likes (Gemini's dynamic budget).
        show: Whether the thoughts (or a summary) are wanted in the answer; None: the provider's default.
    """

    effort: str = ""
    budget_tokens: int | None = None
    show: bool | None = None
    off: bool = False


@frozen(kw_only=True, slots=True)
class Call:
    """One request. None or "" or () means that the client did not say, and the provider's default holds.

    Attributes:
        model: What the client asked for; the provider's name of it is given to ``encode``.
        system: Instructions before the conversation.
        stream: The client wants events.
        include_usage: It wants the usage in them.
        n: Answers wanted.
        prefill: The last message is an assistant's and is to be gone on from (set for ``midstream = "continue"``).
        extra: The client's fields without a counterpart, decoded, by their names in its dialect.
        dialect: The client's dialect, for what ``extra`` means.
    """

    model: str
    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    format: Format | None = None
    thinking: Thinking | None = None
    user: str | None = None
    service_tier: str = ""
    prefill: bool = False
    extra: dict[str, Any] = Factory(dict)
    dialect: str = ""


@value(kw_only=True, slots=True)
class Encoded:
    """A call as a provider gets it.

    Attributes:
        body: The document.
        dropped: The client's fields that this provider has no counterpart for, as the client names them.
    """

    body: bytes
    dropped: tuple[str, ...] = ()


def last_user_text(messages: tuple[Message, ...]) -> str:
    """Text of the last user message that has any, "" if none: what loaders look for."""
    for message in reversed(messages):
        if message.role == "user":
            text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
            if text:
                return text
    return ""
