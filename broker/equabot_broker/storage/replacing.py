"""Replaces a whole file atomically and durably. A process that has the old file open reads the old content to its end."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def replace_file(real: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replaces the file `real`, which must not be a link. The caller holds a lock against other writers.

    Raises OSError; the file is unchanged then.
    """
    new = real.with_name(f".{real.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()  # left by a process that was killed: this process holds the lock
    try:
        with os.fdopen(os.open(new, _CREATE, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(real)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems cannot do this, and the file is in place
            os.fsync(directory)
    finally:
        os.close(directory)
