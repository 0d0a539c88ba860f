"""The dialects of OpenAI's clients, and the gateway's own, which asks in theirs; see ``tongue``."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from tests.component.stage import Heard
from tests.component.tongue import SCHEMA, TOOL, Call, Question, Said, Tongue, arguments, turns_of


class OpenAIChat(Tongue):
    name = "openai"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/chat/completions"

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "messages": self.messages(question), "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        return body | self.settings(question)

    def settings(self, question: Question) -> dict[str, Any]:
        function = {"type": "function", "function": {"name": TOOL, "parameters": SCHEMA}}
        return (
            ({"tools": [function]} if question.tool else {})
            | ({"max_tokens": question.max_tokens} if question.max_tokens else {})
            | ({"stop": question.stop} if question.stop else {})
        )

    def messages(self, question: Question) -> list[dict[str, Any]]:
        messages = [{"role": "system", "content": question.system}] if question.system else []
        messages += turns_of(question)
        if question.called is not None:
            call = question.called
            function = {"name": call.name, "arguments": json.dumps(call.arguments)}
            made = {"id": call.id, "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
            messages.append({"role": "tool", "tool_call_id": call.id, "content": question.result})
        return messages

    def whole(self, document: Any) -> Said:
        [choice] = document["choices"]
        assert document["object"] == "chat.completion"
        message, usage = choice["message"], document["usage"]
        calls = tuple(
            Call(id=call["id"], name=call["function"]["name"], arguments=arguments(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        )
        return Said(
            text=message["content"] or "",
            ids=frozenset({document["id"]}),
            calls=calls,
            finish=choice["finish_reason"],
            tokens=(usage["prompt_tokens"], usage["completion_tokens"]),
            ended=True,
        )

    def streamed(self, heard: Heard) -> Said:
        documents = [json.loads(event) for event in heard.events if event != "[DONE]"]
        text, finish, tokens, error, ids = "", "", None, None, set()
        calls: dict[int, dict[str, str]] = {}
        for chunk in documents:
            if "error" in chunk:
                error = chunk["error"]
                continue
            assert chunk["object"] == "chat.completion.chunk"
            ids.add(chunk["id"])
            if chunk.get("usage"):
                tokens = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice.get("finish_reason") or finish
                for part in choice["delta"].get("tool_calls") or ():
                    call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                    call["id"] = part.get("id") or call["id"]
                    call["name"] = part["function"].get("name") or call["name"]
                    call["arguments"] += part["function"].get("arguments") or ""
        made = (Call(id=c["id"], name=c["name"], arguments=arguments(c["arguments"])) for c in calls.values())
        return Said(
            text=text,
            ids=frozenset(ids),
            calls=() if error else tuple(made),
            finish=finish,
            tokens=tokens,
            ended=heard.finished,
            error=error,
        )


class Responses(Tongue):
    name = "openai-responses"
    finishes: ClassVar[dict[str, str]] = {"stop": "completed", "length": "max_output_tokens", "tool": "completed"}

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/responses"

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        items = turns_of(question)
        if question.called is not None:
            call = question.called
            about = {"call_id": call.id, "name": call.name, "arguments": json.dumps(call.arguments)}
            items.append({"type": "function_call", **about})
            items.append({"type": "function_call_output", "call_id": call.id, "output": question.result})
        body: dict[str, Any] = {"model": model, "input": items, "stream": stream}
        if question.system:
            body["instructions"] = question.system
        if question.tool:
            body["tools"] = [{"type": "function", "name": TOOL, "parameters": SCHEMA, "strict": False}]
        if question.max_tokens:
            body["max_output_tokens"] = question.max_tokens
        return body

    def whole(self, document: Any) -> Said:
        assert document["object"] == "response"
        items, usage = document["output"], document["usage"]
        texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
        calls = tuple(
            Call(id=item["call_id"], name=item["name"], arguments=arguments(item["arguments"]))
            for item in items
            if item["type"] == "function_call"
        )
        incomplete = document.get("incomplete_details")
        return Said(
            text="".join(texts),
            ids=frozenset({document["id"]}),
            calls=calls,
            finish=incomplete["reason"] if incomplete else document["status"],
            tokens=(usage["input_tokens"], usage["output_tokens"]),
            ended=True,
        )

    def streamed(self, heard: Heard) -> Said:
        events = [json.loads(event) for event in heard.events]
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers)), "they only grow; a repair may leave some out"
        text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        ids = frozenset(event["response"]["id"] for event in events if "response" in event)
        last = events[-1]
        if last["type"] in ("error", "response.failed"):
            return Said(text=text, ids=ids, error=last)
        assert last["type"] in ("response.completed", "response.incomplete")
        said = self.whole(last["response"])
        assert said.text == text, "the deltas say what the document says"
        return Said(text=text, ids=ids, calls=said.calls, finish=said.finish, tokens=said.tokens, ended=True)


class Completions(Tongue):
    name = "completions"
    full = False

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/completions"

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": model, "prompt": question.turns[-1][1], "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        if question.max_tokens:
            body["max_tokens"] = question.max_tokens
        return body | ({"stop": question.stop} if question.stop else {})

    def whole(self, document: Any) -> Said:
        return self._put_together([document], ended=True)

    def streamed(self, heard: Heard) -> Said:
        pieces = [json.loads(event) for event in heard.events if event != "[DONE]"]
        return self._put_together(pieces, ended=heard.finished)

    def _put_together(self, pieces: list[Any], *, ended: bool) -> Said:
        text, finish, tokens, error, ids = "", "", None, None, set()
        for piece in pieces:
            if "error" in piece:
                error = piece["error"]
                continue
            assert piece["object"] == "text_completion"
            ids.add(piece["id"])
            if piece.get("usage"):
                tokens = (piece["usage"]["prompt_tokens"], piece["usage"]["completion_tokens"])
            for choice in piece["choices"]:
                text += choice["text"]
                finish = choice.get("finish_reason") or finish
        return Said(text=text, ids=frozenset(ids), finish=finish, tokens=tokens, ended=ended, error=error)


class Orchestrate(OpenAIChat):
    """Messages and settings are those of chat completions; the answer is the gateway's own."""

    name = "orchestrate"

    def path(self, model: str, *, stream: bool) -> str:
        return "/v1/orchestrate"

    def document(self, question: Question, model: str, *, stream: bool) -> dict[str, Any]:
        asked = {"assistant": model, "messages": self.messages(question), "stream": stream}
        return asked | self.settings(question)

    def whole(self, document: Any) -> Said:
        assert document["object"] == "orchestration"
        return Said(
            text=document["output"],
            ids=frozenset({document["request_id"]}),
            calls=tuple(self._call(call) for call in document["tool_calls"]),
            finish=document["finish_reason"],
            tokens=self._tokens(document["usage"]),
            ended=True,
        )

    def streamed(self, heard: Heard) -> Said:
        names = [line[7:] for line in heard.body.decode().split("\n") if line.startswith("event: ")]
        events = list(zip(names, map(json.loads, heard.events), strict=True))
        by_name = dict(events)
        done = by_name.get("done")
        return Said(
            text="".join(about["text"] for name, about in events if name == "text.delta"),
            ids=frozenset({done["request_id"]}) if done else frozenset(),
            calls=tuple(self._call(about) for name, about in events if name == "tool.called"),
            finish=done["finish_reason"] if done else "",
            tokens=self._tokens(by_name["usage"]) if "usage" in by_name else None,
            ended=names[-1:] == ["done"],
            error=by_name.get("error"),
        )

    def _call(self, about: Any) -> Call:
        return Call(id=about["id"], name=about["name"], arguments=arguments(about["arguments"]))

    def _tokens(self, usage: Any) -> tuple[int, int]:
        return usage["prompt_tokens"], usage["completion_tokens"]
