"""The standard streams, made fit for use: open, and able to take every character that a command writes.

A closed one would be None, and its number the next file's that is opened. A terminal of ISO-8859-1 or ASCII lacks characters.
"""

import codecs
import os
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

_PLAIN: Final = {"…": "...", "—": "-", "→": "->", "·": "-"}
_HANDLER: Final = "equabot.plain"
_CLOSED: Final = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))
"""How each is opened where it is closed: standard input is at its end, standard error takes all, and standard output fails,
since a result that nobody gets is no success."""


def settle() -> None:
    """Opens what is closed, and makes the outputs write plain characters for those that they lack. Never raises."""
    for number, (name, flags, mode) in enumerate(_CLOSED):
        with suppress(OSError, ValueError):
            _settle(number, name, flags, mode)
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]


def flushed() -> bool:
    """Whether standard output took everything. If not, it is forgotten: the interpreter would complain of it at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def takes_all(stream: TextIO) -> bool:
    """Whether every character can be written there as it is."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def write_exactly(text: str) -> None:
    """A line on standard output that no replacement may change: UTF-8, whatever the terminal is."""
    binary = getattr(sys.stdout, "buffer", None)
    sys.stdout.flush()
    if binary is None:
        sys.stdout.write(f"{text}\n")
    else:
        binary.write(f"{text}\n".encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _settle(number: int, name: str, flags: int, mode: str) -> None:
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
