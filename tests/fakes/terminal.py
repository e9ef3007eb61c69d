"""Terminals: a standard output that says it is one, and a person at a real pseudo-terminal."""

import fcntl
import io
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

_DEADLINE: Final = 60.0


class Terminal(io.StringIO):
    """What a person would see, escape sequences and all."""

    def isatty(self) -> bool:
        return True


class Person:
    """A person at a pseudo-terminal who runs one program: reads what it shows, types, and sees it end.

    `seen` is everything that the terminal has shown, what was typed included where it is echoed.
    """

    def __init__(self, command: Sequence[str], *, environ: Mapping[str, str], deadline: float = _DEADLINE) -> None:
        self.seen = ""
        self._read_to = 0
        self._deadline = deadline
        self._screen, line = pty.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(line, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            env=environ,
            stdin=line,
            stdout=line,
            stderr=line,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - no other thread has anything to do with it
        )
        os.close(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
        with suppress(OSError):  # it may have hung up
            os.close(self._screen)

    def reads(self, text: str) -> Self:
        """Waits until the text is shown, behind what was read before."""
        until = time.monotonic() + self._deadline
        while (at := self.seen.find(text, self._read_to)) < 0:
            if not self._look(until):
                raise AssertionError(f"{text!r} is not shown; what is:\n{self.seen[self._read_to :]}")
        self._read_to = at + len(text)
        return self

    def hangs_up(self) -> None:
        """Closes the terminal."""
        os.close(self._screen)

    def types(self, text: str, *, enter: bool = True) -> Self:
        """Types the text, and Enter."""
        data = (text + "\n" * enter).encode()
        while data:
            data = data[os.write(self._screen, data[:1024]) :]
        return self

    def leaves(self) -> int:
        """Waits for the program's end; its exit code."""
        until = time.monotonic() + self._deadline
        while self._look(until):
            pass
        assert time.monotonic() < until, f"it does not end; it shows:\n{self.seen}"
        return self.process.wait(self._deadline)

    def _look(self, until: float) -> bool:
        """Takes in what is shown next. False at the end of the program or of patience."""
        ready, _, _ = select.select([self._screen], [], [], max(until - time.monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)
