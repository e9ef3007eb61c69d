"""YAML becomes a tree with lines; what is malformed, hostile or unwanted is refused at once, with its line, unquoted."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.schema.tree import Listing, Mapping, NotYaml, Scalar, parse

CANARY = "sk-ant-api03-CANARYcanary0123456789"


def unreadable(text: str) -> NotYaml:
    with pytest.raises(NotYaml) as caught:
        parse(text)
    assert caught.value.__cause__ is caught.value.__context__ is None, "a chained error may hold the text"
    return caught.value


def test_tree_has_lines_and_text_as_written() -> None:
    """Scalars keep their text, whatever YAML would make of it: `1:30` and `no` stay what was written."""
    assert parse("a: 1:30\nb:\n  - no\n  - 'x'\nc:\n") == Mapping(
        1,
        (
            (Scalar(1, "a", null=False), Scalar(1, "1:30", null=False)),
            (
                Scalar(2, "b", null=False),
                Listing(3, (Scalar(3, "no", null=False), Scalar(4, "x", null=False))),
            ),
            (Scalar(5, "c", null=False), Scalar(5, "", null=True)),
        ),
    )


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_empty_text_is_an_empty_mapping(text: str) -> None:
    """A file with nothing in it says nothing, and that is allowed."""
    tree = parse(text)
    assert tree == Mapping(1, ()) or (isinstance(tree, Scalar) and tree.null)


def test_duplicate_keys_are_kept_for_the_reader_to_refuse() -> None:
    """The tree hides nothing: of two equal keys both are there."""
    tree = parse("a: 1\na: 2\n")
    assert isinstance(tree, Mapping)
    assert [(key.line, key.text) for key, _ in tree.pairs] == [(1, "a"), (2, "a")]


def test_aliases_are_copied_where_they_stand() -> None:
    """An anchor may be used again."""
    tree = parse("a: &x [1]\nb: *x\n")
    assert isinstance(tree, Mapping)
    assert tree.pairs[0][1] == tree.pairs[1][1] == Listing(1, (Scalar(1, "1", null=False),))


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a:\n\t- b\n", 2, "indent with spaces"),
        ("a:\n  [1,\nb: 2\n", 4, "begins on line 2"),
        ("a: 'x\n\n", 3, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a: 1\nb: *nothing\n", 2, "alias"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "tag"),
        ("a: 1\nb: !mine x\n", 2, "tag"),
        ("a: 1\n? [x]\n: 2\n", 2, "key"),
        ("? &a {? *a : b}\n: c\n", 1, "key"),
        ("a: 1\nb: \x07\n", 2, "control character"),
        ('a: "\\U00110000"\n', 0, "not valid YAML"),
        ("a: &a [*a]\n", 1, "deeper"),
        ("a: 1\n" + "b: " + "[" * 1000, 2, "deeper"),
        ("{" * 100_000, 1, "deeper"),
    ],
)
def test_what_is_refused_has_its_line(text: str, line: int, part: str) -> None:
    """Malformed YAML, tags, cycles and depth: one error that says where and what."""
    error = unreadable(text)
    assert part in str(error)
    assert error.line == line


@pytest.mark.parametrize(
    "text",
    [
        f"a: *{CANARY}\n",
        f"&{CANARY} a: 1\nb: &{CANARY} 2\nc: &{CANARY} 3\nd: [",
        f"a: !{CANARY} x\n",
        f"a: !{CANARY}!x x\n",
        f"%{CANARY}\n",
        f"%YAML {CANARY}\n---\n",
        f"a: {CANARY}: b\n",
        f"a: '{CANARY}\n",
        f"a: [{CANARY}\n",
        f'a: "\\{CANARY}"\n',
        f'a: "{CANARY}\x00"\n',
        f"? [{CANARY}]\n: 1\n",
        f"\t{CANARY}: 1\n",
        f"{CANARY}\n{CANARY}: x: y\n",
    ],
)
def test_no_error_quotes_the_text(text: str) -> None:
    """A key in the wrong place of a broken file is not told."""
    assert "CANARY" not in repr(unreadable(text))


MIB = 1024 * 1024
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * MIB,
        "- " * (MIB // 2),
        "? " * (MIB // 2),
        "a: b\n" * (MIB // 5),
        "[" + "a," * (MIB // 2),
        "".join(" " * depth + "a:\n" for depth in range(1000)),
    ],
    ids=["aliases", "brackets", "dashes", "questions", "pairs", "items", "steps"],
)
def test_floods_are_refused(text: str) -> None:
    """No text of a mebibyte keeps the broker busy: unbounded, these would take until the test runner's patience ends."""
    assert re.search("reduce the nesting|with aliases expanded", str(unreadable(text)))


PIECES = (
    *("a", "b:", " ", "  ", "\n", "- ", "? ", ": ", "[", "]", "{", "}", ",", "&x ", "*x", "!t ", "!!str ", "%YAML 1.1\n"),
    *("---\n", "...\n", "|", ">", '"', "'", "\\", "\\u", "\\U00110000", "\t", "#", "<<", "~", "\x00", "\ud800", "\ufeff", "é"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_text_gives_a_tree_or_one_error(text: str) -> None:
    """Nothing else gets out, whatever the text."""
    with suppress(NotYaml):
        parse(text)
