"""Writes a key into a `.env` file. It sets one assignment, and keeps every other line and comment."""

import re
from pathlib import Path
from typing import Final

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.files.dotenv import Statement, encoded, encoding, statements
from equabot_broker.files.reading import Unreadable
from equabot_broker.storage.edited_file import Unwritable, edit_file

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+=:@,~%^-]+")
_EXPORT: Final = re.compile(r"\s*export[^\S\r\n]")
_COMMENT: Final = re.compile(r"([^\S\r\n]+#[^\r\n]*)\s*$")


def assign(path: Path, name: str, value: SecretValue) -> bool:
    """Sets the variable in the file, and returns whether the content changed. A new file gets mode 0600.

    If the name occurs more than once, this changes the last assignment: readers use that one. Raises Unwritable, also if
    a reader would not get this value back.
    """
    return edit_file(path, lambda content: _assigned(content, name, value, shown=path), mode=0o600)


def _assigned(content: bytes, name: str, value: SecretValue, *, shown: Path) -> bytes:
    try:
        found, how = statements(content, shown=shown), encoding(content, shown=shown)
    except Unreadable as unreadable:
        raise Unwritable(str(unreadable)) from None
    places = [place for place, line in enumerate(found) if line.name == name]
    for quoted in _quotings(value):
        written = encoded(_with(found, places, name, quoted), how)
        if _read_back(written, name, shown=shown) == value:
            return written
    raise Unwritable(f"{shown} cannot hold this value of {name} unchanged: keep it in the profile store")


def _read_back(written: bytes, name: str, *, shown: Path) -> SecretValue | None:
    values = [line.value for line in statements(written, shown=shown) if line.name == name]
    return SecretValue(values[-1]) if values else None


def _with(found: list[Statement], places: list[int], name: str, quoted: str) -> str:
    """The text with a new value for the last assignment of that name, or with a new line at its end."""
    pieces = [line.written for line in found]
    newline = "\r\n" if any("\r\n" in piece for piece in pieces) else "\n"
    if places:
        pieces[places[-1]] = _replaced(found[places[-1]], name, quoted, newline=newline)
    else:
        if pieces and not pieces[-1].endswith(("\n", "\r")):
            pieces.append(newline)
        pieces.append(f"{name}={quoted}{newline}")
    return "".join(pieces)


def _replaced(line: Statement, name: str, quoted: str, *, newline: str) -> str:
    """The assignment with another value. It keeps its indentation, `export` and comment."""
    written = line.written
    led = written[: len(written) - len(written.lstrip())]
    export = "export " if _EXPORT.match(written) else ""
    comment = _COMMENT.search(written)
    # With a `#` in the old value, the comment that was found may be a part of that value.
    kept = comment[1] if comment and "#" not in line.value else ""
    return f"{led}{export}{name}={quoted}{kept}{newline}"


def _quotings(value: SecretValue) -> list[str]:
    text = value.reveal()
    plain = [text] if _PLAIN.fullmatch(text) else []
    return plain or [f"{quote}{text}{quote}" for quote in ("'", '"', "`")]
