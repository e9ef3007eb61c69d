"""A process that has no file descriptor left."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


@contextmanager
def without_descriptors(pid: int = 0) -> Iterator[None]:
    """While the context lasts, whatever in the process (0: this one) wants a descriptor gets EMFILE. Open ones stay open."""
    folder = Path(f"/proc/{pid or 'self'}/fd")
    listed = list(folder.iterdir())
    opened = {int(entry.name) for entry in listed if entry.is_symlink()}  # the one that listed them is closed again
    free = next(number for number in count() if number not in opened)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
