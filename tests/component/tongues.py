"""Anthropic's and Google's client dialects, and all six by name; see ``tongue``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from tests.component.stage import Heard
from tests.component.tongue import SCHEMA, TOOL, Call, Question, Said, Tongue, arguments, turns_of
from tests.component.tongues_of_openai import Completions, OpenAIChat, Orchestrate, Responses


class Anthropic(Tongue):
    name = "anthropic"
    finishes: ClassVar[dict[str, str]] = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/messages"

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        messages = turns_of(question)
        if question.called is not None:
            call = question.called
            made = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            got = {"type": "tool_result", "tool_use_id": call.id, "content": question.result}
            messages += [{"role": "assistant", "content": [made]}, {"role": "user", "content": [got]}]
        limit = question.max_tokens or 1000
        body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": limit, "stream": stream}
        if question.system:
            body["system"] = question.system
        if question.tool:
            body["tools"] = [{"name": TOOL, "input_schema": SCHEMA}]
        if question.stop:
            body["stop_sequences"] = [question.stop]
        return body

    def whole(self, document: Any) -> Said:
        assert (document["type"], document["role"]) == ("message", "assistant")
        blocks, usage = document["content"], document["usage"]
        calls = (
            Call(id=one["id"], name=one["name"], arguments=one["input"]) for one in blocks if one["type"] == "tool_use"
        )
        return Said(
            text="".join(block["text"] for block in blocks if block["type"] == "text"),
            ids=frozenset({document["id"]}),
            calls=tuple(calls),
            finish=document["stop_reason"],
            tokens=(usage["input_tokens"], usage["output_tokens"]),
            ended=True,
        )

    def streamed(self, heard: Heard) -> Said:
        events = [json.loads(event) for event in heard.events]
        names = [line[7:] for line in heard.body.decode().split("\n") if line.startswith("event: ")]
        assert names == [event["type"] for event in events]
        begun = events[0]["message"] if events and events[0]["type"] == "message_start" else {}
        blocks: dict[int, dict[str, Any]] = {}
        open_block, finish, error = None, "", None
        usage = dict(begun.get("usage", {}))
        for event in events:
            match event["type"]:
                case "content_block_start":
                    assert open_block is None, "blocks come one after the other"
                    open_block = event["index"]
                    blocks[open_block] = {**event["content_block"], "pieces": []}
                case "content_block_delta":
                    assert event["index"] == open_block
                    blocks[event["index"]]["pieces"].append(event["delta"])
                case "content_block_stop":
                    open_block = None
                case "message_delta":
                    finish = event["delta"]["stop_reason"]
                    usage |= {name: count for name, count in event["usage"].items() if count is not None}
                case "error":
                    error = event["error"]
        return Said(
            text="".join(piece.get("text", "") for block in blocks.values() for piece in block["pieces"]),
            ids=frozenset({begun["id"]}) if begun else frozenset(),
            calls=() if error else tuple(self._calls(blocks.values())),
            finish=finish,
            tokens=(usage["input_tokens"], usage["output_tokens"]) if finish else None,
            ended=names[-1:] == ["message_stop"],
            error=error,
        )

    def _calls(self, blocks: Iterable[dict[str, Any]]) -> Iterable[Call]:
        for block in blocks:
            if block["type"] == "tool_use":
                text = "".join(piece["partial_json"] for piece in block["pieces"])
                yield Call(id=block["id"], name=block["name"], arguments=arguments(text or "{}"))

    def refusal(self, heard: Heard) -> str:
        document = heard.json()
        assert document["type"] == "error"
        assert {"type", "message"} <= set(document["error"])
        assert "param" not in document["error"]
        return str(document["error"]["message"])


class Gemini(Tongue):
    name = "gemini"
    finishes: ClassVar[dict[str, str]] = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP"}

    def path(self, model: str, *, stream: bool) -> str:
        return f"/v1beta/models/{model}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent")

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        roles = {"user": "user", "assistant": "model"}
        contents: list[dict[str, Any]] = [
            {"role": roles[role], "parts": [{"text": text}]} for role, text in question.turns
        ]
        if question.called is not None:
            call = question.called
            named = {"name": call.name} | ({"id": call.id} if call.id else {})
            contents.append({"role": "model", "parts": [{"functionCall": {**named, "args": call.arguments}}]})
            result = {**named, "response": {"result": question.result}}
            contents.append({"role": "user", "parts": [{"functionResponse": result}]})
        body: dict[str, Any] = {"contents": contents}
        if question.system:
            body["systemInstruction"] = {"parts": [{"text": question.system}]}
        if question.tool:
            body["tools"] = [{"functionDeclarations": [{"name": TOOL, "parameters": SCHEMA}]}]
        config = ({"maxOutputTokens": question.max_tokens} if question.max_tokens else {}) | (
            {"stopSequences": [question.stop]} if question.stop else {}
        )
        return body | ({"generationConfig": config} if config else {})

    def whole(self, document: Any) -> Said:
        return self._put_together([document])

    def streamed(self, heard: Heard) -> Said:
        return self._put_together([json.loads(event) for event in heard.events])

    def _put_together(self, pieces: list[Any]) -> Said:
        text, finish, tokens, error, ids = "", "", None, None, set()
        calls: list[Call] = []
        for piece in pieces:
            if "error" in piece:
                error = piece["error"]
                continue
            ids.add(piece["responseId"])
            usage = piece.get("usageMetadata") or {}
            if "candidatesTokenCount" in usage:
                tokens = (usage["promptTokenCount"], usage["candidatesTokenCount"])
            for candidate in piece.get("candidates") or ():
                finish = candidate.get("finishReason") or finish
                for part in (candidate.get("content") or {}).get("parts") or ():
                    text += part.get("text", "")
                    if "functionCall" in part:
                        made = part["functionCall"]
                        calls.append(Call(id=made.get("id", ""), name=made["name"], arguments=made["args"]))
        return Said(
            text=text,
            ids=frozenset(ids),
            calls=tuple(calls),
            finish=finish,
            tokens=tokens,
            ended=bool(finish) and error is None,
            error=error,
        )

    def refusal(self, heard: Heard) -> str:
        error = heard.json()["error"]
        assert error["code"] == heard.status
        assert error["status"].isupper()
        return str(error["message"])


TONGUES: dict[str, Tongue] = {
    tongue.name: tongue for tongue in (OpenAIChat(), Responses(), Anthropic(), Gemini(), Completions(), Orchestrate())
}
