"""Find and read the text files under a folder, and nothing that only looks like one.

A file counts if its name ends like text, it is an ordinary file, and neither it nor a folder on the way begins with a
dot. A link to a file is followed if it ends inside the folder (that is how mounted configuration looks), a link to a
folder never. What is left out for another reason than its name is reported, so that nobody searches in vain for a page
that was never read. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

MAX_FILE_BYTES = 4_194_304
MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
TEXT = MARKDOWN | {".txt", ".text", ".rst", ".adoc"}
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Unreadable(Exception):
    """Why a file is left out."""


@frozen(kw_only=True, slots=True)
class Candidate:
    """A file to index: its name in the index, and where its bytes are."""

    name: str  # relative to the folder, with "/"
    real: Path


def text_files(root: Path) -> Iterator[Candidate | tuple[str, str]]:
    """Candidates under ``root`` in the order of their names, and (name, reason) for what must be left out.

    Raises: OSError if ``root`` itself cannot be listed.
    """
    real_root = root.resolve(strict=True)
    yield from _walk(real_root, real_root)


def _walk(folder: Path, root: Path) -> Iterator[Candidate | tuple[str, str]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode()
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            try:
                yield from _walk(path, root)
            except OSError as error:
                yield name, f"cannot be listed: {error.strerror}"
        elif path.suffix.lower() in TEXT:
            yield _candidate(name, path, root)


def _candidate(name: str, path: Path, root: Path) -> Candidate | tuple[str, str]:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return name, "a link that leads nowhere"
    if not real.is_relative_to(root):
        return name, "a link out of the folder"
    return Candidate(name=name, real=real) if real.is_file() else (name, "not an ordinary file")


def read_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[os.stat_result, bytes]:
    """The file's state and bytes, both of the same opened file.

    Raises:
        Unreadable: Too large, not an ordinary file, not text, or not readable.
    """
    try:
        descriptor = os.open(path, _OPEN)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise Unreadable("not an ordinary file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise Unreadable(f"larger than {max_bytes} bytes")
    if b"\0" in content:
        raise Unreadable("binary")
    return state, content


def decoded(content: bytes) -> str:
    """``content`` as UTF-8. Raises: Unreadable."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 (byte {error.start})") from error
