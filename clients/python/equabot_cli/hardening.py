"""Protects the process of a command, so that other processes of the same user cannot read secrets from it."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def hide_memory() -> None:
    """Closes `/proc/PID/mem`, `environ`, `maps` and ptrace to processes without CAP_SYS_PTRACE, and disables core dumps, also
    into a pipe. It holds until the process runs another program, so a child is not protected. Linux only."""
    import ctypes  # noqa: PLC0415

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_first() -> None:
    """When memory runs out, the kernel ends this process before the broker: an operator's commands run in the broker's
    container. Children inherit it. Linux only."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def set_limits() -> None:
    """Disables core files, which would hold every secret, and raises the limit of descriptors, because each connection needs
    one. Children inherit both."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
