"""The lock of a store: between processes of the broker, and with OpenClaw, also if a holder dies."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from equabot_broker.ports import StoreFault
from equabot_broker.storage._store_lock import StoreLock, namespace
from tests.fakes.clock import FakeClock


class Patience(threading.Event):
    """Waits for nothing, and remembers how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    """The time of the files."""
    probe = tmp_path / "probe"
    probe.touch()
    return FakeClock(now=probe.stat().st_mtime)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "agent"
    directory.mkdir()
    return directory / "auth-profiles.json"


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture
def lock(path: Path, clock: FakeClock, patience: Patience) -> Iterator[StoreLock]:
    made = StoreLock(path, path, clock=clock, abandoned=patience)
    yield made
    made.release()


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def held_by(path: Path, **body: object) -> None:
    beside(path).write_text(json.dumps(body))


class Overtaken(StoreLock):
    """While it judges a stale lock, somebody else has taken it over."""

    def _stale(self, found: os.stat_result) -> bool:
        stale = super()._stale(found)
        if stale:
            self._path.unlink()
            self._path.write_text(json.dumps({"pid": os.getppid(), "createdAt": iso(self._clock.now())}))
        return stale


def test_stale_lock_has_one_new_holder(path: Path, clock: FakeClock) -> None:
    """What was judged is compared with what is there as late as can be."""
    held_by(path, pid=dead_pid())
    lock = Overtaken(path, path, clock=clock, abandoned=Patience())
    with pytest.raises(StoreFault, match="another program holds"):
        lock.acquire()
    assert json.loads(beside(path).read_text())["pid"] == os.getppid()


def test_lock_file_has_the_format_of_openclaw(path: Path, clock: FakeClock, lock: StoreLock) -> None:
    """Who, and since when, as text that its date parser reads; gone with the lock."""
    lock.acquire()
    assert json.loads(beside(path).read_text()) == {"pid": os.getpid(), "createdAt": iso(clock.now()), "ns": namespace()}
    lock.release()
    assert not beside(path).exists()
    lock.release()


def test_wait_for_openclaw_has_growing_delays(path: Path, clock: FakeClock, lock: StoreLock, patience: Patience) -> None:
    """Ten tries after the first, from 100 ms doubling to 10 s, in no step with others; then a fault that says what to do."""
    held_by(path, pid=os.getppid(), createdAt=iso(clock.now()))
    with pytest.raises(StoreFault, match=r"another program holds .*: wait for it, or remove the file") as raised:
        lock.acquire()
    assert str(beside(path)) in str(raised.value)
    caps = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert all(cap / 2 <= wait <= cap for wait, cap in zip(patience.waits, caps, strict=True))
    assert beside(path).exists(), "somebody else's lock was removed"


def test_lock_is_acquired_when_openclaw_releases_it(path: Path, clock: FakeClock) -> None:
    """The file's end is all it takes."""
    held_by(path, pid=os.getppid(), createdAt=iso(clock.now()))
    lock = StoreLock(path, path, clock=clock, abandoned=threading.Event())
    threading.Timer(0.05, beside(path).unlink).start()
    lock.acquire()
    lock.release()


@pytest.mark.parametrize(
    "body",
    [
        {"pid": "dead"},
        {"pid": "dead", "createdAt": iso(4e9)},
        {"pid": "dead", "ns": namespace()},
        {"pid": "parent", "createdAt": "31 s ago"},
        {"pid": "parent", "createdAt": "31 s ago in ms"},
        {"pid": "parent", "ns": "another machine", "createdAt": "31 s ago"},
        {"pid": "own", "ns": namespace()},
    ],
    ids=str,
)
def test_lock_of_a_dead_process_is_taken_over(
    path: Path, clock: FakeClock, lock: StoreLock, patience: Patience, body: dict[str, object]
) -> None:
    """Its process is dead, it is older than 30 seconds, or it bears our own number though we hold the guard."""
    known = {
        "dead": dead_pid(), "parent": os.getppid(), "own": os.getpid(),
        "31 s ago": iso(clock.now() - 31), "31 s ago in ms": (clock.now() - 31) * 1000,
    }  # fmt: skip
    held_by(path, **{name: known.get(str(value), value) for name, value in body.items()})
    lock.acquire()
    assert patience.waits == []
    assert json.loads(beside(path).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b'{"pid": "x"}',
        b'{"pid": -1}',
        b'{"pid": true}',
        b'{"createdAt": "yesterday"}',
        b'{"pid": 99999999999999999999}',
        json.dumps({"pid": 2**22 + 5, "ns": "another machine"}).encode(),
    ],
    ids=str,
)
def test_lock_of_unknown_state_is_respected_until_stale(
    path: Path, clock: FakeClock, lock: StoreLock, patience: Patience, content: bytes
) -> None:
    """A process of another machine or container may live though its number is unknown here; a lock without sense may be one
    that is being written. Thirty seconds end each of them."""
    beside(path).write_bytes(content)
    with pytest.raises(StoreFault, match="another program holds"):
        lock.acquire()
    clock.advance(31)
    patience.waits.clear()
    lock.acquire()
    assert patience.waits == []


def test_lock_directory_becomes_stale(path: Path, clock: FakeClock, lock: StoreLock, patience: Patience) -> None:
    """Earlier versions of OpenClaw create one."""
    beside(path).mkdir()
    with pytest.raises(StoreFault, match="another program holds"):
        lock.acquire()
    clock.advance(31)
    lock.acquire()
    assert beside(path).is_file()


def test_held_lock_is_renewed(path: Path, clock: FakeClock) -> None:
    """OpenClaw never finds it stale, however long that is."""
    lock = StoreLock(path, path, clock=clock, abandoned=threading.Event(), renew_every=0.005)
    lock.acquire()
    for _ in range(3):
        clock.advance(10)
        deadline = threading.Event()
        while json.loads(beside(path).read_text() or "{}").get("createdAt") != iso(clock.now()):
            assert not deadline.wait(0.002)
    lock.release()
    assert not beside(path).exists()


def test_release_keeps_a_lock_of_another_process(path: Path, clock: FakeClock, lock: StoreLock) -> None:
    """The machine was suspended, the lock became stale, and OpenClaw took it: the release keeps the file of OpenClaw."""
    lock.acquire()
    beside(path).unlink()
    held_by(path, pid=os.getppid(), createdAt=iso(clock.now()))
    lock.release()
    assert json.loads(beside(path).read_text())["pid"] == os.getppid()


def test_lost_lock_file_is_acquired_again_before_a_write(
    path: Path, clock: FakeClock, lock: StoreLock, patience: Patience
) -> None:
    """Having lost it unawares, one waits for it like everybody."""
    lock.acquire()
    lock.reacquire()
    beside(path).unlink()
    held_by(path, pid=os.getppid(), createdAt=iso(clock.now()))
    with pytest.raises(StoreFault, match="another program holds"):
        lock.reacquire()
    assert len(patience.waits) == 10


def test_wait_for_another_broker_process_is_bounded(path: Path, lock: StoreLock, patience: Patience) -> None:
    """A process that hangs is named as the remedy."""
    with (path.parent / ".auth-profiles.json.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with pytest.raises(StoreFault, match=r"another equabot process has locked .* for too long"):
            lock.acquire()
    assert 60 < sum(patience.waits) < 62
    assert not beside(path).exists()


def test_wait_can_be_cancelled(path: Path, lock: StoreLock, patience: Patience) -> None:
    """A broker that drains does not wait for a lock."""
    patience.set()
    held_by(path)
    with pytest.raises(StoreFault, match="was cancelled"):
        lock.acquire()
    assert len(patience.waits) == 1


_HOLDER = """
import sys, threading
from pathlib import Path
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.storage._store_lock import StoreLock
path = Path(sys.argv[1])
StoreLock(path, path, clock=SystemClock(), abandoned=threading.Event()).acquire()
print("taken", flush=True)
threading.Event().wait()
"""


def test_killed_holder_does_not_block_others(path: Path, lock: StoreLock, patience: Patience) -> None:
    """The kernel frees the guard, and the number in the file is a dead one's."""
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        holder.send_signal(signal.SIGKILL)
    lock.acquire()
    assert patience.waits == []


def test_a_link_and_its_target_are_one_store(path: Path, clock: FakeClock, lock: StoreLock, tmp_path: Path) -> None:
    """The guard lies beside the target; the seed's lock beside the name, where that system looks."""
    link = tmp_path / "auth-profiles.json"
    link.symlink_to(path)
    lock.acquire()
    other = StoreLock(link, path, clock=clock, abandoned=Patience())
    with pytest.raises(StoreFault, match="another equabot process"):
        other.acquire()
    lock.release()
    other.acquire()
    assert beside(link).exists()
    other.release()


@pytest.mark.parametrize("form", ["ours", "the seed's", "a directory", "no text"])
def test_lock_with_a_future_time_is_stale(path: Path, clock: FakeClock, lock: StoreLock, patience: Patience, form: str) -> None:
    """P23: it was written by a clock that was wrong; who holds it writes it again, with the time of now."""
    ahead = clock.now() + 86400 * 365
    beside(path).parent.mkdir(parents=True, exist_ok=True)
    match form:
        case "a directory":
            beside(path).mkdir()
        case "no text":
            beside(path).touch()
        case "ours":
            held_by(path, pid=os.getppid(), createdAt=iso(ahead), ns=namespace())
        case _:
            held_by(path, pid=os.getppid(), createdAt=iso(ahead))
    os.utime(beside(path), (ahead, ahead))
    lock.acquire()
    assert patience.waits == []
    assert json.loads(beside(path).read_text())["pid"] == os.getpid()
