"""The lines of a `.env`, read by python-dotenv's parser, within bounds that keep that parser quick.

It takes about 20 microseconds for a line, however short, and for whitespace inside a value a time that grows with its square.
What is refused here, the parser never sees.
"""

import io
import re
from collections.abc import Iterator
from typing import Final

from dotenv.parser import Binding, parse_stream

from broker.files.reading import StandingFault, size

SIZE_MAX: Final = 128 << 10
"""Bytes a `.env` may have."""
LINES_MAX: Final = 1_000
"""Lines it may have."""
_SPACES_MAX: Final = 200

_NEWLINE: Final = re.compile(r"\r\n|\n|\r")
_SPACES: Final = re.compile(r"[^\S\r\n]+")
_NOTHING_ELSE: Final = "keep nothing but assignments in it"


def bindings(raw: bytes, *, shown: object) -> Iterator[Binding]:
    """What its lines say, those with an error included, as written: nothing is interpolated. A byte order mark is accepted.

    Raises StandingFault at once for what is too large, has too many lines or is not text. The fault holds nothing of the text.
    """
    if len(raw) > SIZE_MAX:
        raise StandingFault(shown, f"is larger than {size(SIZE_MAX)}", _NOTHING_ELSE)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"  # and the error goes: it holds the bytes
    if "\0" in text:
        raise StandingFault(shown, "is binary, not UTF-8 text", "write NAME=value lines")
    if len(_NEWLINE.findall(text)) > LINES_MAX:
        raise StandingFault(shown, f"has more than {LINES_MAX:,} lines", _NOTHING_ELSE)
    if max(map(len, _SPACES.findall(text)), default=0) > _SPACES_MAX:
        raise StandingFault(shown, f"has more than {_SPACES_MAX} spaces in a row", "remove them")
    return parse_stream(io.StringIO(text, newline=""))
