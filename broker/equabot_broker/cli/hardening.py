"""What a command does to its own process, so that other processes of the same user do not read secrets out of it."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def hide_memory() -> None:
    """Closes `/proc/PID/mem`, `environ`, `maps` and ptrace to every process without CAP_SYS_PTRACE; no core is dumped, not even
    into a pipe. It holds until the process runs another program: a child is as open as it always was. Linux alone has it."""
    import ctypes  # noqa: PLC0415

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_first() -> None:
    """Where memory runs out, the kernel ends this process and not the broker, in whose container commands of operators run.
    Children inherit it. Linux alone has it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def set_limits() -> None:
    """No core file, which would hold every secret; and as many descriptors as the process may have, one for each connection.
    Children inherit both."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
