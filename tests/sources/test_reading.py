"""Reading what others write: nothing blocks, nothing is read in excess, and no error tells of contents."""

import os
from pathlib import Path

import pytest

from equabot_broker.files.confined import Folder, open_root
from equabot_broker.files.reading import Unreadable
from equabot_broker.sources import _reading
from equabot_broker.sources._reading import consistently, read_bundle, subdirectories
from tests.fakes.volume import Volume


def bundle(folder: Path) -> dict[str, str | bytes]:
    with open_root(folder) as root:
        return read_bundle(root, shown=folder, wants=lambda key: key.startswith("KEY")).texts


def test_a_file_goes_before_a_line(tmp_path: Path) -> None:
    """`.env` inside a directory lies beneath its files."""
    (tmp_path / ".env").write_text("KEY_A=line\nKEY_B=line\n")
    (tmp_path / "KEY_A").write_text("file")
    assert bundle(tmp_path) == {"KEY_A": b"file", "KEY_B": "line"}
    with open_root(tmp_path) as root:
        origins = read_bundle(root, shown=tmp_path, wants=lambda _: True).origins
    assert origins == {"KEY_A": f"{tmp_path}/KEY_A", "KEY_B": f"{tmp_path}/.env KEY_B"}


def test_what_is_not_wanted_is_not_opened(tmp_path: Path) -> None:
    """A pipe among the extra files would block, a forbidden one would fail."""
    os.mkfifo(tmp_path / "extra")
    (tmp_path / ".hidden").symlink_to(".hidden")
    (tmp_path / "KEY_DIR").mkdir()
    (tmp_path / "KEY").write_text("k")
    assert bundle(tmp_path) == {"KEY": b"k"}


@pytest.mark.parametrize("broken", ["circle", "pipe", "nothing", ".env"])
def test_one_unreadable_key_fails_the_bundle(tmp_path: Path, broken: str) -> None:
    """Nothing is half read: who serves the rest would have lost one key without a word."""
    (tmp_path / "KEY_GOOD").write_text("k")
    match broken:
        case "circle":
            (tmp_path / "KEY_BAD").symlink_to("KEY_BAD")
        case "pipe":
            os.mkfifo(tmp_path / "KEY_BAD")
        case "nothing":
            (tmp_path / "KEY_BAD").symlink_to("nowhere")
        case _:
            (tmp_path / ".env").write_bytes(b"A\0=\x001\0")
    with pytest.raises(Unreadable, match=rf"{tmp_path}/(KEY_BAD|\.env)"):
        bundle(tmp_path)


def test_subdirectories_are_the_visible_ones(tmp_path: Path) -> None:
    """Links to directories count; a link in a circle is no directory."""
    for name in ("a", "..2026", ".git", "new\nline", "latin\udce9"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("")
    with open_root(tmp_path) as folder:
        assert subdirectories(folder, shown=tmp_path) == {"a", "link"}


def test_a_directory_of_too_many_keys_is_refused(tmp_path: Path) -> None:
    """S24: whoever may write there decides how many files there are, and none of them is opened."""
    for number in range(10_001):
        (tmp_path / f"KEY_{number}").symlink_to("nowhere")
    with pytest.raises(Unreadable, match=f"{tmp_path} holds more than 10,000 keys"):
        bundle(tmp_path)


def test_a_directory_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S24: each directory would be a unit of its own. The bounds are twenty and a hundred thousand; a few will do here."""
    for number in range(11):
        (tmp_path / f"team-{number}").mkdir()
    monkeypatch.setattr(_reading, "_UNITS_MAX", 10)
    with open_root(tmp_path) as folder, pytest.raises(Unreadable, match=f"{tmp_path} has more than 10 directories"):
        subdirectories(folder, shown=tmp_path)
    monkeypatch.setattr(_reading, "_NAMES_MAX", 10)
    with pytest.raises(Unreadable, match=f"{tmp_path} has more than 10 entries"):
        bundle(tmp_path)


def test_a_swap_during_the_reading_throws_it_away(tmp_path: Path) -> None:
    """What is returned was read from one state of the volume."""
    volume = Volume(tmp_path, {"KEY_A": "old", "KEY_B": "old"})
    tries = []

    def read(_: Folder, data: Folder) -> dict[str, str | bytes]:
        tries.append(data)
        if len(tries) == 1:
            volume.swap({"KEY_A": "new", "KEY_B": "new"})
        return read_bundle(data, shown=tmp_path, wants=lambda key: key.startswith("KEY")).texts

    with open_root(tmp_path) as root:
        found = consistently(root, read, shown=tmp_path)
    assert found == {"KEY_A": b"new", "KEY_B": b"new"}
    assert len(tries) == 2


def test_a_volume_that_never_holds_still_is_a_fault(tmp_path: Path) -> None:
    """It ends, and says where to look."""
    volume = Volume(tmp_path, {})
    with open_root(tmp_path) as root, pytest.raises(Unreadable, match="leads to no directory, or changes during every reading"):
        consistently(root, lambda _, __: volume.swap({}), shown=tmp_path)


def test_contents_that_lead_nowhere_are_a_fault(tmp_path: Path) -> None:
    """Not an empty directory: there was something."""
    (tmp_path / "..data").symlink_to("..gone")
    with open_root(tmp_path) as root, pytest.raises(Unreadable, match=r"\.\.data leads to no directory"):
        consistently(root, lambda _, __: None, shown=tmp_path)
