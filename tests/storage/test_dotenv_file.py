"""A key put into a `.env`."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.secret_value import SecretValue
from broker.sources._reading import parse_dotenv
from broker.storage.dotenv_file import assign
from broker.storage.edited_file import Unwritable

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


@pytest.mark.parametrize("broken", [b"A='open\n", b"\xff\xfe", b"A=1\0"])
def test_a_file_that_nobody_can_read_is_not_written(tmp_path: Path, broken: bytes) -> None:
    """Its reader would refuse it whole; the refusal says where, and shows nothing of it."""
    path = tmp_path / ".env"
    path.write_bytes(broken)
    with pytest.raises(Unwritable) as refused:
        assign(path, NAME, NEW)
    assert "open" not in str(refused.value).replace("opened", "")
    assert path.read_bytes() == broken


lines = st.sampled_from(
    ["A=1", "# note", "", "B='two\nlines'", "export C=3", 'D="x # y"', f"{NAME}=old", f'{NAME}="o\\"ld" # c']
)


@given(st.lists(lines, max_size=6), st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, before: list[str], value: str) -> None:
    """Whatever visible ASCII a key is of, and whatever else stands in the file."""
    path = tmp_path_factory.mktemp("env") / ".env"
    path.write_text("\n".join(before))
    kept = parse_dotenv(path.read_bytes(), shown=path)
    assign(path, NAME, SecretValue(value))
    assert parse_dotenv(path.read_bytes(), shown=path) == {**kept, NAME: value}
