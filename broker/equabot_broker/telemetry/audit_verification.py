"""Verifies an audit log line by line: what its chain proves."""

import re
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from equabot_broker.telemetry.audit_chain import (
    ACCEPTED,
    BEGUN,
    MARK,
    START,
    AuditDoubt,
    Head,
    Record,
    Unsound,
    between,
    digest_of,
    unseal,
)

_NOTE: Final = re.compile(rb"the audit log (?:ends with|stands at) record (\d{1,20}), hash ([0-9a-f]{64})")
"""The note of a broker about the end of its chain. Earlier versions wrote the second form."""
_INTERLEAVED: Final = 4096
"""Records that can precede a captured note about an earlier record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The content of a sound log.

    `after` is the record before the first one: `START`, unless there is an earlier file. `lost` counts the events that the
    broker could not record, and `torn` the lines that a crash left unfinished. `doubts` are from starts at which no anchor
    confirmed the log, and no operator has accepted them. `accepted` counts the accepted ones. `anchored` is the record that the
    anchor names, and `beyond` the seconds from that record to the last one.
    """

    records: int
    first: str
    last: str
    after: Head
    head: Head
    lost: int
    torn: int
    doubts: tuple[AuditDoubt, ...]
    accepted: int
    anchored: Record | None
    beyond: float


class AuditVerification:
    """Reads a log line by line.

    `captured`: the log is the output of a container. Other lines are then between the records, and the beginning may be
    missing. `noted` are hashes, or their beginnings, of records that must be in the log. `anchor` is the end that the anchor
    has.
    """

    def __init__(self, *, captured: bool = False, noted: Iterable[str] = (), anchor: Head | None = None) -> None:
        self._captured = captured
        self._noted = set(noted)
        self._anchor = anchor
        self._anchored: Record | None = None
        self._notes: dict[str, int] = {}
        self._recent: deque[str] = deque(maxlen=_INTERLEAVED)
        self.lines = 0
        """The number of lines that were read."""
        self._records = 0
        self._first: Record | None = None
        self._last: Record | None = None
        self._unfinished: tuple[int, bytes, Unsound] | None = None
        self._lost = self._torn = self._accepted = 0
        self._doubts: tuple[AuditDoubt, ...] = ()

    def take(self, line: bytes) -> None:
        """Reads the next line, without its newline. Raises Unsound; the verification ends with it."""
        self.lines += 1
        if self._captured:
            at = line.find(MARK)
            if at < 0:
                self._keep_note(line)
                return
            line = line[at:].rstrip(b"\r")
        try:
            record = unseal(line)
        except Unsound as why:
            self._keep_unfinished(line, why)
            return
        self._explain_unfinished(record)
        self._link(record)
        self._count(record)

    def end(self, rest: bytes = b"") -> Summary:
        """The summary. `rest` is the text after the last newline. Raises Unsound."""
        if rest:
            why = "the last line is unfinished: it was cut, or its broker died. A broker that starts on this file says which"
            raise Unsound(why, line=self.lines + 1)
        if self._unfinished is not None:
            line, _, why_not = self._unfinished
            raise Unsound(why_not.message, line=line)
        if self._first is None or self._last is None:
            raise Unsound("there is no record in it")
        for noted in sorted(self._noted):
            raise Unsound(f"no record has the noted hash {noted}: the end of the log was cut off, or the log was replaced")
        for digest, number in self._notes.items():
            if number >= self._first.head.sequence:
                why = f"its broker noted record {number} with hash {digest}, and no record has it"
                raise Unsound(f"{why}: records were cut off or changed")
        if self._anchor is not None and self._anchored is None and self._anchor != START:
            raise Unsound(self._why_not_anchored(self._anchor, self._last.head))
        return Summary(
            records=self._records,
            first=self._first.at,
            last=self._last.at,
            after=self._first.before,
            head=self._last.head,
            lost=self._lost,
            torn=self._torn,
            doubts=self._doubts,
            accepted=self._accepted,
            anchored=self._anchored,
            beyond=0.0 if self._anchored is None else between(self._anchored, self._last),
        )

    def _keep_note(self, line: bytes) -> None:
        """Keeps a note about the end of the chain, from the broker's log that was captured with the records."""
        found = _NOTE.search(line)
        if found and found[2].decode() not in self._recent:
            self._notes[found[2].decode()] = int(found[1])

    def _why_not_anchored(self, anchor: Head, last: Head) -> str:
        if anchor.sequence > last.sequence:
            return f"it ends with record {last.sequence}, and its anchor holds record {anchor.sequence}: records were cut off"
        return f"no record has the hash that its anchor holds for record {anchor.sequence}: the log was changed, or is another"

    def _keep_unfinished(self, line: bytes, why: Unsound) -> None:
        # A crash can leave an unfinished line. Only the next record can confirm that.
        if self._unfinished is not None or self._captured:
            raise Unsound(why.message, line=self._unfinished[0] if self._unfinished else self.lines)
        self._unfinished = (self.lines, line, why)

    def _explain_unfinished(self, record: Record) -> None:
        if self._unfinished is None:
            return
        at, line, why = self._unfinished
        if record.kind != BEGUN or record.fields.get("torn") != digest_of(line):
            raise Unsound(why.message, line=at)
        self._unfinished = None
        self._torn += 1

    def _link(self, record: Record) -> None:
        last = self._last
        if last is None:
            if record.kind != BEGUN and not self._captured:
                self._refuse("the records before the first record are missing")
        elif record.before != last.head and not self._restarted(record, last):
            self._refuse(_why_not(last.head, record))
        if "expected" in record.fields:
            self._refuse("at its start, the broker found records missing or changed before this one")

    def _restarted(self, record: Record, last: Record) -> bool:
        # Standard output cannot be read back. After a crash between a record and its anchor, the next start continues from the
        # record before. A start without an anchor begins another chain.
        return self._captured and record.kind == BEGUN and record.before in (last.before, START)

    def _count(self, record: Record) -> None:
        if record.kind == ACCEPTED:
            self._accepted, self._doubts = self._accepted + len(self._doubts), ()
        elif (doubt := self._doubt_of(record)) is not None:
            self._doubts += (doubt,)
        if record.head == self._anchor:
            self._anchored = record
        self._notes.pop(record.head.hash, None)
        self._recent.append(record.head.hash)
        self._first, self._last = self._first or record, record
        self._records += 1
        self._noted = {noted for noted in self._noted if not record.head.hash.startswith(noted)}
        lost = record.fields.get("lost", 0)
        self._lost += lost if isinstance(lost, int) else 0

    def _doubt_of(self, record: Record) -> AuditDoubt | None:
        if record.kind != BEGUN:
            return None
        with suppress(ValueError):
            return AuditDoubt(str(record.fields.get("doubt", "")))
        # Earlier versions wrote no doubt. A second chain in one log does not confirm the first one.
        follows = self._first is not None or record.before != START
        return AuditDoubt.MISSING if follows and record.fields.get("anchor") is False else None

    def _refuse(self, why: str) -> None:
        raise Unsound(why, line=self.lines)


def _why_not(last: Head, record: Record) -> str:
    if record.before.sequence > last.sequence:
        first, until = last.sequence + 1, record.before.sequence
        return f"record {first} is missing before it" if first == until else f"records {first} to {until} are missing before it"
    if record.before.sequence < last.sequence:
        return f"record {record.head.sequence} follows record {last.sequence}: it was repeated or moved"
    return "it does not continue the record before it: one of the two was replaced"
