"""The anchor of the audit log: its end, remembered elsewhere, so that a cut made while no broker ran is found."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from equabot_broker.telemetry._audit_output import Output, Tail
from equabot_broker.telemetry.audit_chain import (
    CRASH_SECONDS,
    START,
    Anchored,
    AuditDoubt,
    Head,
    Unsound,
    anchor_line,
    between,
    parse_anchor,
    place,
)

_LONGEST: Final = 256

DOUBTS: Final = {
    AuditDoubt.MISSING: "the audit log's anchor {anchor} is missing: records may have been cut off, or the whole log replaced",
    AuditDoubt.GONE: "the audit log is empty or gone, and no file next to it ends as its anchor {anchor} says: it was removed",
    AuditDoubt.UNREADABLE: "the audit log's anchor {anchor} cannot be read as one: records may have been cut off",
    AuditDoubt.AHEAD: "the audit log ends before the record that its anchor {anchor} holds: records were cut off or changed",
    AuditDoubt.BEHIND: "the audit log's anchor {anchor} is older than the log: an older copy of it was put back",
    AuditDoubt.FOREIGN: "the audit log has no such record as its anchor {anchor} holds: records were cut off or changed",
}
UNHELD: Final = "anchor_unwritten"
"""That the anchor cannot be written. It ends by itself, and needs no one to accept it."""
ANCHOR_FAULTS: Final = (*(doubt.value for doubt in AuditDoubt), UNHELD)
"""What can be wrong, in a word."""
ACCEPT: Final = "compare the log with a hash that was noted elsewhere (metrics, this log), then run `equabot audit accept`"


class Anchor:
    """A file, 0600, of one broker alone; `place` says where its log is.

    Exact to one record when a process dies, and to some seconds when the machine does."""

    def __init__(self, path: Path, *, place: str = "") -> None:
        self.path = path
        self._place = place
        self._fd = -1
        self._strange = False
        self.doubt: AuditDoubt | None = None
        """What is remembered with the end, until an operator accepts it."""

    def read(self) -> Anchored | None:
        """What was remembered last; None where there is no anchor. While another broker has it, as in a rolling update, a chain
        begins: `hold` fails until the other has ended."""
        try:
            self._open(os.O_RDWR)
            found = parse_anchor(os.pread(self._fd, _LONGEST, 0))
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return Anchored(START)
        except (OSError, Unsound):
            self._strange = self._fd >= 0
            return Anchored(None, AuditDoubt.UNREADABLE)
        self.doubt = found.doubt
        return found

    def hold(self, head: Head) -> None:
        """Remembers it. One write of always the same length, in place: it needs no space, and every reader finds it whole.
        Raises OSError."""
        if self._fd < 0:
            self._open(os.O_RDWR | os.O_CREAT)
        line = anchor_line(Anchored(head, self.doubt, self._place))
        if os.pwrite(self._fd, line, 0) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._strange:
            os.ftruncate(self._fd, len(line))
            self._strange = False

    def sync(self) -> None:
        """Waits for the disk. Raises OSError."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self, flags: int) -> None:
        fd = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            _lock(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd


def doubt_of(tail: Tail, known: Anchored | None, *, output: Output, served: bool) -> AuditDoubt | None:
    """Why a log that ends so may not be the one that its anchor knows (None: there is no anchor). `served`: a broker ran with
    this state before."""
    if known is None:
        return AuditDoubt.MISSING if served or tail.last is not None or tail.torn else None
    if known.head is None:
        return AuditDoubt.UNREADABLE
    if tail.last is None:
        elsewhere = known.place != place(output.name)  # the configuration names another log since
        return None if elsewhere or known.head == START or output.continues(known.head) else AuditDoubt.GONE
    if known.head in (tail.last.head, tail.last.before):
        return None  # the end, or the one record that a crash kept from being known
    found = output.find(known.head)
    if found is None:
        return AuditDoubt.AHEAD if known.head.sequence > tail.last.head.sequence else AuditDoubt.FOREIGN
    return AuditDoubt.BEHIND if between(found, tail.last) > CRASH_SECONDS else None


def _lock(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another broker has it: give each one of its own (audit.anchor)") from None
