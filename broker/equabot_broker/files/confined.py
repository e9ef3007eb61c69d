"""A directory whose links cannot lead out of it.

A user who can write into a mounted directory could put a link there, and its target would be handed out as a credential. So
each step is opened by descriptor, and the system never follows a link: the module reads the link and takes its steps in the
same way. `..` returns to the previous descriptor, and stays in the uppermost one. No rename during the walk can change that.
(`openat2` with RESOLVE_BENEATH does the same, but Python has no call for it.) A hard link is treated like any other file.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from equabot_broker.files.reading import StandingFault, read_some

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINKED_MAX: Final = 256
"""The maximum numbers of links and of steps in a walk: each step into a directory holds a descriptor until the walk ends."""


@dataclass(frozen=True, slots=True)
class Folder:
    """An open directory. `steps` are the descriptors from `root` to it; no link may leave `root`."""

    root: Path
    steps: tuple[int, ...]

    @property
    def descriptor(self) -> int:
        """The descriptor of the directory itself."""
        return self.steps[-1]


@contextmanager
def open_root(path: Path) -> Iterator[Folder]:
    """Opens the root directory. The path itself is the operator's, and may have any links. Raises OSError."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield Folder(path, (descriptor,))
    finally:
        os.close(descriptor)


@contextmanager
def open_within(folder: Folder, name: str, *, shown: Path) -> Iterator[Folder]:
    """Opens a directory in an open one. Raises OSError, and StandingFault for a link that leaves the root."""
    with ExitStack() as opened:
        steps, last = _walk(folder, name, shown=shown, opened=opened)
        if last:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield Folder(folder.root, steps)


def read_within(folder: Folder, name: str, *, shown: Path, limit: int) -> bytes | None:
    """The first bytes of a file, as in `read_some`; None for a directory.

    Raises FileNotFoundError, OSError, and Unreadable, also for a link that leaves the root.
    """
    with ExitStack() as opened:
        steps, last = _walk(folder, name, shown=shown, opened=opened)
        return read_some(last, limit=limit, shown=shown, within=steps[-1], follow=False).data if last else None


def _walk(folder: Folder, name: str, *, shown: Path, opened: ExitStack) -> tuple[tuple[int, ...], str]:
    """The descriptors on the way to the name's target, and its last step if that is not a directory."""
    steps, rest, linked = list(folder.steps), [name], 0
    while rest:
        step = rest.pop()
        if step == "..":
            if len(steps) == 1:
                raise _outside(folder, shown)
            steps.pop()
            continue
        mode = os.lstat(step, dir_fd=steps[-1]).st_mode
        if stat.S_ISLNK(mode):
            target = Path(os.readlink(step, dir_fd=steps[-1]))
            linked += 1 + len(target.parts)
            if linked > _LINKED_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.is_absolute():
                if not target.is_relative_to(folder.root):
                    raise _outside(folder, shown)
                target, steps = target.relative_to(folder.root), steps[:1]
            rest += reversed(target.parts)
        elif stat.S_ISDIR(mode):
            descriptor = os.open(step, _DIRECTORY | os.O_NOFOLLOW, dir_fd=steps[-1])
            opened.callback(os.close, descriptor)
            steps.append(descriptor)
        elif rest:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        else:
            return tuple(steps), step
    return tuple(steps), ""


def _outside(folder: Folder, shown: Path) -> StandingFault:
    return StandingFault(shown, f"is a link that leads out of {folder.root}", "put the file itself there")
