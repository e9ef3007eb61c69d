"""`equabot serve` on a wall clock that is set while it runs: SIGUSR1 puts it an hour forward, SIGUSR2 an hour back. Steady time
goes on, as it does when somebody sets the clock of a machine. Run as a program."""

import signal
import sys
import time

from equabot_cli.main import main

_HOUR = 3600.0
_wall = time.time
_set = [0.0]


def _forward(*_: object) -> None:
    _set[0] += _HOUR


def _back(*_: object) -> None:
    _set[0] -= _HOUR


def _jumping() -> float:
    return _wall() + _set[0]


if __name__ == "__main__":
    time.time = _jumping
    signal.signal(signal.SIGUSR1, _forward)
    signal.signal(signal.SIGUSR2, _back)
    sys.exit(main(["serve", *sys.argv[1:]]))
