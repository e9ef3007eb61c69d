"""`.env` as a place to put a key: one assignment set, every other line and comment kept."""

import re
from pathlib import Path
from typing import Final

from dotenv.parser import Binding

from broker.domain.secret_value import SecretValue
from broker.files.dotenv import bindings
from broker.files.reading import Unreadable
from broker.storage.edited_file import Unwritable, edit_file

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+=:@,~%^-]+")
_EXPORT: Final = re.compile(r"\s*export[^\S\r\n]")
_COMMENT: Final = re.compile(r"([^\S\r\n]+#[^\r\n]*)\s*$")


def assign(path: Path, name: str, value: SecretValue) -> bool:
    """Sets the variable in the file, which is made, and closed to others, if need be. Returns whether it had another value.

    Where the name stands more than once the last is meant, as for whoever reads the file. Raises Unwritable.
    """
    return edit_file(path, lambda content: _assigned(content, name, value, shown=path), mode=0o600)


def _assigned(content: bytes, name: str, value: SecretValue, *, shown: Path) -> bytes:
    try:
        found = bindings(content, shown=shown)
    except Unreadable as unreadable:
        raise Unwritable(str(unreadable)) from None
    mark = "\ufeff" if content.startswith(b"\xef\xbb\xbf") else ""
    newline = "\r\n" if b"\r\n" in content else "\n"
    lines = []
    for binding in found:
        if binding.error:
            line = binding.original.line
            raise Unwritable(f"{shown} line {line} is malformed: write NAME=value, and close every quote that is opened")
        lines.append(binding)
    pieces = [binding.original.string for binding in lines]
    places = [place for place, binding in enumerate(lines) if binding.key == name and binding.value is not None]
    if places:
        pieces[places[-1]] = _replaced(lines[places[-1]], name, value, newline=newline)
    else:
        if pieces and not pieces[-1].endswith(("\n", "\r")):
            pieces.append(newline)
        pieces.append(f"{name}={_quoted(value)}{newline}")
    return (mark + "".join(pieces)).encode()


def _replaced(binding: Binding, name: str, value: SecretValue, *, newline: str) -> str:
    """The assignment with another value; what stands around it stays."""
    written = binding.original.string
    led = written[: len(written) - len(written.lstrip())]
    export = "export " if _EXPORT.match(written) else ""
    comment = _COMMENT.search(written)
    # A `#` in the old value could be taken for a comment, and what follows it is a piece of that value.
    kept = comment[1] if comment and "#" not in (binding.value or "") else ""
    return f"{led}{export}{name}={_quoted(value)}{kept}{newline}"


def _quoted(value: SecretValue) -> str:
    text = value.reveal()
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
