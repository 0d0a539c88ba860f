"""Finds in a system message what a person would want to see quoted: passages, and the sources they came from.

The gateway places loaded context as blocks ``<context name="docs">…</context>`` in which a line names the source of
what follows. The reader here is generous: any tag or bracket that names a source will do, so that prompts written by
hand show up as well. Text outside of blocks is instruction and has no source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

_BLOCK = re.compile(r"<context\b(?P<attributes>[^>]*)>(?P<body>.*?)(?:</context\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_NAME = re.compile(r"name\s*=\s*[\"']?([^\"'>\s]+)")
_SOURCE = re.compile(
    r"""^\s*(?:
        <\w+\b[^>]*\bsource\s*=\s*"(?P<tag>[^"]*)"[^>]*>
      | \[(?:\d+\s*[:·]?\s*)?(?P<bracket>[^\]\n]{2,120})\]
      | (?:[-#*]\s*)?source\s*:\s*(?P<colon>.{1,120}?)\s*$
    )""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_TAG = re.compile(r"</?[A-Za-z][\w-]*(?:\s[^>]*)?>")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
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
        yield from _plain(system[end : block.start()])
        end = block.end()
        name = _NAME.search(block["attributes"])
        yield from _entries(block["body"], name[1] if name else "the context")
    yield from _plain(system[end:])


def _entries(body: str, name: str) -> Iterator[Quote]:
    """Split a block where a new source begins."""
    source, start = name, 0
    for mark in _SOURCE.finditer(body):
        yield from _plain(body[start : mark.start()], source)
        source, start = (mark["tag"] or mark["bracket"] or mark["colon"] or name).strip(), mark.end()
    yield from _plain(body[start:], source)


def _plain(text: str, source: str = "") -> Iterator[Quote]:
    text = _TAG.sub(" ", text).strip()
    if text:
        yield Quote(source=source, text=text)


def relevant(text: str, question: str, limit_chars: int) -> str:
    """The sentences of ``text`` that share most words with ``question``, in their order, within the limit."""
    flat = " ".join(text.split())
    if len(flat) <= limit_chars:
        return flat
    wanted = set(_WORD.findall(question.lower()))
    sentences = [" ".join(part.split()) for part in _SENTENCE.split(text) if part.strip()]
    ranked = sorted(range(len(sentences)), key=lambda i: (-_shared(sentences[i], wanted), i))
    chosen: set[int] = set()
    room = limit_chars
    for index in ranked:
        if len(sentences[index]) + 1 <= room:
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
