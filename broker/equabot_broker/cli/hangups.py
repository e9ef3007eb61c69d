"""SIGHUP, from the first moment of a broker to its last: it asks for a reload, and kills at no time.

Where it is ignored already, as under `nohup`, it stays ignored. Imports nothing that takes time.
"""

import os
import signal
from collections.abc import Callable


class Hangups:
    """Hears the signal from now on."""

    def __init__(self) -> None:
        self._at_terminal = _has_terminal()
        self._came = False
        self._told: Callable[[bool], None] | None = None
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._hear)

    def tell(self, told: Callable[[bool], None]) -> None:
        """Calls this for each signal from now on, and at once for one that has come before: with whether the terminal is gone
        that the process began at."""
        self._told = told
        if self._came:
            self._hear()

    def _hear(self, *_: object) -> None:
        self._came = True
        if self._told is not None:
            self._came = False
            self._told(self._at_terminal and not _has_terminal())


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
