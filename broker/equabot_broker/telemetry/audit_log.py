"""The audit log: a record of everything that somebody may have to account for. Names and numbers, never a secret, and of a
lease no more than a keyed digest of its id.

A record is with the operating system before the call that caused it is answered. What cannot be written now is kept, so many,
and written when it can be; what does not fit is counted, and the log says how many. With `fail_closed` nothing is granted
meanwhile.
"""

import errno
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Final

from equabot_broker.domain.errors import AuditUnavailable, CannotStart
from equabot_broker.domain.instants import rfc3339
from equabot_broker.telemetry._audit_anchor import ACCEPT, DOUBTS, UNHELD, Anchor, doubt_of
from equabot_broker.telemetry._audit_output import LONGEST, AuditFile, AuditStream, Output
from equabot_broker.telemetry._audit_records import Records, shortened
from equabot_broker.telemetry.audit_chain import (
    ACCEPTED,
    BEGUN,
    START,
    Anchored,
    AuditDoubt,
    digest_of,
    place,
    seal,
)
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.incidents import incident

_KEPT: Final = 4096
"""Records that wait to be written, at most."""
_LISTED: Final = 20
_TEXT: Final = 512
"""Characters of a text, in a record that would else be too long."""
_RETRY_AFTER: Final = 0.25
"""Seconds between two attempts to write what cannot be written."""
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether the file was renamed."""
_SLOW: Final = 1.0
"""Seconds for which standard output may be full before that is a fault."""
_TELL_EVERY: Final = 3600.0

_WRONG: Final = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What no waiting mends: the configuration names a place that cannot be written."""
_REMEDIES: Final = {
    errno.ENOSPC: "free space on its volume",
    errno.EDQUOT: "free space within its quota",
    errno.EPIPE: "start the broker with somebody to read it, or set audit.path to a file",
    errno.EAGAIN: "see whether what collects it still runs",
    errno.EBADF: "start the broker with it open, or set audit.path to a file",
}

_log: Final = logging.getLogger(__name__)


def audit_output(path: Path | None, *, stdout: int = 1, patient: bool) -> Output:
    """Where records go: the file, or (None) standard output."""
    return AuditStream(stdout, patient=patient) if path is None else AuditFile(path)


class AuditLog:
    """Records events (`record` is a sink for `Events`, the first one). `now` and `steady` tell the time, as a clock does; the
    anchor is a file elsewhere, `key` is what the digests of leases are made with, `clean` takes secrets out of a text.
    `served`: a broker ran with this state before, so that there should be an anchor. `changed` is called when `refuses` may
    have changed."""

    def __init__(
        self,
        output: Output,
        *,
        anchor: Path,
        key: bytes,
        clean: Callable[[str], str],
        version: str,
        fail_closed: bool,
        served: bool,
        now: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._output = output
        self._anchor = Anchor(anchor, place=place(output.name))
        self._records = Records(key=key, clean=clean)
        self._version = version
        self._fail_closed = fail_closed
        self._now = now
        self._steady = steady
        self._served = served
        self._known: Anchored | None = None
        self._waiting: deque[dict[str, object]] = deque()
        self._unsaid = 0
        self._failing_since: float | None = None
        self._retry_at = self._look_at = self._tell_at = 0.0
        self._open = False
        self.head = START
        self.lost = 0
        """Records that could not be kept until they could be written."""
        self.fault = ""
        """Why nothing can be recorded, and what to do. Empty: it can be."""
        self.unheld = ""
        """Why the anchor cannot be written, and what to do. Empty: it can be."""
        self.changed: Callable[[], None] = lambda: None

    @property
    def refuses(self) -> bool:
        """Whether nothing may be granted now."""
        return self._fail_closed and bool(self.fault or self.doubt)

    @property
    def doubt(self) -> str:
        """Why the log may not be what a broker wrote, as was found at a start. Empty: nothing, or an operator accepted it."""
        doubt = self._anchor.doubt
        return "" if doubt is None else DOUBTS[doubt].format(anchor=self._anchor.path)

    @property
    def anchor_faults(self) -> frozenset[str]:
        """What is wrong with the anchor, of `ANCHOR_FAULTS`."""
        doubt = self._anchor.doubt
        return frozenset(({doubt.value} if doubt is not None else set()) | ({UNHELD} if self.unheld else set()))

    def accept(self) -> str:
        """An operator accepts the doubt: with a record, after which the chain counts as vouched for again. Returns what was
        accepted; empty where there was no doubt. Raises AuditUnavailable."""
        accepted, doubt = self.doubt, self._anchor.doubt
        if doubt is None:
            return ""
        self._record_or_refuse({"ts": self._at(), "kind": ACCEPTED, "doubt": doubt.value}, accepting=True)
        self._anchor.doubt = None
        self._hold()
        _log.warning("an operator accepted this doubt: %s", accepted)
        self.changed()
        return accepted

    def begin(self) -> None:
        """Opens it, with its first record. A full disk is no reason not to start, nor is a log that nothing vouches for. Raises
        CannotStart."""
        self._known = self._anchor.read()
        self.head = (self._known and self._known.head) or START
        if self._known is None and not self._served:
            self._hold()  # a start that fails, or dies, before its first record is no loss of the anchor
        try:
            self._begin("start")
        except CannotStart:
            self._anchor.close()
            raise
        except OSError as error:
            if error.errno in _WRONG:
                self._anchor.close()
                raise CannotStart(f"{self._explained(error)}: set audit.path to a file that can be written") from None
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a port: records wait
            self._failed(self._unforeseen(error))
        else:
            self._tell()

    def record(self, event: Event) -> None:
        """Records it, if it is one to be recorded. Raises AuditUnavailable where it must not happen unrecorded."""
        if not event.audit_kind:
            return
        try:
            record = self._records.of(event, at=self._at())
        except Exception as error:  # noqa: BLE001 - a port: what cannot be recorded is lost, or must not happen
            self._unrecordable(error)
            if event.granting and self._fail_closed:
                raise self._refusal() from None
            return
        if event.granting and self._fail_closed:
            self._record_or_refuse(record)
            return
        if self._unsaid or len(self._waiting) >= _KEPT:
            self._unsaid += 1
            self.lost += 1
        else:
            self._waiting.append(record)
        self.write_waiting()

    def write_waiting(self) -> bool:
        """Writes what waits, if it is time to try; returns whether nothing waits any more. Never raises."""
        if self._failing_since is not None and self._steady() < self._retry_at:
            return False
        try:
            self._make_ready()
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
            if self.fault or self._unsaid:
                self._append({"ts": self._at(), "kind": "resumed", "lost": self._unsaid})
        except (OSError, CannotStart) as error:
            self._failed(error)
            return False
        except Exception as error:  # noqa: BLE001 - a port: it may be this record, which must not hold up the others
            if self._waiting:
                self._waiting.popleft()
            self._unrecordable(error)
            return False
        self._recovered()
        return True

    def sync(self) -> None:
        """Brings what was written safely to the disk. Blocks; may be called from another thread, every few seconds."""
        try:
            self._output.sync()
            self._anchor.sync()
        except OSError as error:
            _log.warning("the audit log is written, but not safely on the disk: %s", self._explained(error))
        except Exception as error:  # noqa: BLE001 - a port
            _log.warning("the audit log is written, but not safely on the disk: %s", incident("sink", "audit", error))

    def close(self) -> None:
        """Records the end, and closes it."""
        self._retry_at = 0.0
        self._waiting.append({"ts": self._at(), "kind": "ended"})
        if self.write_waiting():
            self._tell()
            self.sync()
        else:
            _log.error(
                "%d records of the audit log are lost: %s", self._unsaid + len(self._waiting), self.fault or "it is not read"
            )
        self._output.close()
        self._anchor.close()

    def _record_or_refuse(self, record: dict[str, object], *, accepting: bool = False) -> None:
        if not self.write_waiting() or (self.doubt and not accepting):
            raise self._refusal()
        try:
            self._append(record)
        except OSError as error:
            self._failed(error)
            raise self._refusal() from None
        except Exception as error:  # noqa: BLE001 - a port: nothing is granted that is not recorded
            self._unrecordable(error)
            raise self._refusal() from None

    def _unrecordable(self, error: Exception) -> None:
        """A record is lost, in a way that nobody foresaw."""
        self._unsaid += 1
        self.lost += 1
        self._failed(self._unforeseen(error))

    def _unforeseen(self, error: Exception) -> CannotStart:
        return CannotStart(f"the audit log cannot be written to {self._output.name}: {incident('sink', 'audit', error)}")

    def _refusal(self) -> AuditUnavailable:
        why = self.fault or (self.doubt and f"{self.doubt}; {ACCEPT}") or "records are waiting to be written: try again"
        return AuditUnavailable(f"nothing is granted that cannot be recorded (audit.fail_closed): {why}", retry_after=1.0)

    def _make_ready(self) -> None:
        steady = self._steady()
        if not self._open:
            self._begin("start")
        elif steady >= self._look_at:
            self._look_at = steady + _LOOK_EVERY
            if self._output.replaced():
                self._open = False
                self._begin("rotation")
                self._tell()

    def _begin(self, why: str) -> None:
        """Opens the output, and writes down how it was found."""
        known = self.head
        tail = self._output.open()
        anchored = why != "start" or known != START
        found: dict[str, object] = {"ts": self._at(), "kind": BEGUN, "why": why, "version": self._version, "anchor": anchored}
        if tail.torn:
            found["torn"] = digest_of(tail.torn)
        expected = self._known if why == "start" else Anchored(known)
        doubt = doubt_of(tail, expected, output=self._output, served=self._served)
        if doubt is not None:
            found["doubt"] = doubt.value
        if doubt in (AuditDoubt.AHEAD, AuditDoubt.FOREIGN):
            found["expected"] = {"seq": known.sequence, "hash": known.hash}
        if not anchored and tail.last is None:
            found["chain"] = token_hex(8)
        if tail.last is not None:
            self.head = tail.last.head
        self._anchor.doubt = doubt or self._anchor.doubt
        try:
            self._append(found)
        except OSError:
            self.head = known
            raise
        self._open = True
        if doubt is not None or (why == "start" and self.doubt):
            _log.error("%s; %s", self.doubt, ACCEPT)
            self.changed()

    def _append(self, record: dict[str, object]) -> None:
        line, head = seal(record, after=self.head)
        limit = _TEXT
        while len(line) > LONGEST:
            limit //= 2
            record = shortened(record, limit)
            line, head = seal(record, after=self.head)
        try:
            self._output.append(line)
        except OSError:
            self._look_at = 0.0
            raise
        self.head = head
        self._hold()

    def _hold(self) -> None:
        try:
            self._anchor.hold(self.head)
        except Exception as error:  # noqa: BLE001 - a port: the log itself is written
            unforeseen = not isinstance(error, OSError)
            said = incident("sink", "audit anchor", error) if unforeseen else getattr(error, "strerror", "")
            why = f"the audit log's anchor {self._anchor.path} cannot be written: {said}"
            if not self.unheld:
                _log.error("%s; the next start cannot vouch for the log", why)
            self.unheld = why
        else:
            if self.unheld:
                _log.info("the audit log's anchor is written again")
            self.unheld = ""

    def _failed(self, error: OSError | CannotStart) -> None:
        steady = self._steady()
        self._retry_at = steady + _RETRY_AFTER
        if self._failing_since is None:
            self._failing_since = steady
        slow = isinstance(error, BlockingIOError) and not self._fail_closed and steady - self._failing_since < _SLOW
        fault = "" if slow else self._explained(error)
        if fault and fault != self.fault:
            _log.error("%s (%s)", fault, "nothing is granted meanwhile" if self._fail_closed else "records wait meanwhile")
            self.fault = fault
            self.changed()

    def _recovered(self) -> None:
        self._failing_since = None
        lost, self._unsaid = self._unsaid, 0
        if self.fault:
            _log.info("the audit log is written again; %d records were lost", lost)
            self.fault = ""
            self.changed()
        if self._steady() >= self._tell_at:
            self._tell()

    def _tell(self) -> None:
        """Notes in the log, which is kept elsewhere, where the chain stands: nobody can take back what is noted there."""
        self._tell_at = self._steady() + _TELL_EVERY
        _log.info("the audit log stands at record %d, hash %s", self.head.sequence, self.head.hash)

    def _at(self) -> str:
        return rfc3339(self._now(), timespec="microseconds")

    def _explained(self, error: OSError | CannotStart) -> str:
        if isinstance(error, CannotStart):
            return str(error)
        remedy = _REMEDIES.get(error.errno or 0)
        return f"cannot write the audit log to {self._output.name}: {error.strerror}{f': {remedy}' if remedy else ''}"
