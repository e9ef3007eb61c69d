"""A directory whose links cannot lead out of it."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.files.confined import open_root, open_within, read_within
from equabot_broker.files.reading import StandingFault, Unreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file and a subdirectory; a secret is next to it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "team" / "deep").mkdir(parents=True)
    (root / "file").write_bytes(b"file")
    (root / "team" / "key").write_bytes(b"key")
    return root


def read(root: Path, name: str, *within: str) -> bytes | None:
    with open_root(root) as folder:
        if not within:
            return read_within(folder, name, shown=root / name, limit=100)
        with open_within(folder, "/".join(within), shown=root) as inner:
            return read_within(inner, name, shown=root / name, limit=100)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("file", b"file"),
        ("team/key", b"key"),
        ("./team/../file", b"file"),
        ("team/deep/../../team/key", b"key"),
        ("team", None),
        ("other", b"key"),
        ("{root}/team/key", b"key"),
    ],
)
def test_links_inside_are_followed(root: Path, target: str, found: bytes | None) -> None:
    """Through directories, back up to the root, over other links, and by the root's own path."""
    (root / "other").symlink_to("alias/key")
    (root / "alias").symlink_to("team")
    (root / "link").symlink_to(target.format(root=root))
    assert read(root, "link") == found


def test_links_of_many_steps_take_few_descriptors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S13: 39 links of 800 steps each held 20,000 descriptors, so that the broker had none for its callers."""
    target = "file"
    for number in range(39):
        (root / f"link{number}").symlink_to("team/../" * 500 + target)
        target = f"link{number}"
    opened, real = list[int](), os.open

    def counted(*given: Any, **named: Any) -> int:
        opened.append(real(*given, **named))
        return opened[-1]

    monkeypatch.setattr(os, "open", counted)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        read(root, target)
    assert len(opened) < 256


@pytest.mark.parametrize(
    "target",
    [
        "../outside/secret",
        "team/../../outside/secret",
        "{outside}/secret",
        "way/secret",
        "{root}/../outside/secret",
        "/etc/hostname",
    ],
)
def test_links_that_lead_out_are_refused(root: Path, target: str) -> None:
    """S13: relative, absolute, over a directory that is a link itself, and back out of the root's own path."""
    (root / "way").symlink_to("../outside")
    (root / "link").symlink_to(target.format(root=root, outside=root.parent / "outside"))
    with pytest.raises(StandingFault, match=rf"link is a link that leads out of {root}: put the file itself there"):
        read(root, "link")


def test_a_link_in_a_subdirectory_may_lead_to_another_of_the_root(root: Path) -> None:
    """S13: what may not be left is what the operator has named."""
    (root / "team" / "link").symlink_to("../file")
    (root / "team" / "deep" / "link").symlink_to("../../../outside/secret")
    with open_root(root) as folder, open_within(folder, "team", shown=root) as team:
        assert read_within(team, "link", shown=root, limit=100) == b"file"
        with open_within(team, "deep", shown=root) as deep, pytest.raises(StandingFault, match="leads out of"):
            read_within(deep, "link", shown=root, limit=100)


def test_a_directory_that_is_a_link_out_is_not_entered(root: Path) -> None:
    """S13: nor is one behind it."""
    (root / "way").symlink_to("../outside")
    with open_root(root) as folder, pytest.raises(StandingFault, match="leads out of"), open_within(folder, "way", shown=root):
        pass


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    """It is the operator's word."""
    (root.parent / "named").symlink_to("root")
    assert read(root.parent / "named", "file") == b"file"


def test_a_circle_and_a_file_in_the_way_end_at_once(root: Path) -> None:
    """As the system itself would say it."""
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "c").symlink_to("file/x")
    for name, number in (("a", errno.ELOOP), ("c", errno.ENOTDIR)):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            read(root, name)
        assert caught.value.errno == number
    with pytest.raises(FileNotFoundError):
        read(root, "none")


def test_nothing_is_left_open(root: Path) -> None:
    """Whatever becomes of the walk."""
    (root / "link").symlink_to("team/deep/../../../outside/secret")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (only the names)
    for _ in range(10):
        with pytest.raises(StandingFault):
            read(root, "link")
        read(root, "key", "team", "deep", "..")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_who_exchanges_things_during_the_walk_gets_nothing(root: Path) -> None:
    """S13: a directory that becomes a link between two steps, over and over: the secret outside is never read."""
    (root / "turn").mkdir()
    (root / "turn" / "secret").write_bytes(b"inside")
    (root / "out").symlink_to("../outside")
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            for first, second in (("turn", "kept"), ("out", "turn"), ("turn", "out"), ("kept", "turn")):
                (root / first).rename(root / second)

    thread = threading.Thread(target=turn)
    thread.start()
    found = set()
    (root / "link").symlink_to("turn/secret")
    try:
        for _ in range(2000):
            try:
                found.add(read(root, "link"))
            except (Unreadable, OSError):
                continue
    finally:
        done.set()
        thread.join()
    assert found <= {b"inside"}
