"""Who can read or change a file next to root and its owner: what ssh would refuse, and what a pod's volumes look like."""

import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from equabot_broker.files.ownership import directory_doubt, file_doubt, way_doubt

STRANGER, GROUP = 54322, 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to other users")


@contextmanager
def being(user: int, *, group: int = STRANGER) -> Iterator[None]:
    """This process as that user, in that group alone."""
    groups, own = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own)
        os.setgroups(groups)


def shared_group() -> int:
    """A group that has a member next to root and us."""
    mine = {"root", pwd.getpwuid(os.geteuid()).pw_name}
    for user in pwd.getpwall():
        if user.pw_name not in mine:
            return user.pw_gid
    pytest.skip("no group has another member here")


def file(place: Path, mode: int, *, owner: int = -1, group: int = -1) -> Path:
    path = place / "file"
    path.touch()
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o660])
def test_a_secret_file_that_no_one_else_can_read_will_do(place: Path, mode: int) -> None:
    """A group in which no one else is gives no one a right."""
    assert file_doubt(file(place, mode, group=GROUP if os.geteuid() == 0 else -1), secret=True) is None


@pytest.mark.parametrize(("mode", "closed"), [(0o644, 0o600), (0o666, 0o600), (0o604, 0o600), (0o444, 0o400), (0o602, 0o600)])
def test_a_secret_file_that_everyone_can_read_or_write_is_not(place: Path, mode: int, closed: int) -> None:
    """S25: with the command that closes it, and the mode for `doctor --fix`."""
    path = file(place, mode)
    doubt = file_doubt(path, secret=True)
    assert doubt is not None
    deeds = {0: "", 2: "change", 4: "read", 6: "read and change"}[mode & 6]
    assert str(doubt) == f"{path} has mode {mode:04o}, with which every user can {deeds} it: chmod {closed:o} {path}"
    assert (doubt.mode, doubt.changeable) == (closed, "change" in deeds)


@pytest.mark.parametrize(("mode", "well"), [(0o644, True), (0o664, True), (0o646, False), (0o666, False)])
def test_a_file_that_is_not_secret_may_be_read(place: Path, mode: int, well: bool) -> None:
    """And not be changed."""
    assert (file_doubt(file(place, mode), secret=False) is None) is well


@needs_root
@pytest.mark.parametrize("mode", [0o640, 0o660])
def test_a_group_that_others_are_in_counts_as_others(place: Path, mode: int) -> None:
    """S25: as the user database has it, by primary group too."""
    group = shared_group()
    doubt = file_doubt(file(place, mode, group=group), secret=True)
    assert doubt is not None
    assert f"has mode {mode:04o}, with which group {grp.getgrgid(group).gr_name} (" in doubt.message
    assert doubt.mode == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o660])
def test_a_file_of_ours_need_not_be_the_groups(place: Path, mode: int) -> None:
    """What is worth a warning need not keep a broker from starting."""
    path = file(place, mode)
    doubt = file_doubt(path, secret=True, strict=True)
    assert doubt is not None
    assert (doubt.mode, doubt.changeable) == (0o600, mode == 0o660)
    assert file_doubt(path, secret=True) is None


@needs_root
def test_a_file_of_another_user_is_not_ours(place: Path) -> None:
    """S25: unless it may be anyone's."""
    path = file(place, 0o600, owner=STRANGER)
    doubt = file_doubt(path, secret=True)
    assert str(doubt) == f"{path} belongs to user {STRANGER}: chown 0 {path}, or choose another place"
    assert file_doubt(path, secret=True, anyones=True) is None


@needs_root
def test_a_file_that_root_gave_to_a_group_keeps_its_group(place: Path) -> None:
    """As a Secret's volume without `defaultMode`, which a process of the group reads: it may not set modes there."""
    path = file(place, 0o644, owner=0, group=GROUP)
    with being(STRANGER, group=GROUP):
        doubt = file_doubt(path, secret=True)
    assert doubt is not None
    assert (doubt.remedy, doubt.mode) == (f"as its owner, chmod 640 {path}", None)


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604])
def test_the_remedy_leaves_this_user_its_own_right(place: Path, mode: int) -> None:
    """S25: who reads another user's file as everyone does could not read it after a plain chmod."""
    path = file(place, mode, owner=0, group=GROUP)
    with being(STRANGER):
        doubt = file_doubt(path, secret=True, anyones=True)
    assert doubt is not None
    assert (doubt.remedy, doubt.mode) == (f"as its owner, chown {STRANGER} {path} and chmod 600 {path}", None)


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_an_open_directory_of_root_stays_open_and_becomes_sticky(place: Path, mode: int) -> None:
    """S25: after the remedy the directory is in order, and this user can still write to it."""
    place.chmod(mode)
    with being(STRANGER):
        doubt = directory_doubt(place)
    assert doubt is not None
    assert doubt.remedy == f"as its owner, chmod +t {place}"
    place.chmod(mode | 0o1000)
    with being(STRANGER):
        assert directory_doubt(place) is None
        (place / "made").mkdir()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_a_regular_file_holds_a_secret(place: Path, make: Callable[[Path], None]) -> None:
    """A password manager's pipe holds nothing, and its mode is not the broker's to change."""
    make(place / "file")
    (place / "file").chmod(0o755)
    assert file_doubt(place / "file", secret=True, strict=True) is None


@needs_root
def test_on_a_volume_that_is_read_only_the_remedy_is_the_volumes(place: Path) -> None:
    """S25: a step that works where the reader is."""
    (place / "volume").mkdir()
    (place / "mounted").mkdir()
    file(place / "volume", 0o644)
    done = subprocess.run(["mount", "--bind", place / "volume", place / "mounted"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place / "mounted"], check=True)
        doubt = file_doubt(place / "mounted" / "file", secret=True)
    finally:
        subprocess.run(["umount", "--lazy", place / "mounted"], check=True)
    assert doubt is not None
    assert (doubt.mode, "set defaultMode: 0440" in doubt.remedy) == (None, True)


@pytest.mark.parametrize(("mode", "well"), [(0o755, True), (0o1777, True), (0o3777, True), (0o777, False), (0o2777, False)])
def test_a_directory_that_everyone_may_write_has_to_be_sticky(place: Path, mode: int, well: bool) -> None:
    """S25: in a sticky one no one replaces what is another's."""
    place.chmod(mode)
    assert (directory_doubt(place) is None) is well
    assert (way_doubt(place / "missing") is None) is well


@needs_root
@pytest.mark.parametrize("inside", [True, False])
def test_a_volume_of_a_container_may_be_open(place: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """S25: an emptyDir on disk has mode 2777 and is not sticky. In a container it is mounted for that container; a directory
    with such a mode anywhere else is everyone's."""
    monkeypatch.setattr("equabot_broker.files.ownership.in_container", lambda: inside)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=2777,gid={GROUP}", "tmpfs", place], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        below = place / "below"
        below.mkdir()
        below.chmod(0o777)
        found = directory_doubt(place), directory_doubt(below)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert ([doubt is None for doubt in found]) == [inside, False]


def test_what_is_not_there_raises_no_doubt(place: Path) -> None:
    """Whether it has to be there is not this module's to say."""
    assert (file_doubt(place / "x", secret=True), directory_doubt(place / "x"), way_doubt(place / "x" / "y")) == (None,) * 3
