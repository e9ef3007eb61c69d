"""The audit log as a broker keeps it: what it records, through rotations, crashes, tampering and full disks."""

import json
import logging
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.errors import AuditUnavailable, CannotStart
from equabot_broker.telemetry._audit_anchor import ANCHOR_UNWRITTEN
from equabot_broker.telemetry.audit_chain import Anchored, AuditDoubt, Head, Unsound, anchor_line, parse_anchor, unseal
from equabot_broker.telemetry.audit_log import AuditLog, audit_output
from equabot_broker.telemetry.audit_verification import AuditVerification, Summary
from equabot_broker.telemetry.broker_events import Administered
from equabot_broker.telemetry.credential_events import ProfilesChanged, RefreshSucceeded, SourceSynced
from equabot_broker.telemetry.events import Event, declared_events
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayUsed
from equabot_broker.telemetry.lease_events import AcquireAnswered, LeaseDenied, LeaseGranted, LeaseRevoked
from tests.fakes.clock import FakeClock

ID = "0193c0ffee0193c0ffee0193c0ffee01"
GRANTED = LeaseGranted(
    agent="main", provider="anthropic", profile="anthropic:env", delivery="raw", seconds=900.0, session="talk", lease=ID
)
REVOKED = LeaseRevoked(agent="main", provider="anthropic", profile="anthropic:env", reason="revoked", lease=ID)


class Broker:
    """What a broker's process has of it. `starts` makes another process of the same broker."""

    def __init__(self, home: Path, *, fail_closed: bool = False) -> None:
        self.path = home / "audit.jsonl"
        self.anchor = home / "audit.head"
        self.clock = FakeClock()
        self.fail_closed = fail_closed
        self.changes = 0

    def starts(self, *, stdout: int | None = None, served: bool = False) -> AuditLog:
        """An audit log, begun."""
        log = AuditLog(
            audit_output(None if stdout is not None else self.path, stdout=stdout or 1, patient=self.fail_closed),
            anchor=self.anchor,
            key=b"k" * 32,
            version="1.2.3",
            fail_closed=self.fail_closed,
            served=served,
            now=self.clock.now,
            steady=self.clock.steady,
            clean=lambda text: text.replace("hush", "[redacted]"),
        )
        log.changed = self._changed
        log.begin()
        return log

    def _changed(self) -> None:
        self.changes += 1

    def records(self, path: Path | None = None) -> list[dict[str, Any]]:
        """What stands in the file."""
        return [json.loads(line) for line in (path or self.path).read_bytes().splitlines()]

    def kinds(self, path: Path | None = None) -> list[str]:
        return [record["kind"] for record in self.records(path)]


def verified(*paths: Path, noted: tuple[str, ...] = ()) -> Summary:
    verifying = AuditVerification(noted=noted)
    content = b"".join(path.read_bytes() for path in paths)
    *lines, rest = content.split(b"\n")
    for line in lines:
        verifying.take(line)
    return verifying.end(rest)


def dies(log: AuditLog) -> None:
    """As a killed process: nothing is written any more, locks and descriptors go."""
    log._chain.close()


@contextmanager
def full(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as on a full disk: what fits of a write is taken, the next fails."""
    before, signalled = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signalled)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path)


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_a_grant_is_a_record_with_all_but_the_leases_id(broker: Broker) -> None:
    """Instant, kind, who, what, how long; the lease by a digest, the same in each record of it."""
    log = broker.starts()
    log.record(GRANTED)
    log.record(REVOKED)
    begun, granted, revoked = broker.records()
    assert (begun["kind"], begun["why"], begun["version"], begun["seq"]) == ("begun", "start", "1.2.3", 1)
    lease = granted.pop("lease")
    assert len(granted.pop("hash")) == 64
    assert granted == {
        "audit": 1, "seq": 2, "ts": granted["ts"], "kind": "granted", "agent": "main", "provider": "anthropic",
        "profile": "anthropic:env", "delivery": "raw", "seconds": 900.0, "session": "talk", "prev": begun["hash"],
    }  # fmt: skip
    assert granted["ts"].endswith("Z")
    assert (revoked["kind"], revoked["reason"], revoked["lease"]) == ("revoked", "revoked", lease)
    assert "session" not in revoked
    assert ID not in broker.path.read_text()
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o600
    log.close()
    assert broker.kinds()[-1] == "ended"
    assert verified(broker.path).head == log.head


@pytest.mark.parametrize(
    ("event", "record"),
    [
        (LeaseDenied(agent="a", provider="", reason="LIMIT"), {"kind": "denied", "agent": "a", "reason": "LIMIT"}),
        (
            RefreshSucceeded(profile="acme:me", provider="acme", adopted=False, seconds=0.1234567),
            {"kind": "refreshed", "profile": "acme:me", "provider": "acme", "adopted": False, "seconds": 0.123457},
        ),
        (
            GatewayUsed(
                agent="a", session="", provider="p", profile="p:x", lease="", request="5f", method="POST", route="/v1/hush",
                status=0, sent=10, received=0, seconds=1.5,
            ),
            {
                "kind": "used", "agent": "a", "provider": "p", "profile": "p:x", "request": "5f", "method": "POST",
                "route": "/v1/[redacted]", "status": 0, "sent": 10, "received": 0, "seconds": 1.5,
            },
        ),
        (
            GatewayAuthorized(
                agent="a", session="", provider="p", profile="p:x", lease="", request="5f", method="POST", route="/v1/hush"
            ),
            {
                "kind": "authorized", "agent": "a", "provider": "p", "profile": "p:x", "request": "5f", "method": "POST",
                "route": "/v1/[redacted]",
            },
        ),
        (
            Administered(action="SetOrder", agent="a", provider="p", profiles=("p:x", "p:y"), count=2),
            {
                "kind": "administered", "action": "SetOrder", "agent": "a", "provider": "p",
                "profiles": ["p:x", "p:y"], "count": 2,
            },
        ),
        (
            ProfilesChanged(profiles=tuple(f"p:{n}" for n in range(1000)), source="env", seconds=0.0),
            {"kind": "rotated", "profiles": [*(f"p:{n}" for n in range(20)), "and 980 more"], "source": "env", "seconds": 0.0},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)  # fmt: skip
def test_events_are_records(broker: Broker, event: Event, record: dict[str, Any]) -> None:
    """With their fields, without what is empty, cleaned where a text comes from outside; zero is a number."""
    broker.starts().record(event)
    found = broker.records()[-1]
    assert {name: value for name, value in found.items() if name not in ("audit", "seq", "ts", "prev", "hash")} == record


def test_each_kind_of_event_is_recorded_or_left_out_on_purpose() -> None:
    """A new one needs a decision; and whatever gives a credential to an agent is recorded."""
    left_out = {
        "Started", "Draining", "AcquireAnswered", "CredentialStateChanged", "SourceSynced", "SourceDoubted", "SourceStale",
        "SourceRecovered",
        "StoreFaulted", "StoreRecovered", "ClockJumped", "GatewayLogSkipped",
    }  # fmt: skip
    kinds = declared_events()
    assert {kind.__name__ for kind in kinds if not kind.audit_kind} == left_out
    assert [kind for kind in kinds if kind.granting and not kind.audit_kind] == []
    names = [kind.audit_kind for kind in kinds if kind.audit_kind]
    assert len(set(names)) == len(names)


def test_what_nobody_has_to_account_for_is_not_recorded(broker: Broker) -> None:
    """Sources, states, durations: the log and the metrics have them."""
    log = broker.starts()
    log.record(AcquireAnswered(seconds=0.1))
    log.record(SourceSynced(source="env", profiles=1))
    assert broker.kinds() == ["begun"]


def test_a_record_fits_into_a_pipe_however_long_its_texts_are(broker: Broker) -> None:
    """It is one write, which a pipe takes whole; what is too long is shortened, visibly."""
    long = "\U0001f511" * 3000
    log = broker.starts()
    log.record(LeaseDenied(agent="main", provider=long, reason=long, session=long))
    line = broker.path.read_bytes().splitlines(keepends=True)[-1]
    assert len(line) <= 4096
    assert broker.records()[-1]["session"].endswith("…")
    assert verified(broker.path).records == 2


# -- restarts and rotations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [AuditLog.close, dies], ids=["stop", "crash"])
def test_a_restart_goes_on_with_the_chain(broker: Broker, end: Callable[[AuditLog], None]) -> None:
    """However the last process ended."""
    for _ in range(3):
        log = broker.starts()
        log.record(GRANTED)
        end(log)
    assert broker.kinds().count("begun") == 3
    assert verified(broker.path).records in (6, 9)
    assert [record["anchor"] for record in broker.records() if record["kind"] == "begun"] == [False, True, True]


def test_a_torn_line_is_kept_and_vouched_for(broker: Broker) -> None:
    """Nothing is cut off by the broker: what a crash left of a record stays as evidence, and the next record tells of it."""
    log = broker.starts()
    log.record(GRANTED)
    dies(log)
    with broker.path.open("ab") as file:
        file.write(b'{"audit":1,"seq":3,"ts":"20')
    for _ in range(2):
        broker.starts().close()
    assert verified(broker.path).torn == 1
    assert b'"ts":"20\n{"audit":1,"seq":3,' in broker.path.read_bytes()


def test_a_start_that_died_of_its_first_record_is_no_end(broker: Broker) -> None:
    """Torn line, newline, and nothing more: the next start takes that for the torn line that it is."""
    dies(broker.starts())
    with broker.path.open("ab") as file:
        file.write(b'{"audit":1,"se\n')
    broker.starts().close()
    assert verified(broker.path).torn == 1


def test_a_record_that_lacks_its_newline_only_is_whole(broker: Broker) -> None:
    """It is completed, and the chain goes on behind it."""
    log = broker.starts()
    log.record(GRANTED)
    dies(log)
    os.truncate(broker.path, broker.path.stat().st_size - 1)
    broker.starts().close()
    assert (verified(broker.path).records, verified(broker.path).torn) == (4, 0)


def test_a_renamed_file_is_followed_by_another(broker: Broker) -> None:
    """As logrotate does it. Both files together are one log."""
    log = broker.starts()
    log.record(GRANTED)
    rotated = broker.path.with_suffix(".1")
    broker.path.rename(rotated)
    broker.clock.advance(1.5)
    log.record(REVOKED)
    log.close()
    assert broker.kinds(rotated) == ["begun", "granted"]
    assert broker.kinds() == ["begun", "revoked", "ended"]
    assert broker.records()[0]["why"] == "rotation"
    assert verified(rotated, broker.path).records == 5
    assert verified(broker.path).after == verified(rotated).head


def test_a_new_file_at_a_start_goes_on_from_the_anchor(broker: Broker) -> None:
    """The old one was taken away while no broker ran: the number of the first record tells that there was one."""
    broker.starts().close()
    broker.path.unlink()
    broker.starts().close()
    assert verified(broker.path).after.sequence == 2


# -- tampering while no broker runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 2])
def test_records_that_were_cut_off_are_missed_at_the_next_start(
    broker: Broker, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The chain alone cannot know; the anchor does, and what it finds stands in the log for good."""
    log = broker.starts()
    log.record(GRANTED)
    log.close()
    lines = broker.path.read_bytes().splitlines(keepends=True)
    broker.path.write_bytes(b"".join(lines[:-cut]))
    assert verified(broker.path).records == 3 - cut
    broker.starts().close()
    assert "records were cut off or changed" in caplog.text
    with pytest.raises(Unsound, match="missing or changed"):
        verified(broker.path)


def test_without_an_anchor_a_cut_is_not_seen_but_the_blindness_is(broker: Broker) -> None:
    """Who can delete both must also delete what is noted elsewhere."""
    log = broker.starts()
    log.record(GRANTED)
    dies(log)
    noted = log.head.hash
    lines = broker.path.read_bytes().splitlines(keepends=True)
    broker.path.write_bytes(b"".join(lines[:-1]))
    broker.anchor.write_text("rubbish")
    broker.starts().close()
    assert verified(broker.path).doubts == (AuditDoubt.UNREADABLE,)
    with pytest.raises(Unsound, match="noted"):
        verified(broker.path, noted=(noted,))


def test_one_record_beyond_the_anchor_is_what_a_crash_leaves(broker: Broker) -> None:
    """The record is written first, then the anchor."""
    log = broker.starts()
    log.record(GRANTED)
    before = broker.anchor.read_bytes()
    log.record(REVOKED)
    dies(log)
    broker.anchor.write_bytes(before)
    broker.starts().close()
    assert verified(broker.path).records == 5


def cut(broker: Broker) -> None:
    broker.path.write_bytes(b"".join(broker.path.read_bytes().splitlines(keepends=True)[:-1]))


def lose(broker: Broker) -> None:
    broker.anchor.unlink()


def spoil(broker: Broker) -> None:
    broker.anchor.write_text("rubbish " * 40)


def empty(broker: Broker) -> None:
    broker.anchor.write_bytes(b"")


def roll_back(broker: Broker) -> None:
    """An older copy of the anchor, from half a minute before the log's end."""
    head = unseal(broker.path.read_bytes().splitlines()[0]).head
    broker.anchor.write_bytes(anchor_line(Anchored(head)))


def exchange(broker: Broker) -> None:
    broker.anchor.write_bytes(anchor_line(Anchored(Head(2, "0" * 64))))


DOUBTFUL: dict[Callable[[Broker], None], AuditDoubt] = {
    lose: AuditDoubt.MISSING,
    spoil: AuditDoubt.UNREADABLE,
    empty: AuditDoubt.UNREADABLE,
    cut: AuditDoubt.AHEAD,
    roll_back: AuditDoubt.BEHIND,
    exchange: AuditDoubt.FOREIGN,
}


@pytest.mark.parametrize("tamper", DOUBTFUL, ids=lambda tamper: tamper.__name__)
def test_an_anchor_that_does_not_vouch_is_an_error_until_it_is_accepted(
    broker: Broker, tamper: Callable[[Broker], None], caplog: pytest.LogCaptureFixture
) -> None:
    """S17: at every start, with its reason; the record of an operator ends it."""
    log = broker.starts()
    for _ in range(3):
        broker.clock.advance(10.0)
        log.record(GRANTED)
    log.close()
    tamper(broker)
    doubt = DOUBTFUL[tamper]
    for _ in range(2):
        caplog.clear()
        log = broker.starts()
        assert doubt.value in log.anchor_faults
        assert str(broker.anchor) in log.doubt
        assert [record.levelno for record in caplog.records if log.doubt in record.getMessage()] == [logging.ERROR]
        log.record(GRANTED)
        log.close()
    log = broker.starts()
    assert str(broker.anchor) in log.accept()
    assert (log.accept(), log.doubt, log.anchor_faults) == ("", "", frozenset())
    log.close()
    assert broker.kinds()[-2:] == ["accepted", "ended"]
    assert broker.records()[-2]["doubt"] == doubt.value
    log = broker.starts()
    assert log.doubt == ""
    log.close()
    if doubt in (AuditDoubt.AHEAD, AuditDoubt.FOREIGN):
        with pytest.raises(Unsound, match="missing or changed"):
            verified(broker.path)
    else:
        assert (verified(broker.path).doubts, verified(broker.path).accepted) == ((), 1)


def _deleted(path: Path) -> None:
    path.unlink()


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _blanked(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("tamper", [_deleted, _emptied, _blanked])
def test_a_log_that_is_gone_as_a_whole_is_an_error_until_it_is_accepted(broker: Broker, tamper: Callable[[Path], None]) -> None:
    """S17: who removes one record is found out, and who removes all of them is, too."""
    broker.starts().close()
    tamper(broker.path)
    log = broker.starts()
    assert log.anchor_faults == {"log_missing"}
    log.close()
    log = broker.starts()
    assert "is empty or gone" in log.doubt
    assert verified(broker.path).doubts == (AuditDoubt.GONE,)
    log.accept()
    log.close()
    assert (verified(broker.path).doubts, verified(broker.path).accepted) == ((), 1)


@pytest.mark.parametrize("end", [AuditLog.close, dies], ids=["stop", "crash"])
@pytest.mark.parametrize("name", ["audit.1", "audit.jsonl.1", "audit.jsonl-20261122"])
def test_a_log_that_was_renamed_between_two_starts_is_no_doubt(
    broker: Broker, name: str, end: Callable[[AuditLog], None]
) -> None:
    """S17: as logrotate does it at night."""
    log = broker.starts()
    log.record(GRANTED)
    end(log)
    rotated = broker.path.rename(broker.path.with_name(name))
    log = broker.starts()
    assert log.doubt == ""
    log.close()
    assert verified(rotated, broker.path).doubts == ()


def test_a_log_in_another_place_is_no_doubt(broker: Broker) -> None:
    """S17: the configuration names another file since, and the chain goes on there."""
    broker.starts().close()
    broker.path = broker.path.with_name("elsewhere")
    log = broker.starts()
    assert log.doubt == ""
    log.close()
    assert verified(broker.path).after.sequence == 2


def test_a_first_start_is_no_error(broker: Broker) -> None:
    """S17: no log and no anchor. The chain's first record gives it a name of its own."""
    log = broker.starts()
    assert (log.doubt, log.anchor_faults) == ("", frozenset())
    log.close()
    other = Broker(broker.path.parent / "other")
    other.path.parent.mkdir()
    other.starts().close()
    assert broker.records()[0]["chain"] != other.records()[0]["chain"]
    assert broker.records()[0]["hash"] != other.records()[0]["hash"]


def test_a_start_that_failed_leaves_no_doubt(broker: Broker) -> None:
    """S17: the place of the log was wrong; the state is there since, and so is the anchor."""
    broker.path.mkdir()
    with pytest.raises(CannotStart):
        broker.starts()
    broker.path.rmdir()
    log = broker.starts(served=True)
    assert log.doubt == ""
    log.close()


@pytest.mark.parametrize("out", [True, False], ids=["standard output", "file"])
def test_where_a_broker_ran_before_there_is_an_anchor(broker: Broker, pipe: tuple[int, int], *, out: bool) -> None:
    """S17: also where the log cannot be read back, or was taken away as well."""
    stdout = pipe[1] if out else None
    broker.starts(stdout=stdout).close()
    broker.anchor.unlink()
    if not out:
        broker.path.unlink()
    log = broker.starts(stdout=stdout, served=True)
    assert "is missing" in log.doubt
    log.close()


def test_what_a_machine_lost_is_no_rollback(broker: Broker) -> None:
    """S17: the anchor may be as old as what was not on the disk yet when the machine died: ten seconds."""
    log = broker.starts()
    for number in range(8):
        log.record(GRANTED)
        if number == 3:
            older = broker.anchor.read_bytes()
        broker.clock.advance(2.0)
    dies(log)
    broker.anchor.write_bytes(older)
    log = broker.starts()
    assert log.doubt == ""
    log.close()
    assert verified(broker.path).doubts == ()


def test_nothing_is_granted_in_doubt_with_fail_closed(tmp_path: Path) -> None:
    """S17: until an operator accepts; without `fail_closed` the broker goes on, and says so."""
    broker = Broker(tmp_path, fail_closed=True)
    broker.starts().close()
    lose(broker)
    log = broker.starts()
    assert log.refuses
    with pytest.raises(AuditUnavailable, match=r"is missing.*equabot audit accept"):
        log.record(GRANTED)
    log.record(REVOKED)
    log.accept()
    log.record(GRANTED)
    assert not log.refuses
    assert broker.kinds()[-4:] == ["begun", "revoked", "accepted", "granted"]
    assert broker.changes == 2


def test_an_anchor_that_cannot_be_written_is_said(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """S17: once, and again when it can be. A link is not followed: it may lead to a file that is not the broker's."""
    kept = broker.anchor.with_name("kept")
    broker.anchor.symlink_to(kept)
    log = broker.starts()
    log.record(GRANTED)
    assert log.anchor_faults == {AuditDoubt.UNREADABLE.value, ANCHOR_UNWRITTEN}
    assert len([record for record in caplog.records if "cannot be written" in record.getMessage()]) == 1
    assert not kept.exists()
    broker.anchor.unlink()
    log.record(GRANTED)
    log.accept()
    assert log.anchor_faults == frozenset()


def test_two_brokers_do_not_share_an_anchor(broker: Broker, pipe: tuple[int, int]) -> None:
    """S17: each would find the other's place in it. The new pod of a rolling update takes it over in the end."""
    log = broker.starts()
    other = broker.starts(stdout=pipe[1], served=True)
    assert other.anchor_faults == {ANCHOR_UNWRITTEN}
    assert "another broker has it" in other.anchor_write_fault
    kept = broker.anchor.read_bytes()
    other.record(GRANTED)
    assert broker.anchor.read_bytes() == kept
    log.close()
    other.record(GRANTED)
    assert other.anchor_faults == frozenset()
    assert parse_anchor(broker.anchor.read_bytes()).head == other.head
    other.close()


# -- what cannot be written --------------------------------------------------------------------------------------------


def test_what_cannot_be_written_waits(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Granting goes on, it is said once, and the records come in their order, with their own instants."""
    log = broker.starts()
    with full(broker.path.stat().st_size + 100):
        for _ in range(5):
            log.record(GRANTED)
            broker.clock.advance(1.0)
        assert "File too large" in log.fault
        assert str(broker.path) in log.fault
        assert broker.kinds() == ["begun"]
    log.write_waiting()
    assert (log.fault, log.lost, broker.changes) == ("", 0, 2)
    assert broker.kinds() == ["begun", *["granted"] * 5, "resumed"]
    assert len({record["ts"] for record in broker.records()[1:6]}) == 5
    assert verified(broker.path).lost == 0
    assert [record.levelno for record in caplog.records if "cannot write" in record.getMessage()] == [logging.ERROR]


def test_what_does_not_fit_in_memory_is_counted(broker: Broker) -> None:
    """And the chain says how many there were, once it goes on."""
    log = broker.starts()
    with full(broker.path.stat().st_size):
        for _ in range(4100):
            log.record(GRANTED)
    assert log.lost == 4
    broker.clock.advance(1.0)
    log.record(REVOKED)
    assert (log.fault, log.lost) == ("", 5)
    assert broker.kinds()[-2:] == ["granted", "resumed"]
    log.record(REVOKED)
    assert verified(broker.path).lost == 5
    assert broker.kinds()[-1] == "revoked"


def test_nothing_is_granted_that_cannot_be_recorded(tmp_path: Path) -> None:
    """With `fail_closed`: grants are refused, ends are not; when there is space again it goes on by itself."""
    broker = Broker(tmp_path, fail_closed=True)
    log = broker.starts()
    with full(broker.path.stat().st_size + 50):
        with pytest.raises(AuditUnavailable, match=r"audit\.fail_closed.*File too large") as refused:
            log.record(GRANTED)
        assert refused.value.retry_after
        assert log.refuses
        log.record(REVOKED)
        broker.clock.advance(1.0)
        with pytest.raises(AuditUnavailable):
            log.record(GRANTED)
    broker.clock.advance(1.0)
    log.record(GRANTED)
    assert not log.refuses
    assert broker.kinds() == ["begun", "revoked", "resumed", "granted"]
    assert verified(broker.path).records == 4


def test_a_file_that_was_taken_away_comes_back(broker: Broker) -> None:
    """Its directory too."""
    log = broker.starts()
    moved = broker.path.parent / "elsewhere"
    broker.path.rename(moved)
    broker.path.mkdir()
    broker.clock.advance(2.0)
    log.record(GRANTED)
    assert "Is a directory" in log.fault
    broker.path.rmdir()
    broker.clock.advance(2.0)
    log.record(REVOKED)
    assert log.fault == ""
    assert verified(moved, broker.path).records == 5


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"root:x:0:0\n", "does not end like an audit log"), (b"a\nb\n" * 50_000, "does not end like an audit log")],
)
def test_another_programs_file_is_refused_and_left_alone(broker: Broker, content: bytes, why: str) -> None:
    """A slip in the configuration does not spoil it."""
    broker.path.write_bytes(content)
    with pytest.raises(CannotStart, match=why):
        broker.starts()
    assert broker.path.read_bytes() == content


def test_what_is_no_file_is_refused(broker: Broker) -> None:
    """Directories, and pipes, of which the end cannot be read."""
    broker.path.mkdir()
    with pytest.raises(CannotStart, match="Is a directory"):
        broker.starts()
    broker.path.rmdir()
    os.mkfifo(broker.path)
    with pytest.raises(CannotStart, match="is not a file"):
        broker.starts()


def test_two_brokers_do_not_write_one_file(broker: Broker) -> None:
    """Their chains would be tangled."""
    log = broker.starts()
    with pytest.raises(CannotStart, match="another broker writes"):
        broker.starts()
    log.close()
    broker.starts().close()


# -- standard output ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def captured(text: bytes) -> Summary:
    verifying = AuditVerification(captured=True)
    for line in text.splitlines():
        verifying.take(line)
    return verifying.end()


def test_starts_on_standard_output_are_one_chain(broker: Broker, pipe: tuple[int, int]) -> None:
    """It cannot be read back: the anchor links them."""
    for _ in range(2):
        log = broker.starts(stdout=pipe[1])
        log.record(GRANTED)
        dies(log)
    found = captured(os.read(pipe[0], 65536))
    assert (found.records, found.head, found.after.sequence) == (4, log.head, 0)


def test_a_reader_that_stalls_holds_nobody_up(broker: Broker, pipe: tuple[int, int]) -> None:
    """Records wait, and come when there is room. It is a fault only when it lasts."""
    log = broker.starts(stdout=pipe[1])
    for _ in range(1000):
        log.record(GRANTED)
    assert log.fault == ""
    broker.clock.advance(2.0)
    log.record(GRANTED)
    assert "standard output" in log.fault
    text = b""
    while not log.write_waiting():
        text += os.read(pipe[0], 1 << 20)
        broker.clock.advance(1.0)
    text += os.read(pipe[0], 1 << 20)
    log.close()
    text += os.read(pipe[0], 1 << 20)
    assert captured(text).records == 1 + 1001 + 2
    assert captured(text).lost == 0


def test_a_reader_that_is_gone_is_a_fault(broker: Broker) -> None:
    """Not the broker's end."""
    reading, writing = os.pipe()
    log = broker.starts(stdout=writing)
    os.close(reading)
    log.record(GRANTED)
    assert "Broken pipe" in log.fault
    os.close(writing)
    log.close()


def test_a_standard_output_that_was_never_open_does_not_keep_it_from_starting(broker: Broker) -> None:
    """As with a daemon that closes all of its descriptors."""
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    log = broker.starts(stdout=writing)
    assert "Bad file descriptor" in log.fault
    log.close()


def test_the_log_notes_the_end_of_the_chain_as_the_verification_reads_it(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A captured log that has lost a record which its broker noted is not sound."""
    with caplog.at_level(logging.INFO, "equabot_broker.telemetry.audit_log"):
        log = broker.starts()
        log.record(GRANTED)
        log.close()
    first, *_ = broker.path.read_bytes().splitlines()
    notes = [record.getMessage().encode() for record in caplog.records if "hash" in record.getMessage()]
    verifying = AuditVerification(captured=True)
    for line in (first, *notes):
        verifying.take(line)
    with pytest.raises(Unsound, match="its broker noted record 3"):
        verifying.end()
