"""The audit log of a real broker, from the first lease to `equabot audit verify`: through kill -9, rotations, full disks."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from equabot.broker.v1 import admin_pb2
from equabot.broker.v1.admin_pb2_grpc import AdminStub
from equabot_broker.telemetry.audit_chain import START, Anchored, anchor_line, seal
from equabot_client import Broker, admin, errors
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

DOTENV = f"ANTHROPIC_API_KEY={KEY}\n"


def records(text: str) -> list[dict[str, Any]]:
    """The records among other lines."""
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"audit":1,')]


def kinds(text: str) -> list[str]:
    return [record["kind"] for record in records(text)]


def come_and_go(broker: Broker) -> None:
    """Leases, one after the other, until one is refused."""
    while True:
        broker.revoke(broker.acquire("anthropic"))


def diagnosed(broker: RunningBroker) -> list[admin_pb2.Finding]:
    """What `Diagnose` tells an operator."""
    with grpc.insecure_channel(f"unix:{broker.socket('admin')}") as channel:
        return list(AdminStub(channel).Diagnose(admin_pb2.DiagnoseRequest(), timeout=60).findings)


@pytest.fixture
def audited(make_broker: MakeBroker) -> RunningBroker:
    """A broker with its audit log in a file of its home."""
    broker = make_broker(dotenv=DOTENV)
    (broker.home / "equabot.yaml").write_text(f"audit: {{path: '{broker.home}/audit.jsonl'}}\n")
    return broker.start()


def test_everything_that_happens_is_recorded_and_verified(audited: RunningBroker) -> None:
    """Granted, renewed, revoked, denied, administered, rotated; killed, started again, stopped. No secret, no lease's id."""
    path = audited.home / "audit.jsonl"
    with audited.connect() as broker, admin.connect(str(audited.socket("admin"))) as operator:
        leases = [broker.acquire("anthropic", session="talk") for _ in range(3)]
        broker.renew(leases[0])
        broker.revoke(leases[0])
        with pytest.raises(errors.NoUsableProfile):
            broker.acquire("openai")
        with pytest.raises(errors.LeaseNotFound):
            broker.renew(leases[0])
        assert operator.revoke_leases(lease_id=leases[1].id) == 1
        audited.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
        audited.wait_for(lambda: path.read_text().count('"kind":"rotated"') == 2)
        audited.kill()
        audited.start()
        broker.renew(leases[2])
    assert audited.stop() == 0
    text = path.read_text()
    found = kinds(text)
    assert found == [
        "begun", "rotated", "granted", "granted", "granted", "renewed", "revoked", "denied", "renewal_denied", "revoked",
        "administered", "rotated", "begun", *found[13:-2], "renewed", "ended",
    ]  # fmt: skip
    for hidden in (KEY, OTHER_KEY, *(lease.id for lease in leases)):
        assert hidden not in text
    by_kind = {record["kind"]: record for record in records(text)}
    assert (by_kind["granted"]["agent"], by_kind["granted"]["session"]) == ("main", "talk")
    assert by_kind["granted"]["lease"] == by_kind["renewed"]["lease"], "a lease keeps its name over a restart"
    assert (by_kind["administered"]["action"], by_kind["administered"]["count"]) == ("RevokeLeases", 1)
    done = audited.run("audit", "verify", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"intact: {len(found)} records from ")
    assert f"the last record is {len(found)}, hash {records(text)[-1]['hash']}" in done.stdout


def test_records_go_to_standard_output_by_default(running_broker: RunningBroker) -> None:
    """The log goes to standard error; where both are collected together, the records are found among its lines."""
    with running_broker.connect() as broker:
        broker.acquire("anthropic")
        running_broker.kill()
        running_broker.start()
        broker.acquire("anthropic")
    running_broker.stop()
    both = _woven(running_broker.log(), running_broker.audit())
    done = running_broker.run("audit", "verify", "--captured", "-", stdin=both)
    assert (done.returncode, done.stderr) == (0, "")
    assert kinds(running_broker.audit()).count("granted") == 2
    assert all(line.startswith('{"audit":1,') for line in running_broker.audit().splitlines()), "and nothing else"
    assert '"audit":1' not in running_broker.log()
    last = records(both)[-1]["hash"]
    assert f"hash {last}" in running_broker.log().splitlines()[-1], "the log notes where the chain stands"
    without = "".join(line for line in both.splitlines(keepends=True) if '"kind":"granted"' not in line)
    refused = running_broker.run("audit", "verify", "--captured", "-", stdin=without)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "missing before it" in refused.stderr


def _woven(log: str, audit: str) -> str:
    """As a container's runtime would have collected them: in the order of their instants."""
    return "".join(sorted((log + audit).splitlines(keepends=True), key=lambda line: str(json.loads(line)["ts"])[:23]))


def test_a_cut_is_found_by_the_next_broker_and_by_whoever_noted_a_hash(audited: RunningBroker) -> None:
    """S17: the chain alone cannot know of records that were cut off at its end; the anchor does, with no broker running."""
    path = audited.home / "audit.jsonl"
    with audited.connect() as broker:
        broker.revoke(broker.acquire("anthropic"))
    audited.stop()
    noted = records(path.read_text())[-1]["hash"]
    assert audited.run("audit", "verify", "--head", noted, str(path)).returncode == 0
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert audited.run("audit", "verify", "--no-anchor", str(path)).returncode == 0
    refused = audited.run("audit", "verify", str(path))
    assert (refused.returncode, "records were cut off" in refused.stderr) == (1, True)
    refused = audited.run("audit", "verify", "--no-anchor", "--head", noted, str(path))
    assert (refused.returncode, f"no record has the noted hash {noted}" in refused.stderr) == (1, True)
    audited.start()
    audited.stop()
    assert audited.run("audit", "verify", str(path)).returncode == 1
    assert "records were cut off or changed" in audited.log()


def test_an_anchor_that_is_no_file_is_not_waited_for(audited: RunningBroker) -> None:
    """S17, S28: a pipe in its place would never end."""
    path, anchor = audited.home / "audit.jsonl", audited.run_dir / "audit.head"
    audited.stop()
    anchor.unlink()
    os.mkfifo(anchor)
    refused = audited.run("audit", "verify", str(path))
    assert (refused.returncode, "is not a regular file" in refused.stderr) == (1, True)


def rolled_back(anchor: Path, older: bytes) -> None:
    anchor.write_bytes(older)


def lost(anchor: Path, older: bytes) -> None:
    anchor.unlink()


def corrupt(anchor: Path, older: bytes) -> None:
    anchor.write_bytes(b"rubbish\n")


@pytest.mark.parametrize(
    ("tamper", "reason"), [(lost, "anchor_missing"), (corrupt, "anchor_unreadable"), (rolled_back, "anchor_behind")]
)
def test_an_anchor_that_does_not_vouch_is_an_error_everywhere(
    audited: RunningBroker, tamper: Callable[[Path, bytes], None], reason: str
) -> None:
    """S17: `verify` says so with no broker running; then the broker does, over a restart as well, in log, metrics, `Diagnose`
    and `doctor`; and `verify` of its log. Until an operator accepts it, which is a record."""
    path, anchor = audited.home / "audit.jsonl", audited.run_dir / "audit.head"
    older = b""
    with audited.connect() as broker:
        broker.revoke(broker.acquire("anthropic"))
    audited.stop()
    if tamper is rolled_back:
        older = _age(path, anchor)
    assert audited.run("audit", "verify", str(path)).returncode == 0
    tamper(anchor, older)
    refused = audited.run("audit", "verify", str(path))
    assert (refused.returncode, refused.stdout, str(anchor) in refused.stderr) == (1, "", True)
    assert audited.run("audit", "verify", "--no-anchor", str(path)).returncode == 0
    for _ in range(2):
        audited.start()
        assert f'equabot_audit_anchor_fault{{reason="{reason}"}} 1.0' in audited.scrape()
        [finding] = [finding for finding in diagnosed(audited) if finding.subject == "audit"]
        assert (str(anchor) in finding.message, "equabot audit accept" in finding.remedy) == (True, True)
        assert finding.message in audited.log()
        assert audited.run("doctor").returncode == 1
        with audited.connect() as broker:
            broker.revoke(broker.acquire("anthropic"))
        refused = audited.run("audit", "verify", str(path))
        assert (refused.returncode, reason in refused.stderr) == (1, True)
        audited.stop()
    audited.start()
    assert audited.run("audit", "accept").stdout.startswith("accepted, and recorded: the audit log's anchor")
    assert audited.run("audit", "accept").stdout == "there is nothing to accept\n"
    assert f'equabot_audit_anchor_fault{{reason="{reason}"}} 0.0' in audited.scrape()
    audited.stop()
    done = audited.run("audit", "verify", str(path))
    assert (done.returncode, "an operator accepted" in done.stdout) == (0, True)


def _age(path: Path, anchor: Path) -> bytes:
    """As if the log's first record had been written a minute before. Returns the anchor of then."""
    head, lines, older = START, [], b""
    for number, record in enumerate(records(path.read_text())):
        earlier = datetime.fromisoformat(record["ts"]) - timedelta(minutes=0 if number else 1)
        fields = {name: value for name, value in record.items() if name not in ("audit", "seq", "prev", "hash")}
        line, head = seal(fields | {"ts": earlier.isoformat().replace("+00:00", "Z")}, after=head)
        lines.append(line)
        older = older or anchor_line(Anchored(head))
    path.write_bytes(b"".join(lines))
    anchor.write_bytes(anchor_line(Anchored(head)))
    return older


def test_in_doubt_nothing_is_granted_with_fail_closed(make_broker: MakeBroker) -> None:
    """S17: it is refused, retryably, and health says so; once an operator accepts it goes on."""
    broker = make_broker(dotenv=DOTENV)
    (broker.home / "equabot.yaml").write_text(f"audit: {{path: '{broker.home}/audit.jsonl', fail_closed: true}}\n")
    broker.start()
    broker.stop()
    (broker.run_dir / "audit.head").unlink()
    broker.start(service="liveness")
    broker.wait_healthy(serving=False)
    with broker.connect() as connected:
        with pytest.raises(errors.AuditUnavailable, match="equabot audit accept") as refused:
            connected.acquire("anthropic")
        assert refused.value.retryable
        assert broker.run("audit", "accept").returncode == 0
        connected.acquire("anthropic")
    broker.wait_healthy()


def test_the_anchor_may_be_elsewhere(make_broker: MakeBroker) -> None:
    """S17: on a volume that outlives the state. A broker whose state is gone goes on with the chain."""
    broker = make_broker(dotenv=DOTENV)
    kept = broker.home / "kept"
    kept.mkdir()
    (broker.home / "equabot.yaml").write_text(f"audit: {{path: '{kept}/audit.jsonl', anchor: '{kept}/audit.head'}}\n")
    for _ in range(2):
        broker.start()
        assert 'equabot_audit_anchor_fault{reason="anchor_missing"} 0.0' in broker.scrape()
        broker.stop()
        for file in broker.run_dir.glob("state.db*"):
            file.unlink()
    assert not (broker.run_dir / "audit.head").exists()
    done = broker.run("audit", "verify", str(kept / "audit.jsonl"))
    assert (done.returncode, "the anchor matches its end" in done.stdout) == (0, True)
    elsewhere = broker.home / "copy"
    elsewhere.write_bytes((kept / "audit.jsonl").read_bytes())
    assert "was not compared with an anchor" in broker.run("audit", "verify", str(elsewhere)).stdout
    done = broker.run("audit", "verify", "--anchor", str(kept / "audit.head"), str(elsewhere))
    assert (done.returncode, "the anchor matches its end" in done.stdout) == (0, True)


def test_logrotate_may_rename_the_file(audited: RunningBroker) -> None:
    """The broker begins another by itself; both together are one log, in the order of their writing alone."""
    path, rotated = audited.home / "audit.jsonl", audited.home / "audit.jsonl.1"
    with audited.connect() as broker:
        broker.acquire("anthropic")
        path.rename(rotated)
        while not path.exists():
            broker.revoke(broker.acquire("anthropic"))
    audited.stop()
    assert audited.run("audit", "verify", str(rotated), str(path)).returncode == 0
    assert "of an earlier file" in audited.run("audit", "verify", str(path)).stdout
    wrong = audited.run("audit", "verify", str(path), str(rotated))
    assert (wrong.returncode, f"{rotated}:1: " in wrong.stderr) == (1, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.fixture
def ballast(small_disk: Path) -> Path:
    """Leaves no space on it."""
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_on_a_full_disk_nothing_is_granted_with_fail_closed(make_broker: MakeBroker, small_disk: Path, ballast: Path) -> None:
    """It is refused, retryably, and said by health, metrics, `Diagnose` and the log; with space again it goes on by itself."""
    ballast.unlink()
    path = small_disk / "audit.jsonl"
    running = make_broker(dotenv=DOTENV, config=f"audit: {{path: '{path}', fail_closed: true}}\n").start()
    with running.connect() as broker:
        lease = broker.acquire("anthropic")
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(errors.AuditUnavailable, match="free space on its volume") as refused:
            come_and_go(broker)
        assert refused.value.retryable
        with pytest.raises(errors.AuditUnavailable):
            broker.renew(lease)
        running.wait_healthy(serving=False)
        running.wait_healthy("liveness")
        assert "equabot_audit_fault 1.0" in running.scrape()
        assert [finding.message for finding in diagnosed(running) if finding.subject == "audit"] == [
            f"cannot write the audit log to {path}: No space left on device: free space on its volume"
        ]
        doctor = running.run("doctor")
        assert (doctor.returncode, f"cannot write the audit log to {path}" in doctor.stdout) == (1, True)
        ballast.unlink()
        running.wait_healthy()
        assert broker.renew(lease).id == lease.id
    assert "equabot_audit_fault 0.0" in running.scrape()
    running.stop()
    assert kinds(path.read_text()).count("resumed") == 1
    assert running.run("audit", "verify", str(path)).returncode == 0


def test_on_a_full_disk_granting_goes_on_without_it(make_broker: MakeBroker, small_disk: Path, ballast: Path) -> None:
    """The broker even starts there. What happened meanwhile is written when there is space, and the chain is whole."""
    path = small_disk / "audit.jsonl"
    running = make_broker(dotenv=DOTENV, config=f"audit: {{path: '{path}'}}\n").start()
    with running.connect() as broker:
        broker.acquire("anthropic", session="while it is full")
        assert "equabot_audit_fault 1.0" in running.scrape()
        ballast.unlink()
        running.wait_for(lambda: "while it is full" in path.read_text())
    assert "equabot_audit_fault 0.0" in running.scrape()
    running.stop()
    assert running.run("audit", "verify", str(path)).returncode == 0


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/proc/nowhere/audit.jsonl", "set audit.path to a file that can be written"),
        ("{home}", "Is a directory"),
        ("{home}/.env", "does not end like an audit log"),
    ],
)
def test_a_place_that_cannot_be_written_keeps_it_from_starting(make_broker: MakeBroker, path: str, why: str) -> None:
    """One line that says what to do, and nothing is touched."""
    broker = make_broker(dotenv=DOTENV)
    (broker.home / "equabot.yaml").write_text(f"audit: {{path: '{path.format(home=broker.home)}'}}\n")
    done = broker.run("serve")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert why in done.stderr
    assert broker.dotenv.read_text() == DOTENV


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["audit", "verify", "nowhere"], 1, "nowhere: No such file or directory"),
        (["audit", "verify", "--head", "xyz", "x"], 64, "--head needs the hash of a record"),
        (["audit", "verify"], 64, "FILE"),
        (["audit", "verify", "-"], 1, "there is no record in it"),
    ],
)
def test_what_cannot_be_verified_says_why(shared_broker: RunningBroker, arguments: list[str], code: int, why: str) -> None:
    """Exit 1 with one line; 64 for a slip in the command."""
    done = shared_broker.run(*arguments, stdin="")
    assert (done.returncode, done.stdout) == (code, "")
    assert why in done.stderr
