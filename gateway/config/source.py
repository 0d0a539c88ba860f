"""Where a configuration comes from, to be read at the start and again whenever it changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from gateway.config.environment import from_environment
from gateway.config.load import Overrides, load
from gateway.config.tree import Config

Stamp = tuple[int, int, int, int]


@define(kw_only=True)
class Source:
    """A file, or the environment alone. It remembers which state of the file was read last, also when it is pickled.

    Attributes:
        path: The file; None: the provider keys in the environment.
        overrides: What the command line says; it holds at every reading.
    """

    path: Path | None
    overrides: Overrides = field(factory=dict)
    _seen: Stamp | None = field(default=None, init=False)

    def read(self, environ: Mapping[str, str]) -> Config | None:
        """The configuration as it is now; None if there is neither a file nor a provider's key.

        Raises:
            ConfigFaults: All that is wrong with it.
        """
        self._seen = self._stamp()  # before it is read: what changes meanwhile has changed
        if self.path is None:
            return from_environment(environ, overrides=self.overrides)
        return load(self.path, environ=environ, overrides=self.overrides)

    def news(self) -> Stamp | None:
        """The file's state, if it is not the one that was read last. A missing file is no news: it may come back."""
        now = self._stamp()
        return None if now == self._seen else now

    def _stamp(self) -> Stamp | None:
        if self.path is None:
            return None
        try:
            about = self.path.stat()
        except (OSError, ValueError):
            return None
        return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size

    def __str__(self) -> str:
        return "provider keys in the environment" if self.path is None else str(self.path)
