"""Fits text to the width of the terminal."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from equabot_cli.surroundings import environment

_COMMAND: Final = "equabot "
_WORD: Final = re.compile(r"[^\s`]*`[^`]*`\S*|\S+")
_NARROWEST: Final = 40
_USUAL: Final = 80
_WIDEST: Final = 120
_LEAST: Final = 8
"""Columns that a column of a table keeps, at least."""


def terminal_width() -> int:
    """The width of the terminal in columns: COLUMNS, else what standard output reports, else 80; at least 40."""
    given = environment().get("COLUMNS", "")
    width = int(given) if given.isascii() and given.isdigit() else 0
    if not width:
        with suppress(AttributeError, OSError, ValueError):
            width = os.get_terminal_size(sys.stdout.fileno()).columns
    return max(width or _USUAL, _NARROWEST)


def fitted(widths: Sequence[int], available: int) -> list[int]:
    """The widths of columns that together take no more than `available`: the widest is narrowed first."""
    kept = list(widths)
    for _ in range(sum(kept) - available):
        widest = max(range(len(kept)), key=kept.__getitem__)
        if kept[widest] <= _LEAST:
            break
        kept[widest] -= 1
    return kept


def shortened(text: str, width: int) -> str:
    """The text, cut to the width. A path keeps its end, other text its beginning."""
    if len(text) <= width:
        return text
    return f"…{text[len(text) - width + 1 :]}" if "/" in text else f"{text[: width - 1]}…"


def wrapped(text: str, *, first: str = "", rest: str = "") -> Iterator[str]:
    """The lines of a paragraph that begins with `first` and goes on with `rest`.

    A word, a command in backticks and a whole text that is a command are never broken: a person copies them.
    """
    width, line, begun = min(terminal_width(), _WIDEST), first, False
    for word in [text] if text.startswith(_COMMAND) else _WORD.findall(text):
        if begun and len(line) + 1 + len(word) > width:
            yield line
            line, begun = rest, False
        line += f" {word}" if begun else word
        begun = True
    yield line


def short_path(text: str) -> str:
    """The text with `~` for the home directory at the beginning of each path."""
    home = environment().get("HOME", "").rstrip(os.sep)
    if not home.startswith(os.sep):
        return text
    return " ".join(
        f"~{word[len(home) :]}" if word == home or word.startswith(home + os.sep) else word for word in text.split(" ")
    )
