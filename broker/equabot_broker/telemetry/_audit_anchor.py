"""The anchor: the end of the audit log, kept in another file. It shows whether the log was cut while the broker did not run."""

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
    AuditDoubt.GONE: "the audit log is empty or gone, and no file next to it ends with the record of its anchor {anchor}",
    AuditDoubt.UNREADABLE: "the audit log's anchor {anchor} is not readable: records may have been cut off",
    AuditDoubt.AHEAD: "the audit log ends before the record of its anchor {anchor}: records were cut off or changed",
    AuditDoubt.BEHIND: "the audit log's anchor {anchor} is older than the log: an older copy of the anchor was restored",
    AuditDoubt.FOREIGN: "the audit log does not have the record of its anchor {anchor}: records were cut off or changed",
}
ANCHOR_UNWRITTEN: Final = "anchor_unwritten"
"""The anchor cannot be written. The fault ends without an operator when the anchor is written again."""
ANCHOR_FAULTS: Final = (*(doubt.value for doubt in AuditDoubt), ANCHOR_UNWRITTEN)
"""The faults of an anchor: the values of the metric's label `reason`."""
ACCEPT: Final = "compare the log with a hash that was noted elsewhere (metrics, this log), then run `equabot audit accept`"


class Anchor:
    """A file with mode 0600 that one broker uses. `place` identifies the location of the log.

    After a crash of the process it is at most one record old; after a crash of the machine, some seconds."""

    def __init__(self, path: Path, *, place: str = "") -> None:
        self.path = path
        self._place = place
        self._fd = -1
        self._invalid = False
        self.doubt: AuditDoubt | None = None
        """The doubt that is kept with the end of the log until an operator accepts it."""

    def read(self) -> Anchored | None:
        """The content of the anchor; None if there is no anchor.

        Another broker may have the anchor, for example during a rolling update. This broker then begins a chain, and `hold`
        fails until the other broker has ended.
        """
        try:
            self._open(os.O_RDWR)
            found = parse_anchor(os.pread(self._fd, _LONGEST, 0))
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return Anchored(START)
        except (OSError, Unsound):
            self._invalid = self._fd >= 0
            return Anchored(None, AuditDoubt.UNREADABLE)
        self.doubt = found.doubt
        return found

    def hold(self, head: Head) -> None:
        """Stores the end of the log. Each write is in place and has the same length, so it needs no space, and a reader never
        sees a part of it. Raises OSError."""
        if self._fd < 0:
            self._open(os.O_RDWR | os.O_CREAT)
        line = anchor_line(Anchored(head, self.doubt, self._place))
        if os.pwrite(self._fd, line, 0) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._invalid:
            os.ftruncate(self._fd, len(line))
            self._invalid = False

    def sync(self) -> None:
        """Waits until the disk has the content. Raises OSError."""
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
    """Why a log with this tail may differ from the one that its anchor confirms. `known` is the content of the anchor; None:
    there is no anchor. `served`: a broker ran with this state before."""
    if known is None:
        return AuditDoubt.MISSING if served or tail.last is not None or tail.torn else None
    if known.head is None:
        return AuditDoubt.UNREADABLE
    if tail.last is None:
        elsewhere = known.place != place(output.name)  # the configuration names another log now
        return None if elsewhere or known.head == START or output.continues(known.head) else AuditDoubt.GONE
    if known.head in (tail.last.head, tail.last.before):
        return None  # the end, or the record before it after a crash
    found = output.find(known.head)
    if found is None:
        return AuditDoubt.AHEAD if known.head.sequence > tail.last.head.sequence else AuditDoubt.FOREIGN
    return AuditDoubt.BEHIND if between(found, tail.last) > CRASH_SECONDS else None


def _lock(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another broker has it: set audit.anchor to a file of its own") from None
