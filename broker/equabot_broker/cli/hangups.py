"""SIGHUP requests a reload, during the whole life of the broker, and never ends the process.

If it is ignored at the start, as under `nohup`, it stays ignored. This module imports nothing that is slow.
"""

import os
import signal
from collections.abc import Callable


class Hangups:
    """Catches the signal from its construction on."""

    def __init__(self) -> None:
        self._at_terminal = _has_terminal()
        self._came = False
        self._listener: Callable[[bool], None] | None = None
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._receive)

    def subscribe(self, listener: Callable[[bool], None]) -> None:
        """Sets the function to call for each signal. A signal that has already come is delivered at once. The argument is
        whether the terminal at which the process began has closed."""
        self._listener = listener
        if self._came:
            self._receive()

    def _receive(self, *_: object) -> None:
        self._came = True
        if self._listener is not None:
            self._came = False
            self._listener(self._at_terminal and not _has_terminal())


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
