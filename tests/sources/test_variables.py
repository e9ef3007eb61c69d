"""The lines of a `.env`: read as OpenClaw's parser reads them, one by one, and what is doubtful about them is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.files.dotenv import SIZE_MAX, statements
from equabot_broker.files.reading import Unreadable
from equabot_broker.providers import BUILT_IN
from equabot_broker.sources._variables import parse_dotenv

_RULES = DiscoveryRules(BUILT_IN)


def values(raw: bytes | str) -> dict[str, str]:
    return parse_dotenv(raw if isinstance(raw, bytes) else raw.encode(), shown="x").values


def doubts(raw: bytes | str) -> str:
    raw = raw if isinstance(raw, bytes) else raw.encode()
    return "; ".join(parse_dotenv(raw, shown="x", wants=lambda key: _RULES.wants(key, kind="dotenv")).doubts)


def test_a_dotenv_is_read_as_written() -> None:
    """Interpolation is off: a `$` in a key is a `$`."""
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
    assert values(text) == {"A": "last", "B": "two", "C": "single # quoted", "D": "double\n", "E": "${A}$A", "F": ""}
    assert doubts(text) == ""


# What motdotla's dotenv 17 makes of each: the table was generated with it.
AS_OPENCLAW = {
    "A=b#c": {"A": "b"},
    "A='b#c' # d": {"A": "b#c"},
    "A=b'c": {"A": "b'c"},
    "A='b": {"A": "'b"},
    "A='b\nB=c": {"A": "'b", "B": "c"},
    "A='b\nB=c'": {"A": "b\nB=c"},
    'A="b\nB="c"': {"A": '"b', "B": "c"},
    "A='b' 'c'": {"A": "b' 'c"},
    "A=`b 'c' \"d\"`": {"A": "b 'c' \"d\""},
    'A="b\\tc\\nd"': {"A": "b\\tc\nd"},
    "A='b\\nc'": {"A": "b\\nc"},
    "A='it\\'s'": {"A": "it\\'s"},
    "A: b": {"A": "b"},
    "A:b": {},
    "A=\u00a0b\u00a0": {"A": "b"},
    "A.b-c=d": {"A.b-c": "d"},
    "A=b=c==": {"A": "b=c=="},
    "export   A=b": {"A": "b"},
    "A=b; B=c": {"A": "b; B=c"},
    "A=b\rB=c\r\nC=d": {"A": "b", "B": "c", "C": "d"},
    "set -a\nA=b": {"A": "b"},
    "[s]\nA=b": {"A": "b"},
    "===\nA=b": {"A": "b"},
    "MY A=b\nB=c": {"B": "c"},
    "$env:A = 'b'": {},
    '  "A": "b",': {},
    "- A=b": {},
}


@pytest.mark.parametrize("text", AS_OPENCLAW)
def test_it_is_read_as_openclaw_reads_it(text: str) -> None:
    """P7: quotes, comments, line ends, lines that assign nothing."""
    assert values(text) == AS_OPENCLAW[text]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ('A=1\r\n\r\n"x" y\r\n', "line 3 is"),
        ("=novalue\nA=1", "line 1 is"),
        ("A='b\nc'\nsk-ant-api03-pasted-without-a-name\n", "line 3 is"),
        ("A=1\nthis is prose\n", "line 2 is"),
        ("\n\n  {\n", "line 3 is"),
        ("A=1\n" + "set -a\n" * 9, "lines 2, 3, 4, 5, 6 and 4 more are"),
    ],
)
def test_a_line_that_assigns_nothing_is_said_by_its_number(text: str, numbers: str) -> None:
    """P7: the number, never the line: it may be a key."""
    said = doubts(text)
    assert said.startswith(f"{numbers} skipped, because")
    assert not any(word in said for word in ("pasted", "prose", "novalue", "set -a"))


@pytest.mark.parametrize(
    "line",
    [
        "$env:OPENAI_API_KEY = 'sk-canary'",
        "set OPENAI_API_KEY=sk-canary",
        "setx OPENAI_API_KEY sk-canary",
        "set -x OPENAI_API_KEY sk-canary",
        "-e OPENAI_API_KEY=sk-canary",
        "ENV OPENAI_API_KEY=sk-canary",
        "- OPENAI_API_KEY=sk-canary",
        '"OPENAI_API_KEY": "sk-canary",',
        "OPENAI_API_KEY sk-canary",
    ],
)
def test_another_programs_assignment_gets_a_hint(line: str) -> None:
    """P26: PowerShell, cmd, fish, docker, JSON. The hint names the variable, and nothing of its value."""
    said = doubts(f"A=1\n{line}\n")
    assert "line 2 names OPENAI_API_KEY but does not assign it: write OPENAI_API_KEY=value" in said
    assert "canary" not in said


@pytest.mark.parametrize("name", ["openai_api_key", "OpenAI_API_Key", "OPENAI-API-KEY", "openai.api.key"])
def test_another_spelling_of_a_name_gets_a_hint(name: str) -> None:
    """P26: it is not read, as on every other system, and that is said; not where the right name is there as well."""
    assert doubts(f"{name}=sk-canary") == f"line 1 sets {name}, which is not read: write OPENAI_API_KEY"
    assert doubts(f"{name}=sk-canary\nOPENAI_API_KEY=sk-other") == ""


def test_a_quote_that_encloses_a_key_is_named() -> None:
    """P7: the parsers agree that the key is a part of the text; that it is missing is no mystery then."""
    text = 'MOTD="hello\nOPENAI_API_KEY=sk-canary\nBYE="\n'
    assert values(text) == {"MOTD": "hello\nOPENAI_API_KEY=sk-canary\nBYE="}
    said = "line 1 has OPENAI_API_KEY= inside another value: put it on its own line, outside quotes"
    assert doubts(text) == said
    assert doubts("A=1 OPENAI_API_KEY=sk-canary") == said
    assert doubts(text + "OPENAI_API_KEY=sk-other") == ""


@pytest.mark.parametrize(
    "rest", ["1111bbbbCCCC", "   1111bbbbCCCC", "aB/c+d=", "Ab_9\nzz99", "11bb # the key", "11bb==", "22bb=", "aB9=="]
)
def test_a_key_that_goes_on_in_the_next_line_is_not_cut(rest: str) -> None:
    """P5: the value keeps its other lines, so that it is refused, and half a key is never served."""
    assert "\n" in values(f"A=sk-ant-api03-half\n{rest}\nB=2")["A"]
    assert values(f"A=sk-ant-api03-half\n{rest}\nB=2")["B"] == "2"


@pytest.mark.parametrize(
    "rest",
    ["set -a", "[keys]", "=====", "word", "NAME", "# 1111bbbb", "", "B=1111bbbb", "aB9=", "FOO==", "sk-ant-api03-Another1"],
)
def test_what_follows_a_key_is_not_always_a_piece_of_it(rest: str) -> None:
    """P7: what no terminal makes of a key does not spoil it."""
    assert values(f"A=sk-ant-api03-whole\n{rest}")["A"] == "sk-ant-api03-whole"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_mark_says_how_it_is_written(codec: str) -> None:
    """P25: PowerShell's `>` writes UTF-16."""
    assert values("\ufeff# é\r\nA=1\r\nB=2".encode(codec)) == {"A": "1", "B": "2"}


def test_a_byte_that_is_not_utf8_spoils_its_line_only() -> None:
    """P7: in a comment it costs nothing, in a value that value, in a name that name."""
    read = parse_dotenv(b"# cl\xe9\nA=1\nB=\xe9\n\xe9C=3\nD=4 # \xe9\n", shown="x")
    assert {name: value for name, value in read.values.items() if value.isascii()} == {"A": "1", "D": "4"}
    assert read.values.keys() == {"A", "B", "D"}
    assert "line 4 is skipped" in read.doubts[0]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x7fELF\x00\x00", "is binary"),
        (bytes(range(256)), "is binary, not text"),
        (b"A\0=\x001\0", "UTF-16 text without a byte order mark: save it as UTF-8"),
        (b"\0A\0=\x001", "UTF-16 text without a byte order mark: save it as UTF-8"),
        (b"\xff\xfe\0\0A\0\0\0", "is UTF-32 text: save it as UTF-8"),
        (b"A" * (SIZE_MAX + 1), "larger than 128 KiB"),
    ],
)
def test_what_is_no_text_is_refused_whole(raw: bytes, why: str) -> None:
    """Nothing of it may be a key by accident, and nothing of it is shown."""
    with pytest.raises(Unreadable, match=why) as caught:
        parse_dotenv(raw, shown="x")
    assert caught.value.__context__ is None


def test_the_largest_one_is_read() -> None:
    """P7: 128 KiB, of however many lines and spaces: none of them keeps the parser busy."""
    assert values(b"A=" + b"x" * (SIZE_MAX - 2)).keys() == {"A"}
    assert values(b"\n" * (SIZE_MAX - 3) + b"A=1") == {"A": "1"}
    assert values(b"A='x" + b" " * (SIZE_MAX - 8) + b"y'\n") != {}
    assert values(b"A='\\'" * (SIZE_MAX // 6)) != {}
    assert len(doubts(b"a b\n" * (SIZE_MAX // 4))) < 200
    assert values(b"A=x" + b" " * (SIZE_MAX - 4) + b"y").keys() == {"A"}
    assert values(b"A=x\n" + b"aB1" * (SIZE_MAX // 3 - 2) + b"!") == {"A": "x"}
    assert values(b'A="x\n' * (SIZE_MAX // 5)) == {"A": '"x'}


@given(st.one_of(st.binary(max_size=80), st.text(alphabet="A=\"'\n\r\\# $x\t:", max_size=40).map(str.encode)))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No other exception comes out, no piece of the bytes with it, and no byte is lost."""
    try:
        found = statements(raw, shown="x")
    except Unreadable as refused:
        fault = str(refused)
    else:
        fault = "x is read"
        text = "".join(one.written for one in found)
        if not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            assert text.encode("utf-8", "surrogateescape") == raw.removeprefix(b"\xef\xbb\xbf")
        assert parse_dotenv(raw, shown="x").values.keys() == {one.name for one in found if one.name}
    assert fault.startswith("x is ")


def test_a_file_variable_of_a_dotenv_is_said() -> None:
    """P16: `<NAME>_FILE` is followed in the broker's environment; in a `.env` it gets a hint."""
    said = doubts("OPENAI_API_KEY_FILE=/run/secrets/canary")
    assert said == "line 1 sets OPENAI_API_KEY_FILE, which is only read from the broker's environment: set it there"
