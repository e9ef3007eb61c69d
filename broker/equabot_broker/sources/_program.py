"""Runs a program that an operator has named, without a shell, and reads what it writes to its standard output.

Its environment has the chosen variables only. Its standard error is discarded, because a program may write a secret there.
The program and every directory above it must be such that no other user can replace it.
"""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from equabot_broker.files.ownership import file_doubt, way_doubt

_CHUNK: Final = 64 << 10
_LOOK_EVERY: Final = 0.2
"""Seconds between two looks at whether the caller still waits."""


class ProgramFailed(Exception):
    """The reason why a program has no output, with what to do. Never a byte of what it wrote."""


class ProgramRun:
    """One run, in the calling thread. Another thread may stop it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: bytes,
        environment: Mapping[str, str],
        within: float,
        largest: int,
        steady: Callable[[], float],
    ) -> None:
        """`within` is in seconds of `steady`. `largest` is the maximum number of bytes of the output."""
        self._command = command
        self._stdin = stdin
        self._environment = environment
        self._within = within
        self._largest = largest
        self._steady = steady
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends the program, and every process that it has started in its group."""
        self._stopped.set()

    def output(self) -> bytes:
        """Runs the program. Raises ProgramFailed."""
        program = Path(self._command[0])
        if doubt := _doubt(program):
            raise ProgramFailed(doubt)
        with os.fdopen(os.memfd_create("request"), "w+b") as request:  # a pipe would block while the program does not read
            request.write(self._stdin)
            request.seek(0)
            try:
                process = subprocess.Popen(
                    self._command,
                    env=dict(self._environment),
                    cwd="/",
                    stdin=request,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "its arguments are not valid"
                raise ProgramFailed(f"{program} cannot be run ({why}): correct sources.exec.command") from None
        assert process.stdout is not None  # noqa: S101
        deadline = self._steady() + self._within
        try:
            output = self._read(process.stdout.fileno(), deadline)
            code = process.wait(max(deadline - self._steady(), 0.001))
        except subprocess.TimeoutExpired:
            raise ProgramFailed(
                f"{program} has not ended within {self._within:g} s: run it by hand, or set a longer timeout"
            ) from None
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
        if code:
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ProgramFailed(f"{program} {ended}: run it by hand to see its messages, which the broker does not keep")
        return output

    def _read(self, stdout: int, deadline: float) -> bytes:
        """Everything until the end of the output. Raises TimeoutExpired and ProgramFailed."""
        poller = select.poll()
        poller.register(stdout, select.POLLIN)
        found = bytearray()
        while not self._stopped.is_set():
            left = deadline - self._steady()
            if left <= 0:
                raise subprocess.TimeoutExpired(self._command[0], self._within)
            if not poller.poll(min(left, _LOOK_EVERY) * 1000):
                continue
            chunk = os.read(stdout, _CHUNK)
            if not chunk:
                return bytes(found)
            found += chunk
            if len(found) > self._largest:
                raise ProgramFailed(
                    f"{self._command[0]} writes more than {self._largest >> 10} KiB: it has to write the values only"
                )
        raise ProgramFailed("the broker stops")


def _doubt(program: Path) -> str:
    """The reason not to run the program. Empty if it may run."""
    if not program.is_file():
        return f"there is no program {program}: install it, or correct sources.exec.command"
    real = Path(os.path.realpath(program))
    doubt = way_doubt(program.parent) or way_doubt(real.parent) or file_doubt(real, secret=False)
    if doubt is not None:
        return f"{program} is not run, because other users can replace it. {doubt}"
    if not os.access(program, os.X_OK):
        return f"{program} is not executable: chmod +x {program}, or correct sources.exec.command"
    return ""
