"""A :class:`Call` as the body of Bedrock's ``Converse`` and ``ConverseStream``; the conversation: ``bedrock_turns``.

One API for models of many makers: what it has no field for goes by ``additionalModelRequestFields``, in the maker's own
words, so some of it depends on the model's name (an ARN that does not tell is taken for a model without specialities).
What a call may have, and what becomes of it:

=======================================  =============================================================================
``n`` above 1                            refused, 400
``temperature`` above 1                  1, and named as dropped (the range ends there)
sampling that a Claude does not know     dropped and named, as in ``anthropic_encode``; so is ``top_p`` beside
                                         ``temperature`` since Claude 4
``top_k``                                Claude's ``top_k``, Nova's ``inferenceConfig.topK``; for others dropped, named
``seed``, penalties, ``logprobs``,       dropped and named
``top_logprobs``, ``user``
stop sequences of white space            dropped and named
``tool_choice`` none                     no tools; if the conversation has calls the API wants them, so they stay, and
                                         the choice is dropped and named
calls in a conversation without tools    their tools are described by name alone, since the API wants a description
``parallel_tools`` false                 dropped and named
``tools[].strict``                       kept where JSON schemas are
JSON schema for the answer               ``outputConfig.textFormat``, objects closed (``additionalProperties: false``);
                                         for Nova and Claude before 4.5 a tool of that schema, whose call is the text
JSON object for the answer               an instruction at the end of ``system``; named as dropped, since nothing
                                         guarantees it
``service_tier``                         ``priority``, ``flex``, ``default``; ``standard_only`` → ``default``; ``auto``
                                         is left out; others dropped and named
other dialects' own fields (``extra``)   dropped and named
=======================================  =============================================================================

Thinking:

=============================  =======================================================================================
Claude 3.7 to 4.5              ``thinking`` with a budget, as ``anthropic_encode`` has it; dropped and named where the
                               API would refuse: a forced tool, a prefill, calls without thoughts, no room for it
Claude 4.6 and later           ``thinking: adaptive`` and ``outputConfig.effort``
Nova 2                         ``reasoningConfig`` with ``low``, ``medium``, ``high``; with ``high`` Nova takes neither
                               sampling nor a limit, which are dropped and named
gpt-oss                        ``reasoning_effort``: ``low``, ``medium``, ``high``
others                         dropped and named
=============================  =======================================================================================

Source: Amazon Bedrock API reference, "Converse"; user guide, "Inference request parameters", "Get validated JSON
results from models"; Nova 2 user guide, "Using the Converse API"; the service's model in botocore.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects.anthropic_encode import (
    BUDGETS,
    FORMAT_TOOL,
    JSON_INSTRUCTION,
    LEAST_BUDGET_TOKENS,
    MEDIUM_BUDGET_TOKENS,
    closed,
    refuse_prefill,
)
from gateway.dialects.anthropic_models import Abilities, abilities_of
from gateway.dialects.anthropic_turns import unsupported
from gateway.dialects.bedrock_turns import Family, Turns, family_of, limit_marks
from gateway.dialects.call import Call, Encoded, Thinking, Tool
from gateway.dialects.field_names import client_name
from gateway.dialects.provider import Quirks

DEFAULT_ANSWER_TOKENS = 16_000  # beside a budget for thoughts, where the client gave no limit for both
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_TIERS = {"priority": "priority", "flex": "flex", "default": "default", "standard_only": "default"}
_NO_TEXT_FORMAT = ("opus-4-1",)  # Anthropic's own API has it for this one, Bedrock has not
_encode = msgspec.json.Encoder().encode


def encode_bedrock(call: Call, model: str, quirks: Quirks) -> Encoded:
    """The body, and what was dropped.

    Raises:
        RequestError: 400 ``unsupported_by_provider`` or ``invalid_request``, naming the field.
    """
    if call.n > 1:
        raise unsupported(client_name(call.dialect, "n"), "Bedrock gives one answer per request")
    if call.prefill and not quirks.prefill:
        param = client_name(call.dialect, "messages")
        raise unsupported(param, "this provider does not go on from a last message of the assistant")
    return _Encoding(call, model).encoded()


class _Encoding:
    """One body in the making."""

    def __init__(self, call: Call, model: str) -> None:
        self._call = call
        self._model = model.lower()
        family = family_of(model)
        self._claude: Abilities | None = abilities_of(model) if family == "claude" else None
        if self._claude is not None:
            refuse_prefill(call, model, self._claude)
        self._takes_schemas = self._knows_schemas(family)
        # Claude's generations that take schemas here are those whose cache may be kept for an hour.
        self._turns = Turns.of(call, family, keeps_long=self._claude is not None and self._takes_schemas)
        self._tools = [block for tool in call.tools for block in self._tool(tool)]
        self._forced = False
        self._body: dict[str, Any] = {"messages": self._turns.messages}
        self._inference: dict[str, Any] = {}
        self._more: dict[str, Any] = {}

    def encoded(self) -> Encoded:
        self._set_format()
        self._set_tools()
        self._set_sampling()
        self._set_thinking()
        self._set_rest()
        limit_marks(self._tools, self._turns)
        if self._turns.system:
            self._body["system"] = self._turns.system
        for name, value in (("inferenceConfig", self._inference), ("additionalModelRequestFields", self._more)):
            if value:
                self._body[name] = value
        return Encoded(body=_encode(self._body), dropped=tuple(self._turns.dropped))

    def _drop(self, field: str) -> None:
        self._turns.drop(client_name(self._call.dialect, field))

    def _knows_schemas(self, family: Family) -> bool:
        if self._claude is not None:
            return self._claude.schema and not any(name in self._model for name in _NO_TEXT_FORMAT)
        return family != "nova"

    def _tool(self, tool: Tool) -> list[dict[str, Any]]:
        spec = _spec(tool.name, tool.description, tool.schema)
        if tool.strict and self._takes_schemas:
            spec["toolSpec"]["strict"] = True
        elif tool.strict:
            self._drop("tools[].strict")
        return self._turns.marked(spec, tool.cached)

    def _set_format(self) -> None:
        wanted = self._call.format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.kind == "json":
            self._turns.system.append({"text": JSON_INSTRUCTION})
            self._drop("response_format")
        elif self._takes_schemas:
            schema = {"schema": _encode(closed(wanted.schema)).decode(), "name": wanted.name or "answer"}
            self._body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
        else:
            described = "Give your answer to the user by calling this tool."
            self._tools.append(_spec(FORMAT_TOOL, described, wanted.schema))

    def _set_tools(self) -> None:
        said = self._call.tool_choice
        mode = said.mode if said is not None else "auto"
        formats = bool(self._tools) and self._tools[-1].get("toolSpec", {}).get("name") == FORMAT_TOOL
        if mode == "none" and self._turns.called:
            self._drop("tool_choice")
            mode = "auto"
        elif mode == "none":
            self._tools = self._tools[-1:] if formats else []
        if not self._tools:
            self._tools = [_spec(name, "", {}) for name in self._turns.called]
        if not self._tools:
            return
        choice: dict[str, Any] = {}
        if mode == "named" and said is not None:
            choice = {"tool": {"name": said.name}}
        elif formats:
            choice = {"tool": {"name": FORMAT_TOOL}} if len(self._tools) == 1 else {"any": {}}
        elif mode == "required":
            choice = {"any": {}}
        self._forced = bool(choice)
        self._body["toolConfig"] = {"tools": self._tools, **({"toolChoice": choice} if choice else {})}
        if self._call.parallel_tools is False:
            self._drop("parallel_tool_calls")

    def _set_sampling(self) -> None:
        call, inference = self._call, self._inference
        kept = {name: getattr(call, name) for name in ("temperature", "top_p", "top_k")}
        kept = {name: value for name, value in kept.items() if value is not None}
        if kept.get("temperature", 0) > 1:
            kept["temperature"] = 1
            self._drop("temperature")
        if self._claude is not None and self._claude.sampling == "none":
            self._leave_out(kept, "temperature", "top_p", "top_k")
        elif self._claude is not None and self._claude.sampling == "one" and "temperature" in kept:
            self._leave_out(kept, "top_p")
        if self._turns.family not in ("claude", "nova"):
            self._leave_out(kept, "top_k")
        for ours, theirs in (("temperature", "temperature"), ("top_p", "topP")):
            if ours in kept:
                inference[theirs] = kept[ours]
        if "top_k" in kept:
            nova = self._turns.family == "nova"
            self._more.update({"inferenceConfig": {"topK": kept["top_k"]}} if nova else {"top_k": kept["top_k"]})
        if call.max_tokens is not None:
            inference["maxTokens"] = call.max_tokens

    def _leave_out(self, fields: dict[str, Any], *names: str) -> None:
        for name in names:
            if fields.pop(name, None) is not None:
                self._drop(name)

    def _set_thinking(self) -> None:
        wanted = self._call.thinking
        if wanted is None:
            return
        if self._claude is not None:
            self._think_as_claude(wanted, self._claude)
        elif "nova-2" in self._model:
            self._think_as_nova(wanted)
        elif self._turns.family == "gpt-oss" and wanted.effort in _EFFORTS and not wanted.off:
            self._more["reasoning_effort"] = _EFFORTS[wanted.effort]
        elif not (wanted.off and self._turns.family != "gpt-oss"):
            self._drop("reasoning_effort")

    def _think_as_claude(self, wanted: Thinking, can: Abilities) -> None:
        if wanted.off and can.thinking == "always":
            self._drop("reasoning_effort")
        elif wanted.off:
            self._more |= {"thinking": {"type": "disabled"}} if can.thinking != "none" else {}
        elif can.thinking == "budget":
            self._think_by_budget(wanted, can)
        elif can.thinking == "none":
            self._drop("reasoning_effort")
        else:
            self._more["thinking"] = _shown({"type": "adaptive"}, wanted)
            effort = _effort(wanted, can)
            if effort:
                self._body.setdefault("outputConfig", {})["effort"] = effort
            elif wanted.effort:
                self._drop("reasoning_effort")

    def _think_by_budget(self, wanted: Thinking, can: Abilities) -> None:
        budget = BUDGETS.get(wanted.effort, 0) if wanted.effort else MEDIUM_BUDGET_TOKENS
        if wanted.budget_tokens is not None and wanted.budget_tokens >= 0:
            budget = max(wanted.budget_tokens, LEAST_BUDGET_TOKENS)
        limit = self._call.max_tokens or min(DEFAULT_ANSWER_TOKENS + budget, can.most_output_tokens)
        budget = min(budget, limit - 1)
        barred = self._forced or self._call.prefill or self._turns.acts_without_thoughts
        if barred or budget < LEAST_BUDGET_TOKENS:
            self._drop("reasoning_effort")
            return
        self._more["thinking"] = _shown({"type": "enabled", "budget_tokens": budget}, wanted)
        self._inference["maxTokens"] = limit
        self._refuse_sampling("temperature", *(("topP",) if (self._call.top_p or 1) < 0.95 else ()))
        if self._more.pop("top_k", None) is not None:
            self._drop("top_k")

    def _think_as_nova(self, wanted: Thinking) -> None:
        if wanted.off:
            self._more["reasoningConfig"] = {"type": "disabled"}
            return
        effort = _EFFORTS.get(wanted.effort, "" if wanted.effort else "medium")
        if not effort:
            self._drop("reasoning_effort")
            return
        self._more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
        if effort == "high":
            self._refuse_sampling("temperature", "topP", "maxTokens")
            if self._more.pop("inferenceConfig", None) is not None:
                self._drop("top_k")

    def _refuse_sampling(self, *names: str) -> None:
        ours = {"topP": "top_p", "maxTokens": "max_tokens"}
        for name in names:
            if self._inference.pop(name, None) is not None:
                self._drop(ours.get(name, name))

    def _set_rest(self) -> None:
        call = self._call
        stop = [sequence for sequence in call.stop if sequence.strip()]
        if stop:
            self._inference["stopSequences"] = stop
        if len(stop) < len(call.stop):
            self._drop("stop")
        if call.service_tier in _TIERS:
            self._body["serviceTier"] = {"type": _TIERS[call.service_tier]}
        elif call.service_tier not in ("", "auto"):
            self._drop("service_tier")
        for name in ("seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "user"):
            value = getattr(call, name)
            if value or (name == "seed" and value is not None):
                self._drop(name)
        for name in call.extra:
            self._turns.drop(name)


def _spec(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    given = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    spec: dict[str, Any] = {"name": name, "inputSchema": {"json": given}}
    if description:
        spec["description"] = description
    return {"toolSpec": spec}


def _effort(wanted: Thinking, can: Abilities) -> str:
    """What ``outputConfig.effort`` says; "" for none."""
    effort = wanted.effort
    if not effort and wanted.budget_tokens is not None and wanted.budget_tokens >= 0:
        fitting = (each for each in BUDGETS if BUDGETS[each] <= (wanted.budget_tokens or 0))
        effort = max(fitting, key=BUDGETS.__getitem__, default="low")
    effort = {"minimal": "low"}.get(effort, effort)
    effort = "high" if effort == "xhigh" and effort not in can.efforts else effort
    return effort if effort in can.efforts else ""


def _shown(thinking: dict[str, Any], wanted: Thinking) -> dict[str, Any]:
    return thinking if wanted.show is None else {**thinking, "display": "summarized" if wanted.show else "omitted"}
