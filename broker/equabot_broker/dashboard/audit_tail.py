"""The end of the audit log, and whether its chain is whole. The log is read once, then only what was added to it."""

import errno
import json
import os
import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from equabot_broker.files.reading import Unreadable, read_some
from equabot_broker.parsing.untrusted_json import Json
from equabot_broker.telemetry.audit_chain import CRASH_SECONDS, START, Head, Record, Unsound, between, parse_anchor, unseal
from equabot_broker.telemetry.audit_verification import AuditVerification, Summary

SHOWN: Final = 100
"""Records."""
_STEP: Final = 8 << 20
"""Bytes that one look reads at most: a long log is read over several looks."""
_LONGEST_LINE: Final = 1 << 20
_LONGEST_TEXT: Final = 300
_LONGEST_ANCHOR: Final = 256
_RECENT: Final = 20_000
"""Records among which the one of the anchor is looked for."""
_OWN: Final = frozenset({"audit", "seq", "prev", "hash", "ts", "kind", "agent", "provider", "profile", "lease", "request"})
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(slots=True)
class _Progress:
    """What was read of one file so far. `behind` is how many bytes are left, `recent` the last records by number."""

    file: tuple[int, int]
    verifying: AuditVerification = field(default_factory=AuditVerification)
    at: int = 0
    behind: int = 0
    rest: bytes = b""
    recent: dict[int, Record] = field(default_factory=dict)
    shown: deque[Json] = field(default_factory=lambda: deque(maxlen=SHOWN))
    broken: str = ""


class AuditTail:
    """`look` reads on. `path` is None where the log goes to standard output. The anchor is read
    before the log, and the broker writes it after the log: what the anchor holds is in the log by then."""

    def __init__(self, path: Path | None, *, anchor: Path) -> None:
        self._path = path
        self._anchor = anchor
        self._progress: _Progress | None = None

    def look(self) -> Json:
        """The last records, newest first, and the verdict: `ok` is None while it is not known."""
        if self._path is None:
            words = "It goes to standard output. Verify it where that is collected: equabot audit verify --captured FILE"
            return _view("standard output", None, words, ())
        anchored = self._read_anchor()
        try:
            progress = self._read_on(self._path)
        except FileNotFoundError:
            return _view(str(self._path), None, "There is no audit log yet.", ())
        except OSError as error:
            return _view(str(self._path), None, f"The audit log cannot be read: {error.strerror}.", ())
        ok, words = _verdict(progress, anchored)
        return _view(str(self._path), ok, words, reversed(progress.shown))

    def _read_anchor(self) -> Head | None:
        try:
            return parse_anchor(read_some(self._anchor, limit=_LONGEST_ANCHOR).data).head
        except (FileNotFoundError, Unreadable, Unsound):
            return None

    def _read_on(self, path: Path) -> _Progress:
        descriptor = os.open(path, _OPEN)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            file = (found.st_dev, found.st_ino)
            if self._progress is None or self._progress.file != file or found.st_size < self._progress.at:
                self._progress = _Progress(file)
            progress = self._progress
            data = os.pread(descriptor, _STEP, progress.at)
        finally:
            os.close(descriptor)
        progress.at += len(data)
        progress.behind = max(found.st_size - progress.at, 0)
        *lines, progress.rest = (progress.rest + data).split(b"\n")
        for line in lines:
            _take(progress, line)
        if len(progress.rest) > _LONGEST_LINE:
            progress.broken, progress.rest = progress.broken or "a line is longer than any record", b""
        return progress


def _take(progress: _Progress, line: bytes) -> None:
    try:
        record = unseal(line)
    except Unsound:
        record = None
    if not progress.broken:
        try:
            progress.verifying.take(line)
        except Unsound as why:
            progress.broken = f"line {why.line}: {why.message}"
    if record is not None:
        progress.recent[record.head.sequence] = record
        if len(progress.recent) > _RECENT:
            del progress.recent[next(iter(progress.recent))]
        progress.shown.append(_shown(record))


def _verdict(progress: _Progress, anchored: Head | None) -> tuple[bool | None, str]:
    if progress.broken:
        return False, f"Not whole: {progress.broken}."
    if progress.behind:
        return None, f"Verifying: {(progress.behind >> 20) + 1} MiB are left."
    try:
        summary = progress.verifying.end()
    except Unsound as why:
        return (False, f"Not whole: line {why.line}: {why.message}.") if progress.shown else (None, "It has no record yet.")
    if fault := _anchor_fault(progress, summary, anchored):
        return False, fault
    if summary.doubts:
        return False, f"No anchor vouches for a start of the broker ({', '.join(summary.doubts)}). Run equabot audit verify."
    return True, f"Whole: the chain of {summary.records} records has no fault, and ends as its anchor says."


def _anchor_fault(progress: _Progress, summary: Summary, anchored: Head | None) -> str:
    if anchored is None:
        return "The chain has no fault, but its anchor cannot be read: nothing shows whether its end was cut off."
    known = progress.recent.get(anchored.sequence)
    last = progress.recent[summary.head.sequence]
    if anchored == START or (known is not None and known.head == anchored and between(known, last) <= CRASH_SECONDS):
        return ""
    if anchored.sequence > last.head.sequence:
        return "The log ends before the record that its anchor holds: records were cut off. Run equabot audit verify."
    return "The anchor does not match the log: one of the two was replaced. Run equabot audit verify."


def _shown(record: Record) -> Json:
    names = ("agent", "provider", "profile")
    detail = " ".join(f"{name}={_plain(value)}" for name, value in record.fields.items() if name not in _OWN)
    return {
        "seq": record.head.sequence,
        "at": record.at[:40],
        "kind": record.kind[:40],
        **{name: _plain(record.fields.get(name, ""))[:_LONGEST_TEXT] for name in names},
        "detail": detail[:_LONGEST_TEXT],
    }


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _view(where: str, ok: bool | None, words: str, records: Iterable[Json]) -> Json:  # noqa: FBT001
    return {"where": where, "ok": ok, "words": words, "records": list(records)}
