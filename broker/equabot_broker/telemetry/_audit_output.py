"""The outputs for audit records: a file to which records are appended, and standard output."""

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
"""The maximum number of bytes of a record. A pipe takes as many in one piece, or none."""

_TAIL: Final = 16 * LONGEST
_SEARCHED: Final = 1 << 24
_ROTATED: Final = 16
_PATIENCE_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an output. `last` is the last record; None: there is no record, or the output cannot be read. `torn` is the
    unfinished line after it."""

    last: Record | None = None
    torn: bytes = b""


class Output(Protocol):
    """Takes lines. Only `sync` may be called while another thread uses the output."""

    @property
    def name(self) -> str:
        """The place of the lines, for a person."""

    def open(self) -> Tail:
        """Opens the output, or opens it again, and returns its end. Raises OSError, CannotStart."""

    def append(self, line: bytes) -> None:
        """Hands the line to the operating system. Raises OSError; then the output has no part of it, or `replaced` is true."""

    def find(self, head: Head) -> Record | None:
        """The record at that place, if it is in the last 16 MiB and the chain from it to the end is intact."""

    def continues(self, head: Head) -> bool:
        """Whether an output without a record can be the next output after that place: the previous file was renamed, or the
        output cannot be read."""

    def replaced(self) -> bool:
        """Whether the output must be opened again before the next line."""

    def sync(self) -> None:
        """Waits until the disk has every line. Blocks. Raises OSError."""

    def close(self) -> None: ...


class AuditFile:
    """A file with mode 0600. Another program, for example logrotate, may rename it at any time; then `replaced` is true."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1
        self._torn = False

    def open(self) -> Tail:
        """Creates the file and its directory if they are missing. Raises CannotStart if another process writes the file, or the
        file does not contain an audit log."""
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The end of the file is read. Without O_NONBLOCK, the open of a FIFO waits for a reader.
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
        """Writes the line. If the disk is full, the part that was written is removed. In an append-only file it cannot be
        removed; it stays as a torn line, which the next `open` finds."""
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            if len(rest) < len(line):
                self._remove_part(len(line) - len(rest))
            raise

    def _remove_part(self, count: int) -> None:
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - count)
        except OSError:
            self._torn = True

    def find(self, head: Head) -> Record | None:
        """Reads the end of the file. Only for a log whose last record is not the expected one."""
        size = os.fstat(self._fd).st_size
        lines = os.pread(self._fd, _SEARCHED, max(size - _SEARCHED, 0)).split(b"\n")
        records = [unseal(line) for line in lines if _sound(line)]
        for at, record in enumerate(records):
            if record.head == head:
                chained = all(one.head == after.before for one, after in pairwise(records[at:]))
                return record if chained else None
        return None

    def continues(self, head: Head) -> bool:
        """Whether a file in the same directory, with a name that begins with this file's stem, ends there. Only the newest such
        files are read."""
        rotated = [path for path in self._path.parent.glob(f"{escape(self._path.stem)}*") if path != self._path]
        return any(_ends_at(head, path) for path in nlargest(_ROTATED, rotated, key=_changed_at))

    def replaced(self) -> bool:
        """Whether the path now names another file or no file, or the last line is unfinished."""
        if self._torn or self._fd < 0:
            return True
        try:
            there = self._path.stat()
        except OSError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def sync(self) -> None:
        """Waits until the disk has every line."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class AuditStream:
    """Standard output. It cannot be read. If its reader is too slow, `append` fails and does not wait: a reader that has ended
    would otherwise stop the broker. `patient`: the reader has 50 ms, for a broker that refuses grants if `append` fails."""

    def __init__(self, fd: int, *, patient: bool) -> None:
        self.name = "standard output"
        self._given = fd
        self._fd = -1
        self._patience = _PATIENCE_MS if patient else 0

    def open(self) -> Tail:
        """Duplicates the descriptor. Other code can close the original, and its number can then name another file."""
        if self._fd < 0:
            self._fd = fcntl.fcntl(self._given, fcntl.F_DUPFD_CLOEXEC, 3)
        return Tail()

    def append(self, line: bytes) -> None:
        """Writes the line if the reader has left space for it."""
        waiting = select.poll()
        waiting.register(self._fd, select.POLLOUT)
        if not waiting.poll(self._patience):
            raise BlockingIOError(errno.EAGAIN, "its reader does not read")
        rest = line[os.write(self._fd, line) :]
        while rest:  # a file on a disk that is nearly full; a pipe takes the whole line or nothing
            rest = rest[os.write(self._fd, rest) :]

    def find(self, head: Head) -> Record | None:
        """Always None: standard output cannot be read."""
        return None

    def continues(self, head: Head) -> bool:
        """Always true: nothing shows the opposite."""
        return True

    def replaced(self) -> bool:
        """Only before it is open."""
        return self._fd < 0

    def sync(self) -> None:
        """Does nothing: the reader stores the lines."""

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"another broker writes the audit log {path}: set audit.path to another file") from None


def _tail(fd: int, path: Path) -> Tail:
    """The end of the file. An unfinished line stays, with a newline after it, and the next record identifies it."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise CannotStart(f"the audit log {path} is not a file: set audit.path to one, or to - for standard output")
    *lines, torn = os.pread(fd, _TAIL, max(found.st_size - _TAIL, 0)).split(b"\n")
    if torn:
        os.write(fd, b"\n")
        if _sound(torn):
            return Tail(unseal(torn))  # only the newline was missing
    elif lines and not _sound(lines[-1]):
        torn = lines.pop()
    last = unseal(lines[-1]) if lines and _sound(lines[-1]) else None
    if not may_be_torn(torn) or (last is None and (lines or found.st_size > _TAIL)):
        raise CannotStart(f"{path} does not end like an audit log: move the file, or set audit.path to another file")
    return Tail(last, torn)


def _changed_at(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def _ends_at(head: Head, path: Path) -> bool:
    """Whether the last complete record of the file is that one. After a crash, the file can have one more record than the
    anchor."""
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
