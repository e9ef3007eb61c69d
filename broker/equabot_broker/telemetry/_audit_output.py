"""Where audit records go: a file that is only appended to, or standard output."""

import errno
import fcntl
import os
import select
import stat
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from heapq import nlargest
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

from equabot_broker.domain.errors import CannotStart
from equabot_broker.files.reading import Unreadable, read_some
from equabot_broker.telemetry.audit_chain import Head, Record, Unsound, may_be_torn, unseal

LONGEST: Final = select.PIPE_BUF
"""Bytes of a record, at most: so many go into a pipe as one, and without waiting, where there is room at all."""

_TAIL: Final = 16 * LONGEST
_SEARCHED: Final = 1 << 24
_BESIDE: Final = 16
_PATIENCE_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Tail:
    """How an output ends that is about to be written to: its last record, None where there is none (or none that can be read
    back), and the unfinished line behind it."""

    last: Record | None = None
    torn: bytes = b""


class Output(Protocol):
    """Takes lines. Not to be used from two threads at once, but for `sync`."""

    @property
    def name(self) -> str:
        """Where the lines go, for a person."""

    def open(self) -> Tail:
        """Makes it ready, again if need be, and tells how it ends. Raises OSError, CannotStart."""

    def append(self, line: bytes) -> None:
        """Hands the line, whole, to the operating system. Raises OSError; then none of it was taken, or `replaced` is true."""

    def find(self, head: Head) -> Record | None:
        """The record at that place, if it is among the last 16 MiB and the chain goes on from it to the end."""

    def continues(self, head: Head) -> bool:
        """Whether an output without a record may be what follows that place: the file before was renamed, or nothing can be
        read back."""

    def replaced(self) -> bool:
        """Whether it has to be opened again before it is written to."""

    def sync(self) -> None:
        """Brings what was appended safely to the disk. Blocks. Raises OSError."""

    def close(self) -> None: ...


class AuditFile:
    """A file, 0600. It may be renamed away (as logrotate does) at any time: `replaced` then says so."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1
        self._torn = False

    def open(self) -> Tail:
        """Creates what is missing. Raises CannotStart where another process writes the file, or where it is no audit log."""
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Read as well, to see how it ends; without O_NONBLOCK a FIFO would keep the broker waiting for a reader.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            _lock(fd, self._path)
            tail = _tail(fd, self._path)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._torn = fd, False
        return tail

    def append(self, line: bytes) -> None:
        """One write. What a full disk took of it is taken back; where that cannot be (append-only files) it stays as a torn
        line, which the next `open` finds."""
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            if len(rest) < len(line):
                self._take_back(len(line) - len(rest))
            raise

    def _take_back(self, count: int) -> None:
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - count)
        except OSError:
            self._torn = True

    def find(self, head: Head) -> Record | None:
        """Reads it again, so only for a log that does not end where it should."""
        size = os.fstat(self._fd).st_size
        lines = os.pread(self._fd, _SEARCHED, max(size - _SEARCHED, 0)).split(b"\n")
        records = [unseal(line) for line in lines if _sound(line)]
        for at, record in enumerate(records):
            if record.head == head:
                chained = all(one.head == after.before for one, after in pairwise(records[at:]))
                return record if chained else None
        return None

    def continues(self, head: Head) -> bool:
        """Whether a file next to it, whose name begins like its own, ends there: the newest of them are looked at."""
        beside = [path for path in self._path.parent.glob(f"{escape(self._path.stem)}*") if path != self._path]
        return any(_ends_at(head, path) for path in nlargest(_BESIDE, beside, key=_changed_at))

    def replaced(self) -> bool:
        """Whether its path leads to another file, or to none, or its last line is unfinished."""
        if self._torn or self._fd < 0:
            return True
        try:
            there = self._path.stat()
        except OSError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def sync(self) -> None:
        """Waits for the disk."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class AuditStream:
    """Standard output. It cannot be read back. A reader that does not keep up makes it fail rather than wait: one that is gone
    would stop the broker. `patient`: it is given 50 ms, where failing means refusing."""

    def __init__(self, fd: int, *, patient: bool) -> None:
        self.name = "standard output"
        self._given = fd
        self._fd = -1
        self._patience = _PATIENCE_MS if patient else 0

    def open(self) -> Tail:
        """A descriptor of our own: nobody can close it, and have its number mean another file."""
        if self._fd < 0:
            self._fd = fcntl.fcntl(self._given, fcntl.F_DUPFD_CLOEXEC, 3)
        return Tail()

    def append(self, line: bytes) -> None:
        """One write, if there is room."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLOUT)
        if not waiting.poll(self._patience):
            raise BlockingIOError(errno.EAGAIN, "it is not read")
        rest = line[os.write(self._fd, line) :]
        while rest:  # a file on a disk that is nearly full; a pipe takes all or nothing
            rest = rest[os.write(self._fd, rest) :]

    def find(self, head: Head) -> Record | None:
        """Nothing: it cannot be read."""
        return None

    def continues(self, head: Head) -> bool:
        """It may: nothing shows whether it does."""
        return True

    def replaced(self) -> bool:
        """Never, once it is open."""
        return self._fd < 0

    def sync(self) -> None:
        """Whoever reads it sees to that."""

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"another broker writes the audit log {path}: give each a file of its own (audit.path)") from None


def _tail(fd: int, path: Path) -> Tail:
    """How the file ends. An unfinished line is kept, and closed with a newline: the record that follows tells of it."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise CannotStart(f"the audit log {path} is not a file: set audit.path to one, or to - for standard output")
    *lines, torn = os.pread(fd, _TAIL, max(found.st_size - _TAIL, 0)).split(b"\n")
    if torn:
        os.write(fd, b"\n")
        if _sound(torn):
            return Tail(unseal(torn))  # only its newline was missing
    elif lines and not _sound(lines[-1]):
        torn = lines.pop()
    last = unseal(lines[-1]) if lines and _sound(lines[-1]) else None
    if not may_be_torn(torn) or (last is None and (lines or found.st_size > _TAIL)):
        raise CannotStart(f"{path} does not end like an audit log: move it away, or set audit.path to another file")
    return Tail(last, torn)


def _changed_at(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def _ends_at(head: Head, path: Path) -> bool:
    """Whether the last whole record of the file is that one, or the one that a crash kept its anchor from knowing."""
    try:
        lines = read_some(path, limit=_TAIL, follow=False, end=True).data.split(b"\n")
    except (FileNotFoundError, Unreadable):
        return False
    last = next((unseal(line) for line in reversed(lines) if _sound(line)), None)
    return last is not None and head in (last.head, last.before)


def _sound(line: bytes) -> bool:
    try:
        unseal(line)
    except Unsound:
        return False
    return True
