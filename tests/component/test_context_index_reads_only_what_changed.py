"""Promise: an index equals its folder, and making it so costs only what changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import pytest
import trio

from gateway.config import Config
from gateway.config import Store as StoreRules
from gateway.context import index_command, profiles_command
from gateway.context.files import MAX_FILE_BYTES
from gateway.context.index import IndexProgress, IndexReport, index_folder
from gateway.store.sqlite import Store

LONG_AGO_NS = 1_600_000_000_000_000_000


def write(path: Path, text: str | bytes, *, at_ns: int = LONG_AGO_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, ns=(at_ns, at_ns))
    return path


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.unchanged, report.removed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "docs" / "care.md", "# Care\n\nUse water.")
    write(tmp_path / "docs" / "deep" / "returns.txt", "Thirty days.")
    return tmp_path / "docs"


async def found(store: Store, question: str) -> list[str]:
    return [one.source for one in await store.documents.search("default", question, 5)]


async def test_added_changed_and_removed_files_are_followed(folder: Path) -> None:
    async with Store.open("sqlite:///:memory:") as store:
        assert counts(await index_folder(store, "default", folder)) == (2, 0, 0, 0)
        assert await found(store, "water") == ["care.md › Care"]
        assert await found(store, "days") == ["deep/returns.txt"]
        assert counts(await index_folder(store, "default", folder)) == (0, 0, 2, 0)
        write(folder / "care.md", "# Care\n\nUse lemon.", at_ns=LONG_AGO_NS + 1)
        (folder / "deep" / "returns.txt").unlink()
        report = await index_folder(store, "default", folder)
        assert (counts(report), report.passages) == ((0, 1, 0, 1), 1)
        assert (await found(store, "water days"), await found(store, "lemon")) == ([], ["care.md › Care"])


async def test_a_file_with_the_same_time_and_size_is_not_opened(folder: Path) -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await index_folder(store, "default", folder)
        write(folder / "care.md", "# Care\n\nUse WATER.")  # a forger's edit: same size, same time
        assert counts(await index_folder(store, "default", folder)) == (0, 0, 2, 0)


async def test_a_touched_file_is_hashed_and_its_passages_stay(folder: Path) -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await index_folder(store, "default", folder)
        os.utime(folder / "care.md", ns=(LONG_AGO_NS + 9, LONG_AGO_NS + 9))
        assert counts(await index_folder(store, "default", folder)) == (0, 0, 2, 0)
        files = await store.documents.files("default")
        assert files["care.md"].mtime_ns == LONG_AGO_NS + 9
        assert await found(store, "water") == ["care.md › Care"]


async def test_a_file_written_just_now_is_hashed_again_although_its_signs_are_the_same(folder: Path) -> None:
    now_ns = _ahead_ns()
    async with Store.open("sqlite:///:memory:") as store:
        write(folder / "care.md", "# Care\n\nUse water.", at_ns=now_ns)
        await index_folder(store, "default", folder)
        write(folder / "care.md", "# Care\n\nUse lemon.", at_ns=now_ns)
        assert counts(await index_folder(store, "default", folder)) == (0, 1, 1, 0)
        assert await found(store, "lemon") == ["care.md › Care"]


def _ahead_ns() -> int:
    """A file system's clock that is ahead of ours, so that the test does not depend on the machine's pace."""
    return time.time_ns() + 60_000_000_000


async def test_what_is_no_text_is_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "hunter2")
    write(folder / "binary.txt", b"text\0more")
    write(folder / "latin.md", "caf\xe9".encode("latin-1"))
    write(folder / "huge.txt", b"x" * (MAX_FILE_BYTES + 1))
    write(folder / "picture.png", b"text")
    write(folder / ".hidden.md", "hidden")
    write(folder / ".git" / "notes.md", "hidden")
    (folder / "out.txt").symlink_to(secret)
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "outside").symlink_to(tmp_path, target_is_directory=True)
    (folder / "linked.md").symlink_to(folder / "deep" / "returns.txt")
    os.mkfifo(folder / "pipe.txt")
    async with Store.open("sqlite:///:memory:") as store:
        with trio.fail_after(5):
            report = await index_folder(store, "default", folder)
        assert sorted(await store.documents.files("default")) == ["care.md", "deep/returns.txt", "linked.md"]
        assert await found(store, "hunter2 hidden") == []
    assert dict(report.skipped) == {
        "binary.txt": "binary",
        "latin.md": "not UTF-8 (byte 3)",
        "huge.txt": f"larger than {MAX_FILE_BYTES} bytes",
        "out.txt": "a link out of the folder",
        "gone.txt": "a link that leads nowhere",
        "pipe.txt": "not an ordinary file",
    }


async def test_a_folder_that_is_not_there_changes_nothing(folder: Path) -> None:
    async with Store.open("sqlite:///:memory:") as store:
        await index_folder(store, "default", folder)
        with pytest.raises(FileNotFoundError):
            await index_folder(store, "default", folder / "nowhere")
        with pytest.raises(NotADirectoryError):
            await index_folder(store, "default", folder / "care.md")
        assert await store.documents.count("default") == 2


async def test_progress_is_told_after_every_batch_and_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    for number in range(70):
        write(tmp_path / "many" / f"{number:02}.txt", f"page {number}")
    seen: list[IndexProgress] = []
    async with Store.open("sqlite:///:memory:") as store:
        with trio.CancelScope() as scope:

            def stop_after_the_first(progress: IndexProgress) -> None:
                seen.append(progress)
                scope.cancel()

            await index_folder(store, "default", tmp_path / "many", stop_after_the_first)
        assert scope.cancelled_caught
        assert await store.documents.count("default") == 32
        report = await index_folder(store, "default", tmp_path / "many", seen.append)
        assert counts(report) == (38, 0, 32, 0)
    assert [(progress.done, progress.total) for progress in seen] == [(32, 70), (32, 70), (64, 70), (70, 70)]


def test_the_index_command_says_what_it_did(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "binary.txt", b"\0")
    config = Config(store=StoreRules(url=f"sqlite:///{tmp_path}/x.db"))
    index_command.run(config, folder, "default")
    assert capsys.readouterr().out == (
        f"{folder} → collection 'default': 2 added, 0 changed, 0 unchanged, 0 removed; 2 passages\n"
        "  left out binary.txt: binary\n"
    )
    with pytest.raises(click.ClickException, match="No such file or directory; give a folder"):
        index_command.run(config, tmp_path / "nowhere", "default")
    broken = Config(store=StoreRules(url=f"sqlite:///{tmp_path}/nowhere/x.db"))
    with pytest.raises(click.ClickException, match="nowhere does not exist"):
        index_command.run(broken, folder, "default")


def test_the_profiles_command_loads_all_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    config = Config(store=StoreRules(url=url))
    with pytest.raises(click.ClickException) as caught:
        profiles_command.run(config, write(tmp_path / "bad.csv", "user,name\nanna,A\n,B\nben\n"))
    assert caught.value.message.splitlines()[0].endswith("bad.csv: 2 faults, nothing was loaded")
    assert not (tmp_path / "x.db").exists()
    profiles_command.run(config, write(tmp_path / "good.jsonl", '{"user": "anna", "name": "A"}\n'))
    assert capsys.readouterr().out.endswith("good.jsonl: 1 profile loaded\n")

    async def anna() -> object:
        async with Store.open(url) as store:
            return await store.profiles.get("anna")

    assert trio.run(anna) == {"name": "A"}


async def test_the_sample_pages_and_profiles_load() -> None:
    samples = Path(index_command.__file__).parent.parent / "demo_data"
    async with Store.open("sqlite:///:memory:") as store:
        report = await index_folder(store, "default", samples)
        assert (report.added, report.skipped) == (7, ())
        assert (await found(store, "How often must I descale it, and may I use vinegar?"))[0].startswith("cleaning.md")
    assert "anna" in profiles_command.read_profiles(samples / "profiles.csv")
