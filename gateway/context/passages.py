"""Cut a text file into passages that can be found and quoted on their own.

Markdown is cut at its headings first, so that a passage never mixes two subjects and carries the way to it
("Care › Cleaning"); within a section whole paragraphs are put together up to about 800 characters, and only a paragraph
longer than that is cut, between words. Fenced code is left whole as far as it fits. Plain text has no headings and is
cut by paragraphs.

The split is pure and deterministic: the same text gives the same passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.store.documents import Passage

TARGET_CHARS = 800
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_MAX_HEADING_CHARS = 200


def split(text: str, *, markdown: bool) -> list[Passage]:
    """The passages of ``text`` in order; sections without text give none.

    Cost: linear.
    """
    sections = _sections(text) if markdown else [("", text)]
    return [Passage(heading=heading, body=body) for heading, section in sections for body in _bodies(section)]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of the way of headings to a section, and the section's text."""
    way: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        marker = _FENCE.match(line)
        if marker and not fence:
            fence = marker[1]
        elif marker and marker[1].startswith(fence):
            fence = ""
        heading = None if fence else _HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        yield _joined(way), "\n".join(lines)
        lines = []
        level = len(heading[1])
        way = [step for step in way if step[0] < level] + [(level, heading[2].strip())]
    yield _joined(way), "\n".join(lines)


def _joined(way: list[tuple[int, str]]) -> str:
    return " › ".join(title for _, title in way if title)[:_MAX_HEADING_CHARS]


def _bodies(section: str) -> Iterator[str]:
    """Whole paragraphs, put together up to the target length."""
    body = ""
    for paragraph in _paragraphs(section):
        for piece in _pieces(paragraph):
            if body and len(body) + len(piece) + 2 > TARGET_CHARS:
                yield body
                body = ""
            body = f"{body}\n\n{piece}" if body else piece
    if body:
        yield body


def _paragraphs(section: str) -> Iterator[str]:
    for paragraph in re.split(r"\n[ \t]*\n", section):
        stripped = paragraph.strip("\n").rstrip()
        if stripped.strip():
            yield stripped


def _pieces(paragraph: str) -> Iterator[str]:
    """``paragraph`` in pieces of at most the target length, cut at white space where there is some."""
    start = 0
    while len(paragraph) - start > TARGET_CHARS:
        end = start + TARGET_CHARS
        space = max(paragraph.rfind(" ", start, end), paragraph.rfind("\n", start, end))
        end = space if space > start else end
        yield paragraph[start:end].strip()
        start = end
    rest = paragraph[start:].strip("\n").rstrip()
    if rest.strip():
        yield rest.strip() if start else rest
