"""Reading an audit log back, line by line: what its chain proves."""

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

_NOTE: Final = re.compile(rb"the audit log stands at record (\d{1,20}), hash ([0-9a-f]{64})")


_INTERLEAVED: Final = 4096
"""Records by which a captured line about a record may come late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a sound log holds. `after` is the place from which it goes on: `START`, unless there is an earlier file. `lost`
    counts what its broker could not record, `torn` the lines that a crash left unfinished. `doubts` are those of starts at
    which no anchor vouched for the log, and which no operator has accepted; `accepted` counts the others. `anchored` is the
    record that was looked for as the anchor's, and `beyond` how many seconds the log goes on after it."""

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


class Verifying:
    """Reads a log line by line. `captured`: it is what a container printed, so that other lines stand between the records, and
    the beginning may be gone. `noted` are hashes (or their beginnings) of records that must be there."""

    def __init__(self, *, captured: bool = False, noted: Iterable[str] = (), anchor: Head | None = None) -> None:
        self._captured = captured
        self._noted = set(noted)
        self._anchor = anchor
        self._anchored: Record | None = None
        self._said: dict[str, int] = {}
        self._recent: deque[str] = deque(maxlen=_INTERLEAVED)
        self.lines = 0
        """So many lines were taken."""
        self._records = 0
        self._first: Record | None = None
        self._last: Record | None = None
        self._unfinished: tuple[int, bytes, Unsound] | None = None
        self._lost = self._torn = self._accepted = 0
        self._doubts: tuple[AuditDoubt, ...] = ()

    def take(self, line: bytes) -> None:
        """The next line, without its newline. Raises Unsound; nothing more can be said after that."""
        self.lines += 1
        if self._captured:
            at = line.find(MARK)
            if at < 0:
                self._hear(line)
                return
            line = line[at:].rstrip(b"\r")
        try:
            record = unseal(line)
        except Unsound as why:
            self._doubt(line, why)
            return
        self._explain_doubt(record)
        self._link(record)
        self._count(record)

    def end(self, rest: bytes = b"") -> Summary:
        """What there was. `rest` is what follows the last newline. Raises Unsound."""
        if rest:
            why = "the last line is unfinished: it was cut, or its broker died. A broker that starts on this file says which"
            raise Unsound(why, line=self.lines + 1)
        if self._unfinished is not None:
            line, _, why_not = self._unfinished
            raise Unsound(why_not.message, line=line)
        if self._first is None or self._last is None:
            raise Unsound("there is no record in it")
        for noted in sorted(self._noted):
            raise Unsound(f"no record has the noted hash {noted}: the log's end was cut, or it was written anew")
        for said, number in self._said.items():
            if number >= self._first.head.sequence:
                raise Unsound(
                    f"its broker noted record {number} with hash {said}, and no record has it: records were cut off or changed"
                )
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

    def _hear(self, line: bytes) -> None:
        """What the broker's own log, captured with the records, says of where the chain is."""
        found = _NOTE.search(line)
        if found and found[2].decode() not in self._recent:
            self._said[found[2].decode()] = int(found[1])

    def _why_not_anchored(self, anchor: Head, last: Head) -> str:
        if anchor.sequence > last.sequence:
            return f"it ends with record {last.sequence}, and its anchor holds record {anchor.sequence}: records were cut off"
        return f"no record has the hash that its anchor holds for record {anchor.sequence}: the log was changed, or is another"

    def _doubt(self, line: bytes, why: Unsound) -> None:
        # A line that is not sound may be what a crash left; only the next record can vouch for that.
        if self._unfinished is not None or self._captured:
            raise Unsound(why.message, line=self._unfinished[0] if self._unfinished else self.lines)
        self._unfinished = (self.lines, line, why)

    def _explain_doubt(self, record: Record) -> None:
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
                self._refuse("what stood before the first record is missing")
        elif record.before != last.head and not self._restarted(record, last):
            self._refuse(_why_not(last.head, record))
        if "expected" in record.fields:
            self._refuse("its broker, as it started, found records missing or changed before this one")

    def _restarted(self, record: Record, last: Record) -> bool:
        # Where nothing can be read back, a crash between a record and its anchor makes the next start go on from before it, and
        # one without an anchor begins anew.
        return self._captured and record.kind == BEGUN and record.before in (last.before, START)

    def _count(self, record: Record) -> None:
        if record.kind == ACCEPTED:
            self._accepted, self._doubts = self._accepted + len(self._doubts), ()
        elif (doubt := self._doubt_of(record)) is not None:
            self._doubts += (doubt,)
        if record.head == self._anchor:
            self._anchored = record
        self._said.pop(record.head.hash, None)
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
        # Brokers before wrote no doubt. Of a chain that begins anew, nothing vouches for the one before.
        follows = self._first is not None or record.before != START
        return AuditDoubt.MISSING if follows and record.fields.get("anchor") is False else None

    def _refuse(self, why: str) -> None:
        raise Unsound(why, line=self.lines)


def _why_not(last: Head, record: Record) -> str:
    if record.before.sequence > last.sequence:
        first, until = last.sequence + 1, record.before.sequence
        return f"record {first} is missing before it" if first == until else f"records {first} to {until} are missing before it"
    if record.before.sequence < last.sequence:
        return f"record {record.head.sequence} stands behind record {last.sequence}: it was repeated or moved"
    return "it does not go on from the record before it: one of the two was replaced"
