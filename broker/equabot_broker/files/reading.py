"""The one way in which the broker reads a file.

Any path may be in the hands of another user by the time it is opened. So: no waiting for a pipe, no opening of a device,
nothing but a regular file, never more bytes than the caller allows, no descriptor that a child process inherits.

    Unreadable                what, where, why, what to do; nothing of the contents
    ├── PassingFault          the system could not read it at this moment: read it again
    └── StandingFault         it stays so until a person changes the file, its directory or its rights
        └── Pipe              it is a named pipe

FileNotFoundError is neither: what absence means is for the caller to say.
"""

import errno
import os
import stat
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

_REPLACED_MAX: Final = 5
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DESCRIPTORS: Final = "raise the limit on open files"
_DISK: Final = "check the disk or the volume that it is on"
_NETWORK: Final = "check the network file system that it is on"
_READABLE: Final = "let the user of the broker read it"
_UNKNOWN: Final = "check the file and the directories on the way to it"

_PASSING: Final = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOMEM: "give the broker more memory",
    errno.ENOBUFS: "give the broker more memory",
    errno.EAGAIN: _DISK,
    errno.EBUSY: _DISK,
    errno.EINTR: _DISK,
    errno.EIO: _DISK,
    errno.ESTALE: _NETWORK,
    errno.ETIMEDOUT: _NETWORK,
    errno.EHOSTDOWN: _NETWORK,
    errno.EHOSTUNREACH: _NETWORK,
    errno.ENETDOWN: _NETWORK,
    errno.ENETUNREACH: _NETWORK,
    errno.ENOTCONN: _NETWORK,
    errno.ECONNREFUSED: _NETWORK,
    errno.ECONNRESET: _NETWORK,
    errno.ECONNABORTED: _NETWORK,
    errno.EREMOTEIO: _NETWORK,
    errno.ENOLINK: _NETWORK,
    errno.ENOLCK: _NETWORK,
}
_STANDING: Final = {
    errno.EACCES: _READABLE,
    errno.EPERM: _READABLE,
    errno.ELOOP: "its links lead in a circle; remove or correct them",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.ENAMETOOLONG: "the path is too long; shorten it",
}


class Unreadable(Exception):
    """Why a file cannot be read. `why` continues the file's name; `remedy` is the next step."""

    passing: ClassVar[bool] = False

    def __init__(self, shown: object, why: str, remedy: str) -> None:
        super().__init__(f"{shown} {why}: {remedy}")
        self.why = why
        self.remedy = remedy


class PassingFault(Unreadable):
    """The system could not read it now, for lack of descriptors or memory, or without an answer: a later read may succeed."""

    passing = True


class StandingFault(Unreadable):
    """It cannot be read or used until an operator changes something."""


class Pipe(StandingFault):
    """It is a named pipe."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The bytes with the status of the open file, so that owner and mode belong to these bytes."""

    data: bytes = field(repr=False)
    status: os.stat_result

    @property
    def detached(self) -> bool:
        """Whether the file was deleted although a path leads to it: it was mounted alone, and its original was replaced.
        Changes of the original are never seen here."""
        return self.status.st_nlink == 0


DETACHED: Final = (
    "is mounted alone, and its original was replaced, so no change of it arrives: mount the directory that it is in, and start"
    " the container again"
)
"""The message for such a file, after its name."""


def unreadable(shown: object, error: OSError) -> Unreadable:
    """The fault for an error of the operating system."""
    number = error.errno or 0
    kind, remedies = (PassingFault, _PASSING) if number in _PASSING else (StandingFault, _STANDING)
    return kind(shown, f"cannot be read ({error.strerror})", remedies.get(number, _UNKNOWN))


def read_some(
    name: str | Path,
    *,
    limit: int,
    shown: object = None,
    within: int | None = None,
    follow: bool = True,
    end: bool = False,
) -> Contents:
    """The first bytes of a regular file, at most one more than the limit, which shows that it is longer; with `end` its last
    bytes.

    `within` is the descriptor of the directory for a relative name. `shown` is the file's name in messages. Without `follow` a
    link is refused. Raises FileNotFoundError if there is no file, and Unreadable for any other fault.
    """
    read = partial(_read_once, name, limit=limit, shown=name if shown is None else shown, within=within, follow=follow, end=end)
    found = read()
    for _ in range(_REPLACED_MAX):
        if not found.detached:
            break
        before, found = found, read()  # it may have been replaced during the read
        if os.path.samestat(before.status, found.status):
            break
    return found


def _read_once(name: str | Path, *, limit: int, shown: object, within: int | None, follow: bool, end: bool) -> Contents:
    try:
        # Before the open, because opening a device can have effects; and after it, because the file may have been replaced.
        refuse_special(os.stat(name, dir_fd=within, follow_symlinks=follow), shown)
        with os.fdopen(os.open(name, _OPEN | (0 if follow else os.O_NOFOLLOW), dir_fd=within), "rb") as file:
            status = os.fstat(file.fileno())
            refuse_special(status, shown)
            if end:
                file.seek(max(status.st_size - limit, 0))
            data: bytes | None = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(shown, error) from None
    except ValueError:
        raise StandingFault(repr(shown), "cannot be read (its name has a null byte)", "correct the path") from None
    if data is None:  # a kernel log looks like a regular file, and has nothing to read now
        raise StandingFault(shown, "is not a regular file", "put a plain file in its place")
    return Contents(data, status)


def read_whole(name: str | Path, *, limit: int, shown: object = None, within: int | None = None, follow: bool = True) -> bytes:
    """All bytes of a regular file within the limit. Arguments and errors as in `read_some`."""
    data = read_some(name, limit=limit, shown=shown, within=within, follow=follow).data
    if len(data) > limit:
        raise too_large(name if shown is None else shown, limit)
    return data


def too_large(shown: object, limit: int) -> StandingFault:
    """The fault for a file that is too large."""
    return StandingFault(shown, f"is larger than {size(limit)}", "name the right file, or remove what is not needed")


def size(count: int) -> str:
    """A number of bytes in a readable unit."""
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def refuse_special(status: os.stat_result, shown: object) -> None:
    """Raises StandingFault for anything but a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise StandingFault(shown, "is a directory, not a file", "remove it or name another path")
    if stat.S_ISLNK(status.st_mode):
        raise StandingFault(shown, "is a link", "put a plain file in its place")
    if not stat.S_ISREG(status.st_mode):
        kind = Pipe if stat.S_ISFIFO(status.st_mode) else StandingFault
        raise kind(shown, "is not a regular file", "put a plain file in its place")
