"""Parses a `.env` as OpenClaw's parser does (motdotla's dotenv). A line that is not an assignment does not affect the others.

Where parsers differ, these rules hold. Quotes are `'`, `"` and a backtick, and a quoted value may have several lines. In
double quotes `\\n` and `\\r` are line ends; no other escape has a meaning. A `#` outside of quotes begins a comment. `NAME:
value` is an assignment. An opening quote without its partner is a part of the value. Nothing is interpolated. Bytes that are
not UTF-8 are kept as surrogates, so that they spoil only their own name or value.

One difference is on purpose: a name and its value are on one line, as in all other parsers.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from equabot_broker.files.reading import StandingFault, size

SIZE_MAX: Final = 128 << 10
"""The maximum number of bytes of a `.env`."""
_NOTHING_ELSE: Final = "keep nothing but assignments in it"

_SPACE: Final = r"(?:[^\S\r\n]|\ufeff)"
_END: Final = r"(?:\r\n|\r|\n|\Z)"
_HEAD: Final = re.compile(rf"{_SPACE}*(?:export{_SPACE}+)?([A-Za-z0-9_.-]+)(?:{_SPACE}*={_SPACE}*|:(?:{_SPACE}+|(?=[\r\n])))")
_QUOTED: Final = re.compile(r"""('(?:\\'|[^'])*'|"(?:\\"|[^"])*"|`(?:\\`|[^`])*`)""" + rf"{_SPACE}*(?:#[^\r\n]*)?{_END}")
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f]")
_WHITE: Final = "".join(character for character in map(chr, range(0x10000)) if character.isspace()) + "\ufeff"
# In a shell, `export NAME` and NAME alone assign nothing. They are not a mistake.
_NAMES: Final = re.compile(r"(?:export\s+)?[A-Z_][A-Z0-9_]*(?:\s+[A-Z_][A-Z0-9_]*)*", re.ASCII)


class Encoding(NamedTuple):
    """The encoding of a file: its byte order mark, and the codec of the rest."""

    mark: bytes
    codec: str


_UTF8: Final = Encoding(b"", "utf-8")
_MARKED: Final = (
    Encoding(codecs.BOM_UTF8, "utf-8"),
    Encoding(codecs.BOM_UTF16_LE, "utf-16-le"),
    Encoding(codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAVE: Final = "save it as UTF-8"


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of a `.env`, or the lines of one assignment. `number` is the number of its first line, and `written` its text
    with the line end. `name` is empty unless it is an assignment. `sound` is false if it is neither an assignment, nor blank,
    nor a comment."""

    number: int
    written: str = field(repr=False)
    name: str = ""
    value: str = field(default="", repr=False)
    quoted: bool = False
    sound: bool = True


def encoding(raw: bytes, *, shown: object) -> Encoding:
    """The encoding of the file: UTF-8, or the one of its mark. Raises StandingFault for other encodings of 16 and 32 bits."""
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise StandingFault(shown, "is UTF-32 text", _SAVE)
    for known in _MARKED:
        if raw.startswith(known.mark):
            return known
    begin = raw[:64]
    if len(begin) > 1 and (not any(begin[::2]) or not any(begin[1::2])):
        raise StandingFault(shown, "is binary, or UTF-16 text without a byte order mark", _SAVE)
    return _UTF8


def statements(raw: bytes, *, shown: object) -> list[Statement]:
    """All lines; their `written` joined is the text. Raises StandingFault for a text that is too large, binary, or in an
    unknown encoding, without any part of it."""
    if len(raw) > SIZE_MAX:
        raise StandingFault(shown, f"is larger than {size(SIZE_MAX)}", _NOTHING_ELSE)
    mark, codec = encoding(raw, shown=shown)
    text = raw[len(mark) :].decode(codec, "surrogateescape" if codec == _UTF8.codec else "replace")
    if len(_CONTROLS.findall(text)) > len(text) // 16:
        raise StandingFault(shown, "is binary, not text", "write NAME=value lines")
    return list(_statements(text))


def encoded(text: str, how: Encoding) -> bytes:
    """The bytes of a file for the text of `statements`."""
    mark, codec = how
    return mark + text.encode(codec, "surrogateescape" if codec == _UTF8.codec else "strict")


def _statements(text: str) -> Iterator[Statement]:
    at, number = 0, 1
    while at < len(text):
        found = _statement(text, at, number)
        yield found
        at += len(found.written)
        number += len(_NEWLINE.findall(found.written))


def _statement(text: str, at: int, number: int) -> Statement:
    end = newline.end() if (newline := _NEWLINE.search(text, at)) else len(text)
    head = _HEAD.match(text, at)
    if head is None:
        bare = _trimmed(text[at:end])
        return Statement(number, text[at:end], sound=not bare or bare.startswith("#") or _NAMES.fullmatch(bare) is not None)
    if quoted := _QUOTED.match(text, head.end()):
        return Statement(number, text[at : quoted.end()], head[1], _unquoted(quoted[1]), quoted=True)
    value = _trimmed(text[head.end() : end].partition("#")[0])
    whole = len(value) > 1 and value[0] == value[-1] and value[0] in "'\"`"
    return Statement(number, text[at:end], head[1], _unquoted(value) if whole else value)


def _trimmed(text: str) -> str:
    return text.strip(_WHITE)


def _unquoted(value: str) -> str:
    inside = value[1:-1]
    return inside.replace("\\n", "\n").replace("\\r", "\r") if value[0] == '"' else inside
