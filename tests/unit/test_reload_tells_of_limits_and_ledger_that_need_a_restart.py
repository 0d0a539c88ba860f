"""What a reload does not apply of limits, ledger and identity is kept as it was, and told by its path."""

from __future__ import annotations

from attrs import evolve

from gateway.config import Config, Secret
from gateway.current import kept


def test_limits_ledger_and_pepper_are_told_of() -> None:
    base = Config()
    old = evolve(base, identity=evolve(base.identity, pepper=Secret("a" * 32)))
    new = evolve(
        old,
        limits=evolve(old.limits, stop_streams=not old.limits.stop_streams),
        ledger=evolve(old.ledger, retention_days=1),
        identity=evolve(old.identity, pepper=Secret("b" * 32), grace_s=7.0),
    )
    config, paths = kept(old, new)
    assert paths == ("limits.stop_streams", "ledger.retention_days", "identity.pepper")
    assert (config.limits, config.ledger, config.identity.pepper) == (old.limits, old.ledger, old.identity.pepper)
    assert config.identity.grace_s == 7.0


def test_first_pepper_needs_no_restart() -> None:
    old = Config()
    new = evolve(old, identity=evolve(old.identity, pepper=Secret("b" * 32)))
    assert kept(old, new) == (new, ())
