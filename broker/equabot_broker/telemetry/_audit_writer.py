"""Appends the records of the audit log as one chain, and keeps the end of the chain in the anchor."""

import logging
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Final

from equabot_broker.telemetry._audit_anchor import ACCEPT, ANCHOR_UNWRITTEN, DOUBTS, Anchor, doubt_of
from equabot_broker.telemetry._audit_output import LONGEST, Output
from equabot_broker.telemetry._audit_records import shortened
from equabot_broker.telemetry.audit_chain import BEGUN, START, Anchored, AuditDoubt, digest_of, place, seal
from equabot_broker.telemetry.incidents import incident

_TEXT: Final = 512
"""Characters that are left of each text in a record that would be too long."""
_CHECK_EVERY: Final = 1.0
"""Seconds between two checks whether the file was renamed."""

# The writer is a part of the audit log, and logs under its name.
_log: Final = logging.getLogger("equabot_broker.telemetry.audit_log")


class ChainWriter:
    """Writes to one output at a time. `at` returns the time for a record. `served`: a broker ran with this state before, so the
    anchor should exist. `on_doubt` is called when a start finds a doubt."""

    def __init__(
        self, output: Output, *, anchor: Path, version: str, served: bool, at: Callable[[], str], on_doubt: Callable[[], None]
    ) -> None:
        self._output = output
        self._anchor = Anchor(anchor, place=place(output.name))
        self._version = version
        self._served = served
        self._at = at
        self._on_doubt = on_doubt
        self._anchored: Anchored | None = None
        self._open = False
        self._check_at = 0.0
        self.head = START
        self.anchor_write_fault = ""
        """Why the anchor cannot be written, and what to do. Empty: it can be."""

    @property
    def doubt(self) -> AuditDoubt | None:
        """Why the log may differ from what a broker wrote. None: there is no doubt, or an operator accepted it."""
        return self._anchor.doubt

    @property
    def doubt_text(self) -> str:
        """The same for a person. Empty: there is no doubt."""
        return "" if self.doubt is None else DOUBTS[self.doubt].format(anchor=self._anchor.path)

    @property
    def anchor_faults(self) -> frozenset[str]:
        """The faults of the anchor, from `ANCHOR_FAULTS`."""
        return frozenset(
            [*([self.doubt.value] if self.doubt else []), *([ANCHOR_UNWRITTEN] if self.anchor_write_fault else [])]
        )

    def start(self) -> None:
        """Reads the anchor, opens the output and writes the first record. Raises OSError, CannotStart."""
        self._anchored = self._anchor.read()
        self.head = (self._anchored and self._anchored.head) or START
        if self._anchored is None and not self._served:
            self._hold()  # a start that fails before its first record is then no loss of the anchor
        self._begin("start")

    def make_ready(self, now: float) -> bool:
        """Opens an output that is not open, or whose file was renamed. `now` is a steady instant. Returns whether the records
        go on in another file. Raises OSError, CannotStart."""
        if not self._open:
            self._begin("start")
        elif now >= self._check_at:
            self._check_at = now + _CHECK_EVERY
            if self._output.replaced():
                self._open = False
                self._begin("rotation")
                return True
        return False

    def append(self, record: dict[str, object]) -> None:
        """Hands the record to the operating system. Raises OSError; then the record is not in the chain."""
        line, head = seal(record, after=self.head)
        limit = _TEXT
        while len(line) > LONGEST:
            limit //= 2
            record = shortened(record, limit)
            line, head = seal(record, after=self.head)
        try:
            self._output.append(line)
        except OSError:
            self._check_at = 0.0
            raise
        self.head = head
        self._hold()

    def accept(self) -> None:
        """Ends the doubt."""
        self._anchor.doubt = None
        self._hold()

    def sync(self) -> None:
        """Waits until the disk has everything. Raises OSError."""
        self._output.sync()
        self._anchor.sync()

    def close(self) -> None:
        """Closes the output and the anchor."""
        self._output.close()
        self._anchor.close()

    def _begin(self, why: str) -> None:
        """Opens the output, and records in which state it was."""
        known = self.head
        tail = self._output.open()
        anchored = why != "start" or known != START
        found: dict[str, object] = {"ts": self._at(), "kind": BEGUN, "why": why, "version": self._version, "anchor": anchored}
        if tail.torn:
            found["torn"] = digest_of(tail.torn)
        expected = self._anchored if why == "start" else Anchored(known)
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
            self.append(found)
        except OSError:
            self.head = known
            raise
        self._open = True
        if doubt is not None or (why == "start" and self.doubt):
            _log.error("%s; %s", self.doubt_text, ACCEPT)
            self._on_doubt()

    def _hold(self) -> None:
        try:
            self._anchor.hold(self.head)
        except Exception as error:  # noqa: BLE001 - a port: the log itself is written
            unexpected = not isinstance(error, OSError)
            cause = incident("sink", "audit anchor", error) if unexpected else getattr(error, "strerror", "")
            why = f"the audit log's anchor {self._anchor.path} cannot be written: {cause}"
            if not self.anchor_write_fault:
                _log.error("%s; the next start cannot verify the log", why)
            self.anchor_write_fault = why
        else:
            if self.anchor_write_fault:
                _log.info("the audit log's anchor is written again")
            self.anchor_write_fault = ""
