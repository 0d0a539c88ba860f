"""The conversation of a :class:`Call` as Bedrock Converse's ``system`` and ``messages``.

The API wants turns of user and assistant in turn and no empty text. So neighbours of one role are merged, results are
put first in their turn, what is empty is left out, and the white space at the end of a last assistant turn (a prefill)
is taken off. Identifiers of tool calls keep the characters that the API allows, and of those the last 64, in calls and
results alike. What a conversation may have and what becomes of it:

==================================  ==================================================================================
in a call                           here
==================================  ==================================================================================
system message in the middle        moved to ``system`` (newest models alone take one in place)
only system messages                the last of them is asked as the user's
anything but text in one            refused, 400
``messages[].name``                 dropped and named
``cached`` marks                    a ``cachePoint`` behind the part, for Claude and Nova, the last four of them; for
                                    other models, and inside a tool's result, dropped and named
thoughts with a signature           ``reasoningText``; redacted ones ``redactedContent``
thoughts without, OpenAI's,         dropped and named: a model takes back only what it has signed
Google's
a refusal                           becomes text
a failed tool's result              ``status: error`` for Claude and Nova; for others dropped and named
arguments that are no JSON object   refused, 400
media                               see ``bedrock_media``; ``image_url.detail`` is dropped and named
==================================  ==================================================================================

Source: Amazon Bedrock API reference, "Message", "ContentBlock", "ToolResultBlock"; user guide, "Prompt caching",
"Call a tool with the Converse API".
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from attrs import Factory, define

from gateway.core.errors import RequestError
from gateway.dialects.anthropic_turns import unsupported
from gateway.dialects.bedrock_media import media_block
from gateway.dialects.call import DEFAULT_TTL, Call, Media, Message, Reasoning, Refusal, Text, ToolCall, ToolResult, Ttl
from gateway.dialects.field_names import client_name
from gateway.dialects.signatures import is_googles

Block = dict[str, Any]
Family = Literal["claude", "nova", "gpt-oss", ""]

MOST_CACHE_POINTS = 4
_MOST_ID_CHARS = 64
_RESULTS = {"toolResult", "cachePoint"}  # what a turn begins with: results, and marks behind them
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_decode = msgspec.json.Decoder().decode


def family_of(model: str) -> Family:
    """Whose model it is, as far as that decides what it takes; "" for others, and for ARNs that do not say."""
    name = model.lower()
    if "claude" in name:
        return "claude"
    if "gpt-oss" in name:
        return "gpt-oss"
    return "nova" if "nova-" in name else ""


@define(slots=True)
class Turns:
    """``system`` and ``messages`` in the making.

    Attributes:
        family: Of the model.
        keeps_long: It knows a time for what it caches, and not only the default one.
        dropped: What was left out, by the client's names; a dictionary for its order and speed.
        called: Names of the tools that the conversation speaks of.
    """

    call: Call
    family: Family
    keeps_long: bool = False
    system: list[Block] = Factory(list)
    messages: list[Block] = Factory(list)
    dropped: dict[str, None] = Factory(dict)
    called: dict[str, None] = Factory(dict)
    _names: set[str] = Factory(set)

    @classmethod
    def of(cls, call: Call, family: Family, *, keeps_long: bool = False) -> Turns:
        """Translate the conversation.

        Raises:
            RequestError: 400, naming what has no counterpart.
        """
        turns = cls(call, family, keeps_long)
        for text in call.system:
            turns.system += turns._text(text)
        for place, message in enumerate(call.messages):
            turns._add(message, f"{client_name(call.dialect, 'messages')}[{place}]")
        turns._settle()
        return turns

    @property
    def caches(self) -> bool:
        """The model takes cache points."""
        return self.family in ("claude", "nova")

    @property
    def acts_without_thoughts(self) -> bool:
        """Whether the last assistant turn called tools without thoughts: then Claude refuses to think by a budget."""
        for message in reversed(self.messages):
            if message["role"] == "assistant":
                kinds = [next(iter(block)) for block in message["content"]]
                return "toolUse" in kinds and kinds[0] != "reasoningContent"
        return False

    def drop(self, name: str) -> None:
        """Note that a field of the client's was left out."""
        self.dropped[name] = None

    def _add(self, message: Message, param: str) -> None:
        if message.name:
            self.drop(f"{param}.name")
        if message.role == "system":
            self._add_instructions(message, param)
            return
        results: list[Block] = []
        rest: list[Block] = []
        for part in message.parts:
            (results if isinstance(part, ToolResult) else rest).extend(self._blocks(part, param))
        blocks = results + rest
        if blocks and self.messages and self.messages[-1]["role"] == message.role:
            content = self.messages[-1]["content"]
            if results:
                place = next((at for at, block in enumerate(content) if not _RESULTS & block.keys()), len(content))
                content[place:place] = results
                content += rest
            else:
                content += blocks
        elif blocks:
            self.messages.append({"role": message.role, "content": blocks})

    def _add_instructions(self, message: Message, param: str) -> None:
        for part in message.parts:
            if not isinstance(part, Text):
                raise unsupported(param, "instructions are text here, and nothing else")
            self.system += self._text(part)

    def _settle(self) -> None:
        """What can only be seen when all turns are there."""
        if not self.messages and self.system:
            asked = [block for block in self.system if "text" in block][-1]
            self.system = self.system[: self.system.index(asked)]
            self.messages.append({"role": "user", "content": [asked]})
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == "assistant" and "text" in last["content"][-1]:
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()

    def _blocks(self, part: Any, param: str) -> list[Block]:
        match part:
            case Text():
                return self._text(part)
            case Refusal():
                return self._text(Text(text=part.text))
            case Media():
                return self.marked(self._media(part, param), part.cached)
            case ToolCall():
                return self.marked(self._tool_use(part, param), part.cached)
            case ToolResult():
                return self.marked(self._tool_result(part, param), part.cached)
            case Reasoning():
                return self._reasoning(part, param)
        raise AssertionError(part)

    def marked(self, block: Block, cached: Ttl) -> list[Block]:
        """The block, and behind it a cache point if it has the mark and the model takes one."""
        if not cached:
            return [block]
        if not self.caches:
            self.drop("cache_control")
            return [block]
        point = {"type": "default"}
        if cached != DEFAULT_TTL and self.keeps_long:
            point["ttl"] = cached
        elif cached != DEFAULT_TTL:
            self.drop("cache_control.ttl")
        return [block, {"cachePoint": point}]

    def _text(self, part: Text) -> list[Block]:
        return self.marked({"text": part.text}, part.cached) if part.text.strip() else []

    def _media(self, part: Media, param: str) -> Block:
        if part.detail not in ("", "auto"):
            self.drop(f"{param}.detail")
        return media_block(part, param, self._names)

    def _reasoning(self, part: Reasoning, param: str) -> list[Block]:
        if part.redacted and not part.id.startswith("rs_"):
            return [{"reasoningContent": {"redactedContent": part.redacted}}]
        if part.signature and part.text and not part.redacted and not is_googles(part.signature):
            signed = {"text": part.text, "signature": part.signature}
            return [{"reasoningContent": {"reasoningText": signed}}]
        self.drop(f"{param}.reasoning")
        return []

    def _tool_use(self, part: ToolCall, param: str) -> Block:
        """The call, its arguments as they are: numbers keep their digits."""
        text = part.arguments.strip() or "{}"
        if not isinstance(_json(text), dict):
            param = f"{param}.tool_calls"
            raise RequestError(
                "invalid_request", 400, f"{param}: the arguments of {part.id!r} are no JSON object", param=param
            )
        self.called[part.name] = None
        return {"toolUse": {"toolUseId": safe_id(part.id), "name": part.name, "input": msgspec.Raw(text.encode())}}

    def _tool_result(self, part: ToolResult, param: str) -> Block:
        content: list[Block] = []
        for piece in part.content:
            if piece.cached:
                self.drop("cache_control")
            if isinstance(piece, Media):
                content.append(self._media(piece, param))
            elif piece.text.strip():
                content.append({"text": piece.text})
        result: Block = {"toolUseId": safe_id(part.id), "content": content}
        if part.is_error and self.caches:  # the two families that take the one take the other
            result["status"] = "error"
        elif part.is_error:
            self.drop(f"{param}.is_error")
        return {"toolResult": result}


def limit_marks(tools: list[Block], turns: Turns) -> None:
    """Leave the last :data:`MOST_CACHE_POINTS` of all, in the order of the prompt: tools, system, messages."""
    lists = [tools, turns.system, *(message["content"] for message in turns.messages)]
    places = [(blocks, block) for blocks in lists for block in blocks if "cachePoint" in block]
    for blocks, point in places[:-MOST_CACHE_POINTS]:
        blocks[:] = [block for block in blocks if block is not point]


def safe_id(id: str) -> str:
    """A tool call's id as the API allows it; the same for the call and its result."""
    return _NOT_IN_ID.sub("_", id)[-_MOST_ID_CHARS:]


def _json(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
