"""The language of the broker's own texts: messages, docstrings and comments."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from tokenize import COMMENT, tokenize
from typing import Final

import pytest

from tests.docs.test_public_texts import BANNED

PACKAGE: Final = Path(__file__).parents[2] / "broker" / "equabot_broker"
ROOMS: Final = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, other strings of several words, and comments, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize(iter(source.encode().splitlines(keepends=True)).__next__):
        if token.type == COMMENT:
            yield token.start[0], token.string


def unusual(room: str) -> list[str]:
    """Where the room has a word that readers of this field do not use, and what to write instead."""
    return [
        f"{path.relative_to(PACKAGE)}:{line}: '{found[0]}': write {instead}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for line, text in texts(path.read_text())
        for word, instead in BANNED.items()
        if (found := word.search(re.sub(r"`[^`]*`|\bNone\b", "CODE", text)))
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_texts_of_a_room_have_usual_words(room: str) -> None:
    """Messages are quoted in tickets, and docstrings are searched for the words of the field."""
    assert unusual(room) == []


def test_what_is_looked_at() -> None:
    """Parts of formatted strings, docstrings and comments; no names."""
    source = 'def told(x):\n    """Told  once."""\n    raise E(f"it {x} is told")  # anew\n    told = "told"\n'
    assert [(line, re.sub(r"\s+", " ", text).strip()) for line, text in texts(source)] == [
        (2, "Told once."), (3, "it"), (3, "is told"), (3, "# anew"),
    ]  # fmt: skip
