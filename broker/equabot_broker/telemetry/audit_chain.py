"""The audit log's records: how they are sealed into a chain, and what the chain proves.

    {"audit":1,"seq":7,"ts":"2026-11-22T16:40:00.123456Z","kind":"granted",…,"prev":"<hash of record 6>","hash":"<of this one>"}

`hash` is the SHA-256 of the line's bytes before `,"hash":`. As `prev` stands among them, no record can be changed, left out,
put in or moved without the next one telling. The chain has no key: whoever can write the file can also write another chain from
some record on, or leave out its end. That shows only by a place that was noted elsewhere: the broker's anchor, metrics, log.
"""

import hmac
import re
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from json import JSONDecodeError, JSONEncoder, loads
from math import inf
from typing import Any, Final, NamedTuple

BEGUN: Final = "begun"
"""The kind of the first record of a file, and of each start of a broker."""
ACCEPTED: Final = "accepted"
"""The kind of the record with which an operator accepts what a start could not vouch for."""
CRASH_SECONDS: Final = 10.0
"""A machine that dies may lose what its broker wrote so long before: the anchor may be that far behind the log."""

_MARK: Final = b'{"audit":1,'
_SEAL: Final = b',"hash":"'
_SEAL_BYTES: Final = len(_SEAL) + 64 + len(b'"}')
_HASH: Final = 64
_NOTE: Final = re.compile(rb"the audit log stands at record (\d{1,20}), hash ([0-9a-f]{64})")
_INTERLEAVED: Final = 4096
"""Records by which a captured line about a record may come late."""
_CLEAR: Final = "-"
_ANCHOR: Final = re.compile(rb"(\d{20}) ([0-9a-f]{64})(?: ([a-z_-]+) *(?: ([0-9a-f]{16}|-{16}))?)?\n")
"""Brokers before wrote two words, or three."""
_NOWHERE: Final = "-" * 16
_encode: Final = JSONEncoder(separators=(",", ":")).encode


class Head(NamedTuple):
    """A place in the chain: a record's number and its hash."""

    sequence: int
    hash: str


START: Final = Head(0, "0" * _HASH)
"""Before the first record."""


class AuditDoubt(StrEnum):
    """Why an anchor does not vouch for the log that a broker finds when it starts, or finds no more."""

    MISSING = "anchor_missing"
    GONE = "log_missing"
    UNREADABLE = "anchor_unreadable"
    AHEAD = "anchor_ahead"
    BEHIND = "anchor_behind"
    FOREIGN = "anchor_foreign"


@dataclass(frozen=True, slots=True)
class Anchored:
    """What an anchor holds: the end of the log as its broker knew it (None: nothing that can be read), the doubt that no
    operator has accepted yet, and where the log was (`place`; empty: not known)."""

    head: Head | None = None
    doubt: AuditDoubt | None = None
    place: str = ""


class Unsound(Exception):
    """What is wrong with a log, for a person; `line` is where, counted from 1 over all that was read (0: nowhere)."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Record:
    """A sound line. `fields` is all of it."""

    head: Head
    before: Head
    kind: str
    at: str
    fields: Mapping[str, Any]


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


def seal(record: Mapping[str, object], *, after: Head) -> tuple[bytes, Head]:
    """The record as a line, newline included and in ASCII, and its place. It goes on from `after`."""
    body = _encode({"audit": 1, "seq": after.sequence + 1, **record, "prev": after.hash})[:-1].encode()
    digest = sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), Head(after.sequence + 1, digest)


def unseal(line: bytes) -> Record:
    """The record in a line (without its newline). Raises Unsound."""
    body, end = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    stated = end[len(_SEAL) : -2]
    if not line.startswith(_MARK) or not end.startswith(_SEAL) or not end.endswith(b'"}'):
        raise Unsound("it is not a record of an audit log")
    if sha256(body).hexdigest().encode() != stated:
        raise Unsound("it was changed: its content does not have its hash")
    try:
        fields = loads(line)
        head, before = Head(int(fields["seq"]), stated.decode()), Head(int(fields["seq"]) - 1, str(fields["prev"]))
        return Record(head, before, str(fields["kind"]), str(fields["ts"]), fields)
    except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise Unsound("it is not a record that a broker wrote") from None


def between(earlier: Record, later: Record) -> float:
    """Seconds from one record to the other, by their own instants; infinite where those are none."""
    try:
        return (datetime.fromisoformat(later.at) - datetime.fromisoformat(earlier.at)).total_seconds()
    except (ValueError, TypeError):
        return inf


def anchor_line(anchored: Anchored) -> bytes:
    """An anchor's content, always of the same length. `anchored.head` must not be None."""
    head = anchored.head or START
    word, place = (anchored.doubt or _CLEAR).encode(), (anchored.place or _NOWHERE).encode()
    return b"%020d %b %-20b %b\n" % (head.sequence, head.hash.encode(), word, place)


def place(name: str) -> str:
    """Sixteen digits for where a log is, by its name: an anchor says with them which log it is of."""
    return sha256(name.encode(errors="replace")).hexdigest()[:16]


def parse_anchor(content: bytes) -> Anchored:
    """What an anchor holds. Raises Unsound for what is none."""
    found = _ANCHOR.fullmatch(content)
    if found is None:
        raise Unsound("it is not an audit log's anchor")
    head, word, where = Head(int(found[1]), found[2].decode()), (found[3] or b"").decode(), (found[4] or b"").decode()
    if word not in {"", _CLEAR, *AuditDoubt}:
        raise Unsound("it is not an audit log's anchor")
    return Anchored(head, AuditDoubt(word) if word in set(AuditDoubt) else None, "" if where == _NOWHERE else where)


def pseudonym(lease_id: str, *, key: bytes) -> str:
    """What stands in the log for a lease: the same for one lease, and no way back to its id."""
    return hmac.digest(key, lease_id.encode(errors="replace"), "sha256")[:16].hex()


def may_be_torn(line: bytes) -> bool:
    """Whether a line that is not sound can be what a crash left of a record: its beginning, or nothing at all."""
    return _MARK.startswith(line[: len(_MARK)]) or not line.strip(b"\0")


def digest_of(torn: bytes) -> dict[str, object]:
    """How a broker that finds an unfinished line tells which, in the record that follows it."""
    return {"bytes": len(torn), "sha256": sha256(torn).hexdigest()}


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
            at = line.find(_MARK)
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
