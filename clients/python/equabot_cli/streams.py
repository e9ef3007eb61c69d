"""Makes the standard streams usable: open, and able to write every character.

Python replaces a closed stream by None, and the next opened file gets its number. A terminal in ISO-8859-1 or ASCII lacks
characters.
"""

import codecs
import os
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

_PLAIN: Final = {"…": "...", "—": "-", "→": "->", "·": "-"}
_HANDLER: Final = "equabot.plain"
_CLOSED: Final = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))
"""How to open each closed stream: standard input is empty, standard error discards its text, and writing to standard output
fails, because a lost result is not a success."""


def prepare() -> None:
    """Opens closed streams, and replaces characters that an output lacks by plain ones. Never raises."""
    for number, (name, flags, mode) in enumerate(_CLOSED):
        with suppress(OSError, ValueError):
            _open(number, name, flags, mode)
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]


def flushed() -> bool:
    """Whether standard output took all of its text. If not, it is redirected: the interpreter would report the error at
    exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def takes_all(stream: TextIO) -> bool:
    """Whether the stream can write every character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def write_exactly(text: str) -> None:
    """Writes a line to standard output in UTF-8, whatever the terminal's encoding is."""
    binary = getattr(sys.stdout, "buffer", None)
    sys.stdout.flush()
    if binary is None:
        sys.stdout.write(f"{text}\n")
    else:
        binary.write(f"{text}\n".encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _open(number: int, name: str, flags: int, mode: str) -> None:
    if getattr(sys, name) is not None:
        return
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, flags)  # the lowest number that is free
    setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking: Any = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end
