"""Several databases' entries may wait in one folder: each is replayed into its own; links and pipes are left alone."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.ledger.spill import Spill, name_of

MANY = 1_000_000


def test_files_of_another_database_are_left_alone(tmp_path: Path) -> None:
    one, other = name_of("sqlite:///one.db"), name_of("sqlite:///other.db")
    left = Spill(tmp_path, MANY, one)
    left.append([{"id": "a"}])
    left.close()
    stranger, heir = Spill(tmp_path, MANY, other), Spill(tmp_path, MANY, one)
    stranger.adopt()
    assert stranger.oldest(10) == []
    heir.adopt()
    assert heir.oldest(10) == [{"id": "a"}]
    heir.arrived()
    assert list(tmp_path.iterdir()) == []


def test_links_and_pipes_are_left_alone(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "precious", tmp_path / "1-a.ledger", tmp_path / "2-b.ledger"
    target.write_text("text\n")
    link.symlink_to(target)
    os.mkfifo(pipe)
    spill = Spill(tmp_path, MANY)
    spill.adopt()
    assert spill.oldest(10) == []
    assert (target.read_text(), spill.torn) == ("text\n", 0)
    assert link.is_symlink()
    assert pipe.is_fifo()


def test_a_database_is_known_by_its_place(tmp_path: Path) -> None:
    assert name_of("postgresql://a:b@db:5432/sluice") == name_of("postgresql://c:d@db:5432/sluice?sslmode=require")
    assert name_of("postgresql://a:b@db:5432/sluice") != name_of("postgresql://a:b@db:5432/other")
    assert name_of("sqlite:///one.db") == name_of(f"sqlite:///{Path('one.db').absolute()}")
    assert name_of("sqlite:///:memory:") != name_of("sqlite:///:memory:")
