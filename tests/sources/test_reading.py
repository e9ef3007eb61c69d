"""Reading what others write: nothing blocks, nothing is read in excess, and no error tells of contents."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.files import dotenv
from broker.files.confined import Folder, open_root
from broker.files.dotenv import LINES_MAX, SIZE_MAX
from broker.files.reading import Unreadable
from broker.sources import _reading
from broker.sources._reading import consistently, parse_dotenv, read_bundle, subdirectories
from tests.fakes.volume import Volume


def test_a_dotenv_is_read_as_written() -> None:
    """The parser of python-dotenv, with interpolation off: a `$` in a key is a `$`."""
    lines = [
        "# comment",
        "",
        "export A=1",
        "B = two  # comment",
        "C='single # quoted'",
        'D="double\\n"',
        "E=${A}$A",
        "F=",
        "export G",
    ]
    text = "\ufeff" + "\n".join([*lines, "A=last"])
    assert parse_dotenv(text.encode(), shown="x") == {
        "A": "last", "B": "two", "C": "single # quoted", "D": "double\n", "E": "${A}$A", "F": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('A=1\nB="open\nC=2\n', 2),
        ("A=1\n\n\n\nB='open\n", 5),
        ('A=1\r\n\r\nB="x" y\r\n', 3),
        ("=novalue\n", 1),
        ("A=1\nsk-ant-api03-pasted-without-a-name\n", 2),
        ("A=1\nthis is prose\n", 2),
        ("\n\n  {\n", 3),
    ],
)
def test_a_malformed_line_is_named_by_its_number(text: str, line: int) -> None:
    """The number, never the line: it may be a key."""
    with pytest.raises(Unreadable) as caught:
        parse_dotenv(text.encode(), shown="/x/.env")
    assert str(caught.value) == f"/x/.env line {line} is malformed: write NAME=value, and close every quote that is opened"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("raw", [b"\x7fELF\x00\x00", b"\xff\xfeA\x00=\x00", bytes(range(256)), b"A=\xe9"])
def test_binary_garbage_is_refused(raw: bytes) -> None:
    """Whole: nothing of it may be a key by accident."""
    with pytest.raises(Unreadable, match="x is binary, not UTF-8 text") as caught:
        parse_dotenv(raw, shown="x")
    assert caught.value.__context__ is None


def test_a_large_dotenv_is_refused() -> None:
    """128 KiB is more than any has; more is something else."""
    assert parse_dotenv(b"A=" + b"x" * (SIZE_MAX - 2), shown="x").keys() == {"A"}
    with pytest.raises(Unreadable, match="larger than 128 KiB"):
        parse_dotenv(b"A" * (SIZE_MAX + 1), shown="x")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"a\n" * (1 << 19), "larger than 128 KiB"),
        (b"a\n" * (LINES_MAX + 1), "more than 1,000 lines"),
        (b"\r" * (LINES_MAX + 1), "more than 1,000 lines"),
        (b"a\r\n" * (LINES_MAX + 1), "more than 1,000 lines"),
        (b"A=x" + b" " * 1000 + b"y\n", "more than 200 spaces in a row"),
        (b"A=x" + "\u2003\v".encode() * 500 + b"y\n", "more than 200 spaces in a row"),
    ],
)
def test_what_would_keep_the_parser_busy_never_reaches_it(raw: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S24: it is refused whole, by its size, its lines and its whitespace, before a line of it is parsed."""
    parsed: list[object] = []
    monkeypatch.setattr(dotenv, "parse_stream", parsed.append)
    with pytest.raises(Unreadable, match=why):
        parse_dotenv(raw, shown="x")
    assert parsed == []


def test_as_many_lines_as_may_be_are_read() -> None:
    """The bound itself is allowed."""
    assert len(parse_dotenv(b"".join(b"A%d=x\n" % n for n in range(LINES_MAX)), shown="x")) == LINES_MAX


@given(st.one_of(st.binary(max_size=80), st.text(alphabet="A=\"'\n\r\\# $x\t", max_size=40).map(str.encode)))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No other exception comes out, and no piece of the bytes with it."""
    try:
        values = parse_dotenv(raw, shown="x")
    except Unreadable as refused:
        told = str(refused)
    else:
        told = "x " * all(isinstance(value, str) for value in values.values())
    assert told.startswith("x ")


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
            (tmp_path / ".env").write_text("A='")
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
    with open_root(tmp_path) as root, pytest.raises(Unreadable, match="leads nowhere, or elsewhere whenever it is read"):
        consistently(root, lambda _, __: volume.swap({}), shown=tmp_path)


def test_contents_that_lead_nowhere_are_a_fault(tmp_path: Path) -> None:
    """Not an empty directory: there was something."""
    (tmp_path / "..data").symlink_to("..gone")
    with open_root(tmp_path) as root, pytest.raises(Unreadable, match=r"\.\.data leads nowhere"):
        consistently(root, lambda _, __: None, shown=tmp_path)
