"""Finds in a system message what a person would want to see quoted: passages, and the sources they came from.

The gateway places loaded context as blocks, and so may prompts written by hand; text outside of them is instruction::

    <context name="docs">
    <source name="returns.md › How to send it back">
    …
    </source>
    </context>

A block without ``source`` tags is one passage named after the block; a block that says that it has nothing keeps the
remark, so that an answer shows what was missing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from attrs import frozen

_BLOCK = re.compile(r'<context name="(?P<name>[^"]*)">(?P<body>.*?)(?:</context>|\Z)', re.DOTALL)
_SOURCE = re.compile(r'<source name="(?P<name>[^"]*)">(?P<body>.*?)(?:</source>|\Z)', re.DOTALL)
_MARKUP = re.compile(r"^[ ]{0,3}#{1,6}[ ].*$|^\s*[-*+>]\s+|\*\*|`", re.MULTILINE)
_FIELD = re.compile(r"^(\w[\w -]{0,40}: .*[^.!?;])\n(?=\w[\w -]{0,40}: )", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_WORD = re.compile(r"\w{4,}")


@frozen(kw_only=True, slots=True)
class Quote:
    """A passage and where it is from; ``source`` is empty for instructions."""

    source: str
    text: str


def find_quotes(system: str) -> Iterator[Quote]:
    """Passages of a system message in their order, instructions included."""
    end = 0
    for block in _BLOCK.finditer(system):
        yield from _quote("", system[end : block.start()])
        end = block.end()
        entries = list(_SOURCE.finditer(block["body"]))
        for entry in entries:
            yield from _quote(entry["name"], entry["body"])
        if not entries:
            yield from _quote(block["name"], block["body"])
    yield from _quote("", system[end:])


def _quote(source: str, text: str) -> Iterator[Quote]:
    if text.strip():
        yield Quote(source=html.unescape(source), text=html.unescape(text).strip())


def relevant(text: str, question: str, limit_chars: int) -> str:
    """The sentences of ``text`` that share most words with ``question``, in their order, within the limit."""
    plain = _FIELD.sub(r"\1; ", _MARKUP.sub("", text))
    flat = " ".join(plain.split())
    if len(flat) <= limit_chars:
        return flat
    wanted = set(_WORD.findall(question.lower()))
    sentences = [" ".join(part.split()) for part in _SENTENCE.split(plain) if part.strip()]
    ranked = sorted(range(len(sentences)), key=lambda i: (-_shared(sentences[i], wanted), i))
    chosen: set[int] = set()
    room = limit_chars
    for index in ranked:
        if len(sentences[index]) < room:
            chosen.add(index)
            room -= len(sentences[index]) + 1
    if not chosen:
        return first_words(flat, limit_chars)
    return " ".join(sentences[index] for index in sorted(chosen))


def first_words(text: str, limit_chars: int) -> str:
    """``text`` on one line, cut at a word with an ellipsis if it is longer than the limit."""
    flat = " ".join(text.split())
    if len(flat) <= limit_chars:
        return flat
    return flat[:limit_chars].rsplit(" ", 1)[0] + " …"


def _shared(sentence: str, wanted: set[str]) -> int:
    return len(wanted.intersection(_WORD.findall(sentence.lower())))
