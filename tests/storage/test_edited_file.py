"""A person's file, changed in one place."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from equabot_broker.storage.edited_file import Unwritable, edit_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """And so is the directory that it needs."""
    path = tmp_path / "new" / "file"
    assert edit_file(path, lambda content: content + b"x")
    assert (path.read_bytes(), mode(path), mode(path.parent)) == (b"x", 0o600, 0o700)


def test_edit_keeps_the_mode_by_default(tmp_path: Path) -> None:
    """A configuration may be for all to read; a key may not, even where nothing else changes."""
    path = tmp_path / "file"
    path.write_bytes(b"a")
    path.chmod(0o644)
    assert edit_file(path, lambda content: content + b"b")
    assert mode(path) == 0o644
    assert not edit_file(path, lambda content: content, mode=0o600)
    assert (path.read_bytes(), mode(path)) == (b"ab", 0o600)


def test_unchanged_content_is_not_written(tmp_path: Path) -> None:
    """The file stays the very same one."""
    path = tmp_path / "file"
    path.write_bytes(b"a")
    before = path.stat().st_ino
    assert not edit_file(path, lambda content: content)
    assert path.stat().st_ino == before
    assert not edit_file(tmp_path / "none", lambda content: content)
    assert not (tmp_path / "none").exists()


def test_edit_keeps_a_link(tmp_path: Path) -> None:
    """What it leads to is replaced."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"a")
    link.symlink_to(real)
    edit_file(link, lambda content: content + b"b")
    assert link.is_symlink()
    assert real.read_bytes() == b"ab"


def test_a_backup_keeps_the_first_state(tmp_path: Path) -> None:
    """A second change does not overwrite it."""
    path = tmp_path / "file"
    path.write_bytes(b"a")
    for _ in range(2):
        edit_file(path, lambda content: content + b"b", backup=".bak")
    assert (path.read_bytes(), (tmp_path / "file.bak").read_bytes()) == (b"abb", b"a")
    assert mode(tmp_path / "file.bak") == 0o600


@pytest.mark.parametrize("make", ["directory", "pipe", "dangling", "huge"])
def test_path_that_is_not_a_regular_file_is_refused(tmp_path: Path, make: str) -> None:
    """With its name and what to do."""
    path = tmp_path / "file"
    if make == "directory":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "dangling":
        path.symlink_to(tmp_path / "no" / "where")
    else:
        path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(Unwritable, match=f"^{path} .*: "):
        edit_file(path, lambda content: content + b"x")


def test_failing_change_leaves_the_file_unchanged(tmp_path: Path) -> None:
    """Neither the file nor what stands beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"a")

    def refuse(_: bytes) -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        edit_file(path, refuse)
    assert path.read_bytes() == b"a"
    assert {found.name for found in tmp_path.iterdir()} == {"file", ".file.guard"}


def _append(path: Path, line: bytes, times: int) -> None:
    for _ in range(times):
        edit_file(path, lambda content: content + line)


def test_concurrent_edits_lose_nothing(tmp_path: Path) -> None:
    """Each waits for the other."""
    path = tmp_path / "file"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(path, line, 40)) for line in (b"a\n", b"b\n", b"c\n")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sorted(path.read_bytes().split()) == [b"a"] * 40 + [b"b"] * 40 + [b"c"] * 40
