"""Why the audit log cannot be written, and what an operator can do."""

import errno
from typing import Final

from equabot_broker.domain.errors import CannotStart

_MISCONFIGURED: Final = frozenset({
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.EPERM,
    errno.EROFS,
})  # fmt: skip
_REMEDIES: Final = {
    errno.ENOSPC: "free space on its volume",
    errno.EDQUOT: "free space within its quota",
    errno.EPIPE: "start the broker with a reader of its output, or set audit.path to a file",
    errno.EAGAIN: "check that the collector of its output still runs",
    errno.EBADF: "start the broker with it open, or set audit.path to a file",
}


def is_misconfigured(error: OSError) -> bool:
    """Whether the configuration names a place that cannot be written, so that waiting does not help."""
    return error.errno in _MISCONFIGURED


def explained(error: OSError | CannotStart, name: str) -> str:
    """What failed on the output of that name, why, and what to do."""
    if isinstance(error, CannotStart):
        return str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"cannot write the audit log to {name}: {error.strerror}{f': {remedy}' if remedy else ''}"
