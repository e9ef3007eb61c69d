"""Asks the user at a terminal, and reads secrets from the terminal or from standard input, never from an argument.

Prompts go to standard error, so that standard output has results only. The terminal does not show a secret.
"""

import os
import select
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from equabot_broker.discovery.hygiene import SIZE_MAX
from equabot_broker.domain.secret_value import SecretValue
from equabot_cli.exits import Exit, Failure

_NEWLINES = (b"\n", b"\r")
_ERASE = (b"\x7f", b"\x08")
_KILL = b"\x15"
_END = b"\x04"
_PASTE_PAUSE = 0.2
"""Seconds without a key after which a pasted text has ended."""


def interactive() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, *, default: str = "") -> str:
    """Asks for a line of text; an empty line means `default`. Raises Failure if the user ends the input (Ctrl-D)."""
    print(f"{question} [{default}]: " if default else f"{question}: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise _cancelled()
    return line.strip() or default


def confirm(question: str, *, default: bool) -> bool:
    """Asks for yes or no."""
    while True:
        answer = ask(f"{question} ({'Y/n' if default else 'y/N'})").lower()
        if not answer:
            return default
        if answer in ("y", "yes", "n", "no"):
            return answer[0] == "y"


def choose(question: str, options: Mapping[str, str]) -> str:
    """Asks for one option, by its number or its name, and returns its key. The first option is the default."""
    names: Sequence[str] = list(options)
    width = max(map(len, names))
    for number, name in enumerate(names, 1):
        print(f"  {number}  {name:{width}}  {options[name]}".rstrip(), file=sys.stderr)
    while True:
        answer = ask(question, default=names[0])
        if answer in options:
            return answer
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]


def secret(question: str) -> SecretValue:
    """Reads a secret: hidden from a terminal, otherwise all of standard input. The result is not yet cleaned: a pasted text
    may have several lines. Raises Failure."""
    return _typed(question) if interactive() else _piped(question)


def _piped(question: str) -> SecretValue:
    content = b"" if sys.stdin is None else sys.stdin.buffer.read(SIZE_MAX + 1)
    if not content.strip():
        raise Failure(
            f"standard input is empty, where the secret is read without a terminal ({question.lower()})", code=Exit.USAGE
        )
    # Bytes that are not UTF-8 are kept; the cleaning refuses them.
    return SecretValue(content.decode("utf-8", "surrogateescape"))


def _typed(question: str) -> SecretValue:
    keyboard = sys.stdin.fileno()
    with unseen(keyboard):
        print(f"{question} (not shown): ", end="", file=sys.stderr, flush=True)
        typed = _line(keyboard)
        while len(typed) <= SIZE_MAX and select.select([keyboard], [], [], _PASTE_PAUSE)[0]:
            typed += b"\n" + _line(keyboard)
    if not typed.strip():
        raise Failure("nothing was entered, and nothing was stored")
    return SecretValue(typed.decode("utf-8", "surrogateescape"))


@contextmanager
def unseen(keyboard: int) -> Iterator[None]:
    """Hides the typed text and reads each key at once: line input of a terminal is cut off at 4095 characters."""
    before = termios.tcgetattr(keyboard)
    silent = termios.tcgetattr(keyboard)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    try:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, silent)
        yield
    finally:
        # Drops the rest of a pasted text: the shell would run it.
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)
        print(file=sys.stderr)


def _line(keyboard: int) -> bytes:
    line = bytearray()
    while len(line) <= SIZE_MAX:
        key = os.read(keyboard, 1)
        if not key or (key == _END and not line):
            raise _cancelled()
        if key in _NEWLINES or key == _END:
            break
        if key in _ERASE:
            line = line[:-1]
        elif key == _KILL:
            line.clear()
        else:
            line += key
    return bytes(line)


def _cancelled() -> Failure:
    return Failure("cancelled: nothing was stored")
