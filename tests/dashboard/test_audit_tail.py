"""The end of an audit log, and the verdict about its chain."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.dashboard import audit_tail
from equabot_broker.dashboard.audit_tail import SHOWN, AuditTail
from equabot_broker.telemetry.audit_chain import START, Anchored, Head, anchor_line, seal


class Log:
    """A log and its anchor, as a broker writes them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit.jsonl"
        self.anchor = directory / "audit.head"
        self.head = START
        self.write("begun", anchor=True)

    def write(self, kind: str, *, at: str = "2026-11-22T16:40:00.000000Z", **fields: Any) -> Head:
        line, self.head = seal({"ts": at, "kind": kind, **fields}, after=self.head)
        with self.path.open("ab") as file:
            file.write(line)
        self.anchor.write_bytes(anchor_line(Anchored(self.head)))
        return self.head


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_whole_log_is_whole_as_it_grows(log: Log) -> None:
    tail = AuditTail(log.path, anchor=log.anchor)
    for number in range(SHOWN + 5):
        log.write("granted", agent="main", provider="acme", profile="acme:x", lease="l", words=f"n {number}")
    shown = tail.look()
    assert (shown["ok"], shown["words"]) == (True, "Whole: the chain of 106 records has no fault, and ends as its anchor says.")
    assert [record["seq"] for record in shown["records"]] == list(range(106, 6, -1))
    log.write("refused", reason="<b>", status=401)
    newest = tail.look()["records"][0]
    assert newest == {
        "seq": 107, "at": "2026-11-22T16:40:00.000000Z", "kind": "refused", "agent": "", "provider": "", "profile": "",
        "detail": "reason=<b> status=401",
    }  # fmt: skip


def test_a_change_is_found(log: Log) -> None:
    log.write("granted", agent="main")
    log.write("granted", agent="other")
    log.path.write_bytes(log.path.read_bytes().replace(b'"main"', b'"mine"'))
    shown = AuditTail(log.path, anchor=log.anchor).look()
    assert (shown["ok"], shown["words"].startswith("Not whole: line 2: it was changed")) == (False, True)


def test_a_removed_end_is_found(log: Log) -> None:
    """Before the first look, and between two."""
    log.write("granted")
    lines = log.path.read_bytes().splitlines(keepends=True)
    tail = AuditTail(log.path, anchor=log.anchor)
    assert tail.look()["ok"]
    log.path.write_bytes(lines[0])
    for one in (tail, AuditTail(log.path, anchor=log.anchor)):
        assert (one.look()["ok"], "records were cut off" in one.look()["words"]) == (False, True)


def test_another_log_does_not_match_the_anchor(log: Log, tmp_path: Path) -> None:
    log.write("granted", agent="a")
    (tmp_path / "other").mkdir()
    other = Log(tmp_path / "other")
    other.write("granted", agent="b")
    shown = AuditTail(other.path, anchor=log.anchor).look()
    assert (shown["ok"], shown["words"]) == (
        False, "The anchor does not match the log: one of the two was replaced. Run equabot audit verify.",
    )  # fmt: skip


def test_an_old_anchor_does_not_match(log: Log) -> None:
    old = log.anchor.read_bytes()
    log.write("granted", at="2026-11-22T17:40:00.000000Z")
    log.anchor.write_bytes(old)
    assert AuditTail(log.path, anchor=log.anchor).look()["ok"] is False


def test_without_an_anchor_nothing_vouches(log: Log) -> None:
    log.anchor.unlink()
    shown = AuditTail(log.path, anchor=log.anchor).look()
    assert (shown["ok"], "its anchor cannot be read" in shown["words"]) == (False, True)


def test_a_start_in_doubt_is_shown(log: Log) -> None:
    log.write("begun", doubt="anchor_missing")
    shown = AuditTail(log.path, anchor=log.anchor).look()
    assert (shown["ok"], "(anchor_missing)" in shown["words"]) == (False, True)


def test_a_long_log_is_read_in_steps(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        log.write("granted", agent="main")
    monkeypatch.setattr(audit_tail, "_STEP", 1500)
    tail = AuditTail(log.path, anchor=log.anchor)
    assert (tail.look()["ok"], tail.look()["words"]) == (None, "Verifying: 1 MiB are left.")
    looks = [tail.look()["ok"] for _ in range(20)]
    assert looks[-1] is True


def test_a_line_that_is_being_written_is_no_fault(log: Log) -> None:
    log.write("granted")
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"audit":1,"se')
    tail = AuditTail(log.path, anchor=log.anchor)
    assert tail.look()["ok"] is True
    line, _ = seal({"ts": "2026-11-22T16:40:00.000000Z", "kind": "granted"}, after=log.head)
    log.path.write_bytes(whole + line)
    assert (tail.look()["ok"], tail.look()["records"][0]["seq"]) == (True, 3)


def test_a_new_file_is_read_from_its_beginning(log: Log) -> None:
    """Log rotation: the broker goes on in a new file."""
    tail = AuditTail(log.path, anchor=log.anchor)
    log.write("granted")
    assert tail.look()["ok"]
    log.path.rename(log.path.with_suffix(".1"))
    log.write("begun", anchor=True)
    assert (tail.look()["ok"], [one["seq"] for one in tail.look()["records"]]) == (True, [3])


@pytest.mark.parametrize("content", [b"\xff" * 5000, b"\n\n", b"{}\n", json.dumps({"audit": 1}).encode() + b"\n"])
def test_what_is_no_log_is_no_whole_log(log: Log, content: bytes) -> None:
    log.path.write_bytes(content)
    assert AuditTail(log.path, anchor=log.anchor).look()["ok"] is not True


def test_absence_and_standard_output_are_said(log: Log, tmp_path: Path) -> None:
    assert AuditTail(tmp_path / "none", anchor=log.anchor).look()["words"] == "There is no audit log yet."
    assert "equabot audit verify --captured" in AuditTail(None, anchor=log.anchor).look()["words"]
    os.mkfifo(tmp_path / "pipe")
    words = AuditTail(tmp_path / "pipe", anchor=log.anchor).look()["words"]
    assert words == "The audit log cannot be read: it is not a regular file."
