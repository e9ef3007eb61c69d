"""The audit log: a record of each event that an operator may have to account for.

A record has names and numbers, never a secret, and a keyed digest in place of a lease's id. The operating system has the record
before the call that caused it is answered.

A record that cannot be written waits until it can be. The number of waiting records is bounded; the others are counted as lost,
and the log says how many. With `fail_closed` nothing is granted until records can be written.
"""

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from equabot_broker.domain.errors import AuditUnavailable, CannotStart
from equabot_broker.domain.instants import rfc3339
from equabot_broker.telemetry._audit_anchor import ACCEPT
from equabot_broker.telemetry._audit_faults import explained, is_misconfigured
from equabot_broker.telemetry._audit_output import AuditFile, AuditStream, Output
from equabot_broker.telemetry._audit_records import Records
from equabot_broker.telemetry._audit_writer import ChainWriter
from equabot_broker.telemetry.audit_chain import ACCEPTED, Head
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.incidents import incident

_KEPT: Final = 4096
"""Records that can wait."""
_RETRY_AFTER: Final = 0.25
"""Seconds between two attempts to write waiting records."""
_SLOW: Final = 1.0
"""Seconds for which standard output may be full before that is a fault."""
_NOTE_EVERY: Final = 3600.0
"""Seconds between two notes of the chain's end in the log."""

_log: Final = logging.getLogger(__name__)


def audit_output(path: Path | None, *, stdout: int = 1, patient: bool) -> Output:
    """The output for the records: the file, or standard output for None."""
    return AuditStream(stdout, patient=patient) if path is None else AuditFile(path)


class AuditLog:
    """Records events. `record` is a sink for `Events`, and must be the first one.

    `now` and `steady` are the functions of a clock. `anchor` is a file in another place. `key` is the key of the digests of
    leases. `clean` removes secrets from a text. `served`: a broker ran with this state before, so the anchor should exist.
    """

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
        self._name = output.name
        self._chain = ChainWriter(output, anchor=anchor, version=version, served=served, at=self._at, on_doubt=self._notify)
        self._records = Records(key=key, clean=clean)
        self._fail_closed = fail_closed
        self._now = now
        self._steady = steady
        self._waiting: deque[dict[str, object]] = deque()
        self._unreported = 0
        """Lost records that no record reports yet."""
        self._failing_since: float | None = None
        self._retry_at = self._note_at = 0.0
        self.lost = 0
        """Records that were lost."""
        self.fault = ""
        """Why nothing can be recorded, and what to do. Empty: records can be written."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `refuses` may have changed."""

    @property
    def refuses(self) -> bool:
        """Whether nothing may be granted now."""
        return self._fail_closed and bool(self.fault or self.doubt)

    @property
    def head(self) -> Head:
        """The end of the chain."""
        return self._chain.head

    @property
    def doubt(self) -> str:
        """Why the log may differ from what a broker wrote. Empty: a start found no doubt, or an operator accepted it."""
        return self._chain.doubt_text

    @property
    def anchor_write_fault(self) -> str:
        """Why the anchor cannot be written, and what to do. Empty: it can be."""
        return self._chain.anchor_write_fault

    @property
    def anchor_faults(self) -> frozenset[str]:
        """The faults of the anchor, from `ANCHOR_FAULTS`."""
        return self._chain.anchor_faults

    def accept(self) -> str:
        """An operator accepts the doubt. A record says so, and the chain is verified from there on. Returns the accepted doubt;
        empty if there was no doubt. Raises AuditUnavailable."""
        accepted, doubt = self.doubt, self._chain.doubt
        if doubt is None:
            return ""
        self._record_or_refuse({"ts": self._at(), "kind": ACCEPTED, "doubt": doubt.value}, accepting=True)
        self._chain.accept()
        _log.warning("an operator accepted this doubt: %s", accepted)
        self.changed()
        return accepted

    def begin(self) -> None:
        """Opens the log with its first record. The broker starts with a full disk, and with a log that has a doubt. Raises
        CannotStart if the configured place cannot be an audit log."""
        try:
            self._chain.start()
        except CannotStart:
            self._chain.close()
            raise
        except OSError as error:
            if is_misconfigured(error):
                self._chain.close()
                raise CannotStart(f"{explained(error, self._name)}: set audit.path to a file that can be written") from None
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a port: records wait
            self._failed(self._unexpected(error))
        else:
            self._note_end()

    def record(self, event: Event) -> None:
        """Records an event that has an `audit_kind`. Raises AuditUnavailable if the event must not happen without a record."""
        if not event.audit_kind:
            return
        try:
            record = self._records.of(event, at=self._at())
        except Exception as error:  # noqa: BLE001 - a port: an event that cannot be recorded is lost, or must not happen
            self._lose(error)
            if event.granting and self._fail_closed:
                raise self._refusal() from None
            return
        if event.granting and self._fail_closed:
            self._record_or_refuse(record)
            return
        if self._unreported or len(self._waiting) >= _KEPT:
            self._unreported += 1
            self.lost += 1
        else:
            self._waiting.append(record)
        self.write_waiting()

    def write_waiting(self) -> bool:
        """Writes the waiting records, if the time of the next attempt has come. Returns whether no record waits. Never
        raises."""
        if self._failing_since is not None and self._steady() < self._retry_at:
            return False
        try:
            if self._chain.make_ready(self._steady()):
                self._note_end()
            while self._waiting:
                self._chain.append(self._waiting[0])
                self._waiting.popleft()
            if self.fault or self._unreported:
                self._chain.append({"ts": self._at(), "kind": "resumed", "lost": self._unreported})
        except (OSError, CannotStart) as error:
            self._failed(error)
            return False
        except Exception as error:  # noqa: BLE001 - a port: the cause may be this record, which must not delay the others
            if self._waiting:
                self._waiting.popleft()
            self._lose(error)
            return False
        self._recovered()
        return True

    def sync(self) -> None:
        """Waits until the disk has what was written. Blocks; another thread may call it, every few seconds."""
        try:
            self._chain.sync()
        except OSError as error:
            _log.warning("the audit log is written, but may not be on the disk: %s", explained(error, self._name))
        except Exception as error:  # noqa: BLE001 - a port
            _log.warning("the audit log is written, but may not be on the disk: %s", incident("sink", "audit", error))

    def close(self) -> None:
        """Records the end, and closes the log."""
        self._retry_at = 0.0
        self._waiting.append({"ts": self._at(), "kind": "ended"})
        if self.write_waiting():
            self._note_end()
            self.sync()
        else:
            lost = self._unreported + len(self._waiting)
            _log.error("%d records of the audit log are lost: %s", lost, self.fault or "its reader does not read")
        self._chain.close()

    def _record_or_refuse(self, record: dict[str, object], *, accepting: bool = False) -> None:
        if not self.write_waiting() or (self.doubt and not accepting):
            raise self._refusal()
        try:
            self._chain.append(record)
        except OSError as error:
            self._failed(error)
            raise self._refusal() from None
        except Exception as error:  # noqa: BLE001 - a port: nothing is granted without a record
            self._lose(error)
            raise self._refusal() from None

    def _lose(self, error: Exception) -> None:
        """Counts a record that an unexpected exception prevents."""
        self._unreported += 1
        self.lost += 1
        self._failed(self._unexpected(error))

    def _unexpected(self, error: Exception) -> CannotStart:
        return CannotStart(f"the audit log cannot be written to {self._name}: {incident('sink', 'audit', error)}")

    def _refusal(self) -> AuditUnavailable:
        why = self.fault or (self.doubt and f"{self.doubt}; {ACCEPT}") or "records are waiting to be written: try again"
        return AuditUnavailable(f"nothing is granted without an audit record (audit.fail_closed): {why}", retry_after=1.0)

    def _notify(self) -> None:
        self.changed()

    def _failed(self, error: OSError | CannotStart) -> None:
        steady = self._steady()
        self._retry_at = steady + _RETRY_AFTER
        if self._failing_since is None:
            self._failing_since = steady
        slow = isinstance(error, BlockingIOError) and not self._fail_closed and steady - self._failing_since < _SLOW
        fault = "" if slow else explained(error, self._name)
        if fault and fault != self.fault:
            _log.error("%s (until then %s)", fault, "nothing is granted" if self._fail_closed else "records wait")
            self.fault = fault
            self.changed()

    def _recovered(self) -> None:
        self._failing_since = None
        lost, self._unreported = self._unreported, 0
        if self.fault:
            _log.info("the audit log is written again; %d records were lost", lost)
            self.fault = ""
            self.changed()
        if self._steady() >= self._note_at:
            self._note_end()

    def _note_end(self) -> None:
        """Notes the end of the chain in the log, which is kept in another place. `audit verify` reads the note, and finds out
        whether records were removed."""
        self._note_at = self._steady() + _NOTE_EVERY
        _log.info("the audit log ends with record %d, hash %s", self.head.sequence, self.head.hash)

    def _at(self) -> str:
        return rfc3339(self._now(), timespec="microseconds")
