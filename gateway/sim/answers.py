"""What the simulated provider says: decided from the prompt alone, the same for the same prompt in every dialect.

An answer has to show what reached the model. So the first sentence restates the last user message, then follow quotes
from the context found in the system messages, each with its source, and the returned tool results; filler words stand
in for the rest where a length was asked for. A token is a piece of text of up to twelve characters with the white space
before it; no vocabulary is needed to count those, and their number is close to that of real tokens.

A last message of the assistant that begins this answer is gone on from, exactly where it stops; one that does not is
followed by the whole answer.

Limits: of a context only :data:`MAX_QUOTES` entries are quoted, of each the sentences that share most words with the
question, up to :data:`MAX_QUOTE_CHARS` characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Literal

import orjson
from attrs import evolve, frozen

from gateway.sim.behaviour import MAX_TOKENS, Behaviour
from gateway.sim.quotes import find_quotes, first_words, relevant
from gateway.sim.request import ChatRequest, Tool, text_of
from gateway.sim.schema import example

MAX_QUOTES = 6
MAX_QUOTE_CHARS = 280
THOUGHTS = 12

Finish = Literal["stop", "length", "tool_calls", "content_filter", "blocked"]

_PIECE = re.compile(r"\s*\S{1,12}")
_REMARK = re.compile(r"\([^()]*\)")

_FILLER = _PIECE.findall(
    " Nothing above was thought up: a simulated model wrote it, word by word, at the pace it was told to keep,"
    " and goes on like this until it has said as many words as were asked for."
)
_THOUGHTS = _PIECE.findall(" So this is what was asked. A simulated model looks at it from every side.")


@frozen(kw_only=True, slots=True)
class ToolCall:
    """A call of a client's function; ``pieces`` joined are its JSON arguments."""

    name: str
    pieces: Sequence[str]


@frozen(kw_only=True, slots=True)
class Answer:
    """What every choice of one completion says.

    Attributes:
        pieces: The text, token by token; empty when tools are called.
        calls: Tool calls in order; empty when there is text.
        finish: Why it ends; None for an end that is told without a reason. "blocked": the prompt is not answered.
        prompt_tokens: Estimate: a quarter of the characters of all texts in the prompt.
        thoughts: What comes before, token by token.
        stop_sequence: The one that ended it.
    """

    pieces: Sequence[str]
    calls: Sequence[ToolCall]
    finish: Finish | None
    prompt_tokens: int
    thoughts: Sequence[str] = ()
    stop_sequence: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of one choice."""
        return len(self.thoughts) + len(self.pieces) + sum(len(call.pieces) for call in self.calls)

    def cut(self, tokens: int) -> Answer:
        """The first tokens of it, without a reason for its end; calls are left out."""
        thoughts = self.thoughts[:tokens]
        return evolve(self, thoughts=thoughts, pieces=self.pieces[: tokens - len(thoughts)], calls=(), finish=None)


def answer(request: ChatRequest, behaviour: Behaviour) -> Answer:
    """Decide what to say.

    Cost: about 20 µs for a short prompt; linear in the text of the system messages.
    """
    prompt_tokens = estimate_prompt(request)
    partial = request.partial
    if partial:
        request = evolve(request, messages=request.messages[:-1])
    if partial and behaviour.prefill == "ignore":
        partial = ""
    calls = () if behaviour.echo or behaviour.filter_after is not None else _calls(request, behaviour)
    thoughts = () if partial else _thoughts(request, behaviour)
    if calls:
        return Answer(pieces=(), calls=calls, finish="tool_calls", prompt_tokens=prompt_tokens, thoughts=thoughts)
    pieces, finish, stop = _text(request, behaviour, partial)
    return Answer(
        pieces=pieces, calls=(), finish=finish, prompt_tokens=prompt_tokens, thoughts=thoughts, stop_sequence=stop
    )


def estimate_prompt(request: ChatRequest) -> int:
    """Prompt tokens of a request."""
    return estimate_tokens([text_of(message.get("content")) for message in request.messages])


def estimate_tokens(texts: Sequence[str]) -> int:
    """Prompt tokens of these texts: four characters each, rounded up."""
    return -(-sum(map(len, texts)) // 4)


def _text(request: ChatRequest, behaviour: Behaviour, partial: str) -> tuple[Sequence[str], Finish, str | None]:
    if behaviour.echo:
        return _split(orjson.dumps(request.body).decode())[: MAX_TOKENS // request.choices], "stop", None
    stop = None
    if request.schema is not None:
        text = orjson.dumps(example(request.schema, _last(request, "user")) or {"answer": _last(request, "user")})
        pieces: Sequence[str] = _split(text.decode())
    else:
        prose, stop = _cut_at_stop(_prose(request), request.stop)
        pieces = _sized(_split(prose), behaviour.tokens, MAX_TOKENS // request.choices)
    if partial:
        pieces = _rest(pieces, partial)
    if behaviour.filter_after is not None:
        return pieces[: behaviour.filter_after], "content_filter", None
    if request.max_tokens is not None and len(pieces) > request.max_tokens:
        return pieces[: request.max_tokens], "length", None
    return pieces, "stop", stop if behaviour.tokens is None else None


def _rest(pieces: Sequence[str], partial: str) -> Sequence[str]:
    """What follows ``partial`` in the text; all of it if the text does not begin so."""
    text = "".join(pieces)
    return _split(text[len(partial) :]) if text.startswith(partial) else pieces


def _thoughts(request: ChatRequest, behaviour: Behaviour) -> Sequence[str]:
    wanted = behaviour.thinking or (THOUGHTS if request.thinking else 0)
    return tuple(islice(cycle(_THOUGHTS), wanted)) if wanted else ()


def _prose(request: ChatRequest) -> str:
    question = _last(request, "user")
    said = [f"You asked: “{first_words(question, 200)}”" if question else "You asked nothing."]
    results = _tool_results(request)
    if results:
        said += [f"The tool {name} returned: {first_words(result, MAX_QUOTE_CHARS)}" for name, result in results]
    said += _quoted(request, question)
    earlier = [text_of(m.get("content")) for m in request.messages if m.get("role") == "user"][:-1]
    if earlier:
        said.append(f"Before that you had asked: “{first_words(earlier[-1], 120)}”")
    if len(said) == 1:
        said.append("No context came with the question, so a simulated model has nothing else to tell.")
    return "\n\n".join(said)


def _quoted(request: ChatRequest, question: str) -> Iterator[str]:
    system = [text_of(m.get("content")) for m in request.messages if m.get("role") in ("system", "developer")]
    quotes = [quote for text in system for quote in find_quotes(text)]
    sourced = [quote for quote in quotes if quote.source]
    for quote in (sourced or quotes)[:MAX_QUOTES]:
        text = relevant(quote.text, question, MAX_QUOTE_CHARS)
        if not quote.source:
            yield f"My instructions say: {text}"
        elif _REMARK.fullmatch(text):
            yield f"From {quote.source} there is nothing {text}."
        else:
            yield f"According to {quote.source}: {text}"


def _tool_results(request: ChatRequest) -> list[tuple[str, str]]:
    """Results of the tools called last, with their names."""
    results: list[tuple[str, str]] = []
    names: dict[object, object] = {}
    for message in request.messages:
        made = message.get("tool_calls")
        for call in made if isinstance(made, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(call.get("id"), str):
                names[call["id"]] = function.get("name")
    for message in reversed(request.messages):
        if message.get("role") != "tool":
            break
        call_id = message.get("tool_call_id")
        name = names.get(call_id if isinstance(call_id, str) else None, call_id)
        results.insert(0, (str(name), text_of(message.get("content"))))
    return results


def _calls(request: ChatRequest, behaviour: Behaviour) -> tuple[ToolCall, ...]:
    if not request.tools or (request.messages and request.messages[-1].get("role") == "tool"):
        return ()
    text = _last(request, "user")
    named = [tool for tool in request.tools if tool.name in text]
    if request.forced_tool:
        chosen = [tool for tool in request.tools if tool.name == request.forced_tool][:1]
    elif request.forced_tool == "" or behaviour.call_tool or "use the tool" in text.lower():
        chosen = named or [request.tools[0]]
    else:
        chosen = named
    if not request.parallel_tools:
        chosen = chosen[:1]
    return tuple(_call(tool, text) for tool in chosen)


def _call(tool: Tool, text: str) -> ToolCall:
    arguments = example(tool.parameters, text)
    document = orjson.dumps(arguments if isinstance(arguments, dict) else {}).decode()
    return ToolCall(name=tool.name, pieces=_split(document))


def _last(request: ChatRequest, role: str) -> str:
    for message in reversed(request.messages):
        if message.get("role") == role:
            return text_of(message.get("content")).strip()
    return ""


def _cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, str | None]:
    ends = [(found, one) for found, one in ((text.find(one), one) for one in stop) if found >= 0]
    if not ends:
        return text, None
    found, one = min(ends)
    return text[:found], one


def _split(text: str) -> list[str]:
    return _PIECE.findall(text)


def _sized(pieces: list[str], tokens: int | None, most: int) -> Sequence[str]:
    if tokens is None:
        return pieces[:most]
    wanted = min(max(tokens, 0), most)
    if len(pieces) < wanted:
        pieces.extend(islice(cycle(_FILLER), wanted - len(pieces)))
    return pieces[:wanted]
