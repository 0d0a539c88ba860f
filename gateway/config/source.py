"""Where a configuration comes from, to be read once at the start and again whenever it changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from gateway.config.environment import from_environment
from gateway.config.load import Overrides, load
from gateway.config.tree import Config


@frozen(kw_only=True)
class Source:
    """A file, or the environment alone.

    Attributes:
        path: The file; None: the provider keys in the environment.
        overrides: What the command line says; it holds at every reading.
    """

    path: Path | None
    overrides: Overrides = field(factory=dict)

    def read(self, environ: Mapping[str, str]) -> Config | None:
        """The configuration as it is now; None if there is neither a file nor a provider's key.

        Raises:
            ConfigFaults: All that is wrong with it.
        """
        if self.path is None:
            return from_environment(environ, overrides=self.overrides)
        return load(self.path, environ=environ, overrides=self.overrides)

    def __str__(self) -> str:
        return "provider keys in the environment" if self.path is None else str(self.path)
