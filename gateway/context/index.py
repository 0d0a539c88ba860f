"""Make a collection equal to a folder of text files, reading only what changed.

A file whose time and size are those of the index is not opened. One that differs is read and hashed; only if its hash
differs, too, are its passages made anew. Files that are gone, or no longer readable as text, leave the index. A file
written within the last two seconds is hashed again next time whatever its time says, because the clock of a file
system is too coarse to tell two quick writes apart.

A collection mirrors one folder: index another folder under another collection's name. The work is done in batches, each
a transaction, so an index that was interrupted is consistent and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import trio
from attrs import field, frozen

from gateway.context.files import MARKDOWN, Candidate, Unreadable, decoded, read_text, text_files
from gateway.context.passages import split
from gateway.store.documents import FileState, Passage
from gateway.store.sqlite import Store

_BATCH = 32
_COARSE_NS = 2_000_000_000


@frozen(kw_only=True, slots=True)
class IndexProgress:
    """So many of the folder's files are done."""

    done: int
    total: int


@frozen(kw_only=True, slots=True)
class IndexReport:
    """What a run did. ``skipped`` holds names and reasons; ``passages`` counts the whole collection afterwards."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    skipped: tuple[tuple[str, str], ...] = field(default=())


def ignore(_progress: IndexProgress) -> None:
    """No progress wanted."""


async def index_folder(
    store: Store, collection: str, path: Path, progress: Callable[[IndexProgress], None] = ignore
) -> IndexReport:
    """Make ``collection`` equal to the text files under ``path``.

    Args:
        store: Where the index is.
        collection: Its name there.
        path: A folder.
        progress: Called after every batch.

    Raises:
        NotADirectoryError, FileNotFoundError, PermissionError: ``path`` cannot be listed; nothing was changed.
        StoreError: The store failed; the batches before it are kept.

    *Cancellation*: after the current batch nothing more happens; what was indexed stays.
    """
    threads = trio.CapacityLimiter(1)
    found = await trio.to_thread.run_sync(list, text_files(path), limiter=threads, abandon_on_cancel=True)
    candidates = [one for one in found if isinstance(one, Candidate)]
    skipped = [one for one in found if not isinstance(one, Candidate)]
    known = await store.documents.files(collection)
    counts = {"added": 0, "changed": 0, "unchanged": 0}
    kept: set[str] = set()
    waiting = iter(candidates)
    done = 0
    while batch := list(islice(waiting, _BATCH)):
        looked = await trio.to_thread.run_sync(_look, batch, known, limiter=threads, abandon_on_cancel=True)
        counts["unchanged"] += len(looked.same)
        kept.update(looked.same, looked.new)
        skipped.extend(looked.skipped)
        for name, (_, passages) in looked.new.items():
            counts["unchanged" if passages is None else "changed" if name in known else "added"] += 1
        if looked.new:
            await store.documents.put(collection, looked.new)
        done += len(batch)
        progress(IndexProgress(done=done, total=len(candidates)))
    gone = [name for name in known if name not in kept]
    if gone:
        await store.documents.remove(collection, gone)
    passages_now = await store.documents.count(collection)
    return IndexReport(**counts, removed=len(gone), passages=passages_now, skipped=tuple(skipped))


@frozen(kw_only=True, slots=True)
class _Looked:
    same: list[str] = field(factory=list)
    new: dict[str, tuple[FileState, list[Passage] | None]] = field(factory=dict)
    skipped: list[tuple[str, str]] = field(factory=list)


def _look(batch: list[Candidate], known: dict[str, FileState]) -> _Looked:
    """What became of each file of ``batch``; passages of None: only its time changed."""
    looked = _Looked()
    for file in batch:
        before = known.get(file.name)
        try:
            if before is not None and _looks_same(file.real, before):
                looked.same.append(file.name)
                continue
            state, content = _state_and_content(file.real)
            same = before is not None and before.digest == state.digest
            markdown = file.real.suffix.lower() in MARKDOWN or Path(file.name).suffix.lower() in MARKDOWN
            looked.new[file.name] = (state, None if same else split(decoded(content), markdown=markdown))
        except Unreadable as error:
            looked.skipped.append((file.name, str(error)))
    return looked


def _looks_same(path: Path, before: FileState) -> bool:
    try:
        state = path.stat()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    return (state.st_mtime_ns, state.st_size) == (before.mtime_ns, before.size_bytes)


def _state_and_content(path: Path) -> tuple[FileState, bytes]:
    state, content = read_text(path)
    settled = time.time_ns() - state.st_mtime_ns > _COARSE_NS
    digest = hashlib.blake2b(content, digest_size=16).digest()
    mtime_ns = state.st_mtime_ns if settled else 0  # 0 never looks the same
    return FileState(mtime_ns=mtime_ns, size_bytes=state.st_size, digest=digest), content
