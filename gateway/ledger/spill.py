"""Entries on disk while the database is away: append-only files, each line with its checksum.

Each process has a file of its own in the folder, locked (``flock``) while it lives. A batch is one write and one
``fsync``: once :meth:`Spill.append` returns, it survives a power cut. What a crash leaves is a file without a lock,
which the next process of the same database that looks takes over; so nothing waits for the process that wrote it, and
gateways of several databases may share a folder. Links, and files that may not be read, are left alone. A line is
``crc32 {column: value}``; a last line that was torn, or one that was damaged, is left out and counted.

Replaying reads a file in batches (:meth:`Spill.oldest`) and takes it away when all of it has arrived
(:meth:`Spill.arrived`). After a crash in between it is replayed from its beginning; rows that are there already change
nothing, see :mod:`gateway.store.ledger`.

A batch that does not fit on the disk, or goes beyond ``max_bytes``, is not written at all: the file is cut back to
where it was. Everything here blocks, and is for threads; one at a time is let in, and waits ``LOCK_S`` at most.

Limit: the folder must be on a file system of this machine (``flock``, ``fsync``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson
from attrs import define

SUFFIX: Final = ".ledger"
LOCK_S: Final = 2.0


class SpillError(Exception):
    """The batch was not written; the message says why, and what to do."""


@define
class _File:
    """A file that this process has locked; ``read_bytes`` of it have arrived in the database."""

    path: Path
    fd: int
    size_bytes: int
    read_bytes: int = 0


class Spill:
    """See the module.

    Args:
        folder: Made when it is first needed.
        max_bytes: Of this process's own file.
        database: Begins the files' names; only those of the same one are taken over. See :func:`name_of`.
    """

    def __init__(self, folder: Path, max_bytes: int, database: str = "") -> None:
        self.folder = folder
        self._database = database
        self._max_bytes = max_bytes
        self._own: _File | None = None
        self._adopted: list[_File] = []
        self._pending: tuple[_File, int] | None = None  # a batch that was read, and where it ends
        self._lock = threading.Lock()
        self.torn = 0  # lines that could not be read, ever

    @property
    def waiting_bytes(self) -> int:
        """What is still to be replayed, of the files that are known. Does not block."""
        files = [*self._adopted, *([self._own] if self._own else [])]
        return sum(file.size_bytes - file.read_bytes for file in files)

    def append(self, documents: Sequence[dict[str, Any]]) -> None:
        """Write a batch, wholly or not at all. Raises: SpillError."""
        data = b"".join(_line(document) for document in documents)
        with self._alone():
            try:
                own = self._own = self._own or self._create()
                if own.size_bytes + len(data) > self._max_bytes:
                    raise SpillError(f"{own.path} has {own.size_bytes} bytes (ledger.spill_max_bytes)")
                try:
                    _write_all(own.fd, data)
                    os.fsync(own.fd)
                except OSError:
                    self._cut_back(own)
                    raise
                own.size_bytes += len(data)
            except OSError as error:
                raise SpillError(f"{self.folder}: {error.strerror} (ledger.spill_dir)") from error

    def adopt(self) -> None:
        """Take over the files of processes that are no more. Raises: SpillError."""
        with self._alone():
            try:
                paths = sorted(self.folder.glob(f"{self._database}*{SUFFIX}"))
                known = {file.path for file in self._adopted} | ({self._own.path} if self._own else set())
                for path in paths:
                    if path not in known and (file := _open_locked(path)) is not None:
                        self._adopted.append(file)
            except OSError as error:
                raise SpillError(f"{self.folder}: {error.strerror} (ledger.spill_dir)") from error

    def oldest(self, most: int) -> list[dict[str, Any]]:
        """The next batch to be replayed; empty if there is none. :meth:`arrived` must follow before the next one.

        Raises: SpillError.
        """
        with self._alone():
            while (file := self._next()) is not None:
                try:
                    documents, end = self._read(file, most)
                except OSError as error:
                    raise SpillError(f"{file.path}: {error.strerror}") from error
                if documents:
                    self._pending = file, end
                    return documents
                file.read_bytes = file.size_bytes
                self._drop_if_read(file)
            return []

    def arrived(self) -> None:
        """The batch of :meth:`oldest` is in the database. Raises: SpillError."""
        with self._alone():
            if self._pending is not None:
                file, end = self._pending
                self._pending, file.read_bytes = None, end
                self._drop_if_read(file)

    def close(self) -> None:
        """Unlock what is left, for others to take over."""
        with self._alone():
            for file in [*self._adopted, *([self._own] if self._own else [])]:
                os.close(file.fd)
            self._adopted, self._own, self._pending = [], None, None

    def _next(self) -> _File | None:
        return self._adopted[0] if self._adopted else self._own

    def _read(self, file: _File, most: int) -> tuple[list[dict[str, Any]], int]:
        """Up to ``most`` documents, and where the next one begins."""
        documents: list[dict[str, Any]] = []
        at = file.read_bytes
        with os.fdopen(os.dup(file.fd), "rb") as lines:
            lines.seek(at)
            for line in lines:
                if at >= file.size_bytes or len(documents) >= most:
                    break
                at += len(line)
                document = _document(line)
                if document is not None:
                    documents.append(document)
                elif line.strip():
                    self.torn += 1
        return documents, at

    def _cut_back(self, own: _File) -> None:
        """Take away what was written of a batch; a file that cannot be cut is not written to again."""
        try:
            os.ftruncate(own.fd, own.size_bytes)
        except OSError:
            self._adopted.append(own)
            self._own = None

    def _drop_if_read(self, file: _File) -> None:
        if file.read_bytes < file.size_bytes:
            return
        with suppress(OSError):
            file.path.unlink()
        os.close(file.fd)
        if file is self._own:
            self._own = None
        else:
            self._adopted.remove(file)

    def _create(self) -> _File:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = self.folder / f"{self._database}{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():  # else somebody took it over before it was locked, and found it empty
                    _sync_folder(self.folder)
                    return _File(path, fd, 0)
            except BlockingIOError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=LOCK_S):
            raise SpillError(f"{self.folder}: the disk does not answer (ledger.spill_dir)")
        try:
            yield
        finally:
            self._lock.release()


def name_of(store_url: str) -> str:
    """What the files of a database begin with; of a store in memory, what no other process has.

    Neither user nor password decide: both may be changed while entries wait.
    """
    scheme, _, rest = store_url.partition("://")
    if not scheme.startswith("postgres"):
        path = rest.removeprefix("/")
        where = secrets.token_hex(16) if path == ":memory:" else os.path.realpath(path)
    else:
        where = rest.partition("?")[0].rpartition("@")[2]
    return hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:12] + "-"


def _open_locked(path: Path) -> _File | None:
    """The file, locked; None if somebody else has it, if it is none of ours to read, or no file at all."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(fd)):
            return _File(path, fd, os.fstat(fd).st_size)
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _line(document: dict[str, Any]) -> bytes:
    text = orjson.dumps(document)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _document(line: bytes) -> dict[str, Any] | None:
    """What the line says; None if it was torn or damaged."""
    text = line[9:-1]
    if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(text):
        return None
    document: dict[str, Any] = orjson.loads(text)
    return document
