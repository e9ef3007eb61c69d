"""`.env` as a place to put a key: one assignment set, every other line and comment kept."""

import io
import re
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

from broker.domain.secret_value import SecretValue
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
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"  # and the error goes: it holds the bytes
    if "\0" in text:
        raise Unwritable(f"{shown} is binary, not UTF-8 text: mend or remove it")
    mark = "\ufeff" if content.startswith(b"\xef\xbb\xbf") else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    for binding in bindings:
        if binding.error:
            line = binding.original.line
            raise Unwritable(f"{shown} line {line} is malformed: write NAME=value, and close every quote that is opened")
    pieces = [binding.original.string for binding in bindings]
    places = [place for place, binding in enumerate(bindings) if binding.key == name and binding.value is not None]
    if places:
        pieces[places[-1]] = _replaced(bindings[places[-1]], name, value, newline=newline)
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
