"""A provider's dialect: the interface between an attempt and a provider's wire format.

Sans-I/O: a dialect says where and how to ask (path, headers, body) and reads what comes back into events. The
:class:`Quirks` are what servers of the same dialect differ in; they stand in ``presets.toml`` and in the configuration.
"""

from __future__ import annotations

from typing import Literal, Protocol

from attrs import frozen

from gateway.core.facts import Usage
from gateway.dialects.call import Call, Encoded
from gateway.dialects.events import Event


class BadAnswer(ValueError):
    """What the provider sent is not what its dialect allows."""


@frozen(kw_only=True, slots=True)
class Quirks:
    """How a provider differs from its dialect's documentation. The defaults are OpenAI's own.

    Attributes:
        usage_in_stream: It understands ``stream_options.include_usage``.
        done_marker: Its streams end with ``[DONE]``.
        max_tokens_field: What it calls the answer's limit in chat completions.
        reasoning_field: Where its chat answers put thoughts, "" for nowhere.
        reasoning_back: Whether it wants that field back in assistant messages (otherwise thoughts are left out).
        thinking_off: How it is told not to think: by the ``effort`` none, or by ``thinking`` of the type disabled.
        system_role: What it calls the instructions' role.
        developer_role: It takes the role ``developer`` in messages that pass as they are; else that becomes ``system``.
        prefill: It goes on from a last message of the assistant.
        prefill_field: The field that says so in that message (Mistral's and DeepSeek's ``prefix``), "" for none.
        cache_marks: It takes Anthropic's ``cache_control`` on texts.
        drops: Top-level chat fields that it refuses with a 400 and that are left out, with a warning header.
        message_drops: The same for fields of chat messages.
        seed_field: What it calls the seed in chat completions.
        tool_call_id_chars: It wants tool calls' ids of so many letters and digits; 0: takes any.
        stops_billing_on_abort: Closing the connection ends the bill; otherwise ``on_disconnect`` defaults to drain.
    """

    usage_in_stream: bool = True
    done_marker: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    reasoning_field: str = "reasoning_content"
    reasoning_back: bool = False
    thinking_off: Literal["", "effort", "thinking"] = ""
    system_role: Literal["system", "developer"] = "system"
    developer_role: bool = True
    prefill: bool = False
    prefill_field: str = ""
    cache_marks: bool = False
    drops: tuple[str, ...] = ()
    message_drops: tuple[str, ...] = ()
    seed_field: str = "seed"
    tool_call_id_chars: int = 0
    stops_billing_on_abort: bool = True


class Reader(Protocol):
    """Reads one answer. Any split of the same bytes gives the same events, but for where text is cut into deltas.

    Attributes:
        done: The dialect's own end was seen (``[DONE]``, ``message_stop``); what follows is ignored.
        malformed: Events left out because they could not be read.
        asked: The prompt's usage, from a provider that tells it before the answer's.
    """

    done: bool
    malformed: int
    asked: Usage | None

    def feed(self, data: bytes) -> list[Event]:
        """Take one network read of a stream. Raises ``EventTooLong`` or ``BadAnswer`` for garbage."""
        ...

    def end(self) -> list[Event]:
        """The body has ended; what is still held comes out (e.g. a finish that waited for its usage)."""
        ...


class ProviderDialect(Protocol):
    """One dialect with one provider's quirks.

    Attributes:
        name: ``openai`` | ``openai-responses`` | ``anthropic`` | ``gemini`` | ``azure`` | ``bedrock``.
        wire: Whose bytes it can take unchanged: the name of a client dialect (``azure`` takes ``openai``'s), or "".
        quirks: The provider's.
    """

    @property
    def name(self) -> str: ...
    @property
    def wire(self) -> str: ...
    @property
    def quirks(self) -> Quirks: ...

    def path(self, model: str, *, stream: bool) -> bytes:
        """Path and query below the provider's base path, percent-encoded: ``/chat/completions``."""
        ...

    def headers(self, key: str) -> dict[bytes, bytes]:
        """Authorisation and version headers; ``key`` may be ""."""
        ...

    def encode(self, call: Call, model: str) -> Encoded:
        """The body.

        Raises:
            RequestError: 400 ``unsupported_by_provider`` with ``param``: what has no counterpart and must not be lost.
        """
        ...

    def reader(self) -> Reader:
        """For one streamed answer."""
        ...

    def read_whole(self, body: bytes) -> list[Event]:
        """The events of an answer that was not streamed. Raises ``BadAnswer``."""
        ...

    def error_code(self, body: bytes) -> str:
        """What an error document says went wrong, of a small set the gateway acts on.

        Returns:
            ``context_length_exceeded`` | ``content_policy`` | ``prefill_unsupported`` | ``upstream_auth`` (our key is
            not known, said with a status that is otherwise the client's) | "" for anything else.
        """
        ...


class Writer(Protocol):
    """Writes one streamed answer for a client, from events. One per answer; primed by replay when one is repaired."""

    def write(self, events: list[Event]) -> bytes:
        """What the client gets for these events; may hold back what its dialect wants later (finish, usage)."""
        ...

    def end(self) -> bytes:
        """The proper end of a whole answer, with all that was held back."""
        ...
