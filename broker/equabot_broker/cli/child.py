"""One child process, run as if it had been started directly: its terminal, its signals, its exit code."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Final

from equabot_broker.cli.exits import Failure

_FORWARDED: Final = frozenset({
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
})  # fmt: skip
_STOPPING: Final = _FORWARDED - {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


def find(name: str, *, path: str | None) -> str:
    """The program's file. Raises Failure with the code a shell would give: 127 not found, 126 not executable."""
    found = which(name, path=path)
    if found is not None:
        return found
    there = "/" in name and Path(name).exists()
    if there:
        raise Failure(f"{name}: is not executable", code=_NOT_EXECUTABLE)
    raise Failure(f"{name}: command not found", code=_NOT_FOUND)


@contextmanager
def held_signals() -> Iterator[None]:
    """Keeps the signals that are the child's waiting until `run` passes them on. Threads that are started inside keep them too,
    so enter it before there are any."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def told_to_stop() -> signal.Signals | None:
    """A signal that came while signals were held and that would have ended this process."""
    waiting = signal.sigpending() & _STOPPING
    return signal.Signals(min(waiting)) if waiting else None


def run(program: str, arguments: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Runs the program to its end and returns its exit code, 128 + n when signal n ended it. Inside `held_signals`.

    A signal that someone sent to this process goes on to the child. One that the terminal sent (Ctrl-C, a new window size)
    went to the whole foreground group, so the child has it already: twice would tell many programs to quit at once.
    Raises Failure (126) when the system cannot run the file.
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
            with suppress(PermissionError):  # it has become another user's
                os.kill(child, came.si_signo)


def _reap(child: int) -> int | None:
    """The child's exit code, if it has ended. Orphans are reaped too: in a container this process may be the first."""
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
