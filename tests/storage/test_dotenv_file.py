"""A key put into a `.env`."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.sources._variables import parse_dotenv
from equabot_broker.storage.dotenv_file import assign
from equabot_broker.storage.edited_file import Unwritable

NAME = "ANTHROPIC_API_KEY"
NEW = SecretValue("sk-ant-api03-new")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "ANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("# mine\nA=1\n", "# mine\nA=1\nANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("A=1", "A=1\nANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        (
            "A=1\n\n# old\nANTHROPIC_API_KEY=old # monthly\nB='x\ny' # two lines\n",
            "A=1\n\n# old\nANTHROPIC_API_KEY=sk-ant-api03-new # monthly\nB='x\ny' # two lines\n",
        ),
        ("export ANTHROPIC_API_KEY='old'\n", "export ANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("ANTHROPIC_API_KEY=one\nANTHROPIC_API_KEY=two\n", "ANTHROPIC_API_KEY=one\nANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ('ANTHROPIC_API_KEY="old #piece"\n', "ANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("ANTHROPIC_API_KEY_B=1\r\n", "ANTHROPIC_API_KEY_B=1\r\nANTHROPIC_API_KEY=sk-ant-api03-new\r\n"),
        ("\ufeffA=1\n", "\ufeffA=1\nANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("set -a\n[keys]\nA='open\n", "set -a\n[keys]\nA='open\nANTHROPIC_API_KEY=sk-ant-api03-new\n"),
        ("ANTHROPIC_API_KEY: old\n", "ANTHROPIC_API_KEY=sk-ant-api03-new\n"),
    ],
)
def test_one_assignment_is_set_and_the_rest_kept(tmp_path: Path, before: str, after: str) -> None:
    """Comments, blank lines, other names, `export`: as they were. The file is closed to others."""
    path = tmp_path / ".env"
    path.write_bytes(before.encode())
    path.chmod(0o644)
    assert assign(path, NAME, NEW)
    assert path.read_bytes().decode() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not assign(path, NAME, NEW)


@pytest.mark.parametrize("broken", [b"A\0=\0z\0q\0z\0q\0", b"\xff\xfe\0\0zqzq", bytes(range(32)) + b"zqzq"])
def test_binary_file_is_not_written(tmp_path: Path, broken: bytes) -> None:
    """Its reader refuses it whole; the refusal says why, and shows nothing of it."""
    path = tmp_path / ".env"
    path.write_bytes(broken)
    with pytest.raises(Unwritable) as refused:
        assign(path, NAME, NEW)
    assert "zqzq" not in str(refused.value)
    assert path.read_bytes() == broken


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_file_keeps_its_encoding(tmp_path: Path, codec: str) -> None:
    """P25: what PowerShell's `>` wrote is read, and written in its own encoding."""
    path = tmp_path / ".env"
    path.write_bytes("\ufeffA=é\r\n".encode(codec))
    assert assign(path, NAME, NEW)
    assert path.read_bytes().decode(codec) == f"\ufeffA=é\r\n{NAME}={NEW.reveal()}\r\n"
    assert parse_dotenv(path.read_bytes(), shown=path).values == {"A": "é", NAME: NEW.reveal()}


def test_bytes_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """P7: a comment in Latin-1 does not keep a key from being set, and is as it was afterwards."""
    path = tmp_path / ".env"
    path.write_bytes(b"# cl\xe9s\n")
    assert assign(path, NAME, NEW)
    assert path.read_bytes() == b"# cl\xe9s\nANTHROPIC_API_KEY=sk-ant-api03-new\n"


def test_value_that_cannot_round_trip_is_refused(tmp_path: Path) -> None:
    """With all three quotes in it there is no way to write it that the parser understands."""
    path = tmp_path / ".env"
    path.write_text(f"{NAME}=mine\n")
    with pytest.raises(Unwritable, match="cannot hold this value of ANTHROPIC_API_KEY") as refused:
        assign(path, NAME, SecretValue("""#a'b"c`d'"`#"""))
    assert "#" not in str(refused.value)
    assert path.read_text() == f"{NAME}=mine\n"


lines = st.sampled_from(
    ["A=1", "# note", "", "B='two\nlines'", "export C=3", 'D="x # y"', f"{NAME}=old", f'{NAME}="o\\"ld" # c']
)


@given(st.lists(lines, max_size=6), st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_written_value_is_read_back(tmp_path_factory: pytest.TempPathFactory, before: list[str], value: str) -> None:
    """Whatever visible ASCII a key is of, and whatever else is in the file. Where it cannot be kept, the file is as it was."""
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_text("\n".join(before))
    kept = parse_dotenv(path.read_bytes(), shown=path).values
    written = _assigned(path, value)
    assert parse_dotenv(path.read_bytes(), shown=path).values == ({**kept, NAME: value} if written else kept)
    assert written or {"'", '"', "`", "\\"} & set(value)


def _assigned(path: Path, value: str) -> bool:
    try:
        assign(path, NAME, SecretValue(value))
    except Unwritable:
        return False
    return True
