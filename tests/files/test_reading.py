"""Reading what others write: nothing blocks, nothing is read in excess, and no error shows contents."""

import errno
import os
import socket
from pathlib import Path

import pytest

from equabot_broker.files.reading import PassingFault, StandingFault, Unreadable, read_some, read_whole, unreadable
from tests.fakes.exhausted import without_descriptors


def refusal(path: Path) -> str:
    with pytest.raises(StandingFault) as caught:
        read_some(path, limit=10)
    return str(caught.value)


def test_a_file_is_read_up_to_its_limit_and_one_byte(tmp_path: Path) -> None:
    """One more byte shows that it is too long, without reading ten megabytes to know it."""
    path = tmp_path / "file"
    for size, read in ((0, 0), (10, 10), (11, 11), (10_000_000, 11)):
        path.write_bytes(b"k" * size)
        assert len(read_some(path, limit=10).data) == read


def test_a_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    """The message names the limit."""
    path = tmp_path / "file"
    path.write_bytes(b"k" * 1024)
    assert read_whole(path, limit=1024) == b"k" * 1024
    path.write_bytes(b"k" * 1025)
    with pytest.raises(StandingFault, match="file is larger than 1 KiB: name the right file"):
        read_whole(path, limit=1024)


def test_nothing_there_is_not_a_fault(tmp_path: Path) -> None:
    """The caller decides what absence means."""
    with pytest.raises(FileNotFoundError):
        read_some(tmp_path / "none", limit=10)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """S28: to open a pipe would wait for a writer, to open a device may do something."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            assert refusal(tmp_path / name) == f"{tmp_path / name} is not a regular file: put a plain file in its place"
    assert "not a regular file" in refusal(Path("/dev/zero"))
    assert "is a directory, not a file" in refusal(tmp_path / "directory")


def test_a_name_that_cannot_be_one_is_refused() -> None:
    """S28: as every other path of no use, not with an error of the library's."""
    with pytest.raises(StandingFault, match="its name has a null byte"):
        read_whole("no\0file", limit=10)


def test_a_link_is_followed_unless_it_must_not_be(tmp_path: Path) -> None:
    """A name that a caller writes itself is not a link."""
    (tmp_path / "file").write_bytes(b"k")
    (tmp_path / "link").symlink_to("file")
    assert read_whole(tmp_path / "link", limit=10) == b"k"
    with pytest.raises(StandingFault, match="link is a link: put a plain file in its place"):
        read_whole(tmp_path / "link", limit=10, follow=False)


def test_a_circle_of_links_is_named(tmp_path: Path) -> None:
    """It ends at once, and says what is wrong."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refusal(tmp_path / "a").endswith("its links lead in a circle; remove or correct them")


def test_what_is_forbidden_says_whom_to_allow(as_nobody: Path) -> None:
    """The remedy, and nothing else."""
    path = as_nobody / "key"
    path.write_text("secret")
    path.chmod(0)
    assert refusal(path) == f"{path} cannot be read (Permission denied): let the user of the broker read it"


def test_a_want_of_descriptors_passes(tmp_path: Path) -> None:
    """S9: the file is as good as before, so the fault says that it passes."""
    path = tmp_path / "file"
    path.write_bytes(b"k")
    with without_descriptors(), pytest.raises(PassingFault, match=r"Too many open files.*raise the limit on open files"):
        read_whole(path, limit=10)
    assert read_whole(path, limit=10) == b"k"


@pytest.mark.parametrize(
    "name", ["EMFILE", "ENFILE", "EIO", "ENOMEM", "EAGAIN", "EINTR", "ESTALE", "ETIMEDOUT", "EBUSY", "ENOTCONN"]
)
def test_what_the_system_lacks_for_a_moment_passes(name: str) -> None:
    """S9: descriptors, memory, a disk or a server that does not answer."""
    number = getattr(errno, name)
    assert isinstance(unreadable("x", OSError(number, os.strerror(number))), PassingFault)


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "ELOOP", "ENOTDIR", "ENAMETOOLONG", "EISDIR", "EINVAL"])
def test_what_a_person_must_change_stands(name: str) -> None:
    """Also what is not known."""
    number = getattr(errno, name)
    assert type(unreadable("x", OSError(number, os.strerror(number)))) is StandingFault
    assert issubclass(StandingFault, Unreadable)


def test_a_deleted_file_differs_from_a_replaced_one(tmp_path: Path) -> None:
    """P22: what a mount of one file leads to, once its original was replaced, has no name (st_nlink 0)."""
    original = tmp_path / "original"
    original.write_text("old")
    with original.open() as mounted:
        place = Path(f"/proc/self/fd/{mounted.fileno()}")
        assert not read_some(place, limit=10).detached
        (tmp_path / "new").write_text("new")
        (tmp_path / "new").rename(original)
        found = read_some(place, limit=10)
        assert (found.data, found.detached) == (b"old", True)
        assert not read_some(original, limit=10).detached
