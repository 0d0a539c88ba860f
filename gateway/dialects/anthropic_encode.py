"""A :class:`Call` as the body of Anthropic's ``POST /v1/messages``; the conversation itself: ``anthropic_turns``.

What a model accepts depends on its generation (``anthropic_models``). What a call may have and this dialect has not:

=======================================  =============================================================================
``n`` above 1                            refused, 400
prefill                                  refused, 400, where the model does not go on from one
``max_tokens`` not given                 :data:`DEFAULT_MAX_TOKENS` for the answer and the thinking budget on top, as
                                         far as the model can (the API wants a number)
``temperature`` above 1                  1, and named as dropped (the range ends there)
sampling that the model does not know    dropped and named; so is ``top_p`` beside ``temperature`` since Claude 4
``seed``, penalties, ``logprobs``,       dropped and named
``top_logprobs``
stop sequences of white space            dropped and named
``response_format`` JSON schema          ``output_config.format``, objects closed (``additionalProperties: false``); for
                                         models without it a tool of that schema, whose call is read as the text
``response_format`` JSON object          an instruction at the end of ``system``; named as dropped, since nothing
                                         guarantees it
``tools[].strict``                       kept where the model has it, else dropped and named
``service_tier``                         ``auto`` and ``priority`` → ``auto``, ``default`` → ``standard_only``; others
                                         dropped and named
other dialects' own fields (``extra``)   dropped and named
=======================================  =============================================================================

Thinking, by what the model has:

============================  ============================  ====================================================
the call says                 a budget (3.7 to 4.5)         adaptive (4.6 and later)
============================  ============================  ====================================================
nothing                       nothing                       nothing
off                           ``disabled``                  ``disabled``; dropped where thinking is always on
effort ``minimal``            1,024 tokens                  ``low``
``low``                       2,048                         ``low``
``medium``                    8,192                         ``medium``
``high``                      16,000                        ``high``
``xhigh``                     24,000                        ``xhigh`` (4.6: ``high``)
``max``                       32,000                        ``max``
a budget                      itself, at least 1,024        the highest effort whose tokens do not exceed it
as much as it likes (-1)      8,192                         no effort
another effort                dropped and named             dropped and named
============================  ============================  ====================================================

A budget stays below ``max_tokens``. Where a model takes a budget, thinking is left out (and named) if ``max_tokens``
leaves no room, if a tool is forced, if the answer continues a partial one, or if the last turn called tools without
thoughts: the API refuses each. With a budget the API also wants the default ``temperature`` and ``top_k``.

Source: Anthropic API reference, "Messages"; guides "Extended thinking", "Adaptive thinking", "Effort", "Structured
outputs", "Migration guide".
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects.anthropic_models import Abilities, abilities_of
from gateway.dialects.anthropic_turns import Turns, limit_marks, marked, unsupported
from gateway.dialects.call import Call, Encoded, Thinking, Tool
from gateway.dialects.field_names import client_name, is_top_level

DEFAULT_MAX_TOKENS = 16_000
LEAST_BUDGET_TOKENS = 1_024
MEDIUM_BUDGET_TOKENS = 8_192
BUDGETS = {
    "minimal": LEAST_BUDGET_TOKENS,
    "low": 2_048,
    "medium": MEDIUM_BUDGET_TOKENS,
    "high": 16_000,
    "xhigh": 24_000,
    "max": 32_000,
}
FORMAT_TOOL = "sluice_formatted_answer"  # its call is the answer itself; ``anthropic_reader`` knows it
JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no prose around it, no code fence."
_NAMED_SCHEMAS = {"properties", "$defs", "definitions"}
_SCHEMAS = {"items", "prefixItems", "anyOf", "oneOf", "allOf"}
_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}
_encode = msgspec.json.Encoder().encode


def encode_call(call: Call, model: str) -> Encoded:
    """The body, and what was dropped.

    Raises:
        RequestError: 400, naming what has no counterpart.
    """
    return _Encoding(call, model).encoded()


def refuse_prefill(call: Call, model: str, can: Abilities) -> None:
    """Say at once what the API would say of a partial answer for a model that does not go on from it.

    Raises:
        RequestError: 400.
    """
    if call.prefill and not can.prefill:
        raise unsupported(client_name(call.dialect, "messages"), f"{model} does not go on from a partial answer")


class _Encoding:
    """One body in the making."""

    def __init__(self, call: Call, model: str) -> None:
        if call.n > 1:
            raise unsupported(client_name(call.dialect, "n"), "Anthropic gives one answer per request")
        self._call = call
        self._can: Abilities = abilities_of(model)
        refuse_prefill(call, model, self._can)
        self._turns = Turns.of(call)
        self._tools = [self._tool(tool) for tool in call.tools]
        self._body: dict[str, Any] = {"model": model, "max_tokens": 0, "messages": self._turns.messages}

    def encoded(self) -> Encoded:
        self._set_format()
        self._set_tool_choice()
        self._set_thinking()
        self._set_sampling()
        self._set_rest()
        limit_marks(self._tools, self._turns)
        if self._turns.system:
            self._body["system"] = self._turns.system
        if self._tools:
            self._body["tools"] = self._tools
        return Encoded(body=_encode(self._body), dropped=tuple(self._turns.dropped))

    def _drop(self, field: str) -> None:
        self._turns.drop(client_name(self._call.dialect, field))

    def _tool(self, tool: Tool) -> dict[str, Any]:
        schema = tool.schema if "type" in tool.schema else {"type": "object", "properties": {}, **tool.schema}
        encoded: dict[str, Any] = {"name": tool.name, "input_schema": schema}
        if tool.description:
            encoded["description"] = tool.description
        if tool.strict and self._can.schema:
            encoded["strict"] = True
        elif tool.strict:
            self._drop("tools[].strict")
        return marked(encoded, tool.cached)

    def _set_format(self) -> None:
        wanted = self._call.format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.kind == "json":
            self._turns.system.append({"type": "text", "text": JSON_INSTRUCTION})
            self._drop("response_format")
        elif self._can.schema:
            self._body["output_config"] = {"format": {"type": "json_schema", "schema": closed(wanted.schema)}}
        else:
            described = "Give your answer to the user by calling this tool."
            self._tools.append({"name": FORMAT_TOOL, "description": described, "input_schema": wanted.schema})

    def _set_tool_choice(self) -> None:
        if not self._tools:
            return
        said = self._call.tool_choice
        mode = said.mode if said is not None else "auto"
        if self._tools[-1]["name"] == FORMAT_TOOL:
            alone = len(self._tools) == 1 or mode == "none"
            choice: dict[str, Any] = {"type": "tool", "name": FORMAT_TOOL} if alone else {"type": "any"}
            if mode == "named" and said is not None:
                choice = {"type": "tool", "name": said.name}
        elif mode == "named" and said is not None:
            choice = {"type": "tool", "name": said.name}
        else:
            choice = {"type": {"required": "any"}.get(mode, mode)}
        if self._call.parallel_tools is False and choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
        if said is not None or choice != {"type": "auto"}:
            self._body["tool_choice"] = choice

    def _set_thinking(self) -> None:
        """``thinking``, the effort and ``max_tokens``, which depend on each other."""
        call, can = self._call, self._can
        limit = call.max_tokens
        budget = 0
        if call.thinking is not None:
            if call.thinking.off:
                self._forbid_thinking()
            elif can.thinking == "budget":
                budget = self._budget(call.thinking)
            elif can.thinking == "none":
                self._drop("reasoning_effort")
            else:
                self._think_as_it_likes(call.thinking)
        if limit is None:
            limit = min(DEFAULT_MAX_TOKENS + budget, can.most_output_tokens)
        budget = min(budget, limit - 1)
        if budget >= LEAST_BUDGET_TOKENS:
            self._body["thinking"] = self._shown({"type": "enabled", "budget_tokens": budget})
        elif call.thinking is not None and not call.thinking.off and can.thinking == "budget":
            self._drop("reasoning_effort")
        self._body["max_tokens"] = limit

    def _forbid_thinking(self) -> None:
        if self._can.thinking == "always":
            self._drop("reasoning_effort")
        else:
            self._body["thinking"] = {"type": "disabled"}

    def _budget(self, wanted: Thinking) -> int:
        """Tokens to think with; 0 where the API would refuse to think at all, or the effort is unknown."""
        forced = self._body.get("tool_choice", {}).get("type") in ("any", "tool")
        if forced or self._call.prefill or self._turns.acts_without_thoughts:
            return 0
        if wanted.budget_tokens is not None and wanted.budget_tokens >= 0:
            return max(wanted.budget_tokens, LEAST_BUDGET_TOKENS)
        return BUDGETS.get(wanted.effort, 0) if wanted.effort else MEDIUM_BUDGET_TOKENS

    def _think_as_it_likes(self, wanted: Thinking) -> None:
        effort = wanted.effort
        if not effort and wanted.budget_tokens is not None and wanted.budget_tokens >= 0:
            effort = max(
                (e for e in BUDGETS if BUDGETS[e] <= wanted.budget_tokens), key=BUDGETS.__getitem__, default="low"
            )
        effort = "low" if effort == "minimal" else effort
        effort = "high" if effort == "xhigh" and effort not in self._can.efforts else effort
        if effort in self._can.efforts:
            self._body.setdefault("output_config", {})["effort"] = effort
        elif effort:
            self._drop("reasoning_effort")
        self._body["thinking"] = self._shown({"type": "adaptive"})

    def _shown(self, thinking: dict[str, Any]) -> dict[str, Any]:
        show = self._call.thinking.show if self._call.thinking is not None else None
        return thinking if show is None else {**thinking, "display": "summarized" if show else "omitted"}

    def _set_sampling(self) -> None:
        call, body = self._call, self._body
        wanted: dict[str, float | int | None] = {
            "temperature": call.temperature,
            "top_p": call.top_p,
            "top_k": call.top_k,
        }
        if wanted["temperature"] is not None and wanted["temperature"] > 1:
            wanted["temperature"] = 1
            self._drop("temperature")
        refused = {"all": (), "one": (), "none": ("temperature", "top_p", "top_k")}[self._can.sampling]
        if self._can.sampling == "one" and wanted["temperature"] is not None:
            refused = ("top_p",)
        if body.get("thinking", {}).get("type") == "enabled":
            refused = (*refused, "temperature", "top_k", *(("top_p",) if (call.top_p or 1) < 0.95 else ()))
        for name, value in wanted.items():
            if value is not None and name in refused:
                self._drop(name)
            elif value is not None:
                body[name] = value

    def _set_rest(self) -> None:
        call, body = self._call, self._body
        stop = [sequence for sequence in call.stop if sequence.strip()]
        if stop:
            body["stop_sequences"] = stop
        if len(stop) < len(call.stop):
            self._drop("stop")
        if call.stream:
            body["stream"] = True
        if call.user:
            body["metadata"] = {"user_id": call.user}
        if call.service_tier in _TIERS:
            body["service_tier"] = _TIERS[call.service_tier]
        elif call.service_tier:
            self._drop("service_tier")
        for name in ("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"):
            value = getattr(call, name)
            if value or (name == "seed" and value is not None):
                self._drop(name)
        for name, value in call.extra.items():
            if call.dialect == "anthropic" and is_top_level(name):
                body[name] = value
            else:
                self._turns.drop(name)


def closed(schema: Any) -> Any:
    """The schema with every object closed that does not say: the API takes no others."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for name in made.keys() & _NAMED_SCHEMAS:
        if isinstance(made[name], dict):
            made[name] = {key: closed(value) for key, value in made[name].items()}
    for name in made.keys() & _SCHEMAS:
        made[name] = closed(made[name])
    if made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made
