"""Runs one child process as if it had been started directly, with its terminal, its signals and its exit code."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Final

from equabot_cli.exits import Failure

_FORWARDED: Final = frozenset({
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
})  # fmt: skip
_STOPPING: Final = _FORWARDED - {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


def find(name: str, *, path: str | None) -> str:
    """The path of the program. Raises Failure with the code of a shell: 127 if it does not exist, 126 if it is not
    executable."""
    found = which(name, path=path)
    if found is not None:
        return found
    there = "/" in name and Path(name).exists()
    if there:
        raise Failure(f"{name}: is not executable", code=_NOT_EXECUTABLE)
    raise Failure(f"{name}: command not found", code=_NOT_FOUND)


@contextmanager
def held_signals() -> Iterator[None]:
    """Blocks the child's signals until `run` forwards them. Threads that start inside inherit that, so enter it before any
    starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def told_to_stop() -> signal.Signals | None:
    """A signal that arrived while signals were blocked and that would have ended this process."""
    waiting = signal.sigpending() & _STOPPING
    return signal.Signals(min(waiting)) if waiting else None


def run(program: str, arguments: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Runs the program to its end and returns its exit code, or 128 + n if signal n ended it. Call it inside `held_signals`.

    A signal that another process sent is forwarded to the child. One from the terminal (Ctrl-C, a new window size) went to the
    whole foreground group, so the child has it already: many programs quit at once on a second one. Raises Failure (126) if
    the system cannot run the file.
    """
    try:
        child = os.posix_spawn(
            program, tuple(arguments), environment, setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
        )
    except OSError as refused:
        raise Failure(f"{program}: {refused.strerror}", code=_NOT_EXECUTABLE) from None
    while True:
        came = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if came.si_signo == signal.SIGCHLD:
            code = _reap(child)
            if code is not None:
                return code
        elif came.si_code <= 0 and came.si_pid != child:
            with suppress(PermissionError):  # the child runs as another user now
                os.kill(child, came.si_signo)


def _reap(child: int) -> int | None:
    """The child's exit code, if it has ended. Orphans are reaped too: in a container this can be the first process."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
