"""Edits files that people write as well. An edit changes one place, and replaces the file atomically and durably."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from equabot_broker.files.reading import Unreadable, read_some, too_large
from equabot_broker.storage.replacing import replace_file

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_LARGEST: Final = 1 << 20


class Unwritable(Exception):
    """Why a file was not changed, and what to do. The message contains nothing of the file."""


def edit_file(path: Path, change: Callable[[bytes], bytes], *, mode: int | None = None, backup: str = "") -> bool:
    """Replaces the content of the file with the result of `change`, and returns whether it differs.

    A missing file counts as empty. Concurrent edits of one file wait for each other. `mode` is the mode of the file; by
    default it keeps its mode, and a new file gets 0600. `backup` is a suffix: a copy of the old content gets this name,
    unless such a file exists. Raises Unwritable, and what `change` raises; the file is unchanged then.
    """
    try:
        real = _real(path)
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _guarded(real):
            before, found = _content(path, real)
            after = change(before)
            wanted = mode if mode is not None else stat.S_IMODE(found.st_mode) if found else 0o600
            if after == before and (found is None or stat.S_IMODE(found.st_mode) == wanted):
                return False
            if backup and found is not None:
                _keep(real.with_name(real.name + backup), before, stat.S_IMODE(found.st_mode) & 0o600)
            replace_file(real, after, mode=wanted)
            return after != before
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}): let user {os.geteuid()} write it and its directory"
    raise Unwritable(message)


def _real(path: Path) -> Path:
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.parent.is_dir():
        raise Unwritable(f"{path} is a link to a path that does not exist: correct it or remove it")
    return real


def _content(path: Path, real: Path) -> tuple[bytes, os.stat_result | None]:
    try:
        found = read_some(real, limit=_LARGEST, shown=path)
    except FileNotFoundError:
        return b"", None
    except Unreadable as unreadable:
        raise Unwritable(str(unreadable)) from None
    owner = found.status.st_uid
    if owner != os.geteuid():
        raise Unwritable(f"{path} belongs to user {owner}, so it is not replaced: chown it to {os.geteuid()}")
    if len(found.data) > _LARGEST:
        raise Unwritable(str(too_large(path, _LARGEST)))
    return found.data, found.status


@contextmanager
def _guarded(real: Path) -> Iterator[None]:
    """Waits for other edits of the file. The kernel releases the lock when its process ends."""
    guard = os.open(real.with_name(f".{real.name}.guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _keep(backup: Path, content: bytes, mode: int) -> None:
    with suppress(FileExistsError), os.fdopen(os.open(backup, _CREATE, mode), "wb") as file:
        file.write(content)
