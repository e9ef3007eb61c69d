"""The records of the audit log, and the chain that they form.

    {"audit":1,"seq":7,"ts":"2026-11-22T16:40:00.123456Z","kind":"granted",…,"prev":"<hash of record 6>","hash":"<of this one>"}

`hash` is the SHA-256 of the line's bytes before `,"hash":`. These bytes include `prev`. The next record therefore shows if a
record was changed, removed, added or moved. The chain has no key. A person who can write the file can replace the chain from
some record on, or remove its end. Only a hash in another place shows that: in the anchor, in the metrics or in the log.
"""

import hmac
import re
from collections.abc import Mapping
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
"""The kind of the record with which an operator accepts a doubt."""
CRASH_SECONDS: Final = 10.0
"""A crash of the machine can lose what was written in these seconds, so the anchor can be that much older than the log."""

MARK: Final = b'{"audit":1,'
_SEAL: Final = b',"hash":"'
_SEAL_BYTES: Final = len(_SEAL) + 64 + len(b'"}')
_HASH: Final = 64
_CLEAR: Final = "-"
_ANCHOR: Final = re.compile(rb"(\d{20}) ([0-9a-f]{64})(?: ([a-z_-]+) *(?: ([0-9a-f]{16}|-{16}))?)?\n")
"""Earlier versions wrote two or three words."""
_NOWHERE: Final = "-" * 16
_encode: Final = JSONEncoder(separators=(",", ":")).encode


class Head(NamedTuple):
    """A place in the chain: a record's number and its hash."""

    sequence: int
    hash: str


START: Final = Head(0, "0" * _HASH)
"""Before the first record."""


class AuditDoubt(StrEnum):
    """Why the anchor does not confirm the log that a broker finds at its start."""

    MISSING = "anchor_missing"
    GONE = "log_missing"
    UNREADABLE = "anchor_unreadable"
    AHEAD = "anchor_ahead"
    BEHIND = "anchor_behind"
    FOREIGN = "anchor_foreign"


@dataclass(frozen=True, slots=True)
class Anchored:
    """The content of an anchor. `head` is the end of the log; None: it cannot be read. `doubt` is one that no operator has
    accepted. `place` identifies the location of the log; empty: unknown."""

    head: Head | None = None
    doubt: AuditDoubt | None = None
    place: str = ""


class Unsound(Exception):
    """What is wrong with a log, for a person. `line` is the line, counted from 1 over all files; 0: no line."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Record:
    """A sound line. `fields` has every field of it."""

    head: Head
    before: Head
    kind: str
    at: str
    fields: Mapping[str, Any]


def seal(record: Mapping[str, object], *, after: Head) -> tuple[bytes, Head]:
    """The record as a line of ASCII with its newline, and its place in the chain. `after` is the place of the record before."""
    body = _encode({"audit": 1, "seq": after.sequence + 1, **record, "prev": after.hash})[:-1].encode()
    digest = sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), Head(after.sequence + 1, digest)


def unseal(line: bytes) -> Record:
    """The record in a line (without its newline). Raises Unsound."""
    body, end = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    stated = end[len(_SEAL) : -2]
    if not line.startswith(MARK) or not end.startswith(_SEAL) or not end.endswith(b'"}'):
        raise Unsound("it is not a record of an audit log")
    if sha256(body).hexdigest().encode() != stated:
        raise Unsound("it was changed: its content does not match its hash")
    try:
        fields = loads(line)
        head, before = Head(int(fields["seq"]), stated.decode()), Head(int(fields["seq"]) - 1, str(fields["prev"]))
        return Record(head, before, str(fields["kind"]), str(fields["ts"]), fields)
    except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise Unsound("it is not a record that a broker wrote") from None


def between(earlier: Record, later: Record) -> float:
    """Seconds between the times of two records; infinite if they are not valid times."""
    try:
        return (datetime.fromisoformat(later.at) - datetime.fromisoformat(earlier.at)).total_seconds()
    except (ValueError, TypeError):
        return inf


def anchor_line(anchored: Anchored) -> bytes:
    """The content of an anchor, which always has the same length. `anchored.head` must not be None."""
    head = anchored.head or START
    word, place = (anchored.doubt or _CLEAR).encode(), (anchored.place or _NOWHERE).encode()
    return b"%020d %b %-20b %b\n" % (head.sequence, head.hash.encode(), word, place)


def place(name: str) -> str:
    """Sixteen digits that identify a log by its name. The anchor has them."""
    return sha256(name.encode(errors="replace")).hexdigest()[:16]


def parse_anchor(content: bytes) -> Anchored:
    """The content of an anchor. Raises Unsound if it is not valid."""
    found = _ANCHOR.fullmatch(content)
    if found is None:
        raise Unsound("it is not the anchor of an audit log")
    head, word, where = Head(int(found[1]), found[2].decode()), (found[3] or b"").decode(), (found[4] or b"").decode()
    if word not in {"", _CLEAR, *AuditDoubt}:
        raise Unsound("it is not the anchor of an audit log")
    return Anchored(head, AuditDoubt(word) if word in set(AuditDoubt) else None, "" if where == _NOWHERE else where)


def pseudonym(lease_id: str, *, key: bytes) -> str:
    """The digest that replaces a lease's id. It is the same for each record of the lease, and does not reveal the id."""
    return hmac.digest(key, lease_id.encode(errors="replace"), "sha256")[:16].hex()


def may_be_torn(line: bytes) -> bool:
    """Whether a crash can have left this line of a record: it is empty, zeros, or the beginning of a record."""
    return MARK.startswith(line[: len(MARK)]) or not line.strip(b"\0")


def digest_of(torn: bytes) -> dict[str, object]:
    """Identifies an unfinished line in the record that follows it."""
    return {"bytes": len(torn), "sha256": sha256(torn).hexdigest()}
