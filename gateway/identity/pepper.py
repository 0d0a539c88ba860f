"""The pepper: what makes the digests of keys useless to whoever has the database alone.

``identity.pepper`` of the configuration, or beside an SQLite database the file ``sluice.pepper``, which the first key
makes (mode 0600). Several machines need the configured one. Losing it loses all virtual keys; they have to be rotated.

Digests are HMAC-SHA256 and not a slow password hash: keys are 238 random bits, which nobody tries out, and a request
pays for it. *Cost*: 1 to 3 µs by the machine's load.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import string
from contextlib import suppress
from pathlib import Path

from gateway.config import Config
from gateway.store.database import MEMORY
from gateway.store.sqlite import database_path, is_postgresql

PREFIX = "sk-sluice-"
PREFIX_CHARS = 8
SECRET_CHARS = 40
FILE = "sluice.pepper"
_PEPPER_BYTES = 32
_ALPHABET = string.ascii_letters + string.digits


class PepperError(Exception):
    """There is no pepper that could be used; the message says what to do."""


class Pepper:
    """A pepper in use."""

    __slots__ = ("_pepper", "check")

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self.check = hmac.digest(pepper, b"sluice: which pepper is it", "sha256").hex()[:16]

    def digest(self, key: bytes) -> bytes:
        """HMAC-SHA256 of a presented key: 32 bytes."""
        return hmac.digest(self._pepper, key, "sha256")


def new_key() -> tuple[str, str]:
    """A key, ``sk-sluice-<prefix>-<secret>``, and its prefix."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(PREFIX_CHARS))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_CHARS))
    return f"{PREFIX}{prefix}-{secret}", prefix


def find_pepper(config: Config) -> Pepper | None:
    """The configured pepper or the file's; None if there is neither. Raises: PepperError. Reads a file."""
    if config.identity.pepper is not None:
        return Pepper(config.identity.pepper.reveal().encode())
    path = pepper_file(config)
    return None if path is None else _read(path)


def make_pepper(config: Config) -> Pepper:
    """The pepper there is, or a new one in a file that only its owner may read. Raises: PepperError."""
    found = find_pepper(config)
    if found is not None:
        return found
    path = pepper_file(config)
    if path is None:
        raise PepperError(
            "identity.pepper is not set; keys in PostgreSQL need the same one on all machines "
            "(`openssl rand -hex 32` makes one), and a store in memory keeps no keys"
        )
    try:
        _make(path)
    except OSError as error:
        raise PepperError(f"{path} cannot be made ({error.strerror}); set identity.pepper instead") from error
    made = _read(path)
    assert made is not None
    return made


def pepper_file(config: Config) -> Path | None:
    """Where the file is or would be; None for a store without a place beside it."""
    if is_postgresql(config.store.url):
        return None
    path = database_path(config.store.url)
    return None if path == MEMORY else Path(path).with_name(FILE)


def _make(path: Path) -> None:
    """Linked into place when it is written, so nobody reads half of it, and of two that make one, one wins."""
    draft = path.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_PEPPER_BYTES).encode())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _read(path: Path) -> Pepper | None:
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise PepperError(f"{path} may be read by others than its owner; chmod 600 it")
        pepper = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PepperError(f"{path} cannot be read ({error.strerror})") from error
    if len(pepper) < _PEPPER_BYTES:
        raise PepperError(f"{path} is shorter than {_PEPPER_BYTES} bytes; restore it, the keys were made with it")
    return Pepper(pepper)
